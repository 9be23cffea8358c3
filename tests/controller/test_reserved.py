"""Rounds at the same time under one budget: however they fall into one another, no more workers are launched than there are."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from batch.model.errors import DependencyUnavailable
from batch.model.names import lane_state_object
from controller.act.reserved import ACT_WITHIN_S, HELD_S, KEPT_S, LOOK_S, RESERVED, Book, Looked, Reservation
from controller.decide.budget import Quotas
from controller.decide.decision import HoldCause
from controller.model.reading import Value
from controller.tick.outside import Memory, Outside
from controller.tick.rounds import tick_lanes
from tests.controller.fakes import World, job, world

BUDGET = 10
QUOTAS = [Quotas(worker_budget=BUDGET), Quotas(cpu_quota_vcpu=float(BUDGET))]


def here_with(quotas: Quotas) -> World:
    """Two lanes of which each wants 20 workers where it has a backlog; one of them is worth 1 vCPU."""
    here = world([job("a"), job("b")])
    here.backlog_is(2000)
    here.outside = replace(here.outside, quotas=quotas)
    return here


def workers(here: World) -> int:
    return sum(info.task_count for info in here.runner.all.values())


class Interrupted:
    """Counts the calls to an outside, and does something else before one of them."""

    def __init__(self, at: int, other: Callable[[], None]) -> None:
        self.at, self.other, self.count = at, other, 0

    def outside(self, outside: Outside) -> Outside:
        """With a memory and a chance of its own, as another process has it."""
        store, runner, backlog = self._wrap(outside.store), self._wrap(outside.runner), self._wrap(outside.backlog)
        return replace(outside, store=store, runner=runner, backlog=backlog, memory=Memory(), rng=random.Random(1))

    def _wrap(self, thing: Any) -> Any:
        interrupted = self

        class Wrapped:
            def __getattr__(self, name: str) -> Any:
                found = getattr(thing, name)
                return interrupted._call(found) if callable(found) else found

        return Wrapped()

    def _call(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any, **more: Any) -> Any:
            self.count += 1
            if self.count == self.at:
                self.other()
            return function(*arguments, **more)

        return called


@pytest.mark.parametrize("quotas", QUOTAS)
@pytest.mark.parametrize(("names", "others"), [(["a"], ["b"]), ([], ["b"]), ([], [])])
def test_a_round_inside_another_takes_no_more_than_is_left(quotas: Quotas, names: list[str], others: list[str]) -> None:
    for at in range(1, 100):
        here = here_with(quotas)

        # The outer round sees the backlog of one lane, the inner one that of the other: each would take all that is free.
        here.backlog.by_name = {"b-sub": Value(0, here.clock.now())}

        def other(here: World = here) -> None:
            here.backlog.by_name = {"a-sub": Value(0, here.clock.now())}
            tick_lanes(here.outside, others)

        interrupted = Interrupted(at, other)
        tick_lanes(interrupted.outside(here.outside), names)
        assert workers(here) <= BUDGET, at
        if interrupted.count < at:
            return
        here.backlog.by_name = {}
        here.backlog_is(2000)
        tick_lanes(here.outside)
        assert workers(here) == BUDGET, (at, "what is free is used by the next round")
    raise AssertionError("a round has more calls than were tried")


def test_what_is_seen_to_run_is_not_counted_a_second_time_as_reserved() -> None:
    here = here_with(QUOTAS[0])
    here.backlog_is(400)
    tick_lanes(here.outside, ["a"])
    assert workers(here) == 4
    here.clock.advance(1)
    here.backlog_is(2000)
    tick_lanes(here.outside)
    assert workers(here) == BUDGET


def test_a_reservation_is_open_until_its_state_is_seen_later_or_its_time_is_over() -> None:
    one = Reservation("a", 4, 1.0, generation=7, at=1000.0, round_id="x")
    book = Book((one,))

    def open_at(at: float, generation: int, round_id: str = "y") -> bool:
        return bool(book.unseen({"a": Looked(at, generation)}, round_id, at))

    assert open_at(990, 6), "looked at before it was made"
    assert open_at(1000, 7)
    assert not open_at(1000, 8), "the intent is seen, or can never be saved"
    assert not open_at(1000, 7, "x"), "the round's own"
    assert open_at(1000 + HELD_S, 7)
    assert not open_at(1000 + HELD_S + 1, 7)
    assert not open_at(1000 - KEPT_S - 1, 7), "made by a clock that was far ahead"
    assert book.unseen({}, "y", 1000.0) == (one,), "its lane is gone"


class Killed(BaseException):
    """Nothing of the product catches it."""


def test_a_round_that_dies_at_any_step_takes_nothing_from_the_budget_for_long() -> None:
    def die() -> None:
        raise Killed

    for at in range(1, 100):
        here = here_with(QUOTAS[0])
        interrupted = Interrupted(at, die)
        try:
            tick_lanes(interrupted.outside(here.outside))
        except Killed:
            pass
        else:
            return
        for _ in range(3):
            here.clock.advance(60)
            here.backlog_is(2000)
            tick_lanes(here.outside)
        assert workers(here) == BUDGET, at
    raise AssertionError("a round has more calls than were tried")


def test_a_round_that_launches_nothing_does_not_touch_the_object() -> None:
    here = here_with(QUOTAS[0])
    here.backlog_is(0)
    tick_lanes(here.outside)
    tick_lanes(here.outside, dry_run=True)
    assert here.store.info(RESERVED) is None
    here.backlog_is(2000)
    tick_lanes(here.outside, dry_run=True)
    assert here.store.info(RESERVED) is None
    tick_lanes(replace(here.outside, quotas=Quotas()))
    assert (workers(here), here.store.info(RESERVED)) == (40, None)


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'{"reservations": [{"lane": "a"}]}', b'{"reservations": [NaN]}', b"\xff"])
def test_an_object_that_nobody_can_read_holds_the_launches_and_names_itself(body: bytes) -> None:
    here = here_with(QUOTAS[0])
    here.store.write(RESERVED, body)
    outcome = tick_lanes(here.outside)
    assert workers(here) == 0
    assert {result.decision.hold_cause for result in outcome.results if result.decision.wanted_workers} == {HoldCause.STATE_UNREADABLE}
    assert f"object {RESERVED} is unreadable" in outcome.results[0].decision.reason
    here.store.delete(RESERVED)
    tick_lanes(here.outside)
    assert workers(here) == BUDGET


def test_a_bucket_that_fails_holds_the_launches(monkeypatch: pytest.MonkeyPatch) -> None:
    here = here_with(QUOTAS[0])
    write = here.store.write

    def failing(name: str, *arguments: Any, **more: Any) -> Any:
        if name == RESERVED:
            raise DependencyUnavailable("503: the bucket")
        return write(name, *arguments, **more)

    monkeypatch.setattr(here.store, "write", failing)
    (first, _) = tick_lanes(here.outside).results
    assert (workers(here), "503: the bucket" in first.decision.reason) == (0, True)


def test_others_that_are_always_faster_hold_the_launches(monkeypatch: pytest.MonkeyPatch) -> None:
    here = here_with(QUOTAS[0])
    read = here.store.read_with_info

    def overtaken(name: str) -> Any:
        found = read(name)
        if name == RESERVED:
            here.store.write(RESERVED, found[0])
        return found

    here.store.write(RESERVED, b'{"reservations": []}')
    monkeypatch.setattr(here.store, "read_with_info", overtaken)
    (first, _) = tick_lanes(here.outside).results
    assert (workers(here), "other rounds keep taking workers" in first.decision.reason) == (0, True)


def test_who_was_held_up_after_reserving_launches_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    here = here_with(QUOTAS[0])
    write = here.store.write

    def slow(name: str, *arguments: Any, **more: Any) -> Any:
        found = write(name, *arguments, **more)
        here.clock.advance(ACT_WITHIN_S + 1 if name == RESERVED else 0)
        return found

    monkeypatch.setattr(here.store, "write", slow)
    (first, _) = tick_lanes(here.outside).results
    assert (workers(here), "91 s went by since workers of the shared budget" in first.decision.reason) == (0, True)


def test_who_took_too_long_to_look_reserves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    here = here_with(QUOTAS[0])
    read = here.store.read_with_info

    def slow(name: str) -> Any:
        here.clock.advance(LOOK_S + 1 if name == lane_state_object("b") else 0)
        return read(name)

    monkeypatch.setattr(here.store, "read_with_info", slow)
    tick_lanes(here.outside)
    assert (workers(here), here.store.info(RESERVED)) == (0, None)


def test_reservations_are_forgotten() -> None:
    here = here_with(QUOTAS[0])
    for _ in range(4):
        tick_lanes(here.outside)
        for name, info in here.runner.all.items():
            if info.live:
                here.runner.complete(name, here.clock.now())
        here.clock.advance(KEPT_S + 1)
        here.backlog_is(2000)
    assert len(json.loads(here.store.read(RESERVED))["reservations"]) == 2
    # One that a clock far ahead has left counts for nobody.
    later = {"lane": "a", "workers": 10, "vcpu": 1.0, "generation": 10**20, "at": here.clock.now() + 86_400, "round_id": "x"}
    here.store.write(RESERVED, json.dumps({"reservations": [later]}).encode())
    before = workers(here)
    tick_lanes(here.outside)
    assert workers(here) == before + BUDGET
