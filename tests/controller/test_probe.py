"""Probes: one worker after a long silence of the gauge, ever more seldom, and none for a lane that nobody uses."""

from __future__ import annotations

import json
from dataclasses import asdict
from itertools import pairwise

import pytest

from controller.act.state import load
from controller.decide.decision import Kind
from controller.decide.ledger import Ledger
from controller.decide.policy import decision_for
from controller.decide.probe import LONGEST_WAIT_S, Blind, probe_due, unfinished
from controller.model.execution import ExecutionInfo, Worked
from controller.model.plain import read
from controller.model.reading import Idle, Reading, Unknown, Value
from tests.controller.fakes import JOB, World, lane, progress, tick, world

WEEK_MIN = 7 * 24 * 60
NOTHING_ALIVE = Ledger(0.0)


def launches(reading: Reading, minutes: int, *, unfinished_count: int = 0) -> list[float]:
    """Minutes at which a worker is launched, one tick a minute, each knowing what the last decision left."""
    blind: Blind | None = None
    found: list[float] = []
    for minute in range(minutes):
        now = minute * 60.0
        decision = decision_for(lane(), reading, NOTHING_ALIVE, now=now, blind=blind, unfinished_count=unfinished_count)
        if decision.kind is Kind.LAUNCH:
            assert (decision.workers, decision.probe) == (1, True)
            found.append(minute)
        blind = decision.blind
    return found


def test_a_quiet_lane_costs_nothing_for_a_week() -> None:
    assert launches(Idle(), WEEK_MIN) == []


def test_a_long_unknown_is_probed_ever_more_seldom() -> None:
    found = launches(Unknown("503"), WEEK_MIN)
    assert found[:4] == [10, 30, 70, 150]
    gaps = [later - earlier for earlier, later in pairwise(found)]
    assert max(gaps) == LONGEST_WAIT_S / 60
    assert len(found) < 40


def test_an_idle_lane_is_probed_while_accepted_tasks_are_unfinished() -> None:
    assert launches(Idle(), 15, unfinished_count=5) == [0]
    assert launches(Idle(), 22, unfinished_count=5) == [0, 20]


def ticked(reading: Reading, minutes: int) -> tuple[World, list[int]]:
    """The real tick every minute; each worker it launches finds nothing and ends. The minutes of the launches."""
    here = world()
    here.backlog.reading = reading
    found = []
    for minute in range(minutes):
        launched = tick(lane(), here.outside).launched
        found += [minute] if launched else []
        for name in launched:
            here.runner.complete(name, here.clock.now() + 20)
        here.clock.advance(60)
    return here, found


def test_a_tick_remembers_how_long_the_gauge_has_been_silent() -> None:
    here, found = ticked(Unknown("503"), 75)
    assert found == [10, 30, 70]
    assert [request.task_count for _, request in here.runner.requests] == [1, 1, 1]


def test_ticks_over_an_idle_lane_write_and_list_nothing() -> None:
    here, found = ticked(Idle(), 60)
    assert (found, here.runner.listing_count) == ([], 0)
    assert load(here.store, "default").state.epoch <= 1


@pytest.mark.parametrize(
    ("reading", "blind", "now", "due"),
    [
        (Value(5, 0.0), Blind(0.0), 1e6, False),
        (Idle(), None, 1e6, False),
        (Unknown("x"), None, 1e6, False),
        (Unknown("x"), Blind(0.0), 599.0, False),
        (Unknown("x"), Blind(0.0), 600.0, True),
        (Unknown("x"), Blind(0.0, 1, 600.0), 1799.0, False),
        (Unknown("x"), Blind(0.0, 1, 600.0), 1800.0, True),
        (Unknown("x"), Blind(0.0, 10**6, 600.0), 600.0 + LONGEST_WAIT_S, True),
    ],
)
def test_when_a_probe_is_due(reading: Reading, blind: Blind | None, now: float, due: bool) -> None:
    assert probe_due(reading, blind, 600.0, now) is due


def test_unfinished_is_what_was_accepted_and_nobody_acknowledged_since() -> None:
    done = progress(100, 1000.0, updated_at=1100.0, acked=60, marks=((945, 0), (960, 10), (990, 20), (1005, 30)))
    worked = Worked(ExecutionInfo(f"{JOB}/executions/default-aaaaa", 1, 990.0), {0: [done]})
    assert unfinished((), [worked]) == 0
    assert unfinished(((1000.0, 40), (1010.0, 30)), [worked]) == 70 - (60 - 10)  # by the mark 30 s before the first was accepted
    assert unfinished(((1000.0, 40),), [worked]) == 0


def test_it_goes_through_the_state_as_json() -> None:
    blind = Blind(1.5, 2, 3.5)
    assert read(Blind, json.loads(json.dumps(asdict(blind)))) == blind
    with pytest.raises(ValueError, match="nan"):
        read(Blind, {"since": float("nan"), "probe_count": 0, "probed_at": 0})
