"""What a decision does: intents, launches, state, messages published again."""
