"""The tick: one order, nothing launched on a guess, nothing launched twice."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from batch.model.errors import DependencyUnavailable
from batch.model.names import claim_object, lane_state_object
from batch.services.claims import claim
from controller.act.intents import Intent, Part, PartState
from controller.act.launcher import GRACE_S
from controller.act.state import Backoff, LaneState, load, save
from controller.decide.decision import HoldCause, Kind
from controller.decide.probe import Blind
from controller.model.execution import ExecutionInfo
from controller.model.reading import Idle, Reading, Unknown, Value
from controller.observe.jobs import LaunchRefused, LaunchUnclear, RunRequest
from controller.tick.results import TickResult
from tests.controller.fakes import JOB, World, history, lane, progress, tick, world, write_progress

DOWN = DependencyUnavailable("503")


@pytest.fixture
def here() -> World:
    return world()


def ticked(here: World, **changes: object) -> TickResult:
    return tick(lane(**changes), here.outside)


def worked_before(here: World) -> None:
    """An execution of long ago: the first tick has something to list."""
    here.runner.complete(here.runner.add(1, {}, created_at=here.clock.now() - 7200).name, here.clock.now() - 7000)


def states(result: TickResult) -> list[PartState]:
    assert result.intent is not None
    return [part.state for part in result.intent.parts]


def test_a_launch_carries_its_backlog_its_decision_and_its_timeout(here: World) -> None:
    here.backlog_is(250, age_s=60)
    result = ticked(here, task_timeout_s=1800.0)
    ((job, request),) = here.runner.requests
    assert job == JOB
    env = {"BACKLOG": "250", "DECISION_ID": f"{result.decision.decision_id}.0", "TASK_TIMEOUT_S": "1800", "SHARE_LIMIT": "100"}
    assert request == RunRequest(3, env), "an operator's fanout/max-messages holds in the minute that is billed anyway too"
    assert result.launched == ("default-00000",)


def test_two_ticks_with_the_same_reading_launch_once(here: World) -> None:
    here.backlog_is(1000)
    assert ticked(here).decision.workers == 10
    here.clock.advance(60)
    second = ticked(here)
    assert (second.decision.kind, len(here.runner.requests)) == (Kind.NOTHING_TO_DO, 1)


def test_a_launch_that_is_not_listed_yet_counts_in_full(here: World, monkeypatch: pytest.MonkeyPatch) -> None:
    here.backlog_is(1000)
    here.runner.hidden.add(ticked(here).launched[0])
    monkeypatch.setattr(here.runner, "execution", lambda _name: None)
    here.clock.advance(20)
    second = ticked(here)
    assert second.decision.kind is Kind.NOTHING_TO_DO
    assert second.decision.ledger is not None
    assert "not listed yet" in second.decision.ledger.entries[0].note


@pytest.mark.parametrize("reading", [Idle(), Unknown("UNAVAILABLE"), Value(0, 0.0)])
def test_without_a_known_backlog_nothing_is_launched_or_listed(here: World, reading: Reading) -> None:
    here.backlog.reading = reading
    assert ticked(here).decision.kind is (Kind.HOLD if isinstance(reading, Unknown) else Kind.NOTHING_TO_DO)
    assert (here.runner.requests, here.runner.listing_count) == ([], 0)


def test_when_listing_fails_nothing_is_launched(here: World) -> None:
    worked_before(here)
    here.backlog_is(1000)
    here.runner.list_errors = [DOWN]
    decision = ticked(here).decision
    assert (decision.kind, decision.hold_cause) == (Kind.HOLD, HoldCause.LISTING_FAILED)
    assert here.runner.requests == []


def test_when_progress_cannot_be_read_nothing_is_launched(here: World) -> None:
    here.backlog_is(1000)
    here.runner.add(2, {"BACKLOG": "10"})
    for _delayed_tasks_then_progress in range(2):
        here.store.fail_next("list", DOWN)
    assert ticked(here).decision.hold_cause is HoldCause.LISTING_FAILED
    assert here.runner.requests == []


def test_when_the_state_cannot_be_read_nothing_is_launched(here: World) -> None:
    here.backlog_is(1000)
    here.store.fail_next("read_with_info", DOWN)
    assert ticked(here).decision.hold_cause is HoldCause.STATE_UNREADABLE
    here.store.write(lane_state_object("default"), b'{"format": 0}')
    unreadable = ticked(here).decision
    assert unreadable.hold_cause is HoldCause.STATE_UNREADABLE
    assert "delete it" in unreadable.reason
    assert here.runner.requests == []


def test_the_intent_is_saved_before_the_launch(here: World) -> None:
    here.backlog_is(1000)
    here.runner.run_errors = [KeyboardInterrupt()]  # type: ignore[list-item]
    with pytest.raises(KeyboardInterrupt):
        ticked(here)
    (intent,) = load(here.store, "default").state.intents
    assert [(part.workers, part.backlog, part.state) for part in intent.parts] == [(10, 1000, PartState.PENDING)]


def test_when_the_intent_cannot_be_saved_nothing_is_launched(here: World) -> None:
    here.backlog_is(1000)
    here.store.fail_next("write", DOWN)
    assert ticked(here).decision.hold_cause is HoldCause.STATE_UNREADABLE
    assert here.runner.requests == []


def test_the_loser_of_a_race_stands_down(here: World, monkeypatch: pytest.MonkeyPatch) -> None:
    worked_before(here)
    here.backlog_is(1000)
    listing = here.runner.executions
    monkeypatch.setattr(here.runner, "executions", lambda job: (save(here.store, LaneState("default"), 0, "other"), listing(job))[1])
    result = ticked(here)
    assert result.stood_down
    assert here.runner.requests == []


def test_a_write_whose_answer_was_lost_is_known_as_our_own(here: World) -> None:
    generation = save(here.store, LaneState("default"), 0, "token")
    assert save(here.store, LaneState("default"), 0, "token") == generation


def test_a_crash_between_intent_and_launch_is_followed_up(here: World) -> None:
    here.backlog_is(1000)
    here.runner.run_errors = [KeyboardInterrupt()]  # type: ignore[list-item]
    with pytest.raises(KeyboardInterrupt):
        ticked(here)
    here.clock.advance(GRACE_S)
    here.backlog_is(1000)
    assert ticked(here).decision.kind is Kind.NOTHING_TO_DO  # it may still have taken effect
    here.clock.advance(1)
    here.backlog_is(1000)
    result = ticked(here)
    assert result.decision.workers == 10
    first, second = load(here.store, "default").state.intents
    assert first.parts[0].state is PartState.ABANDONED
    assert second.parts[0].state is PartState.LAUNCHED


def test_an_abandoned_part_is_fenced(here: World) -> None:
    test_a_crash_between_intent_and_launch_is_followed_up(here)
    abandoned = load(here.store, "default").state.intents[0].parts[0].decision_id
    assert claim(here.store, abandoned, "default-late1") != "default-late1"


def test_a_part_that_only_its_claim_tells_of_is_found(here: World) -> None:
    here.backlog_is(1000)
    name = ticked_lost(here)
    here.runner.hidden.add(name)
    part = here.runner.all[name].decision_id
    assert claim(here.store, part, name) == name
    here.clock.advance(GRACE_S + 1)
    here.backlog_is(1000)
    assert ticked(here).decision.kind is Kind.NOTHING_TO_DO
    assert json.loads(here.store.read(claim_object(part))) == {"execution": name}


def ticked_lost(here: World) -> str:
    """A launch that took effect; its answer was lost, and the listing failed too."""
    here.runner.effect_before_error = True
    here.runner.run_errors = [LaunchUnclear("timeout")]
    here.runner.list_errors = [DOWN]
    assert states(ticked(here)) == [PartState.PENDING]
    return next(iter(here.runner.all))


def test_an_unclear_launch_is_resolved_by_listing(here: World) -> None:
    here.backlog_is(1000)
    here.runner.effect_before_error = True
    here.runner.run_errors = [LaunchUnclear("timeout")]
    result = ticked(here)
    assert result.launched == ("default-00000",)
    assert len(here.runner.requests) == 1


def test_an_unclear_launch_that_shows_later_is_found_by_the_next_tick(here: World) -> None:
    here.backlog_is(1000)
    ticked_lost(here)
    here.clock.advance(30)
    assert ticked(here).decision.kind is Kind.NOTHING_TO_DO
    assert load(here.store, "default").state.intents[0].parts[0].state is PartState.LAUNCHED
    assert len(here.runner.requests) == 1


def test_an_unclear_launch_is_never_tried_again_in_the_same_tick(here: World) -> None:
    here.backlog_is(1000)
    here.runner.run_errors = [LaunchUnclear("timeout")]
    result = ticked(here)
    assert states(result) == [PartState.PENDING]
    assert "not listed" in result.failures[0]
    assert len(here.runner.requests) == 1


def test_a_refused_launch_is_recorded_with_its_reason_and_tried_by_the_next_tick(here: World) -> None:
    here.backlog_is(1000)
    here.runner.run_errors = [LaunchRefused("403: no")]
    result = ticked(here)
    assert (states(result), result.failures) == ([PartState.REFUSED], (f"{result.decision.decision_id}.0: 403: no",))
    here.clock.advance(60)
    assert ticked(here).launched == ("default-00000",)


def test_large_launches_are_split_and_stop_at_the_first_failure(here: World) -> None:
    here.backlog_is(25_000)
    here.runner.run_errors = [None, LaunchRefused("quota")]
    result = ticked(here, max_messages=1, max_workers=30_000)
    assert [request.task_count for _, request in here.runner.requests] == [10_000, 10_000]
    assert states(result) == [PartState.LAUNCHED, PartState.REFUSED, PartState.REFUSED]
    assert "not tried" in result.failures[1]


def test_a_dry_run_changes_nothing(here: World) -> None:
    here.backlog_is(1000)
    result = tick(lane(), here.outside, dry_run=True)
    assert (result.decision.workers, here.runner.requests, here.store.names()) == (10, [], ())


def test_a_manual_execution_counts_as_capacity(here: World) -> None:
    here.runner.add(4, {"MAX_MESSAGES": "200"})
    here.backlog_is(1000)
    assert ticked(here).decision.backlog == 200


def test_an_old_execution_that_was_seen_alive_is_read_again(here: World) -> None:
    here.runner.add(4, {"MAX_MESSAGES": "200"})
    here.backlog_is(100)
    ticked(here)
    here.clock.advance(30 * 3600)
    here.backlog_is(1000)
    assert ticked(here).decision.backlog == 200


def test_the_state_is_written_only_when_it_changed(here: World) -> None:
    here.backlog_is(0)
    ticked(here)
    generation = load(here.store, "default").generation
    here.clock.advance(60)
    ticked(here)
    assert load(here.store, "default").generation == generation


def test_an_object_that_is_no_progress_counts_its_worker_as_not_heard_of(here: World) -> None:
    info: ExecutionInfo = here.runner.add(1, {"BACKLOG": "70"})
    write_progress(here.store, info.name, 0, progress())
    here.store.patch_metadata(here.store.names("workers/")[0], {"acked": "many"})
    here.backlog_is(100)
    result = ticked(here)
    assert result.decision.backlog == 30
    assert "not a worker's progress" in result.notes[0]


def never_starts(here: World, workers: int) -> None:
    info = here.runner.add(workers, {"BACKLOG": "1000"})
    here.runner.all[info.name] = replace(info, running_count=0)


def test_an_execution_that_never_starts_does_not_hold_up_its_lane_for_ever(here: World) -> None:
    never_starts(here, 4)
    for minutes, launches in ((20, 0), (11, 1)):
        here.clock.advance(60 * minutes)
        here.backlog_is(1000)
        decision = ticked(here, max_workers=4).decision
        assert len(here.runner.requests) == launches
    assert decision.workers == 4
    (cap,) = [one for one in decision.caps if one.name == "max-workers"]
    assert cap.why == "4 more have not started and are not counted"


def test_a_second_execution_that_never_starts_is_one_too_many(here: World) -> None:
    never_starts(here, 4)
    never_starts(here, 4)
    here.clock.advance(3600)
    here.backlog_is(1000)
    decision = ticked(here, max_workers=4).decision
    assert (decision.kind, here.runner.requests) == (Kind.NOTHING_TO_DO, [])
    assert "gcloud run jobs executions cancel" in str(decision.ledger)


def test_what_never_starts_still_counts_for_what_protects_others(here: World) -> None:
    never_starts(here, 4)
    here.clock.advance(3600)
    here.backlog_is(1000)
    assert ticked(here, max_workers=4, concurrency=4, max_in_flight=16).decision.workers == 0


AHEAD_S = 86_400.0


def ahead(here: World) -> LaneState:
    """What a controller left whose clock was a day ahead, and was then put right."""
    later = here.clock.now() + AHEAD_S
    part = Part("20260102T000000000-00000000.0", 1, 500, PartState.PENDING)
    return LaneState(
        "default",
        intents=(Intent("20260102T000000000-00000000", later, (part,)),),
        accepted=((later, 300),),
        backoff=Backoff(later, 3, "429"),
        blind=Blind(later, 1, later),
    )


def test_what_a_clock_left_that_was_ahead_does_not_hold_up_the_lane_once_it_is_right(here: World) -> None:
    save(here.store, ahead(here), 0, "a")
    here.backlog_is(500)
    decision = ticked(here).decision
    assert (decision.kind, decision.accepted_count, decision.backlog) == (Kind.LAUNCH, 0, 500)
    assert len(here.runner.requests) == 1
    stored = load(here.store, "default").state
    assert (stored.accepted, stored.backoff, stored.blind) == ((), None, None)


def test_a_probe_does_not_wait_for_a_time_that_a_wrong_clock_named(here: World) -> None:
    save(here.store, replace(ahead(here), intents=(), accepted=()), 0, "a")
    here.backlog.reading = Unknown("503")
    for _ in range(12):
        ticked(here)
        here.clock.advance(60)
    assert [request.task_count for _, request in here.runner.requests] == [1]


def test_workers_of_the_subscription_that_a_job_had_before_do_not_hold_up_the_new_one(here: World) -> None:
    here.runner.add(5, {"BACKLOG": "500", "SUBSCRIPTION_NAME": "tasks-sub"})
    here.backlog_is(500)
    assert ticked(here).decision.kind is Kind.NOTHING_TO_DO
    here.backlog.by_name = {"new-sub": Value(500, here.clock.now())}
    decision = ticked(here, subscription="new-sub", max_workers=7).decision
    assert (decision.kind, decision.backlog, decision.workers) == (Kind.LAUNCH, 200, 2)


def test_a_hold_for_another_cause_is_another_decision(here: World) -> None:
    """Or `fanout explain` would say that a lane is paused which somebody resumed into the next trouble."""
    here.backlog_is(500)
    for changes in ({"paused": True}, {"paused": True}, {"problems": ("env CONCURRENCY='eight': must be a whole number",)}):
        tick(lane(**changes), here.outside)
        here.clock.advance(1)
    here.backlog.reading = Unknown("503")
    ticked(here)
    causes = [one["hold_cause"] for one in history(here.store)]
    assert causes == ["reading_unknown", "misconfigured", "paused"]
