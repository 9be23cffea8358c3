"""A client whose clock is years ahead: later tasks of others get their outputs all the same."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch.handling.results import write_output
from batch.model.clock import from_iso, iso
from batch.model.errors import Superseded
from batch.model.message import MAX_AHEAD_S, Task, decode
from batch.testing import MemoryObjectStore
from tests.batch.worker.plant import Plant
from tests.clocks import JumpingClock

FAR = "2031-01-01T00:00:00.000000Z"
NOW_S = from_iso("2026-06-01T12:00:00Z")
SHARED = "out/shared"


def submitted_at(given_at: object, published_s: float = NOW_S) -> str:
    data = json.dumps({"task_type": "a", "submitted_at": given_at}).encode()
    return decode(data, {}, message_id="1", published_s=published_s, lane="l").submitted_at


@pytest.mark.parametrize(
    ("given_at", "counts_as"),
    [
        (FAR, iso(NOW_S + MAX_AHEAD_S)),
        ("9999-12-31T23:59:59.999999Z", iso(NOW_S + MAX_AHEAD_S)),
        ("2031-01-01T00:00:00", iso(NOW_S + MAX_AHEAD_S)),
        (iso(NOW_S + MAX_AHEAD_S + 1e-3), iso(NOW_S + MAX_AHEAD_S)),
        (iso(NOW_S + MAX_AHEAD_S), iso(NOW_S + MAX_AHEAD_S)),
        (iso(NOW_S + 1), iso(NOW_S + 1)),
        ("1970-01-01T00:00:00.000000Z", "1970-01-01T00:00:00.000000Z"),
        (2031, iso(NOW_S)),
    ],
)
def test_a_time_counts_no_later_than_a_minute_after_the_publish_time(given_at: object, counts_as: str) -> None:
    assert submitted_at(given_at) == counts_as


@given(st.floats(-120, 1e9), st.floats(0, 1e6), st.floats(0, 1e6))
def test_tasks_of_one_client_keep_their_order_however_wrong_its_clock_is(ahead_s: float, later_s: float, published_later_s: float) -> None:
    first = submitted_at(iso(NOW_S + ahead_s), NOW_S)
    assert first <= submitted_at(iso(NOW_S + ahead_s + later_s), NOW_S + published_later_s)


def register(plant: Plant, kind: str) -> None:
    if kind == "plain":

        @plant.registry.task("output")
        def plain(task: Task, ctx: Any) -> str:
            return str(ctx.write(SHARED, task.task_id.encode()).name)
    elif kind == "async":

        @plant.registry.task("output")
        async def waits(task: Task, ctx: Any) -> str:
            return str((await ctx.write(SHARED, task.task_id.encode())).name)
    elif kind == "grouped":

        @plant.registry.task("output", group=4, group_wait_s=0.01)
        def grouped(tasks: list[Task], ctxs: list[Any]) -> list[Any]:
            return [ctx.write(SHARED, task.task_id.encode()).name for task, ctx in zip(tasks, ctxs, strict=True)]
    else:
        from tests.field import handlers_in_children

        plant.registry.task("output", isolation="process")(handlers_in_children.output)


@pytest.mark.parametrize("kind", ["plain", "async", "grouped", "isolated"])
def test_a_later_task_replaces_the_output_of_one_from_2031(kind: str) -> None:
    clock = JumpingClock()
    plant = Plant(clock)
    register(plant, kind)
    settings: dict[str, Any] = {"MAX_MESSAGES": 1}
    if kind == "isolated":
        settings |= {"HANDLERS": "tests.field.handlers_in_children", "PROCESSES": 1}
    for task_id, given_at in (("z-far", FAR), ("a-later", None)):
        body = {"task_id": task_id, "task_type": "output"} | ({"submitted_at": given_at} if given_at else {})
        plant.publish(json.dumps(body).encode())
        plant.worker(**settings, CLOUD_RUN_EXECUTION=f"lane-{task_id}").run()
        clock.advance(MAX_AHEAD_S + 1)
    assert plant.final() == {"z-far": "succeeded", "a-later": "succeeded"}
    assert plant.store.read(SHARED) == b"a-later"


@pytest.mark.parametrize("metadata", [{"submitted_at": FAR}, {"task_id": "z-far", "submitted_at": FAR}, {"submitted_at": "tomorrow"}])
def test_a_bucket_that_holds_outputs_from_2031_heals(metadata: dict[str, str]) -> None:
    clock = JumpingClock()
    store = MemoryObjectStore(clock=clock)
    store.write(SHARED, b"old", metadata=metadata)
    clock.advance(MAX_AHEAD_S + 1)
    assert write_output(store, Task("a", "output", iso(clock.now())), SHARED, b"new", "text/plain").created
    assert store.read(SHARED) == b"new"


def test_who_is_superseded_lost_to_a_task_that_counts_as_newer() -> None:
    clock = JumpingClock()
    store = MemoryObjectStore(clock=clock)
    store.write(SHARED, b"old", metadata={"task_id": "z-far", "submitted_at": FAR})
    with pytest.raises(Superseded, match="belongs to the newer task z-far"):
        write_output(store, Task("a", "output", iso(clock.now() - 5)), SHARED, b"new", "text/plain")
