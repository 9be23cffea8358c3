"""Task types that the commands of these tests check against."""

from __future__ import annotations

from batch.handling.context import Context
from batch.handling.registry import task
from batch.model.message import Task


@task("work")
def work(task: Task, ctx: Context) -> None:
    """Never run here."""
