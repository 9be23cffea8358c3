"""The thread that makes executions happen, and the worker processes that it starts and ends."""
