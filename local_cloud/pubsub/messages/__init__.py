"""What becomes of messages in one subscription: pure state without a lock, a clock or the wire."""
