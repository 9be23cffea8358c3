"""Messages that another consumer holds: waits for them grow, what came since is drained as before, and the decision says so."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from batch.model.progress import Progress
from controller.act.state import load
from controller.decide.decision import HoldCause, Kind
from controller.decide.held_elsewhere import HeldElsewhere, held_elsewhere
from controller.decide.ledger import Unlisted
from controller.model.execution import ExecutionInfo, Worked
from controller.model.lane import Strategy
from controller.model.reading import Idle, Value
from controller.tick.results import TickResult
from tests.controller.fakes import JOB, World, lane, progress, tick, world, write_progress

T = 10_000.0
OLD = Value(500, T + 300, 5000.0)
"""Sampled long after an execution that ended at T, and older than that."""


def worked(name: str, backlog: int, *workers: Progress, created_at: float = T - 70, completed_at: float | None = T) -> Worked:
    info = ExecutionInfo(f"{JOB}/executions/{name}", len(workers), created_at, completed_at=completed_at, env={"BACKLOG": str(backlog)})
    return Worked(info, {index: [one] for index, one in enumerate(workers)})


def drained(taken: int = 0) -> Progress:
    return progress(taken=taken, acked=taken, exit_reason="drained")


@pytest.mark.parametrize(
    ("one", "held"),
    [
        (worked("e", 500, drained(), drained()), 500),
        (worked("e", 500, drained(20)), 480),
        (worked("e", 500, drained(30)), None),  # it found some: the others may have come to an end elsewhere
        (worked("e", 500, drained(), progress(exit_reason="stopped")), None),
        (worked("e", 500, drained(), progress()), None),  # killed: it proves nothing
        (worked("e", 500, progress(exit_reason="broken")), None),
        (worked("e", 500, progress(), completed_at=None), None),
        (worked("e", 1, progress(taken=1, acked=1, exit_reason="share_done")), None),
    ],
)
def test_what_an_execution_shows(one: Worked, held: int | None) -> None:
    found = held_elsewhere(None, [one], [], OLD)
    assert (None if found is None else found.held_count) == held


@pytest.mark.parametrize(
    ("reading", "held"),
    [
        (OLD, True),
        (Value(500, T - 60, 10.0), True),  # sampled before it ended: none of these was to be had then
        (Idle(), True),
        (Value(0, T + 300, None), False),
        (Value(500, T + 300, None), False),
        (Value(500, T + 300, 298.0), False),  # all came after it
    ],
)
def test_only_messages_that_were_there_are_held(reading: Value | Idle, held: bool) -> None:
    assert (held_elsewhere(None, [worked("e", 500, drained())], [], reading) is not None) is held


@pytest.mark.parametrize(
    "own",
    [
        worked("long", 10, progress(taken=4), created_at=T - 3000, completed_at=None),  # it may run the oldest messages
        worked("snoozed", 10, progress(taken=4, acked=1, deferred=((int(T + 400), 3),), exit_reason="drained"), completed_at=T - 200),
    ],
)
def test_what_workers_of_the_lane_have_is_nobody_else_s(own: Worked) -> None:
    assert held_elsewhere(None, [worked("e", 500, drained()), own], [], OLD) is None
    assert held_elsewhere(HeldElsewhere("d", 0, 9, 3, 9, T - 300), [worked("e", 500, drained()), own], [], OLD) is None


def test_who_drained_another_subscription_shows_nothing() -> None:
    one = worked("e", 500, drained())
    env = {**one.info.env, "SUBSCRIPTION_NAME": "old"}
    assert held_elsewhere(None, [replace(one, info=replace(one.info, env=env))], [], OLD, "new") is None
    found = held_elsewhere(None, [replace(one, info=replace(one.info, env=env))], [], OLD, "old")
    assert found is not None
    assert held_elsewhere(found, [], [], OLD, "old") == found
    assert held_elsewhere(found, [], [], OLD, "new") is None, "the lane has another by now"


def test_waits_double_and_one_that_was_launched_for_what_came_since_changes_nothing() -> None:
    first = held_elsewhere(None, [worked("a", 500, drained())], [], OLD)
    assert first is not None
    assert (first.count, first.until) == (1, T + 60)
    fresh = worked("b", 200, progress(taken=200, acked=200, exit_reason="share_done"), created_at=T + 30, completed_at=T + 90)
    assert held_elsewhere(first, [fresh], [], OLD) == first
    second = held_elsewhere(first, [worked("c", 100, drained(), created_at=T + 60, completed_at=T + 130), fresh], [], OLD)
    assert second is not None
    assert (second.count, second.held_count, second.until) == (2, 500, T + 130 + 120)
    taken_too = worked("d", 200, drained(), created_at=T + 140, completed_at=T + 200)
    third = held_elsewhere(second, [taken_too], [], OLD)
    assert third is not None
    assert (third.count, third.held_count) == (3, 700)
    long_ago = replace(third, count=30)
    assert long_ago.until == third.ended_at + 3600


def test_a_look_that_takes_messages_ends_it_and_one_that_has_not_is_waited_for() -> None:
    before = HeldElsewhere("a", 0, 500, 1, 500, T)
    alive = {"created_at": T + 60, "completed_at": None}
    assert held_elsewhere(before, [worked("c", 100, progress(taken=100), **alive)], [], OLD) is None  # type: ignore[arg-type]
    trying = held_elsewhere(before, [worked("c", 100, progress(), **alive)], [Unlisted("d.0", 1, 100, "")], OLD)  # type: ignore[arg-type]
    assert trying is not None
    assert trying.trying == "d.0 and c"
    assert (trying.waits(T + 3600, 600), trying.waits(T + 9000, 600), trying.waits(T + 9000, 43_200)) == (True, False, True)
    ended = worked("c", 100, progress(taken=100, acked=100, exit_reason="share_done"), created_at=T + 60, completed_at=T + 90)
    assert held_elsewhere(trying, [ended], [], OLD) is None


# --- ticks


class Lane:
    """A lane whose gauge counts `held` messages of another consumer's since the beginning. Workers take what is `free`: their share, or
    all, where they `go_on` in the minute that is paid for."""

    def __init__(self, *, go_on: bool = True, **policy: Any) -> None:
        self.here: World = world()
        self.policy = policy
        self.go_on = go_on
        self.began_at = self.here.clock.now()
        self.held, self.free = 500, 0

    def tick(self) -> TickResult:
        here = self.here
        for name, info in list(here.runner.all.items()):
            if info.live and here.clock.now() >= info.created_at + 70:
                taken = self.free if self.go_on else min(self.free, int(info.env["BACKLOG"]))
                self.free -= taken
                for index in range(info.task_count):
                    one = progress(taken=taken if index == 0 else 0, acked=taken if index == 0 else 0)
                    one = replace(one, exit_reason="share_done" if self.free else "drained")
                    write_progress(here.store, name, index, replace(one, updated_at=here.clock.now()))
                here.runner.complete(name, here.clock.now())
        sampled_at = here.clock.now() - 60
        count = self.held + self.free
        here.backlog.reading = Value(count, sampled_at, max(0.0, sampled_at - self.began_at) if count else None)
        return tick(lane(**self.policy), here.outside)

    def minutes(self, count: int) -> list[TickResult]:
        results = []
        for _ in range(count):
            self.here.clock.advance(60)
            results.append(self.tick())
        return results

    @property
    def launches(self) -> list[int]:
        return [int(request.env["BACKLOG"]) for _, request in self.here.runner.requests]


def test_another_consumer_s_leases_launch_few_workers_each_later_than_the_one_before() -> None:
    one = Lane()
    results = one.minutes(120)
    assert one.launches == [500, 100, 100, 100, 100, 100, 100]
    held = [result.decision for result in results if result.decision.hold_cause is HoldCause.HELD_ELSEWHERE]
    assert len(held) > 100
    assert held[0].reason.startswith(
        "500 messages are held by somebody else: default-00000 drained the subscription and found 0 of 500; "
        "another consumer has them leased, or nacked them with a delay; the next look is at "
    )
    assert ", like 6 executions before it; another consumer" in held[-1].reason
    assert load(one.here.store, "default").state.elsewhere is not None


def test_what_came_since_is_drained_as_before() -> None:
    one = Lane()
    one.minutes(6)
    before = len(one.launches)
    one.free = 200
    (result,) = one.minutes(1)
    assert result.decision.kind is Kind.LAUNCH
    assert one.launches[before:] == [200]
    assert result.decision.ledger is not None
    assert result.decision.ledger.entries[-1].execution == "another consumer"
    one.minutes(40)
    assert len(one.launches[before + 1 :]) <= 4


def test_a_steady_stream_beside_them_is_drained_and_the_waits_for_them_grow_all_the_same() -> None:
    one = Lane()
    one.minutes(3)
    before = len(one.launches)
    for _ in range(60):
        one.free += 50
        one.minutes(1)
    assert one.free <= 150
    looks = [backlog for backlog in one.launches[before:] if backlog > 100]
    assert len(looks) <= 8
    assert sum(one.launches[before:]) < 60 * 50 + 8 * 100 + 200


@pytest.mark.parametrize("go_on", [False, True])
def test_once_the_other_consumer_is_gone_one_worker_finds_them_and_the_rest_follows(go_on: bool) -> None:
    one = Lane(go_on=go_on)
    one.minutes(8)
    before = len(one.launches)
    one.held, one.free = 0, 500
    one.minutes(12)
    assert one.free == 0
    assert len(one.launches[before:]) <= 3
    assert load(one.here.store, "default").state.elsewhere is None


def test_once_they_are_acknowledged_elsewhere_new_messages_do_not_wait() -> None:
    one = Lane()
    one.minutes(20)
    one.held = 0
    one.minutes(2)
    before = len(one.launches)
    one.began_at, one.free = one.here.clock.now(), 300
    one.minutes(2)
    assert one.launches[before:] == [300]


@pytest.mark.parametrize("policy", [{"strategy": Strategy.FIXED, "fixed_workers": 20}, {"min_workers": 20}])
def test_one_worker_looks_however_many_a_launch_has(policy: dict[str, Any]) -> None:
    one = Lane(**policy)
    one.minutes(60)
    workers = [request.task_count for _, request in one.here.runner.requests]
    assert workers == [20, 1, 1, 1, 1, 1]
    one.held, one.free = 0, 500
    one.minutes(70)
    assert one.free == 0


def test_a_look_of_a_delayed_lane_is_waited_for_as_long_as_it_may_start() -> None:
    one = Lane()
    here, given = one.here, replace(lane(drain_within_s=86_400.0), start_within_s=43_200.0, is_delayed=True)
    now = here.clock.now()
    ended = here.runner.add(1, {"BACKLOG": "500"})
    write_progress(here.store, ended.name, 0, replace(drained(), updated_at=now))
    here.runner.complete(ended.name, now)
    for late_s in range(600, 11 * 3600, 600):
        here.clock.advance(600)
        here.backlog.reading = Value(500, now + late_s - 60, 3600.0 + late_s)
        result = tick(given, here.outside)
        here.runner.all = {name: replace(info, running_count=0) for name, info in here.runner.all.items()}
    assert one.launches == [100]
    assert result.decision.hold_cause is HoldCause.HELD_ELSEWHERE
    assert "default-00001 looks for them" in result.decision.reason
