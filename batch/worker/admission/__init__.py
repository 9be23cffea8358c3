"""What decides about one message: whether it runs now, what its record and its marker say, and what has become of it after its run."""
