"""The dead-letters job: the first worker of an execution goes on with interrupted replays and applies the retry rules."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from batch.dead.draining.job import Job
from batch.dead.lanes import write_lanes
from batch.dead.log import Act
from batch.dead.replaying import replay
from batch.dead.rules import Rules
from batch.handling.cancels import cancel
from batch.model.deadletters import replay_of
from batch.model.delayed import republication_of
from batch.model.errors import DependencyUnavailable
from batch.model.exit import ExitReason
from batch.model.outcomes import merged
from batch.services.leases import LeaseKeeper
from batch.services.network import Network
from batch.testing.clock import START_S
from tests.batch.dead.letterbox import LANE, Letterbox, settings

RULES = Rules(("TimeoutError",), after_s=600.0, times=3, rate=1000.0)
LANE_WITH_RULES = replace(LANE, rules=RULES)


@pytest.fixture(autouse=True)
def _no_keeper(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its waits would move the clock."""
    monkeypatch.setattr(LeaseKeeper, "start", lambda _self: None)


@pytest.fixture
def box() -> Letterbox:
    made = Letterbox()
    write_lanes(made.store, {LANE.name: LANE_WITH_RULES})
    return made


def job(box: Letterbox, number: int = 1, **environment: object) -> Job:
    topics: Callable[[str], Any] = box.broker.topic
    given = settings(CLOUD_RUN_EXECUTION=f"dl-{number}", **environment)
    return Job(given, box.dead, topics, box.store, box.clock, random.Random(number), Network(box.clock, given.task_timeout_s))


def died_again(box: Letterbox) -> int:
    """What is in the lane dies of the same error."""
    taken = box.lane.pull(1000, 0)
    for one in taken:
        found = replay_of(one.attributes)
        assert found is not None
        box.by_worker(one.attributes["task_id"], one.data, error_type="TimeoutError", attributes=dict(one.attributes))
    box.lane.ack([one.ack_id for one in taken])
    return len(taken)


def test_an_outage_that_killed_500_tasks_needs_no_person(box: Letterbox) -> None:
    for number in range(500):
        box.by_worker(f"task-{number}", error_type="TimeoutError", attempt_count=3)
    minutes: Counter[int] = Counter()
    execution = 0
    while box.clock.now() < START_S + 1500:
        execution += 1
        before = len(box.broker.topic(LANE.topic).published)
        assert job(box, execution).run() is ExitReason.DRAINED
        minutes[int((box.clock.now() - START_S) // 60)] += len(box.broker.topic(LANE.topic).published) - before
        box.clock.advance(60)
    came = box.broker.topic(LANE.topic).published
    assert sorted(message.attributes["task_id"] for _, message in came) == sorted(f"task-{number}" for number in range(500))
    assert {message.attributes["replay"].split()[0] for _, message in came} == {"1"}
    assert all(republication_of(message.attributes) for _, message in came)
    busy = [minute for minute, count in minutes.items() if count]
    assert (min(busy) >= 10, max(busy) <= 22, max(minutes.values()) < 100) == (True, True, True), minutes
    assert box.letters() == {}
    assert Counter(one.outcome for one in merged(box.outcomes()).values()) == {"replayed": 500}
    whys = {(entry.why, entry.details["rules"]["errors"][0]) for entry in box.entries(Act.OPENED)}
    assert whys == {("retry rules", "TimeoutError")}


def test_what_fails_again_waits_longer_and_in_the_end_for_a_person(box: Letterbox) -> None:
    box.by_worker("one", error_type="TimeoutError")
    waits, died_s = [], box.clock.now()
    for execution in range(1, 60):
        job(box, execution).run()
        if died_again(box):
            waits.append(box.clock.now() - died_s)
            died_s = box.clock.now()
        box.clock.advance(300)
    assert len(waits) == RULES.times
    assert all(600 * 2**number <= wait_s <= 2 * 600 * 2**number + 330 for number, wait_s in enumerate(waits)), waits
    assert list(box.letters()) == [("one", 3)]


def test_no_rule_brings_back_what_was_cancelled_since_it_died(box: Letterbox) -> None:
    box.by_worker("one", error_type="TimeoutError", attributes={"submission_id": "s-7"})
    box.by_worker("two", error_type="TimeoutError")
    box.drain()
    cancel(box.store, LANE.name, ["s-7"], who="ada", now=box.clock.now())
    box.clock.advance(1200)
    job(box, 1).run()
    assert (box.returned(), [key.task_id for key in box.letters()]) == ({"two": 1}, ["one"])
    everything: Callable[[Any], bool] = lambda _letter: True  # noqa: E731
    topics: Callable[[str], Any] = box.broker.topic
    replay(box.store, topics, LANE, everything, details={}, rate=None, clock=box.clock, rng=random.Random(3), who="ann", why="after all")
    assert died_again(box) == 2
    box.drain()
    box.clock.advance(4800)
    job(box, 2).run()
    assert box.returned() == {"one": 2, "two": 2}, "what a person has replayed since is not cancelled any more"


def test_other_errors_and_other_workers_replay_nothing(box: Letterbox) -> None:
    box.by_worker("one", error_type="KeyError")
    box.by_worker("two", error_type="TimeoutError")
    box.drain()
    box.clock.advance(1200)
    job(box, 1, CLOUD_RUN_TASK_INDEX=1).run()
    assert box.broker.topic(LANE.topic).published == []
    job(box, 2).run()
    assert box.returned() == {"two": 1}
    assert [key.task_id for key in box.letters()] == ["one"]
    job(box, 3).run()
    assert len({entry.action_id for entry in box.entries(Act.OPENED)}) == 1, "a replay of nothing leaves no entry"
    assert box.returned() == {"two": 1}


def test_a_replay_that_was_interrupted_goes_on_by_itself(box: Letterbox) -> None:
    for number in range(10):
        box.by_worker(f"task-{number}")
    box.drain()
    topics: Callable[[str], Any] = box.broker.topic
    box.broker.topic(LANE.topic).fail_next("publish", DependencyUnavailable("down"))
    told: dict[str, Any] = {"details": {}, "rate": None, "clock": box.clock, "rng": random.Random(9), "who": "ann", "why": "fixed"}
    with pytest.raises(DependencyUnavailable):
        replay(box.store, topics, LANE, lambda _: True, **told)
    job(box, 1).run()
    assert box.returned() == {}
    box.clock.advance(601)
    job(box, 2, CLOUD_RUN_TASK_INDEX=1).run()
    assert box.returned() == {}
    job(box, 3).run()
    assert (len(box.returned()), set(box.returned().values()), box.letters()) == (10, {1}, {})


def test_a_replay_ends_soon_when_the_job_is_stopped(box: Letterbox) -> None:
    write_lanes(box.store, {LANE.name: replace(LANE_WITH_RULES, rules=replace(RULES, rate=1.0))})
    for number in range(100):
        box.by_worker(f"task-{number}", error_type="TimeoutError")
    box.drain()
    box.clock.advance(1200)
    made = job(box)
    publish = box.broker.topic(LANE.topic).publish

    def stopped(messages: Any) -> Any:
        made.stop()
        return publish(messages)

    box.broker.topic(LANE.topic).publish = stopped  # type: ignore[method-assign]
    assert made.run() is ExitReason.STOPPED
    assert 0 < len(box.returned()) < 100


def test_a_service_that_fails_ends_it_broken(box: Letterbox, caplog: pytest.LogCaptureFixture) -> None:
    box.by_worker("one")
    box.store.fail_next("write", DependencyUnavailable("the bucket is down"))
    assert job(box).run() is ExitReason.BROKEN
    assert box.dead.free == 1
    events = {getattr(record, "fields", {}).get("event") or record.getMessage() for record in caplog.records}
    assert any("the bucket is down" in event for event in events)


def test_lanes_that_cannot_be_read_are_said(box: Letterbox, caplog: pytest.LogCaptureFixture) -> None:
    box.by_worker("one")
    box.store.write("controller/lanes.json", b"[]")
    assert job(box).run() is ExitReason.BROKEN
    assert "delete it, and a tick writes it within ten minutes" in caplog.text
    assert box.dead.free == 1
