"""Listing: everything that matters is found, whatever the list hides, and old executions cost nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batch.model.errors import DependencyUnavailable
from batch.model.names import lane_state_object, progress_folder
from batch.services.ports import ObjectInfo
from bench.lanes import Project
from controller.act.intents import Intent, Part
from controller.act.state import LaneState, Stored, load
from controller.decide.decision import HoldCause, Kind
from controller.decide.probe import Blind
from controller.decide.unassigned.since import Group, Waiting
from controller.model.execution import ExecutionInfo, WorkerInfo
from controller.model.reading import Idle, Reading, Unknown, Value
from controller.observe.jobs import JobInfo, RunRequest
from controller.observe.listing import OVERLAP_S, SHORT_S, Listed, Observed, Seen, list_executions, observed, shortage
from tests.controller.fakes import JOB, World, lane, tick, world, write_progress
from tests.controller.fakes import progress as progress_of
from tests.controller.test_delayed import delay

START = 1_000_000.0
DAY_S = 86_400.0


@dataclass
class Job:
    """A job's executions; `unlisted` are not in the list yet, `deleted` are gone and were counted."""

    all: list[ExecutionInfo] = field(default_factory=list)
    unlisted: set[str] = field(default_factory=set)
    deleted: set[str] = field(default_factory=set)
    uid: str = "u1"
    listed_count: int = 0
    read: list[str] = field(default_factory=list)

    def add(self, at: float, *, live: bool = True) -> ExecutionInfo:
        info = ExecutionInfo(f"{JOB}/executions/default-{len(self.all):05d}", 1, at, completed_at=None if live else at + 1)
        self.all.append(info)
        return info

    def info(self) -> JobInfo:
        latest = self.all[-1].name if self.all else ""
        return JobInfo(JOB, uid=self.uid, execution_count=len(self.all), latest_execution=latest)

    def executions(self, job: str) -> Iterator[ExecutionInfo]:
        for one in reversed(self.all):
            if one.full_name not in self.unlisted | self.deleted:
                self.listed_count += 1
                yield one

    def execution(self, full_name: str) -> ExecutionInfo | None:
        self.read.append(full_name)
        return next((one for one in self.all if one.full_name == full_name and full_name not in self.deleted), None)

    def jobs(self) -> list[JobInfo]:
        return [self.info()]

    def workers(self, execution: str) -> Sequence[WorkerInfo]:
        return ()

    def run(self, job: str, request: RunRequest) -> ExecutionInfo:
        raise NotImplementedError

    def set_annotation(self, job: str, key: str, value: str) -> None:
        raise NotImplementedError


def look(job: Job, before: Observed, now: float, told: JobInfo | None = None, **options: float) -> tuple[Listed, Observed]:
    """One look, and what the next one begins with: what is alive, or has ended lately, stays in it."""
    info = told or job.info()
    found = list_executions(info, before, job, lambda _name: None, now=now, oldest=now - DAY_S, **options)
    kept = [one for one in found.executions if one.completed_at is None or one.completed_at > now - 600]
    return found, observed(info, before, found, kept, now)


def names(found: Listed) -> list[str]:
    return [one.name[-2:] for one in found.executions]


def test_the_first_look_lists_a_day_and_the_next_nothing() -> None:
    job = Job()
    for number in range(50):
        job.add(START + number, live=number > 47)
    found, before = look(job, Observed(), START + 1000)
    assert (len(found.executions), job.listed_count, before.counted) == (50, 50, 50)
    job.listed_count, job.read = 0, []
    found, after = look(job, before, START + 1060)
    assert (names(found), job.listed_count, len(job.read)) == (["49", "48"], 0, 2)
    assert after == before


def test_a_grown_count_is_listed_until_that_many_new_ones_are_seen() -> None:
    job = Job()
    for number in range(50):
        job.add(START + number, live=False)
    _, before = look(job, Observed(), START + 1000)
    job.listed_count = 0
    job.add(START + 1010)
    job.add(START + 1020)
    found, after = look(job, before, START + 1060)
    assert (names(found), job.listed_count, after.counted) == (["51", "50"], 3, 52)


def test_what_came_after_the_count_is_found_and_not_counted_twice() -> None:
    job = Job()
    _, before = look(job, Observed(), START)
    job.add(START + 10)
    told = job.info()
    job.add(START + 20)
    found, before = look(job, before, START + 30, told)
    assert (names(found), before.counted) == (["01", "00"], 2)
    job.listed_count = 0
    found, _ = look(job, before, START + 90)
    assert (names(found), job.listed_count) == (["01", "00"], 0)


def test_the_newest_is_read_by_name_when_the_list_does_not_show_it() -> None:
    job = Job()
    _, before = look(job, Observed(), START)
    job.unlisted.add(job.add(START + 10).full_name)
    found, after = look(job, before, START + 30)
    assert (names(found), found.missing_count, after.counted) == (["00"], 0, 1)


def test_what_is_counted_and_not_listed_is_told_until_it_shows() -> None:
    job = Job()
    _, before = look(job, Observed(), START)
    late = job.add(START + 10).full_name
    job.add(START + 20)
    job.unlisted.add(late)
    found, before = look(job, before, START + 30)
    assert (names(found), found.missing_count, before.counted) == (["01"], 1, 1)
    assert "Cloud Run counts 1 execution of default more than it lists" in shortage("default", found, 0)
    assert shortage("default", found, 1) == ""
    job.unlisted.clear()
    found, after = look(job, before, START + 90)
    assert (names(found), found.missing_count, after.counted, after.short_since) == (["01", "00"], 0, 2, None)


def test_what_never_shows_was_deleted() -> None:
    job = Job()
    _, before = look(job, Observed(), START)
    job.deleted.add(job.add(START + 10).full_name)
    job.add(START + 20)
    _, before = look(job, before, START + 30)
    found, before = look(job, before, START + 31 + SHORT_S)
    assert (found.missing_count, before.counted) == (0, 2)
    assert "deleted" in found.notes[0]
    job.listed_count = 0
    look(job, before, START + 300)
    assert job.listed_count == 0


def test_a_look_that_a_clock_far_ahead_has_timed_hides_nothing() -> None:
    job = Job()
    _, before = look(job, Observed(), START)
    job.add(START + 10)
    job.add(START + 20)
    found, _ = look(job, replace(before, listed_at=START + DAY_S), START + 30)
    assert (names(found), found.missing_count) == (["01", "00"], 0)


def test_a_wait_that_a_clock_far_ahead_has_begun_ends_in_time() -> None:
    job = Job()
    _, before = look(job, Observed(), START)
    job.deleted.add(job.add(START + 10).full_name)
    job.add(START + 20)
    _, before = look(job, before, START + 30)
    found, before = look(job, replace(before, short_since=START + DAY_S), START + 60)
    assert (found.missing_count, found.short_since) == (1, START + 60)
    found, _ = look(job, before, START + 61 + SHORT_S)
    assert found.missing_count == 0


def test_an_older_answer_changes_nothing_and_another_job_of_the_name_is_listed_anew() -> None:
    job = Job()
    told = job.info()
    job.add(START)
    _, before = look(job, Observed(), START + 10)
    found, after = look(job, before, START + 20, told)
    assert (names(found), after) == (["00"], before)
    new = Job(uid="u2")
    new.add(START + 30)
    found, after = look(new, before, START + 60)
    assert (names(found), after.counted, after.job_uid) == (["00"], 1, "u2")


def test_a_count_that_stays_or_falls_hides_nothing() -> None:
    """In case it is that of the executions that still exist: old ones are deleted as new ones come."""
    job = Job()
    for number in range(50):
        job.add(START + number, live=False)
    full = replace(job.info(), execution_count=50)
    _, before = look(job, Observed(), START + 1000, full)
    job.listed_count = 0
    new = job.add(START + 1010)
    found, before = look(job, before, START + 1060, replace(job.info(), execution_count=50))
    assert (names(found), before.counted, before.latest) == (["50"], 50, new.name)
    assert job.listed_count <= 2
    job.listed_count = 0
    found, before = look(job, before, START + 1120, replace(job.info(), execution_count=40))
    assert (names(found), before.counted, job.listed_count) == (["50"], 40, 0)
    job.add(START + 1130)
    found, _ = look(job, before, START + 1180, replace(job.info(), execution_count=41))
    assert names(found) == ["51", "50"]


def test_an_unclear_launch_is_looked_for_as_far_back_as_it_was_tried() -> None:
    job = Job()
    for number in range(50):
        job.add(START + 10 * number, live=False)
    _, before = look(job, Observed(), START + 600)
    job.listed_count = 0
    look(job, before, START + 610, look_back_to=START + 455)
    assert job.listed_count == 5


@settings(max_examples=200)
@given(st.data())
def test_nothing_alive_is_ever_missed_without_being_told(data: st.DataObject) -> None:
    """Executions come at any time, also between count and list; lists lag, counts are old, executions are deleted and end."""
    job, before, now = Job(), Observed(), START
    skew_s = data.draw(st.sampled_from([-100.0, 0.0, 100.0]), "Cloud Run's clock")
    told, told_at, counted = job.info(), now, list(job.all)
    _, before = look(job, before, now)
    for _ in range(data.draw(st.integers(1, 8), "looks")):
        now += data.draw(st.sampled_from([1.0, 60.0, 400.0]), "wait")
        for _ in range(data.draw(st.integers(0, 3), "launches")):
            info = job.add(now + skew_s + len(job.all) / 1000, live=data.draw(st.booleans(), "live"))
            if data.draw(st.booleans(), "lags"):
                job.unlisted.add(info.full_name)
        job.unlisted -= {one.full_name for one in job.all if one.created_at < now + skew_s - SHORT_S / 2}
        if now - told_at > OVERLAP_S / 2 or data.draw(st.booleans(), "fresh"):
            told, told_at, counted = job.info(), now, list(job.all)
        if data.draw(st.booleans(), "after the count"):
            job.add(now + skew_s + len(job.all) / 1000)
        found, before = look(job, before, now, told)
        seen = {one.full_name for one in found.executions}
        missed = [one for one in counted if one.live and one.full_name not in seen]
        assert len(missed) <= found.missing_count


# --- in a whole tick


@pytest.fixture
def here() -> World:
    return world()


def test_while_the_list_is_short_the_lane_is_held_and_then_goes_on(here: World, monkeypatch: pytest.MonkeyPatch) -> None:
    here.backlog_is(0)
    tick(lane(), here.outside)
    hidden = here.runner.add(2, {"BACKLOG": "900"})
    here.runner.hidden.add(hidden.name)
    here.runner.complete(here.runner.add(1, {}).name, here.clock.now())
    here.clock.advance(60)
    here.backlog_is(1000)
    held = tick(lane(), here.outside).decision
    assert (held.hold_cause, here.runner.requests) == (HoldCause.LISTING_FAILED, [])
    assert "more than it lists" in held.reason
    here.runner.hidden.clear()
    here.clock.advance(60)
    here.backlog_is(1000)
    assert tick(lane(), here.outside).decision.backlog == 100


def test_what_was_read_of_an_execution_after_its_end_is_not_read_again(here: World, monkeypatch: pytest.MonkeyPatch) -> None:
    info = here.runner.add(1, {"BACKLOG": "70"})
    write_progress(here.store, info.name, 0, progress_of(70, here.clock.now(), acked=70, taken=70, exit_reason="share_done"))
    here.runner.complete(info.name, here.clock.now())
    here.backlog_is(0)
    folders: list[str] = []
    listing = here.store.list

    def objects(prefix: str) -> Iterator[ObjectInfo]:
        folders.append(prefix)
        return listing(prefix)

    monkeypatch.setattr(here.store, "list", objects)
    for count in (0, 200, 0):
        here.backlog_is(count)
        tick(lane(), here.outside)
        here.clock.advance(60)
    assert folders.count(progress_folder(info.name)) == 1


QUIET = LaneState("default", observed=Observed("", 0))
NOT_QUIET = {
    "a pending launch": replace(QUIET, intents=(Intent("d", 0.0, (Part("d.0", 1, 1),)),)),
    "accepted tasks": QUIET.with_accepted(1_767_225_600.0, 5),
    "something alive": replace(QUIET, observed=replace(QUIET.observed, executions=(Seen(f"{JOB}/executions/default-a", 1, True),))),
    "more executions": replace(QUIET, observed=Observed("", 7)),
    "another execution": replace(QUIET, observed=Observed("", 0, "default-a")),
    "another job": replace(QUIET, observed=Observed("u", 0)),
    "a small backlog that waits": replace(QUIET, waiting=Waiting((Group(5.0, 3),))),
    "a gauge that told nothing": replace(QUIET, blind=Blind(5.0)),
}


@pytest.mark.parametrize("why", ["", *NOT_QUIET])
def test_a_remembered_state_is_trusted_only_where_nothing_is_under_way(here: World, why: str) -> None:
    here.outside.memory.remember_state("default", Stored(NOT_QUIET.get(why, QUIET), 0))
    here.store.write(lane_state_object("default"), b"whoever reads this fails")
    here.backlog.reading = Idle()
    decision = tick(lane(), here.outside).decision
    assert decision.hold_cause is (HoldCause.STATE_UNREADABLE if why else None)


def test_a_remembered_state_is_not_trusted_once_delayed_tasks_came_back(here: World) -> None:
    delay(here, 1)
    here.outside.memory.remember_state("default", Stored(QUIET, 0))
    here.store.write(lane_state_object("default"), b"whoever reads this fails")
    here.backlog.reading = Idle()
    result = tick(lane(), here.outside)
    assert (result.delayed.count, result.decision.hold_cause) == (1, HoldCause.STATE_UNREADABLE)


@pytest.mark.parametrize("reading", [Value(1, 1_767_225_500.0), Unknown("503")])
def test_a_remembered_state_is_never_trusted_with_a_backlog(here: World, reading: Reading) -> None:
    here.outside.memory.remember_state("default", Stored(QUIET, 0))
    here.store.write(lane_state_object("default"), b"whoever reads this fails")
    here.backlog.reading = reading
    assert tick(lane(), here.outside).decision.hold_cause is HoldCause.STATE_UNREADABLE


def test_an_ended_execution_matters_no_more_after_a_while(here: World) -> None:
    info = here.runner.add(1, {"BACKLOG": "70"})
    here.backlog_is(0)
    tick(lane(), here.outside)
    assert load(here.store, "default").state.observed.names == (info.full_name,)
    here.runner.complete(info.name, here.clock.now())
    here.clock.advance(60)
    here.backlog_is(0)
    tick(lane(), here.outside)
    here.clock.advance(3600)
    here.backlog_is(0, age_s=100)
    here.runner.complete(here.runner.add(1, {}).name, here.clock.now())
    tick(lane(), here.outside)
    assert info.full_name not in load(here.store, "default").state.observed.names


@pytest.mark.parametrize("history", [0, 250])
@pytest.mark.parametrize("lanes", [1, 7])
def test_requests_grow_with_what_runs_and_never_with_history_or_quiet_lanes(lanes: int, history: int) -> None:
    project = Project(lanes, history)
    project.clock.advance(60)
    first, _ = project.tick()
    assert first.get("executions.list", 0) == lanes * -(-history // 100)
    quiet = {"jobs.list": 1, "timeSeries.list": 2, "objects.list": 2, "subscriptions.list": 1}
    project.clock.advance(60)
    assert project.tick()[0] == quiet
    project.backlog_is(project.jobs[0], 250)
    project.clock.advance(60)
    launching = {"jobs.run": 1, "objects.get": 1, "objects.insert": 3}
    assert project.tick()[0] == quiet | launching
    project.clock.advance(60)
    launched = {"executions.list": 1, "objects.get": 1, "objects.list": 3, "objects.insert": 2}
    assert project.tick()[0] == quiet | launched
    project.clock.advance(60)
    assert project.tick()[0] == quiet | {"executions.get": 1, "objects.get": 1, "objects.list": 3}


def test_a_thousand_workers_cost_one_page_of_progress() -> None:
    project = Project(1, 0)
    project.run_workers(project.jobs[0], 1001)
    project.backlog_is(project.jobs[0], 100_000)
    project.clock.advance(60)
    assert project.tick()[0]["objects.list"] == 4


def test_lanes_that_are_quiet_are_not_asked_for_again_but_a_new_backlog_is_read_afresh() -> None:
    project = Project(2, 0)
    project.tick()
    project.clock.advance(60)
    assert "objects.get" not in project.tick()[0]
    project.backlog_is(project.jobs[1], 10)
    assert project.tick()[0]["objects.get"] == 1


def test_a_listing_that_fails_holds_only_what_needs_it(here: World) -> None:
    here.runner.add(1, {"BACKLOG": "5"})
    here.runner.list_errors = [DependencyUnavailable("503")]
    here.backlog_is(0)
    assert tick(lane(), here.outside).decision.kind is Kind.NOTHING_TO_DO
