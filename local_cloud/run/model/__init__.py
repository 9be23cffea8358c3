"""Jobs, executions and tasks: their state, what happens to them, and their files. No HTTP and no processes."""
