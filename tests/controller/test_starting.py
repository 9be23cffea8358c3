"""Executions that start late, or cannot start: what counts as whose meanwhile, and when the lane is held."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from google.cloud import run_v2

from controller.decide.broken import Broken, broken_of
from controller.decide.decision import HoldCause, Kind, from_json
from controller.decide.ledger import Entry, ledger_of
from controller.model.execution import ExecutionInfo, Worked, WorkerInfo
from controller.model.lane import DELAYED_START_WITHIN_S, Lane
from controller.model.reading import Unknown
from controller.observe.google_jobs import execution_info
from controller.observe.survey import oldest_of_interest
from controller.tick.results import TickResult
from tests.controller.fakes import JOB, World, history, lane, progress, tick, world, write_progress

T = 10_000.0
HOUR_S = 3600.0
IMAGE = "Image 'r-docker.pkg.dev/p/fanout/fanout:9' not found."


@pytest.fixture
def here() -> World:
    return world()


def unstarted(name: str = "default-abcde", task_count: int = 4, **changes: object) -> ExecutionInfo:
    info = ExecutionInfo(f"{JOB}/executions/{name}", task_count, T, env={"BACKLOG": "200"})
    return replace(info, **changes)  # type: ignore[arg-type]


# --- how late an execution may start


@pytest.mark.parametrize(("start_within_s", "slow_s"), [(600.0, 300.0), (1800.0, 300.0), (120.0, 60.0)])
def test_the_messages_of_an_unstarted_execution_are_nobodys_after_the_lanes_own_time(start_within_s: float, slow_s: float) -> None:
    given = replace(lane(), start_within_s=start_within_s)

    def entry(age_s: float) -> Entry:
        return entry_of(given, unstarted(), age_s)

    assert (entry(slow_s - 1).note, "no worker has started" in entry(slow_s).note) == ("", True)
    assert (entry(start_within_s - 1).assigned_count, entry(start_within_s).assigned_count) == (200, 0)
    assert (entry(start_within_s + 1199).stuck_worker_count, entry(start_within_s + 1200).stuck_worker_count) == (0, 4)


def test_a_delayed_execution_may_take_twelve_hours_and_is_noted_after_six() -> None:
    given = delayed_lane()
    assert entry_of(given, unstarted(), 6 * HOUR_S - 1).note == ""
    assert "no worker has started in 6 h" in entry_of(given, unstarted(), 6 * HOUR_S).note
    assert entry_of(given, unstarted(), 12 * HOUR_S - 1).assigned_count == 200
    assert entry_of(given, unstarted(), 12 * HOUR_S).assigned_count == 0


def entry_of(given: Lane, info: ExecutionInfo, age_s: float) -> Entry:
    now = info.created_at + age_s
    (found,) = ledger_of(now, [Worked(info)], now=now, start_within_s=given.start_within_s, slow_start_s=given.slow_start_s).entries
    return found


def delayed_lane(**changes: object) -> Lane:
    """With a day to drain in; messages wait for half of what that leaves beside the start."""
    given = lane(**{"drain_within_s": 24 * HOUR_S, "task_timeout_s": 12 * HOUR_S, "max_wait_s": None, **changes})
    return replace(given, start_within_s=DELAYED_START_WITHIN_S, is_delayed=True)


def test_the_first_listing_reaches_back_to_what_may_still_run() -> None:
    """It starts after 12 hours, and each of two tries takes 12 more."""
    assert oldest_of_interest(delayed_lane(), T) == T - 37 * HOUR_S
    assert oldest_of_interest(lane(), T) == T - 24 * HOUR_S


def test_a_try_of_a_delayed_lane_is_waited_for_as_long_as_it_may_start() -> None:
    failed = Worked(unstarted("default-b", created_at=T - 100, completed_at=T - 50, failed_count=4))
    waiting = Worked(unstarted("default-c"))
    before = broken_of([waiting, failed], now=T + 12 * HOUR_S - 1, start_within_s=DELAYED_START_WITHIN_S)
    assert before is not None
    assert (before.count, before.trying) == (1, "default-c")
    found = broken_of([waiting, failed], now=T + 12 * HOUR_S, start_within_s=DELAYED_START_WITHIN_S)
    assert found is not None
    assert (found.count, found.trying, found.ended_at) == (2, "", T + 12 * HOUR_S)
    assert "no worker of it has started in 12 h" in found.how


def launched_each_minute(here: World, given: Lane, hours: float, *, unknown: range = range(0), paused: range = range(0)) -> list[float]:
    """The hours at which ticks launched; no launch starts a worker."""
    launches: list[float] = []
    begin = here.clock.now()
    for minute in range(round(60 * hours)):
        now = here.clock.now()
        if minute in unknown:
            here.backlog.reading = Unknown("503: Monitoring")
        else:
            here.backlog_is(2000)
        at_minute = replace(given, policy=replace(given.policy, paused=minute in paused))
        for name in tick(at_minute, here.outside).launched:
            launches.append((now - begin) / HOUR_S)
            here.runner.all[name] = replace(here.runner.all[name], running_count=0)
        here.clock.advance(60)
    return launches


def test_a_delayed_execution_is_launched_once_however_long_it_takes_to_start(here: World) -> None:
    """With readings that are unknown for two hours, which would be probed after ten minutes, and an hour of being paused."""
    assert launched_each_minute(here, delayed_lane(), 6, unknown=range(30, 150), paused=range(200, 260)) == [0.0]
    (started,) = here.runner.all.values()
    now = here.clock.now()
    here.runner.all[started.name] = replace(started, running_count=started.task_count, started_at=now)
    for index in range(started.task_count):
        write_progress(here.store, started.name, index, progress(100, now, taken=100, acked=100, exit_reason="share_done"))
    here.runner.complete(started.name, now + 60)
    here.clock.advance(60)
    here.backlog_is(0)
    assert tick(delayed_lane(), here.outside).decision.kind is Kind.NOTHING_TO_DO


def test_a_delayed_execution_that_has_not_started_after_twelve_hours_is_launched_again(here: World) -> None:
    assert launched_each_minute(here, delayed_lane(), 13) == [0.0, 12.0]


def test_an_ordinary_lane_is_launched_again_after_ten_minutes(here: World) -> None:
    assert launched_each_minute(here, lane(), 0.3) == pytest.approx([0.0, 10 / 60])


def launched_for_a_trickle(here: World, given: Lane, hours: float, *, starts_after_s: float = 1e9) -> list[tuple[float, int]]:
    """When (hours) how many messages were assigned, where one more comes each minute and nothing but the launches takes any."""
    launches: list[tuple[float, int]] = []
    begin = here.clock.now()
    for minute in range(round(60 * hours)):
        now = here.clock.now()
        here.backlog_is(minute + 1)
        for name in tick(given, here.outside).launched:
            launches.append(((now - begin) / HOUR_S, int(here.runner.all[name].env["BACKLOG"])))
            here.runner.all[name] = replace(here.runner.all[name], running_count=0)
        for name, info in here.runner.all.items():
            if now >= info.created_at + starts_after_s:
                here.runner.all[name] = replace(info, running_count=info.task_count, started_at=now)
        here.clock.advance(60)
    return launches


def test_what_comes_while_a_delayed_execution_waits_to_start_waits_with_it(here: World) -> None:
    """For half of the twelve hours that a day leaves beside the longest start, counted from the sample before the one that shows the first
    of them; then it is launched for too, and all are in time."""
    found = launched_for_a_trickle(here, delayed_lane(), 11)
    assert [count for _, count in found] == [1, 360]
    assert found[1][0] == pytest.approx(6)


def test_once_a_delayed_execution_has_started_what_came_since_is_launched_for(here: World) -> None:
    found = launched_for_a_trickle(here, delayed_lane(), 2, starts_after_s=1800)
    assert [count for _, count in found] == [1, 31, 31, 31]


def test_a_delayed_lane_is_sized_for_the_time_that_a_late_start_leaves(here: World) -> None:
    here.backlog_is(2000)
    (name,) = tick(delayed_lane(), here.outside).launched
    decision = from_json(history(here.store)[0])
    here.runner.all[name] = replace(here.runner.all[name], running_count=0)
    assert decision.within_s == 12 * HOUR_S - 12, "the oldest has waited 12 s"
    here.clock.advance(60)
    here.backlog_is(2100)
    waiting = tick(delayed_lane(), here.outside).decision
    assert "100 messages wait for the delayed execution that was launched before them to start, until" in waiting.reason


# --- cannot start


def v2_execution(*conditions: run_v2.Condition, **counts: object) -> run_v2.Execution:
    created = datetime.fromtimestamp(T, UTC)
    return run_v2.Execution(name=f"{JOB}/executions/default-abcde", task_count=4, create_time=created, conditions=conditions, **counts)


def condition(kind: str, state: str = "CONDITION_FAILED", message: str = "", **more: object) -> run_v2.Condition:
    at = datetime.fromtimestamp(T + 90, UTC)
    return run_v2.Condition(type_=kind, state=state, message=message, last_transition_time=at, **more)


@pytest.mark.parametrize(
    "conditions",
    [
        [condition("ContainerReady", message=IMAGE, reason="CONTAINER_MISSING")],
        [condition("Completed", message="The execution failed."), condition("ResourcesAvailable", message=IMAGE, severity="ERROR")],
        [condition("Started", message=IMAGE), condition("Completed", "CONDITION_PENDING")],
        [condition("ResourcesAvailable", message=IMAGE, reason="POSTPONED_RETRY")],
        [condition("Completed", message="Cancelled.", execution_reason="CANCELLED"), condition("ContainerReady", message=IMAGE)],
    ],
)
def test_a_condition_that_has_failed_before_a_worker_began_says_why_it_cannot_start(conditions: list[run_v2.Condition]) -> None:
    found = execution_info(v2_execution(*conditions))
    assert (found.cannot_start, found.cannot_start_since) == (IMAGE, T + 90)


def test_without_a_message_the_reason_is_told() -> None:
    found = execution_info(v2_execution(condition("ResourcesAvailable", reason="VPC_NETWORK_NOT_FOUND")))
    assert found.cannot_start == "VPC_NETWORK_NOT_FOUND"


@pytest.mark.parametrize(
    "one",
    [
        v2_execution(),
        v2_execution(condition("ResourcesAvailable", "CONDITION_RECONCILING", "Waiting for quota.")),
        v2_execution(condition("Started", "CONDITION_PENDING", execution_reason="DELAYED_START_PENDING")),
        v2_execution(condition("Started", execution_reason="DELAYED_START_PENDING")),
        v2_execution(condition("ContainerReady", message=IMAGE, severity="WARNING")),
        v2_execution(condition("ResourcesAvailable", message="Try again.", reason="IMMEDIATE_RETRY")),
        v2_execution(condition("Completed", message="Cancelled.", execution_reason="CANCELLED"), cancelled_count=4),
        v2_execution(condition("ContainerReady", message=IMAGE), running_count=1),
        v2_execution(condition("Completed", message="A task failed."), failed_count=1),
    ],
)
def test_what_is_unclear_or_has_begun_is_no_execution_that_cannot_start(one: run_v2.Execution) -> None:
    assert (execution_info(one).cannot_start, execution_info(one).cannot_start_since) == ("", None)


def test_an_execution_that_cannot_start_frees_its_messages_and_its_workers_at_once() -> None:
    entry = entry_of(lane(), unstarted(cannot_start=IMAGE), 5)
    assert (entry.assigned_count, entry.stuck_worker_count, entry.live_worker_count) == (0, 4, 4)
    assert entry.note.startswith(f"it cannot start: {IMAGE}")
    assert "gcloud run jobs executions cancel default-abcde" in entry.note


def cannot_start(here: World, result: TickResult) -> str:
    (name,) = result.launched
    now = here.clock.now()
    here.runner.all[name] = replace(here.runner.all[name], running_count=0, cannot_start=IMAGE, cannot_start_since=now)
    return name


def ticked(here: World, backlog: int = 2000, **policy: object) -> TickResult:
    here.backlog_is(backlog)
    return tick(lane(**policy), here.outside)


def test_a_lane_whose_execution_cannot_start_is_held_with_the_words_of_cloud_run(here: World) -> None:
    first = ticked(here, max_workers=20)
    here.clock.advance(300)  # it is known only after the time of a first hold
    name = cannot_start(here, first)
    held = ticked(here, max_workers=20).decision
    assert (held.kind, held.hold_cause, held.unassigned_count) == (Kind.HOLD, HoldCause.BROKEN, 2000)
    assert f"{name} acknowledged nothing: it cannot start: {IMAGE}" in held.reason
    assert "mend the image, quota or network" in held.reason
    assert f"gcloud run jobs executions cancel {name}" in held.reason
    here.clock.advance(60)
    tried = ticked(here, max_workers=20)
    assert (tried.decision.workers, len(tried.launched)) == (1, 1), "its 20 workers no longer fill the lane"
    cannot_start(here, tried)
    here.clock.advance(60)
    assert "like 1 execution before it" in ticked(here, max_workers=20).decision.reason


def test_an_execution_that_ended_because_it_could_not_start_is_broken_too(here: World) -> None:
    name = cannot_start(here, ticked(here))
    here.runner.all[name] = replace(here.runner.all[name], completed_at=here.clock.now())
    held = ticked(here).decision
    assert held.hold_cause is HoldCause.BROKEN
    assert IMAGE in held.reason
    here.clock.advance(HOUR_S)
    assert ticked(here).decision.workers == 1, "an hour later it is still what is known of the lane"
    here.clock.advance(60)
    assert "tries whether the lane works again" in ticked(here).decision.reason


def test_executions_that_cannot_start_fill_no_lane_however_many_there_are(here: World) -> None:
    """Nobody cancels them. Once the image is there again the lane is tried within an hour."""
    tried_at: list[float] = []
    begin = here.clock.now()
    for _ in range(300):
        for name in ticked(here, max_workers=1).launched:
            tried_at.append((here.clock.now() - begin) / 60)
            info, now = here.runner.all[name], here.clock.now()
            here.runner.all[name] = replace(info, running_count=0, cannot_start=IMAGE, cannot_start_since=now)
        here.clock.advance(60)
    assert tried_at == [0, 1, 3, 7, 15, 31, 63, 123, 183, 243]


# --- a lane that works is not held


def test_what_others_acknowledged_since_a_broken_execution_was_created_shows_that_the_lane_works(here: World) -> None:
    """The top-up was one worker; hundreds of older ones go on."""
    (older,) = ticked(here).launched
    begun_at = here.clock.now()
    here.clock.advance(300)
    write_progress(
        here.store, older, 0, progress(100, begun_at, updated_at=here.clock.now(), taken=60, acked=50, last_acked_at=here.clock.now())
    )
    top_up = here.runner.add(1, {"BACKLOG": "40"})
    here.runner.fail(top_up.name, here.clock.now())
    assert ticked(here, 17_000).decision.hold_cause is HoldCause.BROKEN, "nothing was acknowledged since"
    here.clock.advance(30)
    now = here.clock.now()
    write_progress(here.store, older, 0, progress(100, begun_at, updated_at=now, taken=70, acked=60, last_acked_at=now - 1))
    assert ticked(here, 17_000).decision.hold_cause is None


def test_a_broken_execution_after_the_last_acknowledgement_counts_and_only_that() -> None:
    worked = Worked(unstarted("default-a", created_at=T - 900), {0: [progress(acked=5, updated_at=T - 60, last_acked_at=T - 60)]})
    before, after = (Worked(unstarted(f"default-{at}", created_at=T - at, completed_at=T, failed_count=4)) for at in (300, 30))
    found = broken_of([after, before, worked], now=T)
    assert found is not None
    assert (found.count, found.execution) == (1, "default-30")
    assert broken_of([before, worked], now=T) is None


def test_what_older_workers_acknowledge_does_not_show_that_others_can_start(here: World) -> None:
    """The image is gone, or the subnet has no address left: one long worker goes on, and each tick would launch twenty more."""
    older = here.runner.add(1, {"BACKLOG": "5000"})
    for minute in range(60):
        now = here.clock.now()
        one = progress(5000, T, updated_at=now, taken=minute + 2, acked=minute + 1, last_acked_at=now)
        write_progress(here.store, older.name, 0, one)
        result = ticked(here, max_workers=20)
        for name in result.launched:
            here.runner.all[name] = replace(here.runner.all[name], running_count=0, cannot_start=IMAGE, cannot_start_since=now)
        here.clock.advance(60)
    assert len(here.runner.requests) <= 6
    assert ticked(here, max_workers=20).decision.hold_cause is HoldCause.BROKEN


def test_failures_in_a_row_at_the_start_hold_a_lane_whose_older_workers_go_on(here: World) -> None:
    """A bad image was deployed while one worker of the old one runs: two failures may be chance, the third is not."""
    older = here.runner.add(1, {"BACKLOG": "5000"})
    for minute in range(60):
        now = here.clock.now()
        one = progress(5000, T, updated_at=now, taken=minute + 2, acked=minute + 1, last_acked_at=now)
        write_progress(here.store, older.name, 0, one)
        for name in ticked(here, max_workers=20).launched:
            here.runner.fail(name, now + 1)
        here.clock.advance(60)
    assert [request.task_count for _, request in here.runner.requests] == [19, 19, 19, 1, 1, 1]


def test_a_worker_that_began_since_and_acknowledges_shows_that_others_can_start() -> None:
    stuck = Worked(unstarted("default-c", created_at=T, cannot_start=IMAGE, cannot_start_since=T))
    began = progress(started_at=T + 30, acked=5, updated_at=T + 60, last_acked_at=T + 60)
    assert broken_of([stuck, Worked(unstarted("default-a", created_at=T - 900), {0: [began]})], now=T + 90) is None
    before = replace(began, started_at=T - 30)
    assert broken_of([stuck, Worked(unstarted("default-a", created_at=T - 900), {0: [before]})], now=T + 90) is not None


def by_signal(name: str, signal: int = 15, *, live: bool = False) -> Worked:
    info = unstarted(name, completed_at=None if live else T + 9, failed_count=1, running_count=3 if live else 0)
    return Worked(info, start_signal=signal)


def broken_by(*worked: Worked) -> Broken | None:
    return broken_of(worked, now=T + 10)


def test_a_signal_at_the_start_is_no_evidence_until_three_in_a_row() -> None:
    assert broken_by(by_signal("c")) is None
    assert broken_by(by_signal("c"), by_signal("b")) is None
    found = broken_by(by_signal("c", 9), by_signal("b"), by_signal("a"))
    assert found is not None
    assert (found.count, "its workers were ended by signal 9 before they could begin" in found.how) == (3, True)
    fine = Worked(unstarted("fine", completed_at=T))
    assert broken_by(by_signal("c"), by_signal("b"), fine, by_signal("a"), by_signal("o")) is None
    assert broken_by(by_signal("c", live=True), by_signal("b"), by_signal("a")) is None, "its other workers may yet begin"


def test_signals_hold_no_lane_whose_older_workers_go_on() -> None:
    older = Worked(unstarted("default-a", created_at=T - 900), {0: [progress(acked=5, updated_at=T + 9, last_acked_at=T + 9)]})
    assert broken_by(by_signal("e"), by_signal("d"), by_signal("c"), by_signal("b"), older) is None


def test_a_try_that_a_signal_ended_is_one_more_where_the_lane_is_broken_already() -> None:
    failed = Worked(unstarted("b", completed_at=T + 5, failed_count=4))
    found = broken_by(by_signal("c"), failed)
    assert found is not None
    assert (found.count, found.ended_at) == (2, T + 9)


@pytest.mark.parametrize(("ends", "held"), [([(None, 15)], False), ([(1, None)], True), ([(None, 15), (1, None)], True)])
def test_how_workers_ended_before_they_began_is_looked_up(here: World, ends: list[tuple[int | None, int | None]], held: bool) -> None:
    failed = here.runner.add(len(ends), {"BACKLOG": "40"})
    now = here.clock.now()
    ended = {at: WorkerInfo(at, 1, completed_at=now, exit_code=code, term_signal=signal) for at, (code, signal) in enumerate(ends)}
    here.runner.known_workers[failed.name] = ended
    here.runner.fail(failed.name, now)
    assert (ticked(here).decision.hold_cause is HoldCause.BROKEN) is held
    listed = list(here.runner.workers_listed)
    ticked(here)
    assert (listed, here.runner.workers_listed) == ([failed.name], [failed.name]), "what has ended is read once"
