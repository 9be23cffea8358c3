"""The budget that lanes share: never more than there is, floors kept, nobody starved."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch.model.errors import DependencyUnavailable
from batch.model.names import lane_state_object
from controller.decide.budget import AGEING_S, Quotas, Want, aged_weights, allocated
from controller.model.execution import ExecutionInfo
from controller.model.reading import Idle, Value
from controller.tick.rounds import tick_lanes
from tests.controller.fakes import World, job, job_of, world

WANTS = st.lists(
    st.builds(
        Want,
        st.uuids().map(str),
        live_workers=st.integers(0, 40),
        wanted_workers=st.integers(0, 60),
        weight=st.sampled_from([0.5, 1.0, 10.0]),
        floor=st.integers(0, 10),
        oldest_age_s=st.none() | st.floats(0, 1e5),
    ),
    max_size=6,
)


@given(WANTS, st.integers(0, 150))
def test_grants_stay_within_budget_and_wants_and_leave_nothing_over_but_floors(wants: list[Want], budget: int) -> None:
    grants = allocated(wants, budget)
    live = sum(want.live_workers for want in wants)
    assert set(grants) == {want.lane for want in wants}
    assert all(0 <= grants[want.lane] <= want.wanted_workers for want in wants)
    assert live + sum(grants.values()) <= max(budget, live)
    kept = sum(max(0, want.floor - want.live_workers - grants[want.lane]) for want in wants)
    if any(grants[want.lane] < want.wanted_workers for want in wants):
        assert live + sum(grants.values()) + kept >= budget


@given(WANTS, st.integers(0, 150))
def test_a_floor_is_there_for_its_lane_whatever_the_others_want(wants: list[Want], budget: int) -> None:
    live = sum(want.live_workers for want in wants)
    floors = sum(max(want.floor, want.live_workers) for want in wants)
    grants = allocated(wants, budget)
    if floors <= budget:
        assert all(grants[want.lane] >= min(want.wanted_workers, want.floor - want.live_workers) for want in wants)
    if live >= budget:
        assert set(grants.values()) <= {0}


def test_what_is_free_goes_by_weight() -> None:
    wants = [Want("urgent", 0, 100, weight=3), Want("normal", 0, 100), Want("idle", 0, 0, weight=9)]
    assert allocated(wants, 20) == {"urgent": 15, "normal": 5, "idle": 0}
    assert allocated([Want("urgent", 15, 100, weight=3), Want("normal", 0, 3)], 20) == {"urgent": 2, "normal": 3}


def test_who_waits_long_weighs_more_and_never_more_than_the_heaviest() -> None:
    wants = [Want("urgent", 0, 9, weight=10, oldest_age_s=5), Want("bulk", 0, 9, weight=1, oldest_age_s=AGEING_S)]
    assert aged_weights(wants) == {"urgent": 10.0, "bulk": 2.0}
    assert aged_weights([wants[0], Want("bulk", 0, 9, oldest_age_s=1e9)]) == {"urgent": 10.0, "bulk": 10.0}


def test_ageing_alone_gives_a_lane_its_first_worker() -> None:
    """Four urgent workers live, and each minute one of five places becomes free."""
    for age_s in (0.0, AGEING_S):
        wants = [Want("urgent", 4, 1000, weight=10, oldest_age_s=0.0), Want("bulk", 0, 1000, oldest_age_s=age_s)]
        grants = allocated(wants, 5)
        assert grants == ({"urgent": 0, "bulk": 1} if age_s else {"urgent": 1, "bulk": 0})


# --- in whole ticks


class Lanes:
    """Three lanes that share 30 workers. A worker takes a minute for its share of 10 messages; urgent gets new ones without end."""

    def __init__(self, **floors: str) -> None:
        weights = {"urgent": "10", "normal": "3", "bulk": "1"}
        jobs = [
            job(name, weight=weight, strategy="share", max_messages="10", floor=floors.get(name, "0")) for name, weight in weights.items()
        ]
        self.here: World = world(jobs)
        self.outside = replace(self.here.outside, quotas=Quotas(worker_budget=30))
        self.left = {"urgent": 10**6, "normal": 300, "bulk": 300}
        self.since = dict.fromkeys(self.left, self.here.clock.now())
        self.most_alive = 0
        self.launched: dict[str, int] = dict.fromkeys(self.left, 0)

    def minute(self) -> None:
        """What was launched a minute ago has done its work; then a tick."""
        now = self.here.clock.now()
        for name, info in list(self.here.runner.all.items()):
            if info.live:
                lane = job_of(info).rsplit("/", 1)[-1]
                self.left[lane] = max(0, self.left[lane] - 10 * info.task_count)
                self.since[lane] = now
                self.here.runner.complete(name, now)
        age = {"urgent": 5.0, "normal": now - self.since["normal"], "bulk": now - self.since["bulk"]}
        # Executions are over and their messages are gone from the gauge: sampled since.
        self.here.clock.advance(40)
        now = self.here.clock.now()
        self.here.backlog.by_name = {f"{lane}-sub": Value(count, now, age[lane] if count else None) for lane, count in self.left.items()}
        before = len(self.here.runner.requests)
        tick_lanes(self.outside)
        for name, request in self.here.runner.requests[before:]:
            self.launched[name.rsplit("/", 1)[-1]] += request.task_count
        self.most_alive = max(self.most_alive, sum(info.task_count for info in self.here.runner.all.values() if info.live))
        self.here.clock.advance(20)


@pytest.mark.parametrize("floor", [3, 0])
def test_bulk_finishes_beside_an_endless_urgent_backlog(floor: int) -> None:
    lanes = Lanes(bulk=str(floor))
    minutes = 0
    while lanes.left["bulk"] or lanes.left["normal"]:
        lanes.minute()
        minutes += 1
        assert minutes < 60, lanes.left
    assert lanes.most_alive == 30
    assert lanes.launched["bulk"] == 30
    assert lanes.launched["urgent"] >= 15 * minutes


def limited(quotas: Quotas) -> World:
    here = world([job("a"), job("b"), job("c")])
    here.backlog_is(1000)
    return replace(here, outside=replace(here.outside, quotas=quotas))


def test_no_vcpu_is_given_out_twice() -> None:
    here = limited(Quotas(cpu_quota_vcpu=12.0))
    outcome = tick_lanes(here.outside)
    assert sum(request.task_count for _, request in here.runner.requests) == 12
    assert [one.decision.lane for one in outcome.results] == ["a", "b", "c"]
    here.clock.advance(30)
    tick_lanes(here.outside)
    assert sum(request.task_count for _, request in here.runner.requests) == 12


def test_no_run_call_is_given_out_twice() -> None:
    here = limited(Quotas(run_calls_per_minute=2))
    tick_lanes(here.outside)
    assert len(here.runner.requests) == 2
    here.clock.advance(30)
    tick_lanes(here.outside)
    assert len(here.runner.requests) == 2
    here.clock.advance(31)
    here.backlog_is(1000)
    tick_lanes(here.outside)
    assert len({name for name, _ in here.runner.requests}) == 3


def test_one_lane_alone_is_ticked_within_the_budget_of_all() -> None:
    here = limited(Quotas(worker_budget=12))
    tick_lanes(here.outside, ["a"])
    assert [(name.rsplit("/", 1)[-1], request.task_count) for name, request in here.runner.requests] == [("a", 4)]
    here.runner.add(10, {"BACKLOG": "1000"}, job="projects/p/locations/r/jobs/b")
    here.clock.advance(30)
    tick_lanes(here.outside, ["a"])
    assert len(here.runner.requests) == 1


def alive_in_b(here: World, workers: int) -> None:
    here.runner.add(workers, {"BACKLOG": "1000"}, job="projects/p/locations/r/jobs/b")


def launched_by(here: World, lane: str) -> int:
    return sum(request.task_count for name, request in here.runner.requests if name.endswith(f"/{lane}"))


def test_workers_of_a_lane_whose_state_cannot_be_read_are_counted() -> None:
    here = limited(Quotas(worker_budget=12))
    alive_in_b(here, 10)
    here.store.write(lane_state_object("b"), b"damaged")
    tick_lanes(here.outside)
    assert len(here.runner.requests) == 2
    assert launched_by(here, "a") + launched_by(here, "c") == 2


def test_where_they_cannot_be_counted_a_lane_has_as_many_as_it_may_have() -> None:
    here = limited(Quotas(worker_budget=12))
    here.runner.annotated["projects/p/locations/r/jobs/b"] = {"fanout/max-workers": "9"}
    alive_in_b(here, 1)
    here.store.write(lane_state_object("b"), b"damaged")
    listing = here.runner.executions

    def executions(name: str) -> Iterator[ExecutionInfo]:
        if name.endswith("/b"):
            raise DependencyUnavailable("503")
        return listing(name)

    here.runner.executions = executions  # type: ignore[method-assign, assignment]
    tick_lanes(here.outside)
    assert launched_by(here, "a") + launched_by(here, "c") == 3


def test_what_was_just_launched_counts_though_it_cannot_be_listed() -> None:
    here = limited(Quotas(worker_budget=12))
    here.backlog.by_name = {"a-sub": Idle(), "c-sub": Idle()}
    tick_lanes(here.outside)
    assert launched_by(here, "b") == 10
    here.backlog.by_name = {}
    here.clock.advance(30)
    here.backlog_is(1000)
    listing = here.runner.executions

    def executions(name: str) -> Iterator[ExecutionInfo]:
        if name.endswith("/b"):
            raise DependencyUnavailable("503")
        return listing(name)

    here.runner.executions = executions  # type: ignore[method-assign, assignment]
    tick_lanes(here.outside)
    assert launched_by(here, "a") + launched_by(here, "c") == 2
