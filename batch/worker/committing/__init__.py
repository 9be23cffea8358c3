"""From an answer to what becomes of the message: verdicts, outcomes, acknowledgements, nacks."""
