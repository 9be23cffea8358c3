"""The ledger: what was assigned already when a gauge was sampled."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch.model.progress import Progress
from controller.decide.ledger import GUARD_S, Entry, Unlisted, horizon, ledger_of, promised
from controller.model.execution import ExecutionInfo, Worked
from tests.controller.fakes import JOB, progress

T = 10_000.0


def execution(task_count: int = 1, *, completed_at: float | None = None, **env: str) -> ExecutionInfo:
    running = 0 if completed_at else task_count
    return ExecutionInfo(f"{JOB}/executions/default-abcde", task_count, T - 500, completed_at=completed_at, running_count=running, env=env)


def total(info: ExecutionInfo, *tries: Progress, sampled_at: float = T, now: float = T + 100, ended_at: float | None = None) -> int:
    ended = {} if ended_at is None else {0: ended_at}
    return ledger_of(sampled_at, [Worked(info, {0: tries} if tries else {}, ended)], now=now).total_count


def test_a_live_worker_counts_what_it_may_still_take_and_has_acked_since_the_sample() -> None:
    one = progress(100, T - 400, updated_at=T + 90, taken=70, acked=60, returned=5, marks=((int(T) - 15, 20), (int(T), 30)))
    assert total(execution(BACKLOG="100"), one) == 100 - 5 - 30
    assert total(execution(BACKLOG="100"), one, sampled_at=T - 6) == 100 - 5 - 26, "three fifths of the way to the next mark"


@pytest.mark.parametrize(
    ("live", "reason", "expected"),
    [(True, "", 100 - 20), (True, "drained", 60 - 20), (False, "drained", 60 - 20)],
)
def test_a_finished_worker_counts_only_what_it_acked_since(live: bool, reason: str, expected: int) -> None:
    one = progress(100, T - 400, updated_at=T + 90, taken=60, acked=60, marks=((int(T), 20),), exit_reason=reason)
    assert total(execution(completed_at=None if live else T + 95), one) == expected


def test_a_worker_that_took_more_than_its_share_counts_what_it_took() -> None:
    assert total(execution(), progress(10, T, updated_at=T + 60, taken=25, acked=25)) == 25


def test_what_a_worker_holds_beyond_its_share_counts_too() -> None:
    """In its prepaid minute it goes on after its share: what it has in hand is in the reading, and will be acknowledged by it."""
    assert total(execution(), progress(10, T, updated_at=T + 60, taken=32, acked=20, returned=5)) == 20 + 7


def test_a_worker_without_progress_counts_its_share() -> None:
    assert total(execution(3, BACKLOG="11")) == 11
    assert total(execution(3, MAX_MESSAGES="50")) == 150
    assert total(execution(2)) == 2000
    assert total(execution(3, BACKLOG="11", MAX_MESSAGES="50")) == 11
    assert [promised(execution(3, BACKLOG="11"), index) for index in range(3)] == [4, 4, 3]


@pytest.mark.parametrize("odd", ["9" * 5000, "-1", "many", ""])
def test_settings_that_a_person_gave_are_no_fault_of_ours(odd: str) -> None:
    assert total(execution(2, BACKLOG=odd, MAX_MESSAGES="50")) == 100
    assert total(execution(2, BACKLOG=odd, MAX_MESSAGES=odd)) == 2000


def test_tries_of_a_worker_have_one_share_together() -> None:
    first = progress(100, T - 300, updated_at=T - 200, taken=50, acked=40, returned=10)
    second = progress(100, T - 100, updated_at=T + 90, taken=20, acked=15, marks=((int(T), 5),))
    assert total(execution(BACKLOG="100"), first, second) == 60 - 5


def test_a_retry_takes_again_what_its_predecessor_handed_back() -> None:
    first = progress(100, T + 10, updated_at=T + 20, taken=50, acked=30, returned=20, exit_reason="broken")
    second = progress(100, T + 30, updated_at=T + 31)
    assert total(execution(BACKLOG="100"), first, second) == 100


def test_deferred_messages_count_until_they_are_due() -> None:
    info = execution(completed_at=T - 20)
    one = progress(updated_at=T - 60, taken=9, returned=9, deferred=((int(T) + 50, 4), (int(T) + 300, 5)), exit_reason="share_done")
    assert total(info, one, now=T + 10) == 9
    assert total(info, one, now=T + 50) == 5
    assert total(info, one, now=T + 300) == 0


def test_what_a_killed_worker_held_counts_for_one_ack_deadline() -> None:
    info = execution(completed_at=T + 20)
    killed = progress(updated_at=T - 60, taken=30, acked=10, returned=2)
    assert total(info, killed, sampled_at=T + 50, now=T + 79) == 18
    assert total(info, killed, sampled_at=T + 50, now=T + 81) == 0
    assert total(info, replace(killed, exit_reason="stopped"), sampled_at=T + 50, now=T + 70) == 0


def test_what_a_killed_worker_may_have_acked_unheard_counts_while_the_sample_is_older_than_its_end() -> None:
    info = execution(completed_at=T + 20)
    killed = progress(100, T - 90, updated_at=T + 10, taken=60, acked=50, marks=((int(T), 20),))
    unheard = 5  # 0.5 a second, for the 10 s from its last word to its end
    assert total(info, killed, now=T + 500) == (50 - 20) + 10 + unheard
    assert total(info, killed, sampled_at=T + 50, now=T + 500) == 0
    nearly_done = replace(killed, taken=98, acked=88, marks=())
    assert total(info, nearly_done, sampled_at=T + 30, now=T + 500) == 10 + 2, "of its share 2 were left; the gauge may be 30 s older"


def test_a_worker_killed_before_its_pace_was_known_counts_its_whole_share() -> None:
    first_word = progress(100, T)
    assert total(execution(completed_at=T + 20), first_word, now=T + 500) == 100
    assert total(execution(completed_at=T + 20), first_word, sampled_at=T + 50, now=T + 500) == 0


def test_a_retry_counts_beside_what_its_predecessor_may_have_acked_unheard() -> None:
    killed = progress(100, T - 60, updated_at=T + 40, taken=60, acked=50, marks=((int(T) - 45, 50),))
    retry = progress(50, T + 44, updated_at=T + 59)
    assert total(execution(BACKLOG="100"), killed, retry) == 50 + 10 + 2
    assert total(execution(BACKLOG="100"), killed, retry, sampled_at=T + 80) == 50


def test_a_worker_that_ended_for_good_counts_as_such_while_its_execution_lives() -> None:
    killed = progress(100, T - 400, updated_at=T - 310, taken=60, acked=50, returned=2)
    assert total(execution(BACKLOG="100"), killed) == 100 - 50 - 2
    assert total(execution(BACKLOG="100"), killed, now=T - 241, ended_at=T - 300) == 8
    assert total(execution(BACKLOG="100"), killed, now=T - 239, ended_at=T - 300) == 0
    assert total(execution(BACKLOG="100"), ended_at=T - 300) == 0


def test_an_unlisted_launch_counts_in_full() -> None:
    ledger = ledger_of(T, [], [Unlisted("d.0", 3, 250, "launch not confirmed yet")], now=T)
    assert (ledger.total_count, ledger.live_worker_count, ledger.entries[0].note) == (250, 3, "launch not confirmed yet")


def test_who_launched_an_execution_makes_no_difference() -> None:
    by_controller, by_hand = execution(2, MAX_MESSAGES="7", DECISION_ID="x.0"), execution(2, MAX_MESSAGES="7")
    assert total(by_controller) == total(by_hand) == 14


def test_executions_without_effect_have_no_line() -> None:
    done = Worked(execution(completed_at=T - 200), {0: [progress(updated_at=T - 250, taken=5, acked=5, exit_reason="drained")]})
    assert ledger_of(T, [done], now=T).entries == ()


def test_the_horizon_reaches_back_to_the_sample_and_to_the_longest_deferral() -> None:
    assert horizon(T - 900, T) == T - 900
    assert horizon(T, T) == T - 600


def test_an_execution_that_starts_no_worker_is_told_of_and_in_the_end_counts_no_more() -> None:
    stuck = replace(execution(4, BACKLOG="200"), running_count=0)

    def line(info: ExecutionInfo, age_s: float, *tries: Progress) -> Entry:
        (found,) = ledger_of(T, [Worked(info, {0: tries} if tries else {})], now=info.created_at + age_s).entries
        return found

    assert (line(stuck, 299).note, line(stuck, 299).pending_worker_count) == ("", 4)
    assert "no worker has started in 5 min" in line(stuck, 300).note
    assert line(stuck, 599).assigned_count == 200
    given_up = line(stuck, 600)
    assert (given_up.assigned_count, given_up.live_worker_count) == (0, 4)  # its workers may start at any moment
    assert "gcloud run jobs executions cancel default-abcde" in given_up.note
    for begun in (replace(stuck, running_count=1), replace(stuck, retried_count=1), replace(stuck, failed_count=1)):
        assert (line(begun, 9999).assigned_count, line(begun, 9999).note) == (200, "")
    assert line(stuck, 9999, progress(50, T - 400)).assigned_count == 200
    assert line(replace(stuck, running_count=1), 9999).pending_worker_count == 3


counts = st.integers(0, 1000)


@st.composite
def tries(draw: st.DrawFn) -> list[Progress]:
    """Tries of one worker as a worker writes them: counters only grow, marks never lie above."""
    found = []
    share = draw(counts)
    for retry in range(draw(st.integers(1, 3))):
        marks = sorted(draw(st.lists(counts, max_size=4)))
        acked = draw(st.integers(marks[-1] if marks else 0, 1000))
        returned = draw(counts)
        pairs = tuple((int(T) - 100 + 15 * at + 60 * retry, count) for at, count in enumerate(marks))
        updated_at = T + 60 * retry
        found.append(progress(share, T - 200, updated_at=updated_at, taken=acked + returned, acked=acked, returned=returned, marks=pairs))
    return found


@given(tries(), st.floats(T - 300, T + 200), st.floats(0, 300))
def test_an_older_sample_never_makes_the_ledger_smaller(found: list[Progress], sampled_at: float, older_s: float) -> None:
    for info in (execution(BACKLOG="500"), execution(completed_at=T + 200)):
        assert total(info, *found, sampled_at=sampled_at - older_s) >= total(info, *found, sampled_at=sampled_at) >= 0


@given(tries(), st.floats(T - 300, T + 200))
def test_a_live_worker_never_counts_less_than_the_same_worker_ended(found: list[Progress], sampled_at: float) -> None:
    ended = [*found[:-1], replace(found[-1], exit_reason="drained")]
    assert total(execution(), *found, sampled_at=sampled_at) >= total(execution(), *ended, sampled_at=sampled_at)


@st.composite
def histories(draw: st.DrawFn) -> tuple[int, list[Progress]]:
    """A promise, and tries that keep to it: a retry takes what the earlier ones did not acknowledge. The last may still run."""
    promise = draw(st.integers(0, 500))
    left, found = promise, []
    for retry in range(draw(st.integers(1, 3))):
        taken = draw(st.integers(0, left))
        acked = draw(st.integers(0, taken))
        returned = draw(st.integers(0, taken - acked))
        deferred = draw(st.integers(0, returned))
        marks = sorted(draw(st.lists(st.integers(0, acked), max_size=4)))
        one = progress(
            left,
            T - 200 + 100 * retry,
            updated_at=T - 150 + 100 * retry,
            taken=taken,
            acked=acked,
            returned=returned,
            deferred=((int(T) + draw(st.integers(-100, 600)), deferred),) if deferred else (),
            marks=tuple((int(T) - 195 + 15 * at + 100 * retry, count) for at, count in enumerate(marks)),
            exit_reason=draw(st.sampled_from(["", "stopped"])) if acked + returned == taken else "",
        )
        found.append(one)
        left -= acked
    return promise, found


@given(histories(), st.floats(T - 400, T + 400), st.floats(0, 400), st.booleans())
def test_never_more_is_counted_than_was_assigned_deferred_or_lost_by_killed_tries(
    history: tuple[int, list[Progress]], sampled_at: float, later_s: float, ends: bool
) -> None:
    promise, found = history
    ended_at = found[-1].updated_at + 20 if ends else None
    info = execution(completed_at=ended_at, BACKLOG=str(promise))
    now = max(sampled_at, found[-1].updated_at) + later_s
    deferred = sum(count for one in found for due, count in one.deferred if due > now)
    killed = [one for one in (found if ends else found[:-1]) if not one.exit_reason]
    counted = total(info, *found, sampled_at=sampled_at, now=now)
    lost = sum(one.share - one.acked for one in killed)
    assert counted <= promise + deferred + (0 if len(found) == 1 else lost)
    if not killed:
        assert counted <= promise + deferred
    if not ends and not found[-1].exit_reason:
        assert counted >= found[-1].share - found[-1].returned - found[-1].acked  # what it may still acknowledge is never forgotten


@given(st.lists(histories(), min_size=1, max_size=5), st.floats(T - 400, T + 400))
def test_executions_count_each_for_itself(found: list[tuple[int, list[Progress]]], sampled_at: float) -> None:
    worked = [Worked(execution(BACKLOG=str(promise)), {0: tries}) for promise, tries in found]
    now = max(T + 400, sampled_at)
    together = ledger_of(sampled_at, worked, now=now).total_count
    assert together == sum(ledger_of(sampled_at, [one], now=now).total_count for one in worked)


def test_workers_that_drain_another_subscription_live_and_have_no_part_in_the_reading() -> None:
    """The job's subscription was changed while they run."""
    before = Worked(execution(2, BACKLOG="100", SUBSCRIPTION_NAME="old"), {0: [progress(50, T - 60, taken=9, acked=5)]})
    (line,) = ledger_of(T, [before], now=T + 100, subscription="new").entries
    assert (line.total_count, line.live_worker_count) == (0, 2)
    assert line.note == "it drains subscription old"
    assert ledger_of(T, [before], now=T + 100, subscription="old").total_count == 95
    assert ledger_of(T, [Worked(execution(BACKLOG="7"))], now=T + 100, subscription="new").total_count == 7, "it is not told which"


def test_what_was_acknowledged_just_before_the_sample_is_told_apart() -> None:
    """Marks 40 s, 20 s and 5 s before the sample."""
    one = progress(100, taken=90, acked=70, updated_at=T + 5, marks=((int(T) - 40, 10), (int(T) - 20, 30), (int(T) - 5, 60)))
    ledger = ledger_of(T, [Worked(execution(), {0: (one,)})], now=T + 10)
    assert (ledger.entries[0].assigned_count, ledger.entries[0].recent_count) == (100 - 65, 65 - 20)
    assert ledger.recent == (65 - 60, 65 - 50, 65 - 40, 65 - 30, 65 - 25, 65 - 20)
    later = ledger_of(T + 60, [Worked(execution(), {0: (one,)})], now=T + 70)
    assert (later.entries[0].assigned_count, later.entries[0].recent_count, later.recent) == (30, 0, ())


@given(tries(), st.floats(T - 300, T + 200))
def test_with_all_that_is_doubtful_it_is_the_ledger_of_30_seconds_before(found: list[Progress], sampled_at: float) -> None:
    """But for what killed tries may have acknowledged unheard, which is doubtful for as long."""
    worked = [Worked(execution(BACKLOG="500"), {0: found})]
    ledger, before = (ledger_of(at, worked, now=T + 300) for at in (sampled_at, sampled_at - GUARD_S))
    counts = (0, *ledger.recent)
    assert list(counts) == sorted(counts)
    assert sum(entry.recent_count for entry in ledger.entries) == counts[-1]
    if all(one.exit_reason for one in found[:-1]):
        assert ledger.sure_count + counts[-1] == before.sure_count
