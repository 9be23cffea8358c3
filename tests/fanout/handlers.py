"""Task types that the commands of these tests check against."""

from __future__ import annotations

from batch.context import Context
from batch.message import Task
from batch.registry import task


@task("work")
def work(task: Task, ctx: Context) -> None:
    """Never run here."""
