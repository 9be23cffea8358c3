"""What a handler meets: the registry, its context, its answer and its results."""
