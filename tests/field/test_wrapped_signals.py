"""What a handler says is heard through task groups, wrappers and causes, and reasons name the real error."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import pydantic
import pytest

from batch.handling.registry import default_registry
from batch.model.errors import DependencyForbidden, DependencyUnavailable, Snooze
from batch.model.exit import ExitReason
from batch.testing import run_handler
from intake.models import Door, message_of
from intake.problems import RequestRefused
from tests.batch.worker.plant import Plant
from tests.field import wrapping
from tests.field.kinds import KINDS, ends


@pytest.fixture
def plant() -> Iterator[Plant]:
    made = Plant()
    yield made
    assert made.subscription.leased == made.deferred_count, "a worker that has ended must hold nothing"


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_handler_says_is_heard_through_what_wraps_it(kind: str) -> None:
    found, _ = ends("wrapping", wrapping.act, kind, list(wrapping.CASES))
    assert found == {name: end for name, (_, end) in wrapping.CASES.items()}


@pytest.mark.parametrize("grouped", [False, True], ids=["async", "group"])
def test_a_bucket_that_is_down_in_a_task_group_kills_no_task(plant: Plant, grouped: bool, caplog: pytest.LogCaptureFixture) -> None:
    async def all_of(ctx: Any) -> None:
        async with asyncio.TaskGroup() as parts:
            for name in ("a", "b", "c"):
                parts.create_task(ctx.read(name))

    if grouped:

        @plant.registry.task("parts", group=2, retries=0)
        async def parts_of_many(tasks: Any, ctxs: Any) -> Any:
            await all_of(ctxs[0])

    else:

        @plant.registry.task("parts", retries=0)
        async def parts(task: Any, ctx: Any) -> Any:
            await all_of(ctx)

    plant.store.fail_next("read", DependencyUnavailable("the bucket is down"))
    plant.submit(1, "parts")
    plant.deferred_count = 1
    with caplog.at_level(logging.INFO):
        plant.worker(BACKLOG=1).run()
    assert plant.final() == {}
    assert "the bucket is down" in caplog.text
    assert "TaskGroup" not in caplog.text


def test_a_whole_call_that_raises_a_group_says_it_of_each_task(plant: Plant) -> None:
    @plant.registry.task("all", group=3, group_wait_s=60, retries=0)
    def all_of(tasks: Any, ctxs: Any) -> Any:
        wrapping.group(ConnectionError("refused"), ConnectionError("reset"))

    plant.submit(3, "all")
    assert plant.worker(BACKLOG=3).run() is ExitReason.SHARE_DONE
    assert [(one.error_type, "refused (one of 2 errors)" in one.reason) for one in plant.outcomes()] == [("ConnectionError", True)] * 3


def test_a_signal_from_a_pool_of_processes_is_heard(plant: Plant) -> None:
    def elsewhere(task: Any, ctx: Any) -> Any:
        import multiprocessing

        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            pool.submit(snoozing).result()

    with pytest.raises(Snooze) as told:
        run_handler(elsewhere, {})
    assert (told.value.after_s, str(told.value)) == (30.0, "not yet")


def snoozing() -> None:
    raise Snooze(30, "not yet")


def test_an_isolated_handler_whose_parts_ran_out_of_memory_is_told_its_limit(plant: Plant) -> None:
    plant.registry._handlers["wrapping-memory"] = default_registry["wrapping-memory"]
    plant.submit(1, "wrapping-memory")
    plant.worker(BACKLOG=1, HANDLERS=wrapping.__name__, PROCESSES=1).run()
    (outcome,) = plant.outcomes()
    assert outcome.error_type == "MemoryError"
    assert "it asked for more than the 256 MB that it may use. no room" in outcome.reason


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_validator_that_finds_a_service_down_makes_no_task_dead(plant: Plant, wrapped: bool) -> None:
    class Order(pydantic.BaseModel):
        number: int

        @pydantic.field_validator("number")
        @classmethod
        def known(cls, value: int) -> int:
            try:
                raise DependencyForbidden("the list of orders may not be read")
            except DependencyForbidden as error:
                if wrapped:
                    raise ValueError(f"{value} cannot be looked up") from error
                raise

    @plant.registry.task("order", payload=Order, retries=0)
    def order(task: Any, ctx: Any) -> Any:
        return None

    with pytest.raises(RequestRefused) as refused:
        message_of(Door(plant.registry, "order"), b'{"number": 1}', None, "lane", 0.0, random.Random(1))
    assert refused.value.status == 503
    plant.submit(1, "order", number=1)
    plant.deferred_count = 1
    plant.worker(BACKLOG=1).run()
    assert plant.final() == {}
