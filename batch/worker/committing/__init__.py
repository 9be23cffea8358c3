"""From what has become of messages to the services: dead letters, outcomes, acknowledgements, nacks, delayed tasks."""
