"""Task types that the processes of these tests accept."""

from __future__ import annotations

from batch.context import Context
from batch.message import Task
from batch.registry import task


@task("thumbnail")
def thumbnail(task: Task, ctx: Context) -> None:
    """Never run here: the front door only looks at the type."""
