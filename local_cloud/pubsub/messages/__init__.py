"""The messages of one subscription, from publishing to acknowledgement: pure state without locks, clock or transport."""
