"""Task types that the processes of these tests accept."""

from __future__ import annotations

from batch.handling.context import Context
from batch.handling.registry import task
from batch.model.message import Task


@task("thumbnail")
def thumbnail(task: Task, ctx: Context) -> None:
    """Never run here: the front door only looks at the type."""
