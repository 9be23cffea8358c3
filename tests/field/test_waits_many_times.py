"""A task that waits many times succeeds: it does not vanish into the dead-letter topic because its message was delivered often."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import pytest

from batch.handling.registry import Registry, default_registry
from batch.model.errors import Snooze
from batch.model.exit import ExitReason
from batch.testing import drained
from batch.testing.drained import drain
from tests.batch.worker.plant import Plant
from tests.field import waiting_handlers

SNOOZES = 100
KINDS = ("plain", "async", "grouped", "isolated")
LIMITS = pytest.mark.parametrize("limit", [5, 100])


def snoozer(registry: Registry, kind: str, after_s: float) -> str:
    """A handler of this kind that snoozes SNOOZES times and then writes one object; returns its task type."""
    runs: Counter[str] = Counter()

    def step(task: Any, ctx: Any) -> None:
        runs[task.task_id] += 1
        if runs[task.task_id] <= SNOOZES:
            raise Snooze(after_s)

    def plain(task: Any, ctx: Any) -> None:
        step(task, ctx)
        ctx.write(f"out/{task.task_id}", b"done")

    async def awaited(task: Any, ctx: Any) -> None:
        step(task, ctx)
        await ctx.write(f"out/{task.task_id}", b"done")

    def grouped(tasks: Sequence[Any], ctxs: Sequence[Any]) -> list[Any]:
        return [answered(plain, task, ctx) for task, ctx in zip(tasks, ctxs, strict=True)]

    if kind == "isolated":
        registry._handlers["field-snoozes"] = default_registry["field-snoozes"]
        return "field-snoozes"
    registry.task("wait", group=4 if kind == "grouped" else 1)({"plain": plain, "async": awaited, "grouped": grouped}[kind])
    return "wait"


def answered(function: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except Exception as error:  # noqa: BLE001 - a grouped handler returns its tasks' errors
        return error


@LIMITS
@pytest.mark.parametrize("kind", KINDS)
def test_snoozing_for_nothing_a_hundred_times(kind: str, limit: int) -> None:
    plant = Plant(max_delivery_attempts=limit)
    task_type = snoozer(plant.registry, kind, 0)
    ids = plant.submit(3, task_type, snoozes=SNOOZES)
    worker = plant.worker(MAX_MESSAGES=10_000, HANDLERS=waiting_handlers.__name__, PROCESSES=1, FLUSH_INTERVAL_S=0.05)
    assert worker.run() is ExitReason.DRAINED
    assert plant.final() == dict.fromkeys(ids, "succeeded")
    assert plant.letters() == []
    assert plant.subscription.backlog == 0
    progress = plant.progress()
    assert progress.taken == progress.acked + progress.returned
    assert {one.message_id for one in plant.outcomes()} == {"1", "2", "3"}


@LIMITS
@pytest.mark.parametrize("kind", KINDS[:3])
def test_polling_every_30_s_for_50_minutes(kind: str, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drained, "MAX_DELIVERY_ATTEMPTS", limit)
    registry = Registry()
    task_type = snoozer(registry, kind, 30)
    found = drain([{"task_type": task_type}], registry, max_executions=1000)
    assert found.outcome() == "succeeded"
    assert found.dead_letters == []
    assert 50 * 60 <= found.elapsed_s < 51.5 * 60
    began_s = found.began_s()
    assert len(began_s) == SNOOZES + 1
    assert min(later - before for before, later in pairwise(began_s)) >= 29
