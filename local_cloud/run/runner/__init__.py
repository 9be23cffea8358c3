"""The thread that carries executions out, and the worker processes that it starts and ends."""
