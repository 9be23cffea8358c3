"""Launches that nobody knows the end of: found out as soon as is right, and harmless where they take effect after that."""

from __future__ import annotations

import pytest

from controller.act.intents import Intent, Part, PartState, parts_for
from controller.act.launcher import BEGIN_S, GRACE_S, LISTED_S, launch
from controller.act.state import load
from controller.decide.decision import Kind
from controller.observe.google_jobs import TIMEOUT_S
from controller.tick.results import TickResult
from tests.controller.fakes import World, lane, tick, world

TICK_S = 60.0


@pytest.fixture
def here() -> World:
    return world()


def ticked(here: World, count: int = 1000) -> TickResult:
    here.backlog_is(count)
    return tick(lane(), here.outside)


def crashed(here: World, *, effect: bool = False) -> Part:
    """The controller dies over its launch of 10 workers, which takes effect or does not."""
    here.runner.effect_before_error = effect
    here.runner.run_errors = [KeyboardInterrupt()]  # type: ignore[list-item]
    with pytest.raises(KeyboardInterrupt):
        ticked(here)
    return parts(here)[0]


def parts(here: World) -> list[Part]:
    return [part for intent in load(here.store, "default").state.intents for part in intent.parts]


def test_no_launch_is_begun_any_more_when_it_may_be_given_up() -> None:
    assert BEGIN_S + TIMEOUT_S <= GRACE_S
    assert GRACE_S + 10 < TICK_S, "a tick takes a while itself: the next one is to find it"


def test_after_a_crash_before_the_launch_the_backlog_waits_for_one_tick(here: World) -> None:
    crashed(here)
    here.clock.advance(TICK_S)
    assert ticked(here).decision.workers == 10
    assert [part.state for part in parts(here)] == [PartState.ABANDONED, PartState.LAUNCHED]


def test_after_a_crash_behind_the_launch_nothing_is_launched_again(here: World) -> None:
    crashed(here, effect=True)
    here.clock.advance(TICK_S)
    assert ticked(here).decision.kind is Kind.NOTHING_TO_DO
    assert [part.state for part in parts(here)] == [PartState.LAUNCHED]


def test_a_launch_may_be_among_what_is_counted_and_not_listed(here: World) -> None:
    crashed(here, effect=True)
    here.runner.hidden.update(here.runner.all)
    here.clock.advance(1)
    here.runner.add(1, {"MAX_MESSAGES": "1"})
    here.clock.advance(GRACE_S)
    assert ticked(here).launched == ()
    assert [part.state for part in parts(here)] == [PartState.PENDING]
    here.clock.advance(LISTED_S + 1)
    assert ticked(here).launched
    assert [part.state for part in parts(here)] == [PartState.ABANDONED, PartState.LAUNCHED]


def test_who_was_held_up_too_long_after_saving_begins_no_launch(here: World) -> None:
    intent = Intent("d", here.clock.now(), parts_for("d", 20, 20, most=10))
    times = iter([intent.saved_at + BEGIN_S, intent.saved_at + BEGIN_S + 1])
    done = launch(lane(), intent, here.runner, lambda: next(times)).intent
    assert [part.state for part in done.parts] == [PartState.LAUNCHED, PartState.REFUSED]
    assert "not tried: 16 s went by since it was decided" in done.parts[1].reason
    assert len(here.runner.requests) == 1


def test_workers_that_will_find_their_claim_taken_hold_up_nobody(here: World) -> None:
    part = crashed(here)
    here.clock.advance(TICK_S)
    given_up = ticked(here, 0)
    assert [one.state for one in parts(here)] == [PartState.ABANDONED], given_up
    here.clock.advance(TICK_S)
    here.runner.add(part.workers, {"BACKLOG": str(part.backlog), "DECISION_ID": part.decision_id})
    result = ticked(here)
    assert (result.decision.workers, result.decision.backlog) == (10, 1000)
    ledger = result.decision.ledger
    assert ledger is not None
    assert (ledger.live_worker_count, "given up" in ledger.entries[0].note) == (10, True), "they are alive until they end"
