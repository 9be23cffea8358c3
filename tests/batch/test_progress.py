"""Progress survives its way through an object's metadata, which never grows too large for it."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch.model.progress import DEFERRED_KEPT, MARKS_KEPT, RUNNING_KEPT, Progress, RunningTask, from_metadata, to_metadata

counts = st.integers(0, 10**9)
seconds = st.integers(0, 4 * 10**12).map(lambda milliseconds: milliseconds / 1000)
unix = st.integers(1_600_000_000, 4_000_000_000)


def pairs(at_most: int) -> st.SearchStrategy[tuple[tuple[int, int], ...]]:
    """A few, or close to the largest number, of a seed: hypothesis alone seldom makes long lists, and takes long for them."""
    few = st.lists(st.tuples(unix, counts), max_size=min(at_most, 20))
    return (few | st.builds(many, st.integers(at_most * 3 // 4, at_most), st.integers(0, 2**32))).map(lambda found: tuple(sorted(found)))


def many(count: int, seed: int) -> list[tuple[int, int]]:
    """Close together or far apart, with counts of one digit or ten."""
    rng = random.Random(seed)
    latest, most = rng.choice([1_600_000_050, 1_600_100_000, 4_000_000_000]), rng.choice([1, 1000, 10**9])
    return [(rng.randint(1_600_000_000, latest), rng.choice([0, most, rng.randint(0, most)])) for _ in range(count)]


def progresses(marks: int, deferred: int) -> st.SearchStrategy[Progress]:
    return st.builds(
        Progress,
        share=counts,
        started_at=seconds,
        updated_at=seconds,
        taken=counts,
        acked=counts,
        returned=counts,
        succeeded=counts,
        superseded=counts,
        cancelled=counts,
        dead=counts,
        delayed=counts,
        last_acked_at=seconds,
        handler_s=seconds,
        marks=pairs(marks),
        deferred=pairs(deferred),
        exit_reason=st.sampled_from(["", "share_done", "drained"]),
    )


@given(progresses(MARKS_KEPT, DEFERRED_KEPT))
def test_progress_comes_back_as_it_was(progress: Progress) -> None:
    assert from_metadata(to_metadata(progress)) == progress


@given(progresses(300, 400))
def test_metadata_stays_small_and_keeps_what_counts(progress: Progress) -> None:
    metadata = to_metadata(progress)
    assert sum(len(name.encode()) + len(value.encode()) for name, value in metadata.items()) < 8 * 1024
    found = from_metadata(metadata)
    assert sum(count for _, count in found.deferred) == sum(count for _, count in progress.deferred)
    assert found.marks == progress.marks[-MARKS_KEPT:]
    assert replace(found, marks=(), deferred=()) == replace(progress, marks=(), deferred=())


@given(progresses(0, 400), unix)
def test_fewer_deferrals_never_become_due_early(progress: Progress, now: int) -> None:
    """Joined pairs take the later time: a message that is not due yet is never taken for one that is."""
    found = from_metadata(to_metadata(progress))
    due = [sum(count for at, count in one.deferred if at <= now) for one in (found, progress)]
    assert due[0] <= due[1]


@given(progresses(20, 0), seconds, st.floats(0, 1000))
def test_acked_at_never_falls(progress: Progress, asked: float, later_s: float) -> None:
    """Even of marks that no worker of ours would write."""
    marks = tuple(zip((time for time, _ in progress.marks), sorted(count for _, count in progress.marks), strict=True))
    progress = replace(progress, marks=marks, acked=max([progress.acked, *(count for _, count in marks)]))
    assert 0 <= progress.acked_at(asked) <= progress.acked_at(asked + later_s) <= progress.acked


def test_between_two_marks_what_was_acknowledged_is_taken_to_have_come_evenly() -> None:
    one = Progress(100, 100.0, 190.0, acked=100, marks=((105, 10), (120, 40), (180, 70)))
    assert [one.acked_at(at) for at in (90, 100, 105, 110, 120, 190, 999)] == [0, 0, 10, 20, 40, 100, 100]
    assert one.acked_at(102.5) == 5, "from its start to its first mark"
    assert one.acked_at(185) == 85, "from its last mark to its last word"
    assert (one.acked_at(135), one.acked_at(150)) == (47, 55)
    early = Progress(100, 100.0, 105.0, acked=20, marks=((90, 0),))
    assert (early.acked_at(99), early.acked_at(101), early.acked_at(103)) == (0, 4, 12), "its first mark may lie before its start"


@given(progresses(300, 400), st.integers(0, 128), st.sampled_from(["", "é", "\u2028", "a"]))
def test_the_oldest_running_tasks_and_the_first_shards_are_kept_as_far_as_there_is_room(progress: Progress, length: int, odd: str) -> None:
    running = tuple(RunningTask(f"{at}".zfill(length), f"type{odd * length}", 4_000_000_000) for at in range(30))
    shards = tuple(f"{at}".zfill(min(100, length)) for at in range(100))
    metadata = to_metadata(replace(progress, running=running, shards=shards))
    assert sum(len(name.encode()) + len(value.encode()) for name, value in metadata.items()) < 8 * 1024
    found = from_metadata(metadata)
    assert 3 <= len(found.running) <= RUNNING_KEPT
    assert found.running == running[: len(found.running)]
    assert len(found.shards) >= 10
    assert found.shards == shards[: len(found.shards)]


def test_what_is_held_is_never_negative() -> None:
    assert Progress(10, 0.0, 0.0, taken=7, acked=3, returned=2).held == 2
    assert Progress(10, 0.0, 0.0, taken=1, acked=3).held == 0


@pytest.mark.parametrize(
    "broken",
    [{}, {"share": "x"}, {"marks": "[1]"}, {"marks": "{"}, {"deferred": "[[1]]"}, {"updated_at": ""}, {"marks": "[[Infinity, 1]]"}],
)
def test_other_metadata_is_no_progress(broken: dict[str, str]) -> None:
    metadata = {**to_metadata(Progress(1, 0.0, 0.0)), **broken} if broken else {}
    with pytest.raises(ValueError, match="not a worker's progress"):
        from_metadata(metadata)


def test_progress_of_a_worker_that_knew_no_parking_is_read_still() -> None:
    metadata = to_metadata(Progress(1, 0.0, 0.0, acked=1))
    for name in ("delayed", "running", "shards"):
        del metadata[name]
    found = from_metadata(metadata)
    assert (found.delayed, found.running, found.shards) == (0, (), ())


def test_what_broke_a_worker_is_told_in_words_that_a_terminal_can_show() -> None:
    one = Progress(
        share=1, started_at=0.0, updated_at=0.0, exit_reason="broken", broken_by="most fail: \x1b[2J\u202e\nhalf \ud83d" + "x" * 900
    )
    found = from_metadata(to_metadata(one)).broken_by
    assert found.startswith("most fail:  [2J  half  xxx")
    assert len(found) == 500
    assert "broken_by" not in to_metadata(replace(one, broken_by=""))
