"""Delayed tasks that were cancelled end with the next tick: outcome first, then the object goes; nothing else is touched, or asked for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from batch.client.proof import prove
from batch.handling.cancels import cancel
from batch.model.deadletters import Replay
from batch.model.delayed import DelayedMessage, to_object
from batch.model.errors import DependencyUnavailable, ServiceRefused
from batch.model.message import rolling_shard
from batch.model.names import cancel_object, delayed_folder, delayed_object, manifest_object
from batch.model.outcomes import Outcome, from_lines
from controller.act import cancelled
from controller.tick.results import TickResult, explained, result_json
from controller.tick.rounds import tick_lanes
from tests.controller.fakes import World, job, lane, tick, world
from tests.controller.test_delayed import counted

SHARD = "s-1"
DOWN = DependencyUnavailable("503")


@pytest.fixture
def here() -> Iterator[World]:
    made = world()
    yield made
    assert made.store.unmet() == []


def delay(here: World, task_id: str, in_s: float = 3600.0, subscription: str = "tasks-sub", **attributes: str) -> str:
    attributes = {"task_id": task_id, "task_type": "t", "shard": SHARD, **attributes}
    name = delayed_object(subscription, here.clock.now() + in_s, task_id, task_id)
    here.store.write(name, to_object(DelayedMessage(task_id, f"m-{task_id}", here.clock.now(), attributes, b"{}")), if_generation=0)
    return name


def cancels(here: World, *ids: str, lane_name: str = "default") -> None:
    cancel(here.store, lane_name, ids, who="ada", why="wrong input", now=here.clock.now())


def outcomes(here: World) -> list[Outcome]:
    return [one for name in here.store.names("outcomes/") for one in from_lines(here.store.read(name))]


def ended(here: World) -> list[str]:
    return sorted(one.task_id for one in outcomes(here) if one.outcome == "cancelled")


def ticked(here: World, **options: bool) -> TickResult:
    return tick(lane(), here.outside, **options)  # type: ignore[arg-type]


def of_submission(number: int, shard: str = SHARD) -> str:
    return f"{number:016x}-{shard}"


def test_a_task_ends_and_its_object_is_gone(here: World) -> None:
    delay(here, "id-1")
    kept = delay(here, "id-2")
    cancels(here, "id-1")
    result = ticked(here)
    assert (result.delayed.cancelled_count, ended(here), here.store.names("delayed/")) == (1, ["id-1"], (kept,))
    (outcome,) = outcomes(here)
    assert (outcome.task_type, outcome.message_id, outcome.reason.startswith("cancelled by ada at ")) == ("t", "m-id-1", True)
    assert here.store.names(f"outcomes/{SHARD}/")
    assert result_json(result)["cancelled_count"] == 1
    assert "delayed: ended 1 delayed task that was cancelled" in " ".join(explained(result))


def test_of_a_message_of_others_attributes_say_neither_type_nor_shard(here: World) -> None:
    delay(here, "id-1", task_type="fanout.webhook", shard="blue")
    cancels(here, "id-1")
    tick(lane(accept=("raw",), default_type="note"), here.outside)
    (outcome,) = outcomes(here)
    assert (outcome.task_id, outcome.task_type) == ("id-1", "note")
    assert here.store.names(f"outcomes/{rolling_shard('default', here.clock.now())}/")


def test_a_message_of_others_is_of_no_submission_whatever_its_attributes_say(here: World) -> None:
    kept = delay(here, "id-1", submission_id="s-1")
    cancels(here, "s-1")
    tick(lane(accept=("raw",), default_type="note"), here.outside)
    assert (ended(here), here.store.names("delayed/")) == ([], (kept,))


def test_a_submission_ends_large_small_and_with_ids_of_others(here: World) -> None:
    hour = rolling_shard("default", here.clock.now())
    gone = [of_submission(1), of_submission(2, hour), "foreign"]
    for one in gone:
        delay(here, one, submission_id="s-1")
    kept = [of_submission(3, hour), of_submission(4, "s-2"), "other"]
    for one in kept:
        delay(here, one, submission_id="s-2")
    here.store.write(manifest_object("s-1", 0), "".join(f'{{"task_id":"{one}","shard":"{SHARD}"}}\n' for one in gone).encode())
    cancels(here, "s-1")
    assert ticked(here).delayed.cancelled_count == 3
    assert (ended(here), len(here.store.names("delayed/"))) == (sorted(gone), 3)
    proof = prove(here.store, "s-1")
    assert (proof.counts["cancelled"], proof.missing, dict(proof.workers)) == (3, (), {})


def test_what_cannot_be_meant_is_not_read(here: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        delay(here, of_submission(number, "s-2"), submission_id="s-2")
    cancels(here, "s-1", of_submission(9, "s-3"))
    calls: list[str] = []
    monkeypatch.setattr(here.store, "read", counted("read", here.store.read, calls))
    ticked(here)
    assert calls == []


def test_an_unchanged_list_costs_one_request(here: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        delay(here, f"id-{number}")
    cancels(here, "id-other")
    ticked(here)
    calls: list[str] = []
    for method in ("read", "read_with_info", "write", "delete", "info", "list"):
        monkeypatch.setattr(here.store, method, counted(method, getattr(here.store, method), calls))
    ticked(here)
    assert calls == ["list", "info"]
    cancels(here, "id-1")
    ticked(here)
    assert ended(here) == ["id-1"]


def test_nothing_delayed_and_no_request_for_lists(here: World, monkeypatch: pytest.MonkeyPatch) -> None:
    cancels(here, "id-1")
    monkeypatch.setattr(here.store, "info", None)
    assert ticked(here).delayed.cancelled_count == 0


def test_of_several_lanes_those_without_a_list_cost_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    here = world([job(), job("bulk"), job("idle")])
    for number, subscription in enumerate(("tasks-sub", "bulk-sub", "idle-sub")):
        delay(here, f"id-{number}", subscription=subscription)
    cancels(here, "id-1", lane_name="bulk")
    asked: list[str] = []
    info = here.store.info

    def noted(name: str) -> Any:
        asked.append(name)
        return info(name)

    monkeypatch.setattr(here.store, "info", noted)
    tick_lanes(here.outside)
    assert ([one for one in asked if one.startswith("cancel/")], ended(here)) == ([cancel_object("bulk")], ["id-1"])


def test_one_that_was_delayed_after_the_sweep_ends_when_it_is_due(here: World) -> None:
    delay(here, "id-0")
    cancels(here, "id-1")
    ticked(here)
    delay(here, "id-1", 60)
    delay(here, "id-2", 60)
    assert ticked(here).delayed.cancelled_count == 0
    here.clock.advance(61)
    result = ticked(here)
    assert (result.delayed.cancelled_count, result.delayed.count, ended(here)) == (1, 1, ["id-1"])
    assert [message.attributes["task_id"] for _, message in here.broker.topic("tasks").published] == ["id-2"]


def test_a_replay_after_it_waits_on(here: World) -> None:
    cancels(here, "id-1")
    delay(here, "id-1", replay=str(Replay(1, here.clock.now() + 1, "r-1")))
    assert (ticked(here).delayed.cancelled_count, len(here.store.names("delayed/"))) == (0, 1)


@pytest.mark.parametrize("method", ["write", "delete"])
def test_a_failure_loses_no_outcome_and_the_next_tick_goes_on(here: World, method: str) -> None:
    delay(here, "id-1")
    cancels(here, "id-1")
    here.store.fail_next(method, DOWN)
    result = ticked(here)
    assert (len(result.delayed.problems), len(here.store.names("delayed/"))) == (1, 1)
    assert len(ended(here)) == (method == "delete")
    assert ticked(here).delayed.cancelled_count == 1
    assert (set(ended(here)), here.store.names("delayed/")) == ({"id-1"}, ())


def test_a_dry_run_ends_nothing(here: World) -> None:
    delay(here, "id-1")
    cancels(here, "id-1")
    assert (ticked(here, dry_run=True).delayed.cancelled_count, ended(here)) == (0, [])


def test_a_damaged_list_is_told_and_the_others_go_back(here: World) -> None:
    delay(here, "id-1", 0)
    here.store.write(cancel_object("default"), b"{")
    result = ticked(here)
    assert result.delayed.count == 1
    assert f"{cancel_object('default')} cancels nothing" in result.delayed.problems[0]


@pytest.mark.parametrize("error", [DOWN, ServiceRefused("403")])
def test_a_list_that_cannot_be_read_holds_no_delayed_task_back(here: World, error: Exception) -> None:
    delay(here, "id-1", 0)
    cancels(here, "id-2")
    here.store.fail_next("info", error)
    result = ticked(here)
    assert (result.delayed.count, here.store.names("delayed/")) == (1, ())
    assert "what is cancelled is not known" in result.delayed.problems[0]


def test_a_slow_bucket_ends_the_sweep_in_time_and_the_next_tick_goes_on(here: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cancelled, "PORTION_COUNT", 2)
    for number in range(6):
        delay(here, f"id-{number}", submission_id="s-2")
    cancels(here, "s-1", "id-5")
    read = here.store.read
    reads: list[str] = []

    def slow(name: str) -> bytes:
        reads.append(name)
        here.clock.advance(6)
        return read(name)

    monkeypatch.setattr(here.store, "read", slow)
    assert (ticked(here).delayed.cancelled_count, len(reads)) == (0, 4)
    assert (ticked(here).delayed.cancelled_count, len(reads)) == (1, 6)

    cancels(here, "id-4")
    assert (ticked(here).delayed.cancelled_count, len(reads)) == (0, 10)
    cancels(here, "id-0")  # before where the sweep of the list as it was has come to
    assert ticked(here).delayed.cancelled_count + ticked(here).delayed.cancelled_count == 2
    assert ended(here) == ["id-0", "id-4", "id-5"]
    assert delayed_folder("tasks-sub") in reads[0]
