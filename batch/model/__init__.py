"""What travels and what is stored: messages, names, outcomes, progress, attempts, dead letters, errors. No I/O."""
