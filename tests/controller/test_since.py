"""Since when messages wait: kept through samples, launches and what comes back from them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch.model.progress import Progress
from controller.act.state import load
from controller.decide.ledger import Entry, Ledger, ledger_of
from controller.decide.unassigned.since import GROUPS_KEPT, Group, Launch, Look, Waiting, returned_by, told_of, waiting_of
from controller.model.execution import ExecutionInfo, Worked
from controller.model.reading import Idle, Reading, Value
from controller.observe.jobs import LaunchRefused
from tests.controller.fakes import JOB, World, lane, progress, tick, world, write_progress

T = 1_000_000.0
BUSY = (Entry("default-a", "d.0", True, 1, 1, 50),)


def look(
    count: int,
    *,
    at: float = T,
    reading: Reading | None = None,
    told: tuple[tuple[float, int], ...] = (),
    launches: dict[str, float] | None = None,
    returned: dict[str, int] | None = None,
    guard: int = 0,
    age_s: float | None = None,
) -> Look:
    """Of a lane where something runs, so that the age of the oldest message tells nothing exact."""
    found = Value(count + 50, at - 30, age_s) if reading is None else reading
    return Look(at, found, Ledger(at - 30, BUSY, guard_count=guard), count, told, launches or {}, returned or {})


def test_what_a_sample_shows_first_came_after_the_sample_before() -> None:
    first = waiting_of(Waiting(), look(10))
    assert first.groups == (Group(T - 90, 10),), "there was none: a sampling period before"
    then = waiting_of(first, look(15, at=T + 50))
    assert then.groups == (Group(T - 90, 10), Group(T - 30, 5))
    assert waiting_of(then, look(15, at=T + 55, reading=Value(65, T + 20))).groups == then.groups, "another look at one sample"


def test_what_was_doubted_at_the_sample_before_had_come_before_it() -> None:
    hidden = waiting_of(Waiting(), look(0, guard=10))
    assert waiting_of(hidden, look(10, at=T + 60)).groups == (Group(T - 90, 10),)


def test_nothing_is_older_than_the_oldest_message() -> None:
    assert waiting_of(Waiting(), look(10, age_s=5.0)).since == T - 35
    assert waiting_of(Waiting(), look(10, age_s=500.0)).since == T - 90
    alone = Look(T, Value(10, T - 30, 500.0), Ledger(T - 30), 10, (), {}, {})
    assert waiting_of(Waiting(), alone).since == T - 530, "all are unassigned, so the oldest is too"


def test_what_was_told_of_came_when_it_was_accepted_also_after_a_sample_shows_it() -> None:
    told = ((T - 8, 4), (T - 3, 6))
    first = waiting_of(Waiting(), look(6, told=told))
    assert first.groups == (Group(T - 3, 6),), "the others are assigned"
    later = waiting_of(first, look(9, at=T + 60, told=(*told, (T + 57, 2))))
    assert later.groups == (Group(T - 30, 1), Group(T - 3, 6), Group(T + 57, 2))
    assert waiting_of(Waiting(), look(4, reading=Idle(), told=told)).since == T - 3


def test_the_oldest_are_launched_for_first() -> None:
    waiting = Waiting((Group(T - 300, 10), Group(T - 200, 10)))
    assert (waiting.without(4).groups, waiting.without(4).since) == ((Group(T - 300, 6), Group(T - 200, 10)), T - 300)
    assert waiting.without(15).groups == (Group(T - 200, 5),)
    assert waiting.without(99).since is None


def test_what_comes_back_from_a_launch_waits_as_long_as_it_did() -> None:
    of = {"d.0": T - 400}
    gone = waiting_of(Waiting(), look(0, launches=of))
    assert gone.launches == (Launch("d.0", T - 400),)
    back = waiting_of(gone, look(35, at=T + 60, launches=of, returned={"d.0": 30}))
    assert back.groups == (Group(T - 400, 30), Group(T - 30, 5))
    assert waiting_of(back, look(40, at=T + 120, launches=of, returned={"d.0": 30})).groups[-1] == Group(T + 30, 5), "it came back once"


def test_what_others_took_before_anybody_waited_does_not_come_back_later() -> None:
    of, returned = {"d.0": T - 400}, {"d.0": 30}
    taken = waiting_of(Waiting(), look(0, launches=of, returned=returned))
    assert waiting_of(taken, look(5, at=T + 60, launches=of, returned=returned)).since == T - 30


def test_a_launch_that_matters_no_more_is_forgotten() -> None:
    assert waiting_of(Waiting(launches=(Launch("d.0", T),)), look(0)) == Waiting()


@given(st.lists(st.tuples(st.integers(0, 500), st.integers(1, 200), st.integers(0, 500), st.booleans()), max_size=40))
def test_there_are_always_as_many_as_are_unassigned_in_order(steps: list[tuple[int, int, int, bool]]) -> None:
    waiting, at = Waiting(), T
    for count, wait_s, launched, doubted in steps:
        at += wait_s
        waiting = waiting_of(waiting, look(count, at=at, guard=int(doubted), launches={"d.0": T}, returned={"d.0": launched}))
        assert waiting.count == count
        times = [one.since for one in waiting.groups]
        assert times == sorted(set(times))
        assert len(times) <= GROUPS_KEPT
        assert not times or times[-1] <= at
        waiting = waiting.without(launched)


def execution(*, completed_at: float | None = None, running_count: int = 0) -> ExecutionInfo:
    env = {"BACKLOG": "100", "DECISION_ID": "d.0"}
    return ExecutionInfo(f"{JOB}/executions/default-a", 2, T - 500, completed_at=completed_at, running_count=running_count, env=env)


@pytest.mark.parametrize(
    ("reason", "expected"),
    [("share_done", 0), ("drained", 0), ("not_claimed", 0), ("out_of_time", 20), ("stopped", 20), ("broken", 20), ("", 20)],
)
def test_what_a_worker_that_ended_early_has_not_acknowledged_comes_back(reason: str, expected: int) -> None:
    one = progress(50, T - 490, updated_at=T - 60, taken=40, acked=30, exit_reason=reason)
    worked = Worked(execution(completed_at=T - 50), {0: [one], 1: [progress(50, T - 490, updated_at=T - 60, exit_reason="drained")]})
    assert returned_by([worked], Ledger(T), {}, T).get("d.0", 0) == expected


def returned(info: ExecutionInfo, tries: dict[int, list[Progress]] | None = None, *, now: float = T, within_s: float | None = None) -> int:
    worked = [Worked(info, tries or {})]
    return returned_by(worked, ledger_of(now, worked, now=now, within_s=within_s), {}, now).get("d.0", 0)


def test_so_does_all_of_an_execution_that_starts_too_late_or_was_cancelled_before() -> None:
    assert returned(execution()) == 0
    assert returned(execution(), now=T + 101) == 100
    assert returned(execution(completed_at=T)) == 100
    assert returned_by([], Ledger(T), {"d.1": 70}, T) == {"d.1": 70}


def test_what_ended_long_ago_and_is_not_read_again_does_not_come_back() -> None:
    assert returned(execution(completed_at=T - 601), now=T) == 0


def test_so_does_what_a_worker_is_too_slow_for() -> None:
    slow = progress(50, T - 400, updated_at=T, taken=4, acked=2)
    assert returned(execution(running_count=2), {0: [slow]}, within_s=600.0) == 46 - (3 - 2), "300 of the 600 s are left at the most"


def test_what_was_put_off_came_when_it_was_due() -> None:
    one = progress(
        50, T - 490, updated_at=T - 60, taken=9, returned=9, deferred=((int(T) - 20, 4), (int(T) + 40, 5)), exit_reason="stopped"
    )
    worked = Worked(execution(completed_at=T - 50), {0: [one]})
    assert told_of([(T - 5, 1)], [worked], T) == [(T - 5, 1), (T - 20, 4)]


# --- a lane


@pytest.fixture
def here() -> World:
    return world()


def test_a_relaunch_after_a_kill_knows_how_long_its_messages_wait(here: World) -> None:
    """Launched for 50 s after they came, and killed 240 s later: 290 of 600 s are gone."""
    begin = here.clock.now()
    here.clock.advance(50)
    here.backlog.reading = Value(100, here.clock.now(), 50.0)
    (name,) = tick(lane(), here.outside).launched
    (part,) = load(here.store, "default").state.intents[0].parts
    assert part.waited_since == begin
    here.clock.advance(60)
    write_progress(here.store, name, 0, progress(100, here.clock.now() - 50, updated_at=here.clock.now(), taken=20, acked=20))
    here.clock.advance(60)
    here.runner.complete(name, here.clock.now())
    here.clock.advance(120)
    here.backlog.reading = Value(80, here.clock.now() - 5, None)
    decision = tick(lane(), here.outside).decision
    assert (decision.backlog, decision.within_s) == (80, 600.0 - 290.0)


def test_a_refused_launch_does_not_make_its_messages_new(here: World) -> None:
    begin = here.clock.now()
    here.backlog.reading = Value(100, begin, 0.0)
    here.runner.run_errors = [LaunchRefused("403")]
    tick(lane(), here.outside)
    for _ in range(2):
        here.clock.advance(60)
        here.backlog.reading = Value(100, here.clock.now(), None)
        here.runner.run_errors = [LaunchRefused("403")]
        decision = tick(lane(), here.outside).decision
        assert decision.within_s == 600.0 - (here.clock.now() - begin)
