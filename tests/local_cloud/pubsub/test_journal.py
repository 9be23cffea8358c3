"""The journal as a file: what was appended is there again, a torn end is cut off, damage is named, a rewrite loses nothing."""

from __future__ import annotations

import resource
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local_cloud.pubsub.entries import Kind, Reader, copied, entry, published
from local_cloud.pubsub.journal import MAGIC, Journal
from local_cloud.pubsub.publication import Publication
from tests.support import wait_until


def same(data: memoryview, spans: Iterable[tuple[int, int]]) -> Iterator[bytes]:
    for start, end in spans:
        yield bytes(data[start:end])


def content(journal: Journal) -> list[bytes]:
    found: list[bytes] = []
    journal.read(lambda data, spans: found.extend(same(data, spans)))
    return found


@pytest.fixture
def open_journal(tmp_path: Path) -> Iterator[Callable[..., Journal]]:
    opened: list[Journal] = []

    def begin(condense: Callable[..., Iterable[bytes]] = same, rewrite_bytes: int = 1 << 30) -> Journal:
        opened.append(Journal(tmp_path / "j", condense, rewrite_bytes))
        return opened[-1]

    yield begin
    for journal in opened:
        journal.close()


def reopened(open_journal: Callable[..., Journal], journal: Journal) -> list[bytes]:
    """What a later process finds."""
    copy = Path(f"{journal.path.parent}-copy")
    copy.mkdir(exist_ok=True)
    (copy / "journal").write_bytes(journal.path.read_bytes())
    other = Journal(copy, same)
    found = content(other)
    other.append(b"more")
    assert content(other) == [*found, b"more"]
    other.close()
    return found


def test_entries_come_back_in_order(open_journal: Callable[..., Journal]) -> None:
    journal = open_journal()
    assert content(journal) == []
    entries = [b"a", b"b" * 100_000, b"\0"]
    for one in entries:
        journal.append(one)
    assert content(journal) == entries == reopened(open_journal, journal)
    assert oct(journal.path.stat().st_mode)[-3:] == "600"
    assert oct(journal.path.parent.stat().st_mode)[-3:] == "700"


def test_an_end_cut_anywhere_costs_the_last_entry_only(open_journal: Callable[..., Journal]) -> None:
    journal = open_journal()
    journal.append(b"first")
    whole = journal.size
    journal.append(b"second")
    full = journal.path.read_bytes()
    for length in range(whole, len(full)):
        journal.path.write_bytes(full[:length])
        assert reopened(open_journal, journal) == [b"first"]
    journal.path.write_bytes(full[:-1] + b"?")
    assert reopened(open_journal, journal) == [b"first"]
    journal.path.write_bytes(full)
    for length in range(len(MAGIC)):
        journal.path.write_bytes(MAGIC[:length])
        assert reopened(open_journal, journal) == []
    journal.path.write_bytes(full)


def test_damage_in_the_middle_is_refused_with_its_place(tmp_path: Path) -> None:
    journal = Journal(tmp_path, same)
    journal.append(b"first")
    journal.append(b"second")
    journal.close()
    full = journal.path.read_bytes()
    journal.path.write_bytes(full.replace(b"first", b"fir?t"))
    with pytest.raises(ValueError, match=rf"journal is damaged at byte {len(MAGIC)}: move it away"):
        Journal(tmp_path, same)
    journal.path.write_bytes(b"something else that is long enough")
    with pytest.raises(ValueError, match="no journal of this version"):
        Journal(tmp_path, same)


def test_two_processes_cannot_share_a_folder(tmp_path: Path, open_journal: Callable[..., Journal]) -> None:
    open_journal()
    with pytest.raises(RuntimeError, match="another process uses"):
        Journal(tmp_path / "j", same)


def test_what_is_appended_during_a_rewrite_is_kept(open_journal: Callable[..., Journal]) -> None:
    reading, go_on = threading.Event(), threading.Event()

    def slow(data: memoryview, spans: Iterable[tuple[int, int]]) -> Iterator[bytes]:
        kept = [one for one in same(data, spans) if one != b"garbage"]
        reading.set()
        assert go_on.wait(60)
        yield from kept

    journal = open_journal(slow)
    for one in (b"garbage", b"live", b"garbage"):
        journal.append(one)
    aside = threading.Thread(target=journal.rewrite)
    aside.start()
    assert reading.wait(60)
    journal.append(b"meanwhile")
    go_on.set()
    aside.join(60)
    journal.append(b"later")
    assert content(journal) == [b"live", b"meanwhile", b"later"] == reopened(open_journal, journal)
    assert not list(journal.path.parent.glob("*.fresh"))


def test_it_is_rewritten_by_itself_when_it_has_grown(open_journal: Callable[..., Journal]) -> None:
    def newest(data: memoryview, spans: Iterable[tuple[int, int]]) -> Iterator[bytes]:
        yield list(same(data, spans))[-1]

    journal = open_journal(newest, rewrite_bytes=2_000)
    for number in range(1_000):
        journal.append(b"%04d" % number * 10)
        assert content(journal)[-1] == b"%04d" % number * 10
    wait_until(lambda: journal.size < 4_000, description="the file is small again")


def test_a_full_disk_confirms_nothing_more_and_keeps_what_was_confirmed(open_journal: Callable[..., Journal]) -> None:
    journal = open_journal()
    journal.append(b"first")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (journal.size + 20, hard))  # Python ignores the signal; the write is cut short
    try:
        with pytest.raises(OSError, match="make room and restart"):
            journal.append(b"x" * 100)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    with pytest.raises(OSError, match="nothing can be confirmed"):
        journal.append(b"small")
    assert content(journal) == [b"first"] == reopened(open_journal, journal)


@given(
    st.text(max_size=20),
    st.integers(0, 2**63),
    st.floats(0, 1e10),
    st.lists(st.binary(max_size=50), min_size=1),
    st.lists(st.integers(0, 2**63)),
)
def test_entries_are_read_as_they_were_written(name: str, first_id: int, time: float, bodies: list[bytes], numbers: list[int]) -> None:
    messages = [(first_id + number, time, body) for number, body in enumerate(bodies)]
    data = memoryview(published(name, Publication(bodies, first_id, time)))
    read = Reader(data, 0, len(data))
    assert (read.kind, read.text()) == (Kind.PUBLISHED, name)
    places = read.messages()
    assert [(key, time, bytes(data[start:end])) for key, (time, start, end) in places.items()] == messages
    copy = memoryview(copied(data, list(places.items())))
    read = Reader(copy, 0, len(copy))
    assert read.kind == Kind.MESSAGES
    assert [(key, time, bytes(copy[start:end])) for key, (time, start, end) in read.messages().items()] == messages
    data = memoryview(entry(Kind.FAILED, name, b"blob", numbers))
    read = Reader(data, 0, len(data))
    assert (read.kind, read.text(), read.blob(), list(read.numbers())) == (Kind.FAILED, name, b"blob", numbers)
