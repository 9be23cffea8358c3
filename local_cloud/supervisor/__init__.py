"""The process that runs a local cloud: it starts, watches, freezes, kills and stops the services."""
