"""What a client does: submit tasks, and prove what became of them."""
