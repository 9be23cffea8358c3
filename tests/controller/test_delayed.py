"""Delayed tasks go back to their lane once they are due: none before, none lost, and whatever fails leaves them where they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch.model.delayed import DELAYED, DelayedMessage, to_object
from batch.model.delivery import Outgoing
from batch.model.errors import DependencyForbidden, DependencyMissing, DependencyUnavailable, FanoutError
from batch.model.names import DAMAGED, delayed_folder, delayed_object
from batch.services.ports import ObjectInfo
from batch.services.pubsub import GoogleSubscription
from controller.act.republisher import (
    MOST_PER_TICK,
    MOST_S,
    PORTION_BYTES,
    PORTION_COUNT,
    Due,
    Republished,
    Republisher,
    due_now,
    portions,
)
from controller.config import controller_settings
from controller.decide.decision import HoldCause, Kind
from controller.model.reading import Idle, Unknown, Value
from controller.service.ticker import log_round
from controller.tick.results import Round, TickResult, explained, result_json
from controller.wiring import connected
from tests.controller.fakes import World, lane, tick, world

FOLDER = delayed_folder("tasks-sub")
DOWN = DependencyUnavailable("503")


@pytest.fixture
def here() -> Iterator[World]:
    made = world()
    yield made
    assert made.store.unmet() == []
    assert made.broker.topic("tasks").unmet() == []


def delay(here: World, number: int, in_s: float = 0.0, data: bytes = b"{}", **attributes: str) -> str:
    """As a worker parks it; returns the object's name."""
    task_id = f"id-{number:04d}"
    name = delayed_object("tasks-sub", here.clock.now() + in_s, task_id, f"{number}")
    attributes = {"task_id": task_id, **attributes}
    here.store.write(name, to_object(DelayedMessage(task_id, f"{number}", here.clock.now(), attributes, data)), if_generation=0)
    return name


def published(here: World) -> list[Outgoing]:
    return [message for _, message in here.broker.topic("tasks").published]


def task_ids(here: World) -> list[str]:
    return [message.attributes["task_id"] for message in published(here)]


def waiting(here: World) -> int:
    return len(here.store.names(FOLDER))


def counted(name: str, method: Callable[..., Any], calls: list[str]) -> Callable[..., Any]:
    def call(*arguments: Any, **more: Any) -> Any:
        calls.append(name)
        return method(*arguments, **more)

    return call


def ticked(here: World, **options: bool) -> TickResult:
    return tick(lane(), here.outside, **options)  # type: ignore[arg-type]


# --- which, in which order, how many at a time


@given(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 99)), max_size=60), st.integers(0, 200))
def test_everything_due_is_found_in_order_and_nothing_else(waits: list[tuple[int, int]], now: int) -> None:
    names = sorted({delayed_object("tasks-sub", due, f"id-{task}", "m") for due, task in waits})
    found = list(due_now((ObjectInfo(name, 1, 10) for name in names), FOLDER, now))
    assert [one.due for one in found] == sorted(due for due, _ in set(waits) if due <= now)


def test_the_listing_is_not_read_beyond_the_first_that_is_not_due() -> None:
    def listed() -> Iterator[ObjectInfo]:
        yield ObjectInfo(delayed_object("tasks-sub", 5, "a", "m"), 1, 1)
        yield ObjectInfo(delayed_object("tasks-sub", 6, "b", "m"), 1, 1)
        raise AssertionError("one name too many was read")

    assert len(list(due_now(listed(), FOLDER, 5.0))) == 1


@given(st.lists(st.integers(0, PORTION_BYTES * 2), max_size=40) | st.just([10] * 1200))
def test_portions_fit_into_a_request_and_the_first_is_one_message(sizes: list[int]) -> None:
    due = [Due(ObjectInfo(f"{number}", 1, size), 0) for number, size in enumerate(sizes)]
    found = list(portions(due))
    assert [one for portion in found for one in portion] == due
    assert [len(portion) for portion in found[:1]] == [1] * bool(due)
    assert all(len(one) <= PORTION_COUNT for one in found)
    assert all(len(one) == 1 or sum(each.info.size for each in one) <= PORTION_BYTES for one in found)


def test_a_subscription_called_damaged_is_not_confused_with_the_folder() -> None:
    own = delayed_object("damaged", 5, "a", "m")
    other = DAMAGED + delayed_object("tasks-sub", 5, "a", "m").removeprefix("delayed/")
    assert [one.info.name for one in due_now([ObjectInfo(own, 1, 1), ObjectInfo(other, 1, 1)], DAMAGED, 9.0)] == [own]


# --- a tick


def test_what_is_due_goes_back_unchanged_and_once(here: World) -> None:
    delay(here, 1, 0, b"\xff\x00 {binary}", shard="s-1", color="red")
    delay(here, 2, 0, b"")
    delay(here, 3, 60)
    due = int(here.clock.now())
    assert ticked(here).delayed == Republished(2)
    first, second = published(here)
    assert (first.data, second.data) == (b"\xff\x00 {binary}", b"")
    assert dict(first.attributes) == {"task_id": "id-0001", "shard": "s-1", "color": "red", DELAYED: f"{due} {due}.000000 1 1 1"}
    assert ticked(here).delayed == Republished(0)
    here.clock.advance(59)
    assert ticked(here).delayed.count == 0
    here.clock.advance(1)
    assert ticked(here).delayed.count == 1
    assert (task_ids(here), waiting(here)) == (["id-0001", "id-0002", "id-0003"], 0)


def test_many_come_in_order_and_no_more_in_a_tick_than_its_limit(here: World) -> None:
    for number in range(MOST_PER_TICK + 5):
        delay(here, number, -(MOST_PER_TICK + 5 - number) if number % 2 else -number)
    first = ticked(here)
    assert (first.delayed.count, first.delayed.more, waiting(here)) == (MOST_PER_TICK, True, 5)
    assert "republished 2000 delayed tasks that are due; more are due" in " ".join(explained(first))
    due = [int(message.attributes[DELAYED].split()[0]) for message in published(here)]
    assert due == sorted(due)
    assert ticked(here).delayed == Republished(5)
    assert sorted(task_ids(here)) == [f"id-{number:04d}" for number in range(MOST_PER_TICK + 5)]


def test_a_slow_bucket_ends_the_round_in_time(here: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(PORTION_COUNT + 2):
        delay(here, number)
    read = here.store.read

    def slow(name: str) -> bytes:
        here.clock.advance(MOST_S / PORTION_COUNT * 1.01)
        return read(name)

    monkeypatch.setattr(here.store, "read", slow)
    assert ticked(here).delayed == Republished(PORTION_COUNT + 1, more=True)
    assert waiting(here) == 1


def test_this_ticks_decision_counts_them(here: World) -> None:
    delay(here, 1)
    delay(here, 2)
    here.backlog_is(0, age_s=60)
    result = ticked(here)
    assert (result.decision.kind, result.decision.backlog, result.decision.accepted_count) == (Kind.LAUNCH, 2, 2)
    assert explained(result)[1:3] == [
        "  reading: 0 undelivered, sampled 1 min ago",
        "  delayed: republished 2 delayed tasks that are due",
    ]
    here.clock.advance(60)
    here.backlog_is(2, age_s=30)
    assert ticked(here).decision.kind is Kind.NOTHING_TO_DO  # the next reading sees them, and they are assigned


@pytest.mark.parametrize("reading", [Idle(), Unknown("no answer"), Value(0, 0.0)])
def test_they_go_back_whatever_the_reading_says(here: World, reading: Idle | Unknown | Value) -> None:
    delay(here, 1)
    here.backlog.reading = reading
    assert (ticked(here).delayed.count, waiting(here)) == (1, 0)


def test_a_lane_with_only_waiting_tasks_costs_one_listing_and_a_look_at_what_is_cancelled(
    here: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(30):
        delay(here, number, 600)
    ticked(here)  # the first writes the lane's state
    calls: list[str] = []
    for method in ("read", "write", "delete", "info", "list"):
        monkeypatch.setattr(here.store, method, counted(method, getattr(here.store, method), calls))
    assert ticked(here).delayed == Republished(0)
    assert calls == ["list", "info"]


def test_a_dry_run_says_what_is_due_and_moves_nothing(here: World) -> None:
    delay(here, 1)
    here.backlog_is(0)
    result = ticked(here, dry_run=True)
    assert (result.decision.kind, result.decision.backlog, waiting(here), published(here)) == (Kind.LAUNCH, 1, 1, [])
    assert "  delayed: a tick republishes 1 delayed task that is due" in explained(result)
    assert result_json(result)["republished_count"] == 0


# --- what goes wrong


def test_when_the_topic_fails_they_stay_and_the_tick_goes_on(here: World, caplog: pytest.LogCaptureFixture) -> None:
    delay(here, 1)
    here.backlog_is(100)
    here.broker.topic("tasks").fail_next("publish", DependencyMissing("topic tasks does not exist"))
    result = ticked(here)
    assert (result.delayed.count, waiting(here), result.decision.kind) == (0, 1, Kind.LAUNCH)
    assert "topic tasks does not exist" in "\n".join(explained(result))
    log_round(Round((result,)))
    line = vars(caplog.records[-1])
    assert (line["event"], line["republished_count"]) == ("lane_troubled", 0)
    assert "stay in delayed/tasks-sub/" in line["delayed_problems"][0]
    assert ticked(here).delayed.count == 1


def test_without_credentials_they_stay(here: World) -> None:
    delay(here, 1)

    def none(name: str) -> None:
        raise DependencyForbidden(f"no usable credentials for {name}")

    result = tick(lane(), replace(here.outside, topic=none))  # type: ignore[arg-type]
    assert (len(result.delayed.problems), waiting(here)) == (1, 1)


@pytest.mark.parametrize("method", ["list", "read"])
def test_when_the_bucket_fails_they_stay(here: World, method: str) -> None:
    delay(here, 1)
    here.store.fail_next(method, DOWN)
    result = ticked(here)
    assert (result.delayed.count, len(result.delayed.problems), waiting(here)) == (0, 1, 1)


def test_a_lost_answer_publishes_twice_and_loses_nothing(here: World) -> None:
    delay(here, 1)
    here.broker.topic("tasks").fail_next("publish", DOWN, after_effect=True)
    assert ticked(here).delayed.count == 0
    assert ticked(here).delayed.count == 1
    assert (task_ids(here), waiting(here)) == (["id-0001", "id-0001"], 0)


def test_a_controller_that_may_not_delete_publishes_one_a_tick_not_all(here: World) -> None:
    for number in range(50):
        delay(here, number)
    here.store.fail_next("delete", DependencyForbidden("objects.delete is refused"))
    result = ticked(here)
    assert (result.delayed.count, len(task_ids(here)), waiting(here)) == (1, 1, 50)
    assert "will be published again" in result.delayed.problems[0]


def test_a_deletion_whose_answer_was_lost_brings_nothing_back(here: World) -> None:
    delay(here, 1)
    here.store.fail_next("delete", DOWN, after_effect=True)
    ticked(here)
    assert ticked(here).delayed == Republished(0)
    assert task_ids(here) == ["id-0001"]


def test_two_controllers_at_once_are_harmless(here: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(20):
        delay(here, number)
    publish = here.broker.topic("tasks").publish

    def other_first(messages: Sequence[Outgoing]) -> list[str]:
        monkeypatch.setattr(here.broker.topic("tasks"), "publish", publish)
        ticked(here)
        return publish(messages)

    monkeypatch.setattr(here.broker.topic("tasks"), "publish", other_first)
    assert ticked(here).delayed.problems == ()
    assert waiting(here) == 0
    assert set(task_ids(here)) == {f"id-{number:04d}" for number in range(20)}
    assert len(task_ids(here)) <= 2 * 20


def test_what_was_parked_anew_meanwhile_is_not_deleted(here: World, monkeypatch: pytest.MonkeyPatch) -> None:
    name = delay(here, 1)
    publish = here.broker.topic("tasks").publish

    def replaced(messages: Sequence[Outgoing]) -> list[str]:
        here.store.write(name, b"another")
        return publish(messages)

    monkeypatch.setattr(here.broker.topic("tasks"), "publish", replaced)
    ticked(here)
    assert here.store.read(name) == b"another"


def test_damaged_objects_are_moved_aside_and_the_others_go_on(here: World) -> None:
    damaged = {FOLDER + "0000000000": b"no name", FOLDER + "0000000001-x-0123456789abcdef": b"no message", FOLDER + "zzz": b""}
    for name, body in damaged.items():
        here.store.write(name, body)
    delay(here, 1)
    result = ticked(here)
    assert (task_ids(here), waiting(here), len(result.delayed.problems)) == (["id-0001"], 0, 3)
    assert {name: here.store.read(name) for name in here.store.names(DAMAGED)} == {
        name.replace("delayed/", DAMAGED, 1): body for name, body in damaged.items()
    }
    assert all("is kept as delayed/damaged/" in problem for problem in result.delayed.problems)


def test_what_the_topic_refuses_is_moved_aside_and_the_others_go_on(here: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(4):
        delay(here, number, data=b"too large" if number == 2 else b"{}")
    publish = here.broker.topic("tasks").publish

    def picky(messages: Sequence[Outgoing]) -> list[str]:
        if any(one.data == b"too large" for one in messages):
            raise FanoutError("INVALID_ARGUMENT: the request is too large")
        return publish(messages)

    monkeypatch.setattr(here.broker.topic("tasks"), "publish", picky)
    result = ticked(here)
    assert (sorted(task_ids(here)), waiting(here)) == (["id-0000", "id-0001", "id-0003"], 0)
    assert len(here.store.names(DAMAGED)) == 1
    assert "too large" in result.delayed.problems[0]


def test_an_object_that_cannot_even_be_moved_holds_up_nobody(here: World) -> None:
    here.store.write(FOLDER + "0000000000", b"odd")
    delay(here, 1)
    here.store.fail_next("write", FanoutError("the name is too long"))
    result = ticked(here)
    assert task_ids(here) == ["id-0001"]
    assert "nor moved aside" in result.delayed.problems[0]


def test_a_lane_whose_state_is_unreadable_gets_its_tasks_back_too(here: World) -> None:
    delay(here, 1)
    here.store.fail_next("read_with_info", DOWN)
    result = ticked(here)
    assert (result.decision.hold_cause, result.delayed.count) == (HoldCause.STATE_UNREADABLE, 1)


def test_the_real_topic_gets_them(cloud: dict[str, str]) -> None:
    """Through Google's clients: large and odd data, and attributes."""
    from google.cloud import pubsub_v1, storage

    project = cloud["GOOGLE_CLOUD_PROJECT"]
    storage.Client(project=project).create_bucket(cloud["BUCKET_NAME"])
    with (
        pubsub_v1.PublisherClient() as publisher,
        pubsub_v1.SubscriberClient() as subscriber,
        closing(GoogleSubscription(project, "tasks-sub")) as lane_subscription,
    ):
        topic, subscription = publisher.topic_path(project, "tasks"), subscriber.subscription_path(project, "tasks-sub")
        publisher.create_topic(name=topic)
        subscriber.create_subscription(name=subscription, topic=topic)
        given = {"1": b"", "2": bytes(range(256)), "3": b"x" * 9_000_000}
        with connected(controller_settings(cloud)) as outside:
            now = outside.clock.now()
            for number, data in given.items():
                message = DelayedMessage("id", number, now, {"number": number, "ü": "\n"}, data)
                outside.store.write(delayed_object("tasks-sub", now - 9, "id", number), to_object(message), if_generation=0)
            done = Republisher("tasks-sub", lambda: outside.topic("tasks"), outside.store, outside.clock).run()
            assert done == Republished(3)
            assert list(outside.store.list("delayed/")) == []
        found: dict[str, bytes] = {}
        while len(found) < 3:
            pulled = lane_subscription.pull(10, 10)
            assert pulled
            found |= {one.attributes["number"]: one.data for one in pulled}
            assert all(one.attributes["ü"] == "\n" for one in pulled)
        assert found == given
