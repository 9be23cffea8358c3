"""Unknown is not zero: whatever cannot be known launches nothing, says why, troubles the exit code, and leaves the other lanes alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from batch.model.errors import DependencyForbidden, DependencyUnavailable
from batch.model.names import lane_state_object
from controller.act.state import FORMAT, load
from controller.decide.decision import HoldCause
from controller.model.reading import Reading, Unknown, Value
from controller.observe.backlog import WINDOW_S, Sample, judged
from controller.observe.jobs import JobInfo
from controller.tick.rounds import tick_lanes
from fanout.tick import exit_code
from tests.controller.fakes import World, job, world

NOW = 1_767_225_600.0


def reading_of(here: World, reading: Reading) -> None:
    here.backlog.by_name["ill-sub"] = reading


def corrupt(here: World, body: bytes) -> None:
    here.store.write(lane_state_object("ill"), body)


def list_fails(here: World) -> None:
    here.runner.add(1, {}, job=ILL)
    listing = here.runner.executions

    def executions(name: str) -> Iterator[object]:
        if name == ILL:
            raise DependencyUnavailable("cannot list the executions: 503")
        return listing(name)

    here.runner.executions = executions  # type: ignore[method-assign, assignment]


def progress_fails(here: World) -> None:
    info = here.runner.add(1, {}, job=ILL)
    listing = here.store.list

    def objects(prefix: str, start: str = "") -> Iterator[object]:
        if info.name in prefix:
            raise DependencyForbidden("403: workers/ may not be listed")
        return listing(prefix, start)

    here.store.list = objects  # type: ignore[method-assign, assignment]


ILL = "projects/p/locations/r/jobs/ill"
STALE = judged({"ill-sub": Sample(1000, NOW - WINDOW_S - 1)}, {}, "ill-sub", NOW)
EMPTY = judged({"ill-sub": None}, {}, "ill-sub", NOW)
AHEAD = judged({"ill-sub": Sample(1000, NOW + 600)}, {}, "ill-sub", NOW)
DOWN = judged("Cloud Monitoring did not give num_undelivered_messages: 503", {}, "ill-sub", NOW)
CASES: dict[str, tuple[Callable[[World], None], HoldCause, str]] = {
    "monitoring down": (lambda here: reading_of(here, DOWN), HoldCause.READING_UNKNOWN, "Cloud Monitoring did not give"),
    "a series without points": (lambda here: reading_of(here, EMPTY), HoldCause.READING_UNKNOWN, "came without points"),
    "a stale point": (lambda here: reading_of(here, STALE), HoldCause.READING_UNKNOWN, "s old"),
    "a point in the future": (lambda here: reading_of(here, AHEAD), HoldCause.READING_UNKNOWN, "compare the clocks"),
    "listing fails": (list_fails, HoldCause.LISTING_FAILED, "cannot list the executions: 503"),
    "progress may not be read": (progress_fails, HoldCause.LISTING_FAILED, "403: workers/ may not be listed"),
    "a corrupt state": (lambda here: corrupt(here, b'{"format": %d}' % FORMAT), HoldCause.STATE_UNREADABLE, "delete it to start afresh"),
    "a state of the future": (lambda here: corrupt(here, b'{"format": %d}' % (FORMAT + 1)), HoldCause.STATE_UNREADABLE, f"knows {FORMAT}"),
}


def scene(ill: JobInfo | None = None) -> World:
    here = world([job("fine"), ill or job("ill")])
    here.backlog.by_name = {"fine-sub": Value(250, here.clock.now() - 60, 5.0), "ill-sub": Value(250, here.clock.now() - 60, 5.0)}
    return here


@pytest.mark.parametrize("case", CASES)
def test_what_is_unknown_launches_nothing_and_says_why_while_others_are_served(case: str) -> None:
    make, cause, reason = CASES[case]
    here = scene()
    assert isinstance(here.backlog.by_name["ill-sub"], Value)
    make(here)
    outcome = tick_lanes(here.outside)
    fine, ill = outcome.results
    assert exit_code(outcome) != 0
    assert fine.launched
    assert {name for name, _ in here.runner.requests} == {"projects/p/locations/r/jobs/fine"}
    assert (ill.decision.hold_cause, ill.decision.troubled) == (cause, True)
    assert reason in ill.decision.reason


def test_a_malformed_annotation_refuses_its_job_alone() -> None:
    here = scene(job("ill", max_workers="many"))
    outcome = tick_lanes(here.outside)
    assert [result.decision.lane for result in outcome.results] == ["fine"]
    assert outcome.results[0].launched
    assert [one.job for one in outcome.refused] == ["ill"]
    assert "fanout/max-workers" in outcome.refused[0].problems[0]


def test_when_a_service_is_back_the_lane_goes_on_by_itself() -> None:
    here = scene()
    reading_of(here, Unknown("503"))
    tick_lanes(here.outside)
    here.clock.advance(60)
    here.backlog.by_name = {"fine-sub": Value(0, here.clock.now() - 1), "ill-sub": Value(250, here.clock.now() - 1, 5.0)}
    assert tick_lanes(here.outside).results[1].launched
    assert load(here.store, "ill").state.blind is None
