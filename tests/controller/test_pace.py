"""Workers that turn out far too slow for their shares: what they will not come to in time is somebody else's, and no more than that."""

from __future__ import annotations

from dataclasses import replace
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch.model.progress import MARK_EVERY_S, Progress
from batch.model.shares import share
from controller.act.state import LaneState, save
from controller.decide.ledger import ledger_of
from controller.decide.pace import PACE_AFTER_S, PACE_ROUNDS, Ends, late_count, late_of, messages_per_s
from controller.decide.rates import Learned, Sample
from controller.model.execution import Worked
from controller.model.lane import Strategy
from controller.model.reading import Value
from controller.tick.results import TickResult
from tests.controller.fakes import World, lane, progress, tick, world, write_progress
from tests.controller.test_ledger import execution

WITHIN_S = 600.0
SLOW = progress(600, 0.0, updated_at=180.0, taken=22, acked=18, marks=((60, 6), (90, 9)))
"""0.12 messages a second at most: 73 in ten minutes, of which it holds 4."""


def late(worker: Progress, left_count: int, within_s: float = WITHIN_S) -> int:
    pace = messages_per_s(worker, within_s)
    return 0 if pace is None else late_count(worker, left_count, pace, within_s)


def test_a_worker_keeps_what_it_comes_to_in_time() -> None:
    assert messages_per_s(SLOW) == pytest.approx(22 / 180)
    assert late(SLOW, 578) == 578 - (74 - 4)


def test_a_worker_that_is_late_by_less_than_pays_off_keeps_all() -> None:
    assert late(SLOW, 106) == 0
    assert late(SLOW, 107) == 107 - 70


def test_nobody_is_called_slow_before_a_pace_is_known() -> None:
    young = replace(SLOW, taken=6, acked=PACE_ROUNDS - 1, marks=())
    assert late(replace(young, updated_at=PACE_AFTER_S - 1), 10_000) == 0
    assert late(replace(young, updated_at=PACE_AFTER_S), 10_000) > 9_000
    assert late(replace(SLOW, taken=0, acked=0), 10_000) == 0, "it waits for its messages"
    assert late(replace(SLOW, taken=9, acked=0, returned=9), 10_000) == 0


def test_a_pace_is_believed_the_sooner_the_less_time_there_is() -> None:
    young = replace(SLOW, taken=6, acked=0, marks=())
    for within_s, after_s in [(120.0, 24.0), (60.0, 20.0), (400.0, 80.0), (3600.0, 120.0)]:
        assert messages_per_s(replace(young, updated_at=after_s - 1), within_s) is None
        assert messages_per_s(replace(young, updated_at=after_s), within_s) == 6 / after_s


def test_a_pace_is_believed_once_each_thread_has_done_three_messages() -> None:
    young = replace(SLOW, updated_at=30.0, taken=32, acked=24, marks=((15, 0),))
    assert messages_per_s(young, 3600.0, 8) == 24 / 15
    assert messages_per_s(replace(young, marks=()), 3600.0, 8) == 32 / 30, "between two marks they come evenly"
    assert messages_per_s(replace(young, acked=23), 3600.0, 8) is None
    assert messages_per_s(replace(young, updated_at=19.0), 3600.0, 8) is None, "the first ones may have been the quick ones"


def test_a_worker_that_meets_its_task_timeout_first_frees_the_rest_now() -> None:
    """At 0.12 messages a second, 420 s before its timeout, it comes to 52 more, of which it holds 4."""
    worked = Worked(execution(BACKLOG="600"), {0: [SLOW]})
    assert late_of(worked, 0, Ends(None, 600.0)) == 578 - (52 - 4)
    assert late_of(worked, 0, Ends(None, 5000.0)) == 0, "that is time enough"
    assert late_of(worked, 0, Ends(None, 170.0)) == 578
    assert late_of(Worked(execution(), {0: [replace(SLOW, share=30)]}), 0, Ends(None, 600.0)) == 0


def test_what_was_launched_long_ago_has_less_time_but_half_of_it_always() -> None:
    worked = Worked(execution(BACKLOG="600"), {0: [SLOW]})
    for gone_s, left_s in [(180.0, 420.0), (500.0, 300.0)]:
        launched = replace(worked, info=replace(worked.info, created_at=SLOW.updated_at - gone_s))
        assert late_of(launched, 0, Ends(600.0)) == 578 - (ceil(22 / 180 * left_s) - 4)


def test_a_first_message_without_end_counts_as_done() -> None:
    assert late(replace(SLOW, taken=4, acked=0), 596) == 596 - (14 - 4)


def test_the_quicker_of_the_whole_life_and_the_last_minutes_counts() -> None:
    warm = replace(SLOW, updated_at=600.0, taken=250, acked=246, marks=((480, 6),))
    assert messages_per_s(warm) == pytest.approx(2.0)
    assert late(warm, 350) == 0


workers = st.builds(
    lambda lived_s, acked, held, returned: progress(
        1000, 0.0, updated_at=lived_s, taken=acked + held + returned, acked=acked, returned=returned
    ),
    st.floats(0, 1e5),
    st.integers(0, 10**6),
    st.integers(0, 1000),
    st.integers(0, 1000),
)


@given(workers, st.integers(-10, 10**6), st.floats(0, 1e6), st.floats(0, 1e6))
def test_never_more_than_is_left_and_less_the_more_time_there_is(worker: Progress, left: int, within_s: float, more_s: float) -> None:
    assert 0 <= late(worker, left, within_s + more_s) <= late(worker, left, within_s) <= max(0, left)


@given(workers, st.integers(0, 3000), st.floats(0, 1000))
def test_what_it_holds_or_has_acknowledged_since_is_never_given_away(worker: Progress, promise: int, within_s: float) -> None:
    worker = replace(worker, share=promise)
    worked = Worked(execution(BACKLOG=str(promise)), {0: [worker]})
    whole, cut = (ledger_of(-1.0, [worked], now=1e5, within_s=within) for within in (None, within_s))
    assert worker.acked + worker.held <= cut.total_count <= whole.total_count
    given_away = sum(line.late_count for line in cut.entries)
    assert given_away == whole.total_count - cut.total_count
    assert bool(given_away) == any("are too slow for" in line.note for line in cut.entries)


# --- a lane of slow workers


@pytest.fixture
def here() -> World:
    return world()


def one_slow_worker(here: World) -> None:
    """Alone with 600 messages, for three minutes, 18 of them done."""
    now = here.clock.now()
    info = here.runner.add(1, {"BACKLOG": "600", "DECISION_ID": "d.0"}, created_at=now - 180)
    write_progress(
        here.store, info.name, 0, replace(SLOW, started_at=now - 180, updated_at=now, marks=((int(now) - 120, 6), (int(now) - 90, 9)))
    )
    here.backlog_is(582)
    # The last samples told of messages of a second.
    save(here.store, LaneState("default", learned=Learned((Sample(0.9, 100, 2.0, 1.0),))), 0, "token")


def ticked(here: World, strategy: Strategy = Strategy.DEADLINE) -> TickResult:
    return tick(lane(max_messages=1000, strategy=strategy, drain_within_s=WITHIN_S, concurrency=1, task_timeout_s=7200.0), here.outside)


def test_others_are_launched_for_what_a_slow_worker_will_not_come_to(here: World) -> None:
    one_slow_worker(here)
    decision = ticked(here).decision
    # In the reading may also be those 3 that it has acknowledged in the 30 s before the sample.
    assert decision.backlog == 582 - 52 - 3
    assert decision.ledger is not None
    assert decision.ledger.entries[0].note == "its workers are too slow for 530 messages more of their shares, which count as unassigned"
    here.clock.advance(60)
    here.backlog_is(570)
    assert ticked(here).launched == (), "those are on their way"


def test_who_sizes_by_share_alone_has_no_time_to_be_late_for(here: World) -> None:
    one_slow_worker(here)
    assert ticked(here, Strategy.SHARE).launched == ()


class Drain:
    """A queue of messages of ten seconds, and workers of one thread that pull from it until their share is done or it is empty."""

    def __init__(self, here: World, message_s: float) -> None:
        self.here, self.message_s = here, message_s
        self.queue = 600
        self.began: dict[tuple[str, int], float] = {}
        self.done: dict[tuple[str, int], list[float]] = {}
        self.paid_s = 0.0

    @property
    def left(self) -> int:
        return 600 - sum(len(times) for times in self.done.values())

    def step(self, seconds: float) -> None:
        now = self.here.clock.now()
        self.here.clock.advance(seconds)
        live = [(name, info) for name, info in self.here.runner.all.items() if info.live]
        for name, info in live:
            ended = [self._work(name, index, info.task_count, int(info.env["BACKLOG"]), now, seconds) for index in range(info.task_count)]
            if all(ended):
                self.here.runner.complete(name, self.here.clock.now())

    def _work(self, name: str, index: int, worker_count: int, backlog: int, now: float, seconds: float) -> bool:
        """Whether it has ended."""
        key, most = (name, index), share(backlog, worker_count, index)
        times = self.done.setdefault(key, [])
        began_at = self.began.setdefault(key, now)
        while len(times) < most and self.queue and began_at + (len(times) + 1) * self.message_s <= now + seconds:
            times.append(began_at + (len(times) + 1) * self.message_s)
            self.queue -= 1
        ends = len(times) == most or not self.queue
        at = self.here.clock.now()
        marks = tuple((int(mark), sum(one <= mark for one in times)) for mark in range(int(began_at), int(at), MARK_EVERY_S))
        told = progress(
            most,
            began_at,
            updated_at=at,
            taken=len(times),
            acked=len(times),
            marks=marks,
            handler_s=len(times) * self.message_s,
            exit_reason="drained" * ends,
        )
        write_progress(self.here.store, name, index, told)
        self.paid_s += 0 if ends and times and times[-1] <= now else seconds
        return ends


def drained_in_s(here: World, message_s: float) -> tuple[float, Drain]:
    """From a tick that expects messages of a second to the last of 600."""
    save(here.store, LaneState("default", learned=Learned((Sample(0.9, 100, 2.0, 1.0),))), 0, "token")
    begin, drain = here.clock.now(), Drain(here, message_s)
    for _ in range(120):
        here.backlog.reading = Value(drain.left, here.clock.now(), here.clock.now() - begin)
        ticked(here)
        drain.step(60)
        if not drain.left:
            return here.clock.now() - begin, drain
    raise AssertionError(f"{drain.left} messages are left")


def test_a_backlog_that_was_taken_to_be_light_does_not_wait_for_the_worker_that_has_it(here: World) -> None:
    took_s, drain = drained_in_s(here, 10.0)
    # One worker was launched for all of it, which it would have done in 6,000 s. Its pace shows by the next tick, as does what a message
    # takes: those that help it are as many as are needed in the 9 min that are left. Three were doubted then, and have a
    # worker later.
    assert [info.task_count for info in here.runner.all.values()] == [1, 10, 1]
    assert took_s <= 1.1 * WITHIN_S
    assert drain.paid_s <= 1.05 * 600 * 10


def test_messages_that_take_ten_times_as_long_as_learned_have_their_workers_after_two_ticks(here: World) -> None:
    save(here.store, LaneState("default", learned=Learned(tuple(Sample(2.0, 300, 2.0, 1.0) for _ in range(20)))), 0, "token")
    drain = Drain(here, 20.0)
    for _ in range(3):
        here.backlog.reading = Value(drain.left, here.clock.now(), None)
        ticked(here)
        drain.step(60)
    first, *further = (info.task_count for info in here.runner.all.values())
    # 600 messages of 20 s are 12,000 s of work: what the first ones cannot do in time needs 18 more.
    assert first == ceil(600 / (598 / 2))
    assert sum(further) >= 15


def test_a_backlog_as_light_as_it_was_taken_to_be_has_one_worker(here: World) -> None:
    drained_in_s(here, 1.0)
    assert [info.task_count for info in here.runner.all.values()] == [1]
