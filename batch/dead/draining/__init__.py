"""The dead-letters job: from the dead-letter subscription into the log, or back to the lane."""
