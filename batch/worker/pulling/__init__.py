"""When a worker pulls, how much, and when it has seen enough."""
