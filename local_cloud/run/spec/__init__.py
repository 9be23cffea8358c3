"""What a client may ask of Cloud Run Jobs: the values, how they are read and which rules they keep."""
