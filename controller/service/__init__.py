"""The controller as an HTTP service: ticks, pokes, identity."""
