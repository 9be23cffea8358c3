"""What a client does: submit tasks, and prove how they ended."""
