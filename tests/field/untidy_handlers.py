"""Handlers that write into what their context shows them: alike for each kind."""

from __future__ import annotations

from typing import Any

from batch.handling.registry import Registry, default_registry
from batch.model.errors import Permanent
from batch.model.message import Task


def untidy(task: Task, ctx: Any) -> int:
    ctx.attributes["count"] = 1
    ctx.attributes[5] = None
    ctx.outputs.append("a name")
    if task.fields["case"] == "dead":
        raise Permanent("never")
    return 1


async def later(task: Task, ctx: Any) -> int:
    return untidy(task, ctx)


def grouped(tasks: list[Task], ctxs: list[Any]) -> list[Any]:
    results: list[Any] = []
    for task, ctx in zip(tasks, ctxs, strict=True):
        try:
            results.append(untidy(task, ctx))
        except Permanent as error:
            results.append(error)
    tasks.clear()
    return results


for registry in (default_registry, UNTIDY := Registry()):
    registry.task("untidy-plain", retries=0)(untidy)
    registry.task("untidy-isolated", retries=0, isolation="process")(untidy)
    registry.task("untidy-group", retries=0, group=2, group_wait_s=0)(grouped)
    registry.task("untidy-async", retries=0)(later)
