"""What clients read of what they submitted: progress, cost, outcome lines, a task's life as JSON, and which lane an id belongs to."""
