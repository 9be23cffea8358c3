"""`fanout simulate` and `fanout tune`: the controller's own decisions in a simulated world, beside others' rules."""
