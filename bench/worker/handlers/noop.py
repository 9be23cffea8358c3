"""Nothing, a task at a time."""

from __future__ import annotations

from batch.handling.registry import task


@task("noop")
def noop(_task: object, _ctx: object) -> None:
    """Nothing."""
