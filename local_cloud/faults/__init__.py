"""Faults on request: what can be asked for, and how HTTP requests meet it."""
