"""The `fanout` command: one file per command group, and the demo. Nobody imports it."""
