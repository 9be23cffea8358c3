"""Marks of submissions whose end is still to be fired."""

from __future__ import annotations

from dataclasses import replace

import pytest

from batch.ends.marks import FIRST_AGAIN_S, Mark, Told, after_finish, listed, read, wants_finish, write
from batch.ends.options import Ends
from batch.model.errors import ObjectDamaged, PreconditionFailed
from batch.testing.objects import MemoryObjectStore

ENDS = Ends({"task_type": "report", "text": "\ud800"})
NOW = 1_800_000_000.0


def test_a_mark_is_read_as_it_was_written_and_told_by_a_listing() -> None:
    store = MemoryObjectStore()
    mark = write(store, Mark("s-1", "bulk", 2, Told(NOW, 7, 3)), ENDS)
    assert read(store, "bulk", "s-1") == (mark, ENDS)
    write(store, Mark("s-2", "default"), ENDS)
    store.write("open/default/odd/name", b"")
    assert list(listed(store, "bulk")) == [mark]
    assert [one.submission_id for one in listed(store)] == ["s-1", "s-2"]
    assert read(store, "default", "s-3") is None


def test_of_two_that_write_one_stands_down() -> None:
    store = MemoryObjectStore()
    first = write(store, Mark("s-1", "bulk"), ENDS)
    write(store, first.next_round(), ENDS)
    with pytest.raises(PreconditionFailed):
        write(store, first.next_round(), ENDS)
    with pytest.raises(PreconditionFailed):
        write(store, Mark("s-1", "bulk"), ENDS)


def test_a_damaged_mark_says_what_to_do_and_does_not_hide_the_others() -> None:
    store = MemoryObjectStore()
    store.write("open/bulk/s-1", b"[]", metadata={"round": "x", "told_at": "y"})
    with pytest.raises(ObjectDamaged, match=r"open/bulk/s-1 .*delete it"):
        read(store, "bulk", "s-1")
    (found,) = listed(store)
    assert (found.round, found.told) == (0, Told())


def test_it_is_told_when_counts_suggest_the_end_and_again_when_they_have_grown() -> None:
    mark = Mark("s-1", "bulk")
    assert not wants_finish(mark, 9, 10, NOW)
    assert wants_finish(mark, 10, 10, NOW)
    assert wants_finish(mark, 0, 0, NOW)
    mark = after_finish(mark, 10, NOW)
    assert not wants_finish(mark, 10, 10, NOW + 1)
    assert wants_finish(mark, 11, 10, NOW + 1)
    assert wants_finish(mark.next_round(), 10, 10, NOW + 1)


def test_while_counts_stay_the_same_it_is_told_again_after_ten_twenty_and_forty_minutes() -> None:
    mark, at, waits = after_finish(Mark("s-1", "bulk"), 10, NOW), NOW, []
    for _ in range(3):
        wait_s = FIRST_AGAIN_S
        while not wants_finish(mark, 10, 10, at + wait_s):
            wait_s += FIRST_AGAIN_S
        waits.append(wait_s / 60)
        at += wait_s
        mark = after_finish(mark, 10, at)
    assert waits == [10, 20, 40]
    assert after_finish(mark, 12, at).told.times == 1
    assert wants_finish(replace(mark, told=Told(NOW, 10, 10_000)), 10, 10, NOW + FIRST_AGAIN_S * 2**15)


@pytest.mark.parametrize(
    "metadata",
    [
        {"told_at": "2026-01-01T00:00:00Z", "told_count": "9", "told_times": "-1" + "0" * 400},
        {"firing": '{"at": "2026-01-01T00:00:00Z", "end": "on_complete", "task_count": 1e999, "counts": {}}'},
        {"firing": "[" * 3000},
        {"round": "x"},
    ],
)
def test_damaged_metadata_of_a_mark_does_not_hide_the_others(metadata: dict[str, str]) -> None:
    store = MemoryObjectStore()
    mark = write(store, Mark("s-1", "default"), ENDS)
    store.patch_metadata(mark.name, metadata)
    write(store, Mark("s-2", "default"), ENDS)
    assert [one.submission_id for one in listed(store)] == ["s-1", "s-2"]
    assert [wants_finish(one, 9, 9, NOW) for one in listed(store)] == [True, True]
