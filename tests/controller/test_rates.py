"""Learned rates: from workers that ended, each execution once, with their spread."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch.model.progress import Progress, RunningTask
from controller.decide.rates import EXECUTIONS_KEPT, HALF_LIFE_S, SAMPLES_EACH, SAMPLES_KEPT, Learned, Sample, from_json, learned, to_json
from controller.decide.sizing import Rates, WorkerCost, workers_in_time
from controller.model.execution import ExecutionInfo, Worked
from tests.controller.fakes import JOB, progress

T = 10_000.0


def worker(seconds_each: float, acked: int = 100, **changes: object) -> Progress:
    values: dict[str, object] = {
        "updated_at": T + 90,
        "acked": acked,
        "handler_s": seconds_each * acked,
        "exit_reason": "share_done",
        "last_acked_at": T + 84,
        **changes,
    }
    return progress(acked, T + 12, **values)


def execution(*workers: Progress, name: str = "default-aaaaa", ended: bool = True, **env: str) -> Worked:
    info = ExecutionInfo(f"{JOB}/executions/{name}", len(workers), T, completed_at=T + 95 if ended else None, env=env)
    return Worked(info, {index: [one] for index, one in enumerate(workers)})


def test_rates_are_a_cautious_quantile_with_its_basis() -> None:
    found = learned(Learned(), [execution(*(worker(seconds) for seconds in (1.0, 2.0, 3.0, 4.0, 50.0)))], 1000).rates(T + 95)
    assert found is not None
    assert (found.message_s, found.quick_message_s, found.start_up_s, found.idle_tail_s) == (4.0, 1.0, 12.0, 6.0)
    assert found.basis == "80 % quantile of 5 workers"


def test_one_message_of_three_hours_moves_nothing() -> None:
    """A thousand messages of a second and one of three hours, in 8 threads: the next burst of 4,000 needs one worker."""
    straggling = worker(1.0, acked=1001, handler_s=1000.0 + 10_800, longest_s=10_800.0, last_acked_at=T + 12 + 10_925)
    found = learned(Learned(), [execution(straggling, CONCURRENCY="8")], 8).rates(T)
    assert found is not None
    assert found.message_s <= 1.1
    assert workers_in_time(4000, 600.0, found, WorkerCost(8, 0.00002)) == 1


def test_handlers_that_are_done_count_before_their_messages_are_acknowledged() -> None:
    """Outcomes wait to be written: when a worker tells of its first one, the handlers of three more have ended."""
    at_work = execution(worker(1.0, acked=1, handled=4, handler_s=4.0, taken=8, exit_reason=""), ended=False)
    assert (rates := learned(Learned(), [at_work], 4).rates(T + 95)) is not None
    assert rates.message_s == 1.0


def test_a_worker_counts_by_its_messages() -> None:
    found = learned(Learned(), [execution(worker(9.0, acked=1), worker(9.0, acked=1), worker(2.0, acked=500))], 1000).rates(T + 95)
    assert found is not None
    assert found.message_s == 2.0


def test_what_runs_must_do_until_a_first_execution_has_ended_and_is_not_kept() -> None:
    at_work = execution(worker(1.0, exit_reason="", last_acked_at=T + 50), ended=False)
    first = learned(Learned(), [at_work], 8)
    assert first == Learned()
    assert (rates := first.rates(T + 95)) is not None
    assert (rates.message_s, rates.basis) == (1.0, "80 % quantile of 1 worker still at work")
    later = learned(first, [execution(worker(1.2), name="default-bbbbb"), at_work], 8)
    assert (rates := later.rates(T + 95)) is not None
    assert (rates.message_s, rates.basis) == (1.2, "80 % quantile of 1 worker")
    assert learned(first, [], 8).rates(T + 95) is None


# --- what runs, and what ended lately

BEFORE = Learned(tuple(Sample(2.0, 300, 10.0, 1.0, T - 7200 + at) for at in range(30)))


def at_work(acked: int, seconds_each: float, running: Sequence[float] = (), **changes: object) -> Progress:
    """Alive and last heard of at T + 90; its handlers have been running for so many seconds."""
    tasks = tuple(RunningTask(str(at), "work", int(T + 90 - seconds - 1)) for at, seconds in enumerate(running))
    told = {"taken": acked + len(tasks), "running": tasks, "exit_reason": "", **changes}
    return worker(seconds_each, acked=acked, **told)


def rates_of(*workers: Progress, before: Learned = BEFORE, now: float = T + 95) -> Rates:
    found = learned(before, [execution(*workers, ended=False)], 8).rates(now)
    assert found is not None
    return found


def test_what_runs_counts_as_soon_as_it_is_clearly_slower_or_quicker_whatever_was_learned_before() -> None:
    slower, quicker = rates_of(at_work(3, 20.0)), rates_of(at_work(100, 0.2))
    assert (slower.message_s, quicker.message_s) == (20.0, 0.2)
    assert slower.basis == "80 % quantile of 1 worker still at work: clearly slower than the 2 s learned before"
    assert quicker.basis == "80 % quantile of 1 worker still at work: clearly quicker than the 2 s learned before"
    assert slower.start_up_s == 10.0, "of that there is no news"


@pytest.mark.parametrize(("acked", "seconds_each"), [(2, 20.0), (3, 5.0), (20, 3.5), (100, 2.9), (100, 1.4), (20, 1.2)])
def test_the_fewer_messages_the_clearer_it_must_be(acked: int, seconds_each: float) -> None:
    assert rates_of(at_work(acked, seconds_each)).message_s == 2.0


@pytest.mark.parametrize(("acked", "seconds_each"), [(3, 5.5), (20, 3.7), (100, 3.1), (100, 1.3)])
def test_and_with_more_messages_less_is_clear(acked: int, seconds_each: float) -> None:
    assert rates_of(at_work(acked, seconds_each)).message_s == seconds_each


def test_a_worker_that_has_acknowledged_nothing_yet_says_how_long_it_takes_at_least() -> None:
    assert rates_of(at_work(0, 0.0, [45.0] * 8)).message_s == 45.0
    assert rates_of(at_work(0, 0.0, [45.0] * 2)).message_s == 2.0, "two may be stragglers"
    assert rates_of(at_work(0, 0.0, [3.0] * 8)).message_s == 2.0, "not long enough"
    grouped = at_work(0, 0.0, [45.0] * 8, taken=800)
    assert rates_of(grouped).message_s == 2.0, "a handler that has a hundred messages takes half a second for each"


def test_what_is_acknowledged_first_may_be_but_the_quick_part() -> None:
    assert rates_of(at_work(8, 1.0, [60.0] * 8)).message_s == (8 + 480) / 16


def test_one_straggler_says_nothing_of_the_others_while_it_runs() -> None:
    assert rates_of(at_work(100, 2.0, [3000.0])).message_s == 2.0
    assert rates_of(at_work(0, 0.0, [3000.0])).message_s == 2.0


def test_the_first_to_be_done_are_the_quick_ones_until_each_thread_has_done_many() -> None:
    running = [0.5] * 8
    assert rates_of(at_work(20 * 8 - 1, 0.5, running)).message_s == 2.0
    assert rates_of(at_work(20 * 8, 0.5, running)).message_s == pytest.approx(0.5, rel=0.1)


def test_what_ended_lately_counts_like_what_runs_and_later_beside_all_else() -> None:
    found = learned(BEFORE, [execution(worker(20.0, acked=30))], 8)
    for after_s, seconds, basis in [
        (60.0, 20.0, "of the last 5 min: clearly slower than the 2 s learned before"),
        (600.0, 20.0, "of the last 15 min: clearly slower than the 2 s learned before"),
        (3600.0, 2.0, "of 31 workers"),
    ]:
        assert (rates := found.rates(T + 95 + after_s)) is not None
        assert (rates.message_s, rates.basis.endswith(basis)) == (seconds, True)


def test_an_ended_worker_of_an_execution_that_lives_does_not_work() -> None:
    """Its last message of three hours keeps alive an execution whose others ended long ago."""
    ended, straggles = worker(0.5), at_work(99, 0.5, [10_000.0])
    rates = rates_of(ended, straggles, now=T + 10_000)
    assert rates.message_s == pytest.approx(0.6, abs=0.1)
    later = replace(BEFORE, samples=(*BEFORE.samples, Sample(2.0, 300, ended_at=T + 9_900)))
    assert rates_of(ended, before=later, now=T + 10_000).message_s == 2.0


def test_older_samples_weigh_less() -> None:
    old, new = [Sample(9.0, 100, ended_at=T)] * 3, [Sample(2.0, 100, ended_at=T + 4 * HALF_LIFE_S)] * 3
    assert (rates := Learned((*old, *new)).rates(T + 5 * HALF_LIFE_S)) is not None
    assert rates.message_s == 2.0
    assert (rates := Learned((*old, *(replace(one, ended_at=T) for one in new))).rates(T + 5 * HALF_LIFE_S)) is not None
    assert rates.message_s == 9.0


def test_the_slowest_message_of_all_counts_only_if_there_are_no_others() -> None:
    quick, slow = Sample(1.0, 1), Sample(10_800.0, 1)
    for samples, seconds in [((slow,), 10_800.0), ((slow, quick), 1.0), ((quick, quick, slow), 1.0), ((quick, slow, slow), 10_800.0)]:
        assert (rates := Learned(samples).rates(T)) is not None
        assert rates.message_s == seconds


@given(st.lists(st.floats(0.5, 2.0), min_size=9, max_size=200), st.floats(1.0, 1e6))
def test_one_message_of_any_length_moves_a_worker_by_less_than_its_half_again(times: list[float], straggler_s: float) -> None:
    acked, whole_s = len(times) + 1, sum(times) + straggler_s
    one = worker(0.0, acked=acked, handler_s=whole_s, longest_s=max(straggler_s, *times))
    (sample,) = learned(Learned(), [execution(one)], 1).samples
    assert sample.message_s <= 1.75 * sum(times) / len(times)


# --- starts and ends


def started(*starts_s: float) -> Learned:
    """An execution for each, of ten workers."""
    return Learned(tuple(Sample(1.0, 10, start_s, ended_at=T + at) for at, start_s in enumerate(starts_s) for _ in range(10)))


@pytest.mark.parametrize(
    ("starts_s", "expected"),
    [((12.0,), 12.0), ((600.0,), 90.0), ((12.0, 600.0), 12.0), ((600.0, 600.0), 600.0), ((20.0, 90.0, 30.0, 60.0, 50.0), 60.0)],
)
def test_a_start_that_was_slow_once_is_not_typical(starts_s: Sequence[float], expected: float) -> None:
    assert (rates := started(*starts_s).rates(T)) is not None
    assert rates.start_up_s == expected


def test_a_worker_that_ends_within_its_paid_minute_has_no_idle_tail() -> None:
    within = worker(1.0, acked=10, last_acked_at=T + 22, updated_at=T + 67, exit_reason="drained")
    assert learned(Learned(), [execution(within)], 8).samples[0].idle_tail_s is None


def test_threads_that_end_apart_count_once_not_with_each_message() -> None:
    """A hundred messages of 4.8 s through 8 threads are 13 rounds, 62.4 s; this worker took 10 s longer."""
    uneven = worker(4.8, acked=100, longest_s=14.0, last_acked_at=T + 12 + 72.4, updated_at=T + 90)
    assert (rates := learned(Learned(), [execution(uneven)] * 1, 8).rates(T + 95)) is not None
    assert (rates.message_s, rates.uneven_s) == (4.8, 10.0)
    gone_on = replace(uneven, taken=101)
    assert learned(Learned(), [execution(gone_on)], 8).samples[0].uneven_s is None


# --- what is learned from, and kept


def test_nothing_is_learned_from_who_acknowledged_nothing() -> None:
    nothing = Learned()
    idle = learned(nothing, [execution(worker(0.0, acked=0, last_acked_at=0.0))], 8)
    assert (idle is nothing, idle.rates(T + 95)) == (True, None)


def test_an_execution_is_learned_from_once() -> None:
    first = learned(Learned(), [execution(worker(1.0))], 8)
    assert learned(first, [execution(worker(1.0))], 8) is first
    second = learned(first, [execution(worker(1.0)), execution(worker(3.0), name="default-bbbbb")], 8)
    assert [one.message_s for one in second.samples] == [1.0, 3.0]


def test_time_beside_the_handlers_counts_where_a_worker_was_never_out_of_work() -> None:
    """1,000 messages through 10 threads in 72 s are 0.72 s of a thread each, of which the handler had 0.1 s."""
    busy, idle = worker(0.1, acked=1000), worker(0.1, acked=1000, exit_reason="drained")
    beyond = worker(0.1, acked=1000, taken=1100)
    few = worker(0.1, acked=100)
    for one, overhead_s, message_s in [(busy, 0.62, 0.72), (idle, None, 0.1), (beyond, None, 0.1), (few, None, 0.1)]:
        found = learned(Learned(), [execution(one, CONCURRENCY="10")], 1)
        assert (found.samples[0].message_s, found.samples[0].overhead_s) == (0.1, overhead_s)
        assert (rates := found.rates(T)) is not None
        assert rates.message_s == pytest.approx(message_s)


def test_threads_that_wait_for_the_longest_message_are_no_overhead() -> None:
    """Eight threads do 1,000 messages of a second in 125 s; then seven of them wait for the one of three hours."""
    waits = worker(1.0, acked=1001, handler_s=11_800.0, longest_s=10_800.0, last_acked_at=T + 12 + 125 + 10_800)
    assert learned(Learned(), [execution(waits, CONCURRENCY="8")], 8).samples[0].overhead_s == 0.0


def test_handlers_that_take_no_time_are_no_reason_to_expect_wonders() -> None:
    (sample,) = learned(Learned(), [execution(worker(0.0, exit_reason="drained"))], 8).samples
    assert sample.message_s == 8 * 0.00005


def test_an_idle_tail_is_that_of_a_worker_that_ended_in_order_and_says_when_it_acked() -> None:
    stopped, old = worker(1.0, exit_reason="stopped"), worker(1.0, last_acked_at=0.0)
    assert [one.idle_tail_s for one in learned(Learned(), [execution(stopped, old)], 8).samples] == [None, None]


def test_what_is_kept_is_bounded_and_a_large_execution_leaves_room_for_others() -> None:
    found = learned(Learned(), [execution(*(worker(1.0 + index) for index in range(1000)))], 8)
    assert len(found.samples) == SAMPLES_EACH
    assert (found.samples[0].message_s, found.samples[-1].message_s) == (1.0, 1000.0)
    for number in range(100):
        found = learned(found, [execution(*[worker(1.0)] * 5, name=f"default-{number:05d}")], 8)
    assert (len(found.samples), len(found.executions)) == (SAMPLES_KEPT, EXECUTIONS_KEPT)
    assert len(json.dumps(to_json(found))) < 8192


SAMPLES = st.builds(Sample, st.floats(0, 1e4), st.integers(1, 10**6), st.none() | st.floats(0, 1e4), st.none() | st.floats(0, 1e4))


@given(st.lists(SAMPLES, max_size=30), st.floats(0.01, 0.99), st.floats(0.01, 0.99))
def test_quantiles_lie_among_what_was_seen_and_grow(samples: list[Sample], one: float, other: float) -> None:
    found = Learned(tuple(samples), ("default-aaaaa",))
    assert from_json(json.loads(json.dumps(to_json(found)))) == found
    low, high = found.rates(T, min(one, other)), found.rates(T, max(one, other))
    if low is None or high is None:
        assert not samples
        return
    assert {low.message_s, high.message_s} <= {sample.message_s for sample in samples}
    assert low.message_s <= high.message_s
    assert low.start_up_s <= high.start_up_s


@pytest.mark.parametrize("sample", [[float("nan"), 1, None, None], [-1, 1, None, None], ["x", 1, None, None], [1, 1, float("inf"), None]])
def test_what_is_no_number_of_seconds_is_refused(sample: list[object]) -> None:
    assert from_json({"samples": [[1, 1, None, None, 0.0, None, None, 0]], "executions": []})
    with pytest.raises((TypeError, ValueError)):
        from_json({"samples": [[*sample, 0.0, None, None, 0]], "executions": []})


def test_the_hours_that_a_delayed_execution_waits_are_no_start_up() -> None:
    waited = execution(worker(1.0))
    started = Worked(replace(waited.info, created_at=T - 6 * 3600, started_at=T), waited.tries)
    (sample,) = learned(Learned(), [started], 8, is_delayed=True).samples
    assert (sample.start_up_s, learned(Learned(), [started], 8).samples[0].start_up_s) == (12.0, 21610.0)
    untold = Worked(replace(started.info, started_at=None), waited.tries)
    assert learned(Learned(), [untold], 8, is_delayed=True).samples[0].start_up_s is None
