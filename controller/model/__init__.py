"""Values that every room speaks of: lanes, readings, executions, and how numbers are written."""
