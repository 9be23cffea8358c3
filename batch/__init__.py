"""What runs inside a worker, the words that everyone shares, and the client that submits. Imports none of the other packages.

The public face for the authors of handlers: `from batch import task, Context, Permanent, Retry, Snooze, Cancelled, Backoff`. Importing it
costs nothing: each name is imported when it is first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from batch.handling.context import AsyncContext, Context
    from batch.handling.registry import Backoff, task
    from batch.model.errors import Cancelled, Permanent, Retry, Snooze
    from batch.model.message import Task

__all__ = ["task", "Task", "Context", "AsyncContext", "Backoff", "Permanent", "Retry", "Snooze", "Cancelled"]

_HOMES = {
    "task": "batch.handling.registry",
    "Task": "batch.model.message",
    "Context": "batch.handling.context",
    "AsyncContext": "batch.handling.context",
    "Backoff": "batch.handling.registry",
    "Permanent": "batch.model.errors",
    "Retry": "batch.model.errors",
    "Snooze": "batch.model.errors",
    "Cancelled": "batch.model.errors",
}


def __getattr__(name: str) -> Any:
    """Raises AttributeError for a name that the public face does not have."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
