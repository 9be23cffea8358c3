"""The front door: an HTTP service that validates tasks and publishes them. Answers `submitted` only for what the broker confirmed."""
