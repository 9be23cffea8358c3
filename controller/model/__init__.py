"""Values that every room speaks of: lanes, readings, executions, and how numbers and times are written."""
