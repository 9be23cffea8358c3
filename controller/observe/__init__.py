"""What is read before a decision: backlog, jobs, executions, progress."""
