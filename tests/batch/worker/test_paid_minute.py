"""The minute that is billed anyway: a worker that a controller launched goes on after its share, and ends in time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from batch.model.delivery import Delivery
from batch.model.exit import ExitReason
from batch.model.message import Task
from batch.model.names import progress_object
from batch.model.progress import Progress, to_metadata
from tests.batch.worker.plant import Plant
from tests.clocks import ShiftedClock

LAUNCHED = {"DECISION_ID": "d-1.0", "BILLING_FLOOR_S": "60"}


@pytest.fixture
def plant() -> Iterator[Plant]:
    made = Plant(ShiftedClock())

    @made.registry.task("quick")
    def quick(task: Task, ctx: Any) -> None:
        return None

    yield made
    tries = [made.progress(retry=retry) for retry in range(len(made.store.names("workers/")))]
    assert made.subscription.leased == 0
    assert tries[-1].taken == tries[-1].acked + tries[-1].returned


def test_a_launched_worker_goes_on_after_its_share_until_nothing_comes(plant: Plant) -> None:
    plant.submit(300, "quick")
    empty_pulls_are_over_at_once(plant)
    assert plant.worker(BACKLOG=20, **LAUNCHED).run() is ExitReason.SHARE_DONE
    progress = plant.progress()
    assert (progress.share, progress.taken, progress.acked) == (20, 300, 300)
    assert plant.subscription.backlog == 0


def empty_pulls_are_over_at_once(plant: Plant) -> None:
    """They take their time by the clock, and nobody waits for it."""
    clock, original = plant.clock, plant.subscription.pull
    assert isinstance(clock, ShiftedClock)

    def pull(max_messages: int, timeout_s: float) -> list[Delivery]:
        found = original(max_messages, 0.0)
        if not found:
            clock.advance(timeout_s)
        return found

    plant.subscription.pull = pull  # type: ignore[method-assign]


@pytest.mark.parametrize("settings", [{"BILLING_FLOOR_S": "60"}, {**LAUNCHED, "BILLING_FLOOR_S": "0"}], ids=["by hand", "no floor"])
def test_every_other_worker_ends_with_its_share(plant: Plant, settings: dict[str, str]) -> None:
    plant.submit(60, "quick")
    assert plant.worker(BACKLOG=20, **settings).run() is ExitReason.SHARE_DONE
    assert plant.progress().taken == 20
    assert plant.subscription.backlog == 40


def test_a_worker_of_a_manual_execution_takes_no_more_than_max_messages(plant: Plant) -> None:
    plant.submit(60, "quick")
    assert plant.worker(MAX_MESSAGES=20, SHARE_LIMIT=40, BILLING_FLOOR_S="60").run() is ExitReason.SHARE_DONE
    assert plant.progress().taken == 20


@pytest.mark.parametrize(("most", "taken_count"), [(20, 20), (33, 33), (10, 20)], ids=["the share", "more", "less: the share is promised"])
def test_what_an_operator_allows_a_worker_bounds_its_minute_too(plant: Plant, most: int, taken_count: int) -> None:
    plant.submit(60, "quick")
    assert plant.worker(BACKLOG=20, SHARE_LIMIT=most, **LAUNCHED).run() is ExitReason.SHARE_DONE
    progress = plant.progress()
    assert (progress.share, progress.taken) == (20, taken_count)
    assert plant.subscription.backlog == 60 - taken_count


def test_the_tries_of_a_worker_are_bound_together(plant: Plant) -> None:
    """A first try acknowledged 5 of its share of 20: of the operator's 25 the next one may take 20, of which 15 are its share."""
    plant.submit(60, "quick")
    name = progress_object("lane-x", 0, 0)
    plant.store.write(name, b"", metadata=to_metadata(Progress(20, plant.clock.now(), plant.clock.now(), taken=5, acked=5)))
    worker = plant.worker(BACKLOG=20, SHARE_LIMIT=25, CLOUD_RUN_TASK_ATTEMPT=1, **LAUNCHED)
    assert worker.run() is ExitReason.SHARE_DONE
    progress = plant.progress(retry=1)
    assert (progress.share, progress.taken) == (15, 20)


def test_a_retry_does_not_go_on_after_the_minute_of_the_first_try(plant: Plant) -> None:
    plant.submit(60, "quick")
    began = plant.clock.now() - 60
    name = progress_object("lane-x", 0, 0)
    plant.store.write(name, b"", metadata=to_metadata(Progress(20, began, began + 30, taken=5, acked=5)))
    assert plant.worker(BACKLOG=20, CLOUD_RUN_TASK_ATTEMPT=1, **LAUNCHED).run() is ExitReason.SHARE_DONE
    progress = plant.progress(retry=1)
    assert (progress.share, progress.taken) == (15, 15)


def test_it_ends_while_the_minute_lasts_and_leaves_the_rest(plant: Plant) -> None:
    """A floor of 6 s, of which 5 are kept in reserve: the worker has 1 s, and starts nothing that would not end in it."""

    @plant.registry.task("steady")
    def steady(task: Task, ctx: Any) -> None:
        ctx.sleep(0.02)

    plant.submit(5000, "steady")
    began_s = plant.clock.monotonic()
    worker = plant.worker(BACKLOG=4, **{**LAUNCHED, "BILLING_FLOOR_S": "6"}, PREFETCH_S="0.1")
    assert worker.run() is ExitReason.SHARE_DONE
    assert plant.clock.monotonic() - began_s < 6.0, "the floor is a bound"
    progress = plant.progress()
    assert 4 < progress.acked < 5000
    assert plant.subscription.backlog == 5000 - progress.acked


def test_a_step_beyond_the_share_is_what_starts_at_once(plant: Plant) -> None:
    """With handlers that take longer than the minute, nothing is pulled beyond the share."""

    @plant.registry.task("slow")
    def slow(task: Task, ctx: Any) -> None:
        ctx.sleep(0.6)

    plant.submit(10, "slow")
    assert plant.worker(BACKLOG=2, **{**LAUNCHED, "BILLING_FLOOR_S": "6"}, PREFETCH_S="0.1").run() is ExitReason.SHARE_DONE
    assert plant.progress().taken == 2


def test_an_empty_subscription_ends_it_at_once(plant: Plant) -> None:
    plant.submit(5, "quick")
    empty_pulls_are_over_at_once(plant)
    began_s = plant.clock.monotonic()
    assert plant.worker(BACKLOG=5, **LAUNCHED).run() is ExitReason.SHARE_DONE
    assert plant.clock.monotonic() - began_s < 40.0, "it does not ask until the minute is over"
    assert plant.progress().taken == 5
