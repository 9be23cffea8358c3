"""A broken lane: held for longer each time, tried by one worker, and as before once an execution works."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch.model.errors import DependencyUnavailable
from batch.model.progress import Progress
from controller.decide.broken import COUNT_ENOUGH, Sign, broken_of, hold_s, sign_of, undecided
from controller.decide.decision import HoldCause, Kind
from controller.decide.ledger import Unlisted
from controller.model.execution import ExecutionInfo, Worked
from controller.tick.results import TickResult
from tests.controller.fakes import JOB, World, lane, progress, tick, world, write_progress

T = 10_000.0


def worked(name: str, *workers: Progress, completed_at: float | None = None, failed: int = 0, cancelled: int = 0) -> Worked:
    full_name = f"{JOB}/executions/{name}"
    info = ExecutionInfo(full_name, 2, T - 500, completed_at=completed_at, failed_count=failed, cancelled_count=cancelled)
    return Worked(info, {index: [one] for index, one in enumerate(workers)})


def broken(name: str = "default-b", ended_at: float = T) -> Worked:
    return worked(name, progress(exit_reason="broken"), progress(exit_reason="drained"), completed_at=ended_at, failed=1)


@pytest.mark.parametrize(
    ("one", "sign"),
    [
        (broken(), Sign.BROKEN),
        (worked("e", completed_at=T, failed=2), Sign.BROKEN),
        (worked("e", progress(exit_reason="broken"), progress()), Sign.BROKEN),
        (worked("e", progress(exit_reason="broken"), progress(acked=1), completed_at=T, failed=1), Sign.FINE),
        (worked("e", progress(taken=5), completed_at=T, failed=1), Sign.FINE),  # killed by a task
        (worked("e", progress(exit_reason="drained"), completed_at=T), Sign.FINE),
        (worked("e", completed_at=T, cancelled=2), Sign.FINE),
        (worked("e", progress(acked=1)), Sign.FINE),
        (worked("e", progress()), Sign.OPEN),
        (worked("e"), Sign.OPEN),
    ],
)
def test_what_an_execution_says_about_its_lane(one: Worked, sign: Sign) -> None:
    assert sign_of(one) is sign


def test_a_worker_whose_retry_goes_on_is_not_broken() -> None:
    info = ExecutionInfo(f"{JOB}/executions/e", 1, T - 500)
    assert sign_of(Worked(info, {0: [progress(exit_reason="broken"), progress()]})) is Sign.OPEN


def test_only_broken_executions_in_a_row_count() -> None:
    fine = worked("default-f", progress(acked=1), completed_at=T - 300)
    found = broken_of([broken("default-c", T), broken("default-b", T - 100), fine, broken("default-a", T - 900)], now=T)
    assert found is not None
    assert (found.execution, found.count, found.ended_at, found.until) == ("default-c", 2, T, T + 120)
    assert broken_of([fine, broken("default-a", T - 900)], now=T) is None
    assert broken_of([], now=T) is None


def test_what_was_launched_since_and_has_not_acked_is_a_try() -> None:
    found = broken_of([worked("default-c", progress()), broken("default-b"), worked("default-a")], [Unlisted("d.0", 1, 5, "")], now=T)
    assert found is not None
    assert found.trying == "d.0 and default-c"
    assert broken_of([worked("default-c", progress(acked=1)), broken("default-b")], now=T) is None


def test_the_reason_says_which_how_often_and_until_when() -> None:
    found = broken_of([broken("default-c", T), broken("default-b", T - 100)], now=T)
    assert found is not None
    reason = found.hold_reason("default", T + 20)
    assert "default-c acknowledged nothing: its workers ended broken, like 1 execution before it" in reason
    assert "held until 02:48:40Z (1 min 40 s more), then one worker tries" in reason
    assert found.hold_reason("default", T + 120) == ""


def test_enough_broken_executions_end_the_search() -> None:
    assert undecided([broken()] * (COUNT_ENOUGH - 1))
    assert not undecided([broken()] * COUNT_ENOUGH)
    assert not undecided([broken(), worked("e", progress(acked=1))])


@given(st.integers(1, 1000))
def test_holds_double_up_to_an_hour(count: int) -> None:
    assert hold_s(count) == min(60.0 * 2 ** (count - 1), 3600.0)


@pytest.fixture
def here() -> World:
    return world()


def ticked(here: World, backlog: int = 10_000) -> TickResult:
    here.backlog_is(backlog)
    return tick(lane(), here.outside)


def end_broken(here: World, result: TickResult) -> None:
    """Every worker of what was launched ends broken, after five seconds."""
    here.clock.advance(5)
    now = here.clock.now()
    for name in result.launched:
        for index in range(here.runner.all[name].task_count):
            write_progress(here.store, name, index, progress(100, now, exit_reason="broken"))
        here.runner.fail(name, now)


def test_a_broken_lane_is_tried_by_one_worker_at_growing_intervals(here: World) -> None:
    begin = here.clock.now()
    launches: list[tuple[int, int]] = []
    for minute in range(180):
        result = ticked(here)
        for _, request in here.runner.requests[len(launches) :]:
            launches.append((minute, request.task_count))
        end_broken(here, result)
        here.clock.advance(begin + 60 * (minute + 1) - here.clock.now())
    assert launches == [(0, 100), (2, 1), (5, 1), (10, 1), (19, 1), (36, 1), (69, 1), (130, 1)]


def test_a_held_lane_says_so_and_troubles(here: World) -> None:
    end_broken(here, ticked(here))
    decision = ticked(here).decision
    assert (decision.kind, decision.hold_cause, decision.troubled) == (Kind.HOLD, HoldCause.BROKEN, True)
    assert "default-00000 acknowledged nothing" in decision.reason
    assert (decision.unassigned_count, ticked(here, 0).decision.kind) == (10_000, Kind.NOTHING_TO_DO)


def test_while_one_worker_tries_nothing_more_is_launched_and_once_it_works_all_is(here: World) -> None:
    end_broken(here, ticked(here))
    here.clock.advance(60)
    tried = ticked(here)
    cap = tried.decision.caps[-1]
    assert (tried.decision.workers, tried.decision.backlog, cap.name, cap.before, cap.after) == (1, 100, "broken", 100, 1)
    here.clock.advance(600)
    waiting = ticked(here).decision
    assert (waiting.hold_cause, "default-00001 tries whether the lane works again" in waiting.reason) == (HoldCause.BROKEN, True)
    now = here.clock.now()
    write_progress(here.store, "default-00001", 0, progress(100, now - 300, updated_at=now, taken=91, acked=90))
    assert ticked(here).decision.backlog == 10_000 - 10 - 9, "but for those that it has yet to take, and has acknowledged within 30 s"


def test_a_hold_outlives_the_time_that_progress_matters_to_the_ledger(here: World) -> None:
    for _ in range(6):
        result = ticked(here)
        assert result.launched
        end_broken(here, result)
        here.clock.advance(hold_s(len(here.runner.requests)))
    end_broken(here, ticked(here))
    here.clock.advance(3500)
    assert ticked(here).decision.hold_cause is HoldCause.BROKEN


def test_a_lane_that_works_costs_no_reading_of_old_executions(here: World) -> None:
    end_broken(here, ticked(here))
    here.clock.advance(3600)
    fine = here.runner.add(1, {"MAX_MESSAGES": "5"})
    here.runner.complete(fine.name, here.clock.now())
    here.clock.advance(3600)
    here.store.fail_next("list", DependencyUnavailable("nothing is to be listed"))
    assert ticked(here).decision.workers == 100


def test_a_try_that_never_starts_lets_the_lane_try_again_after_a_while(here: World) -> None:
    end_broken(here, ticked(here))
    begin = here.clock.now()
    tries: list[float] = []
    for _ in range(120):
        here.clock.advance(60)
        launched = ticked(here).launched
        tries += [(here.clock.now() - begin) / 60 for _ in launched]
        for name in launched:
            here.runner.all[name] = replace(here.runner.all[name], running_count=0)
    # Ten minutes each until it is given up, and a hold that is doubled each time.
    assert tries == [1, 13, 27, 45, 71, 113]
    held = ticked(here).decision
    assert held.hold_cause is HoldCause.BROKEN


def test_who_is_held_up_by_a_try_that_never_started_is_told_how_to_end_it() -> None:
    waiting = worked("default-c")
    found = broken_of([waiting, broken("default-b", T - 400)], now=T + 100)
    assert found is not None
    assert (found.count, found.trying, found.ended_at) == (2, "", T + 100)
    assert "no worker of it has started in 10 min" in found.how
    assert "gcloud run jobs executions cancel default-c" in found.how
    before = broken_of([waiting, broken("default-b", T - 400)], now=T + 99)
    assert before is not None
    assert (before.count, before.trying) == (1, "default-c")
