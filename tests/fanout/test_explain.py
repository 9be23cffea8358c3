"""`fanout explain`: the decision of a time, argued from what was kept; the golden text is of a decision that went through the state."""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random

import pytest
from click.testing import Result

from batch.model.clock import from_iso, iso
from batch.model.errors import DependencyUnavailable
from batch.model.names import history_folder, history_object
from controller.act.history import write_history
from controller.act.intents import new_decision_id
from controller.act.state import LaneState, Unwritten
from fanout import explain, tick
from fanout.explain import moment
from tests.controller.fakes import World, history
from tests.controller.test_explanation import GOLDEN, realistic

Run = Callable[..., Result]
NOON = from_iso("2026-01-31T12:00:00Z")


def test_a_decision_that_was_kept_is_argued_as_it_was_made(here: World) -> None:
    decision = realistic()
    state, _ = write_history(here.store, LaneState("default").with_decision(decision, new_decision_id(decision.decided_at, Random(1))))
    late = explain.explanation(here.store, state.with_unwritten([Unwritten("x", {})]), at=decision.decided_at, now=decision.decided_at)
    assert late.lines[-1] == "  note: 1 of the history could not be written yet, the next tick tries again; see its notes"
    first, *rest = GOLDEN.splitlines()[:-1]
    assert explain.explanation(here.store, state, at=decision.decided_at + 60, now=decision.decided_at + 720).lines == (
        first,
        "  decided: 1970-01-12T13:46:40.000000Z, 12 min ago; ages and counts below are as of then",
        *rest,
        "  next: none is kept that is younger",
    )


def decide_thrice(here: World, run: Run) -> list[str]:
    """Nothing to do, a launch, a hold: a minute apart. Their times."""
    times = []
    for count in (0, 10, None):
        times.append(iso(here.clock.now()))
        if count is None:
            here.runner.list_errors = [DependencyUnavailable("503")]
            here.backlog_is(10)
            here.runner.add(1, {})
        else:
            here.backlog_is(count)
        run(tick.tick, "default")
        here.clock.advance(60)
    return times


def test_the_nearest_decision_before_a_time(here: World, run: Run) -> None:
    empty, launch, hold = decide_thrice(here, run)
    assert run(explain.command, "default").output.startswith("lane default: on hold: what runs already is unknown: 503")
    at_launch = run(explain.command, "default", "--at", launch).output.splitlines()
    assert at_launch[0] == "lane default: launch: 1 worker for 10 of 10 unassigned messages"
    assert at_launch[-2:] == ["  launched default-00000", f"  next: another decision at {hold}"]
    between = run(explain.command, "default", "--at", "2m").output
    assert between.splitlines()[1] == f"  decided: {launch}, 2 min ago; ages and counts below are as of then"
    assert run(explain.command, "default", "--at", empty).output.startswith("lane default: nothing to do: the backlog is 0")


def test_a_time_before_all_that_is_kept_says_so(here: World, run: Run) -> None:
    empty, *_ = decide_thrice(here, run)
    result = run(explain.command, "default", "--at", "1h")
    assert result.exit_code == 1
    assert "no decision is kept from before" in result.output
    assert f"the oldest is of {empty}; older ones may be in the controller's log" in result.output


def test_a_lane_without_decisions_says_what_to_do(here: World, run: Run) -> None:
    result = run(explain.command, "bulk")
    assert result.exit_code == 1
    assert result.output == "lane bulk: no decision is kept: no tick has decided for it yet; `fanout plan bulk` says what one would do\n"


def test_json_has_the_decision_as_it_was_kept(here: World, run: Run) -> None:
    _, launch, hold = decide_thrice(here, run)
    (body,) = json.loads(run(explain.command, "default", "--at", launch, "--json").output)["explanations"]
    kept = history(here.store)[1]
    assert (body["lane"], body["decision"], body["next_decided_at"], body["problem"]) == (
        "default",
        json.loads(json.dumps(kept)),
        hold,
        None,
    )
    assert body["lines"][0].startswith("lane default: launch")


def test_what_another_version_wrote_is_told_as_such(here: World, run: Run) -> None:
    body = json.dumps({"decided_at": iso(here.clock.now()), "kind": "ponder"}).encode()
    here.store.write(history_object("default", here.clock.now(), new_decision_id(here.clock.now(), Random(1))), body)
    result = run(explain.command, "default")
    assert (result.exit_code, "was written by another version and cannot be read" in result.output) == (1, True)


def test_a_damaged_decision_is_told_and_the_one_before_it_is_explained(here: World, run: Run) -> None:
    _, launch, hold = decide_thrice(here, run)
    name = list(here.store.list(history_folder("default")))[-1].name
    here.store.write(name, b"{")
    result = run(explain.command, "default")
    assert (result.exit_code, f"object {name} is damaged and left out" in result.output) == (1, True)
    before = run(explain.command, "default", "--at", launch).output.splitlines()
    assert (before[0], hold in before[-1]) == ("lane default: launch: 1 worker for 10 of 10 unassigned messages", False)


def test_an_unreadable_state_does_not_hide_the_other_lanes(here: World, run: Run) -> None:
    decide_thrice(here, run)
    here.store.write("controller/bulk.json", b"{")
    result = run(explain.command)
    assert result.exit_code == 1
    assert "lane bulk: object controller/bulk.json is not a lane's state" in result.output
    assert "lane default: on hold" in result.output


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2026-01-31T03:10", NOON - 8 * 3600 - 50 * 60),
        ("2026-01-31T03:10:00+01:00", NOON - 9 * 3600 - 50 * 60),
        ("03:10", NOON - 8 * 3600 - 50 * 60),
        ("3:10:30", NOON - 8 * 3600 - 50 * 60 + 30),
        ("12:00", NOON),
        ("12:01", NOON + 60 - 86400),
        ("90s", NOON - 90),
        ("2h", NOON - 7200),
    ],
)
def test_moments(text: str, seconds: float) -> None:
    assert moment(text, NOON) == seconds


@pytest.mark.parametrize("text", ["", "yesterday", "25:00", "2026-13-01", "0s", "-5m", "12"])
def test_what_is_no_moment_is_a_usage_error(here: World, run: Run, text: str) -> None:
    with pytest.raises(ValueError, match="that long ago"):
        moment(text, NOON)
    if text:
        assert run(explain.command, "--at", text).exit_code == 2
