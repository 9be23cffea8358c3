"""The list of what was cancelled in a lane: what holds for which message, two commands at once, and damage."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch.handling.cancels import KEPT_S, MAX_ENTRIES, MAX_INLINE, Cancel, Cancels, cancel, from_json, to_json
from batch.model.deadletters import REPLAY, Replay
from batch.model.errors import DependencyUnavailable, FanoutError
from batch.model.names import cancel_object
from batch.services.ports import ObjectInfo
from batch.testing import ManualClock, MemoryObjectStore

NOW = 1_767_225_600.0
NAME = cancel_object("bulk")
MANY = [f"id-{number}" for number in range(MAX_INLINE + 1)]
texts = st.text(st.characters(codec="utf-8"), max_size=9)
entries = st.builds(
    Cancel,
    *[st.floats(0, 9e9)] * 2,
    texts,
    texts,
    id=texts.filter(bool),
    ids_object=st.sampled_from(["", "cancel/bulk/0-1"]),
    id_count=st.integers(1, 10**6),
)


@pytest.fixture
def store() -> MemoryObjectStore:
    return MemoryObjectStore(clock=ManualClock())


def looked(store: MemoryObjectStore, now: float = NOW, known: Cancels | None = None) -> Cancels:
    found = known or Cancels()
    assert found.look(store, "bulk", now) == ""
    return found


def holds(found: Cancels, task_id: str, submission_id: str = "", **attributes: str) -> bool:
    return found.entry_for(task_id, submission_id, attributes) is not None


@given(st.lists(entries, max_size=5))
def test_what_is_written_is_read(given_entries: list[Cancel]) -> None:
    assert from_json(to_json(given_entries)) == tuple(given_entries)


def test_a_task_and_a_submission_are_cancelled_by_name_and_nothing_else(store: MemoryObjectStore) -> None:
    cancel(store, "bulk", ["id-1", "s-7"], who="ada", why="wrong input", now=NOW)
    found = looked(store)
    assert [holds(found, "id-1"), holds(found, "id-2"), holds(found, "id-2", "s-7"), holds(found, "id-2", "s-8")] == [1, 0, 1, 0]
    entry = found.entry_for("id-1", "", {})
    assert entry is not None
    assert entry.reason == "cancelled by ada at 2026-01-01T00:00:00.000000Z: wrong input"


@pytest.mark.parametrize(("replayed_at", "held"), [(NOW - 1, True), (NOW, True), (NOW + 0.002, False)])
def test_an_entry_does_not_hold_for_a_replay_after_it(store: MemoryObjectStore, replayed_at: float, held: bool) -> None:
    cancel(store, "bulk", ["id-1", "s-7"], who="ada", now=NOW)
    replay = {REPLAY: str(Replay(1, replayed_at, "r-1"))}
    assert holds(looked(store), "id-1", **replay) is held
    assert holds(looked(store), "id-2", "s-7", **replay) is held


def test_cancelled_again_after_the_replay_it_holds_for_that_too_and_stands_there_once(store: MemoryObjectStore) -> None:
    for number in range(3):
        cancel(store, "bulk", ["id-1"], who="ada", now=NOW + number)
    assert holds(looked(store), "id-1", **{REPLAY: str(Replay(1, NOW + 1, "r-1"))})
    assert len(from_json(store.read(NAME))) == 1


def test_what_has_expired_holds_no_more_and_goes_with_the_next_write(store: MemoryObjectStore) -> None:
    cancel(store, "bulk", ["id-1"], who="ada", now=NOW)
    cancel(store, "bulk", MANY, who="ada", now=NOW)
    later = NOW + KEPT_S
    assert holds(looked(store, later - 1), "id-1")
    assert looked(store, later).by_id == {}
    cancel(store, "bulk", ["id-2"], who="ada", now=later)
    assert ([one.id for one in from_json(store.read(NAME))], store.names("cancel/")) == (["id-2"], (NAME,))


def test_an_entry_expires_also_where_the_list_does_not_change(store: MemoryObjectStore) -> None:
    cancel(store, "bulk", ["id-1"], who="ada", now=NOW)
    cancel(store, "bulk", ["id-2"], who="ada", now=NOW + 5)
    known = looked(store)
    assert list(looked(store, NOW + KEPT_S, known).by_id) == ["id-2"]
    assert looked(store, NOW + KEPT_S + 5, known).by_id == {}


def test_many_ids_are_in_one_object_that_the_entry_names(store: MemoryObjectStore) -> None:
    cancel(store, "bulk", MANY, who="ada", now=NOW)
    cancel(store, "bulk", [*reversed(MANY), MANY[0]], who="ada", now=NOW + 5)
    assert len(store.names("cancel/bulk/")) == len(from_json(store.read(NAME))) == 1
    found = looked(store)
    assert all(holds(found, one) for one in MANY)
    assert not holds(found, "id-other")


def test_both_of_two_commands_at_once_are_kept(store: MemoryObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    write = store.write

    def overtaken(name: str, data: bytes, **more: Any) -> ObjectInfo:
        monkeypatch.setattr(store, "write", write)
        cancel(store, "bulk", ["theirs"], who="bob", now=NOW)
        return write(name, data, **more)

    monkeypatch.setattr(store, "write", overtaken)
    cancel(store, "bulk", ["ours"], who="ada", now=NOW)
    assert sorted(looked(store).by_id) == ["ours", "theirs"]


def test_an_unchanged_list_is_not_read_again(store: MemoryObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    cancel(store, "bulk", ["id-1"], who="ada", now=NOW)
    found = looked(store)
    monkeypatch.setattr(store, "read_with_info", None)
    assert holds(looked(store, known=found), "id-1")


def test_a_list_that_is_gone_cancels_nothing(store: MemoryObjectStore) -> None:
    cancel(store, "bulk", ["id-1"], who="ada", now=NOW)
    found = looked(store)
    store.delete(NAME)
    assert looked(store, known=found).by_id == {}


def test_what_was_known_holds_while_the_bucket_is_down(store: MemoryObjectStore) -> None:
    cancel(store, "bulk", ["id-1"], who="ada", now=NOW)
    found = looked(store)
    cancel(store, "bulk", ["id-2"], who="ada", now=NOW)
    store.fail_next("read_with_info", DependencyUnavailable("503"))
    with pytest.raises(DependencyUnavailable):
        found.look(store, "bulk", NOW)
    assert list(found.by_id) == ["id-1"]
    assert holds(looked(store, known=found), "id-2")


DAMAGES: list[Callable[[bytes], bytes]] = [
    lambda _: b"",
    lambda data: data[:-9],
    lambda _: b"[]",
    lambda data: data.replace(b'"format": 1', b'"format": 2'),
    lambda data: data.replace(b'"at": 1767225600.0', b'"at": NaN'),
    lambda data: data.replace(b'"at": 1767225600.0', b'"at": true'),
    lambda data: data.replace(b'"id": "id-1"', b'"id": ["id-1"]'),
    lambda data: data.replace(b'"id": "id-1"', b'"other": "id-1"'),
    lambda data: data.replace(b'"id": "id-1"', b'"ids_object": "cancel/bulk/a\\nb"'),
    lambda data: data.replace(b'"id": "id-1"', b'"ids_object": "input/a.csv"'),
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_list_cancels_nothing_and_is_told_once(store: MemoryObjectStore, damage: Callable[[bytes], bytes]) -> None:
    cancel(store, "bulk", ["id-1"], who="ada", now=NOW)
    found = looked(store)
    store.write(NAME, damage(store.read(NAME)))
    assert f"{NAME} cancels nothing" in found.look(store, "bulk", NOW)
    assert (found.by_id, found.look(store, "bulk", NOW)) == ({}, "")
    with pytest.raises(FanoutError, match=r"is damaged, so it cancels nothing: .*; delete it, and cancel again"):
        cancel(store, "bulk", ["id-2"], who="ada", now=NOW)


def test_an_object_of_ids_that_is_gone_cancels_nothing(store: MemoryObjectStore) -> None:
    cancel(store, "bulk", MANY, who="ada", now=NOW)
    cancel(store, "bulk", ["id-other"], who="ada", now=NOW)
    store.delete(store.names("cancel/bulk/")[0])
    assert list(looked(store).by_id) == ["id-other"]


def test_a_full_list_says_what_to_do(store: MemoryObjectStore) -> None:
    store.write(NAME, to_json([Cancel(NOW, NOW + 9, id=f"id-{number}") for number in range(MAX_ENTRIES)]))
    with pytest.raises(FanoutError, match="at most 1,000 fit: cancel a submission, or use --from-file"):
        cancel(store, "bulk", ["one-more"], who="ada", now=NOW)


def test_a_list_holds_no_more_ids_than_a_worker_has_room_for(store: MemoryObjectStore) -> None:
    named = [Cancel(NOW, NOW + 9, ids_object=f"cancel/bulk/{number}-1", id_count=100_000) for number in range(3)]
    store.write(NAME, to_json(named))
    with pytest.raises(FanoutError, match="more than 300,000 ids, which workers hold: cancel their submissions instead"):
        cancel(store, "bulk", MANY, who="ada", now=NOW)
    assert store.names("cancel/") == (NAME,), "nothing was written"
    cancel(store, "bulk", MANY, who="ada", now=NOW + 9)
