"""Values that every room speaks of: lanes, readings, executions, how numbers and times are written, and calls that are made together."""
