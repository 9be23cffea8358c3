"""Words that depend on a number. Every text about a count goes through here, so that none says `1 workers`."""

from __future__ import annotations


def counted(count: int, noun: str) -> str:
    """`1 worker`, `2 workers`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def are(count: int) -> str:
    return "is" if count == 1 else "are"
