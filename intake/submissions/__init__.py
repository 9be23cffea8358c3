"""Many tasks of one request: the endpoints, their options, and the work in threads."""
