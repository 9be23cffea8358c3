"""The same handler in each kind, for what all kinds must do alike. A task names its case in the field `case`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from batch.handling.registry import Registry, default_registry
from batch.model.clock import iso
from batch.model.delivery import Outgoing
from batch.model.message import Task, encode
from batch.model.outcomes import merged
from tests.batch.worker.plant import SHARD, Plant

KINDS = ("plain", "async", "group", "isolated")
Act = Callable[[str], Any]
"""What the handler does for a case: returns a value or raises."""
End = tuple[str, str, str]
"""Outcome, error type, reason."""
NO_ATTEMPT: End = ("", "", "")
"""Nacked without an attempt spent."""


def in_children(name: str, act: Act) -> None:
    """Register those that may run in a child, which imports the module that calls this: the isolated one, and quarantined ones."""
    default_registry.task(f"{name}-isolated", isolation="process", retries=0)(lambda task, _ctx: act(task.fields["case"]))
    default_registry.task(f"{name}-group", retries=0, group=2)(lambda tasks, _ctxs: [given(act, task.fields["case"]) for task in tasks])

    @default_registry.task(f"{name}-async", retries=0)
    async def later(task: Any, ctx: Any) -> Any:
        return act(task.fields["case"])


def registry_of(name: str, act: Act) -> Registry:
    """All four, none with retries."""
    made = Registry()
    made.task("plain", retries=0)(lambda task, _ctx: act(task.fields["case"]))
    made._handlers["isolated"] = made._handlers[f"{name}-isolated"] = default_registry[f"{name}-isolated"]

    @made.task("async", retries=0)
    async def later(task: Any, ctx: Any) -> Any:
        await asyncio.sleep(0)
        return act(task.fields["case"])

    @made.task("group", retries=0, group=100, group_wait_s=0)
    def grouped(tasks: Any, ctxs: Any) -> Any:
        return [given(act, task.fields["case"]) for task in tasks]

    return made


def given(act: Act, case: str) -> Any:
    """What it returns or raises, as it stands in the list of a grouped handler."""
    try:
        return act(case)
    except BaseException as error:  # noqa: BLE001 - it is returned
        return error


def ends(name: str, act: Act, kind: str, cases: list[str]) -> tuple[dict[str, End], dict[str, Any]]:
    """One worker over all cases: how each ended, and the results of those that succeeded. Nothing may be left that was not nacked."""
    plant = Plant(registry=registry_of(name, act))
    for case in cases:
        task_type = f"{name}-isolated" if kind == "isolated" else kind
        task = Task(f"task-{cases.index(case)}", task_type, iso(plant.clock.now()), {"case": case}, lane="lane", shard=SHARD)
        plant.broker.topic("lane").publish([Outgoing(*encode(task))])
    plant.worker(BACKLOG=len(cases), HANDLERS=act.__module__, PROCESSES=1).run()
    outcomes = merged(plant.outcomes())
    found: dict[str, End] = {}
    for number, case in enumerate(cases):
        one = outcomes.get(f"task-{number}")
        if one is None:
            assert plant.store.info(f"attempts/task-{number}.json") is None, f"{case}: an attempt was spent"
            found[case] = NO_ATTEMPT
        else:
            reason = one.reason
            found[case] = one.outcome, one.error_type, reason
    assert plant.subscription.leased == list(found.values()).count(NO_ATTEMPT)
    return found, {case: outcomes[f"task-{number}"].result for number, case in enumerate(cases) if found[case][0] == "succeeded"}
