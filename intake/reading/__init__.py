"""What clients ask about what they submitted, and what they do to it: progress, proof, outcomes, cancel, retry."""

from __future__ import annotations

from fastapi import FastAPI

from intake.reading.acting import add_acting
from intake.reading.context import Context
from intake.reading.looking import add_looking

__all__ = ["Context", "add_reading"]


def add_reading(app: FastAPI, context: Context) -> None:
    """Add the endpoints about submissions and tasks."""
    add_looking(app, context)
    add_acting(app, context)
