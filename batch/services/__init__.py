"""All I/O with Google: the ports, their implementations for Pub/Sub and Cloud Storage, one retry and one translation of errors."""
