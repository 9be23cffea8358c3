"""Handlers that run in children: a child imports them by name."""

from __future__ import annotations

from typing import Any

from batch.handling.registry import task
from batch.model.errors import Retry
from batch.model.message import Task


def source_there(given: Task, ctx: Any) -> str:
    """Asks to wait when the source is missing."""
    if given.fields.get("source") == "missing":
        raise Retry(f"source {len(given.task_id)}.csv is not in the bucket yet")
    return "ok"


task("load", isolation="process")(source_there)


@task("output", isolation="process")
def output(given: Task, ctx: Any) -> str:
    """Writes its own id to the object that all its tasks share."""
    return str(ctx.write("out/shared", given.task_id.encode()).name)


@task("say", isolation="process")
def say(given: Task, ctx: Any) -> str:
    """Its own id."""
    return given.task_id
