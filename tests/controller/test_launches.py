"""Launches that Cloud Run refuses: waited for where it is too much, said beforehand where it can be seen, and told with the remedy."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from controller.act.intents import PartState
from controller.act.launcher import FIRST_BACKOFF_S, LONGEST_BACKOFF_S, refused_count
from controller.act.state import load
from controller.decide.budget import Quotas
from controller.decide.decision import HoldCause, Kind
from controller.lanes.lanes import lane_of
from controller.observe.containers import Container
from controller.observe.jobs import LaunchRefused, LaunchThrottled
from controller.tick.outside import Memory
from controller.tick.results import TickResult, explained
from tests.controller.fakes import World, job, lane, tick, world


@pytest.fixture
def here() -> World:
    return world()


def ticked(here: World, **changes: object) -> TickResult:
    here.backlog_is(1000)
    return tick(lane(**changes), here.outside)


def test_too_many_launches_make_the_lane_wait_longer_each_time(here: World) -> None:
    begin = here.clock.now()
    here.runner.run_errors = [LaunchThrottled(f"429: quota, number {number}") for number in range(8)]
    tried: list[float] = []
    while here.runner.run_errors:
        count = len(here.runner.requests)
        ticked(here)
        if len(here.runner.requests) > count:
            tried.append(here.clock.now() - begin)
        here.clock.advance(10)
    waits = [later - earlier for earlier, later in pairwise(tried)]
    expected = [min(FIRST_BACKOFF_S * 2.0**number, LONGEST_BACKOFF_S) for number in range(7)]
    # Up to a quarter longer by chance, and a tick comes only every 10 s.
    assert all(least <= wait <= least * 1.25 + 10 for least, wait in zip(expected, waits, strict=True)), waits


def test_a_lane_that_waits_says_until_when_and_why_and_then_goes_on(here: World) -> None:
    here.runner.run_errors = [LaunchThrottled("429: run requests per minute")]
    first = ticked(here)
    assert first.failures == (f"{first.decision.decision_id}.0: 429: run requests per minute",)
    here.clock.advance(10)
    waiting = ticked(here)
    assert (waiting.decision.kind, waiting.decision.hold_cause, waiting.decision.workers) == (Kind.HOLD, HoldCause.THROTTLED, 0)
    assert waiting.decision.troubled
    assert "no launch before 00:00:" in waiting.decision.reason
    assert "run requests per minute" in "\n".join(explained(waiting))
    here.clock.advance(60)
    assert ticked(here).launched
    assert load(here.store, "default").state.backoff is None


def test_after_too_many_launches_half_as_many_workers_are_tried_until_some_start(here: World) -> None:
    here.runner.run_errors = [LaunchThrottled("429"), LaunchThrottled("429")]
    sizes: list[int] = []
    for _ in range(4):
        sizes.append(ticked(here).decision.workers)
        here.clock.advance(100)
    assert [request.task_count for _, request in here.runner.requests] == sizes
    assert sizes == [10, 5, 2, 8], "beside the 200 messages of those that started there is no cap any more"


def test_a_smaller_launch_says_that_cloud_run_refused_the_larger_one(here: World) -> None:
    here.runner.run_errors = [LaunchThrottled("429")]
    ticked(here)
    here.clock.advance(100)
    found = ticked(here).decision
    assert (found.workers, found.backlog) == (5, 500)
    (cap,) = [one for one in found.caps if one.name == "throttled"]
    assert (cap.limit, cap.before, cap.after, cap.why) == (5, 10, 5, "half of the 10 that Cloud Run refused to start")
    assert "throttled decides: at most 5, where 10 were wanted" in found.reason


def test_a_refusal_of_a_while_ago_makes_no_launch_smaller(here: World) -> None:
    here.runner.run_errors = [LaunchThrottled("429")]
    ticked(here)
    here.clock.advance(2 * LONGEST_BACKOFF_S)
    assert ticked(here).decision.workers == 10


def test_only_what_was_refused_counts_and_one_worker_is_always_tried(here: World) -> None:
    here.runner.run_errors = [None, LaunchThrottled("429")]
    here.backlog_is(10_001)
    tick(lane(max_messages=1, max_workers=30_000), here.outside)
    backoff = load(here.store, "default").state.backoff
    assert backoff is not None
    assert (backoff.workers, refused_count(backoff, here.clock.now())) == (1, 1)
    here.clock.advance(100)
    here.backlog_is(20_000)
    assert tick(lane(max_messages=1, max_workers=30_000), here.outside).decision.workers == 1


def test_parts_after_a_throttled_one_are_not_tried_and_all_have_their_reason(here: World) -> None:
    here.runner.run_errors = [None, LaunchThrottled("429")]
    here.backlog_is(25_000)
    result = tick(lane(max_messages=1, max_workers=30_000), here.outside)
    parts = result.intent.parts if result.intent else ()
    assert [part.state for part in parts] == [PartState.LAUNCHED, PartState.REFUSED, PartState.REFUSED]
    assert all(part.reason for part in parts[1:])
    assert len(here.runner.requests) == 2


def test_a_refusal_that_is_none_of_number_is_tried_by_the_next_tick(here: World) -> None:
    here.runner.run_errors = [LaunchRefused("400: no")]
    ticked(here)
    here.clock.advance(10)
    assert ticked(here).launched


def test_nothing_is_launched_for_a_job_that_breaks_a_rule(here: World) -> None:
    held = ticked(here, problems=("job default: parallelism=11: must be 0", "job default: another"))
    assert (held.decision.kind, held.decision.hold_cause) == (Kind.HOLD, HoldCause.MISCONFIGURED)
    assert "parallelism=11" in held.decision.reason
    assert "1 more: `fanout doctor default`" in held.decision.reason
    assert here.runner.requests == []
    assert ticked(here).launched


@pytest.mark.parametrize("beside", [(), (Container("proxy", "envoy", ("envoy",)),)])
def test_a_launch_names_the_container_of_a_job_with_several(here: World, beside: tuple[Container, ...]) -> None:
    (drains,) = job().containers
    found = lane_of(replace(job(), containers=(*beside, replace(drains, name="main"))))
    here.backlog_is(1000)
    tick(found, here.outside)
    ((_, request),) = here.runner.requests
    assert (found.problems, request.container) == ((), "main" if beside else "")


def test_no_run_calls_left_this_minute_launches_nothing_and_says_so(here: World) -> None:
    for _ in range(60):
        here.outside.memory.remember_run_call(here.clock.now())
    here.clock.advance(30)
    held = ticked(here)
    assert here.runner.requests == []
    assert "run-calls" in "\n".join([*explained(held), *(cap.name for cap in held.decision.caps)])
    here.clock.advance(31)
    assert ticked(here).launched


def test_run_calls_of_another_controller_are_known_from_the_states(here: World) -> None:
    other = replace(here.outside, memory=Memory(), quotas=Quotas(run_calls_per_minute=1))
    assert ticked(here).launched
    here.clock.advance(30)
    here.backlog_is(5000)
    assert tick(lane(), other).launched == ()
    here.clock.advance(31)
    here.backlog_is(5000)
    assert tick(lane(), other).launched
