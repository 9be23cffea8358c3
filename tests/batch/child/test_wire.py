"""The wire between a worker and its child: frames in any pieces, bytes of any size, errors of the right types, nothing left behind."""

from __future__ import annotations

import json
import os
import socket
import tempfile
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch.child.store import RemoteStore, answered, packed, unpacked
from batch.child.wire import MAX_INLINE_BYTES, PREFIX, Decoder, Frame, Garbled, Link
from batch.handling.results import write_output
from batch.model import errors
from batch.model.errors import DependencyForbidden, ObjectMissing, PreconditionFailed, Superseded
from batch.model.message import Task
from batch.testing import MemoryObjectStore


@pytest.fixture
def links() -> Iterator[tuple[Link, Link]]:
    made = tuple(Link(end) for end in socket.socketpair())
    yield made[0], made[1]
    for link in made:
        link.close()


FRAMES = st.lists(st.tuples(st.dictionaries(st.text(), st.text()), st.binary(max_size=300)), max_size=5)


@given(FRAMES, st.lists(st.integers(1, 50), min_size=1))
def test_frames_come_out_whole_however_they_are_cut(frames: list[tuple[dict[str, str], bytes]], cuts: list[int]) -> None:
    texts = [(json.dumps(header).encode(), body) for header, body in frames]
    data = b"".join(PREFIX.pack(len(text), len(body), 0) + text + body for text, body in texts)
    decoder = Decoder()
    got: list[Frame] = []
    at = step = 0
    while at < len(data):
        size = cuts[step % len(cuts)]
        decoder.feed(data[at : at + size], [])
        while (frame := decoder.next()) is not None:
            got.append(frame)
        at, step = at + size, step + 1
    assert got == [Frame(dict(header), body) for header, body in frames]


@pytest.mark.parametrize("size", [0, 1, MAX_INLINE_BYTES, MAX_INLINE_BYTES + 1, 20_000_000])
def test_bytes_of_any_size_travel(links: tuple[Link, Link], size: int, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    one, other = links
    body = os.urandom(size)
    sender = threading.Thread(target=lambda: one.send({"kind": "x", "text": "ü\udc80"}, body))
    sender.start()
    frame = other.receive()
    sender.join(60)
    assert frame == Frame({"kind": "x", "text": "ü\udc80"}, body)
    assert os.listdir(tmp_path) == [], "a file with a name would be left behind by a crash"


@pytest.mark.parametrize("data", [b"\xff" * 100, PREFIX.pack(3, 0, 0) + b"{]}", PREFIX.pack(2, 0, 0) + b"[]", PREFIX.pack(2, 9, 1) + b"{}"])
def test_what_is_no_frame_is_refused(data: bytes) -> None:
    decoder = Decoder()
    decoder.feed(data, [])
    with pytest.raises(Garbled):
        decoder.next()


def test_the_other_ends_end_is_heard(links: tuple[Link, Link]) -> None:
    one, other = links
    one.send({"kind": "last"})
    one.close()
    assert other.receive() == Frame({"kind": "last"})
    assert other.receive() is None


def test_a_send_to_one_who_does_not_read_ends(links: tuple[Link, Link]) -> None:
    one, _other = links
    one.limit_sends(0.05)

    def flood() -> None:
        for _ in range(1000):
            one.send({}, b"x" * MAX_INLINE_BYTES)

    with pytest.raises(OSError, match="temporarily unavailable"):
        flood()


@pytest.mark.parametrize(
    "error",
    [
        ObjectMissing("a"),
        PreconditionFailed("a", 0),
        PreconditionFailed("a", 7),
        errors.DependencyError("down"),
        errors.DependencyMissing("no bucket"),
        errors.DependencyForbidden("no"),
        errors.DependencyUnavailable("later"),
        errors.NameRefused("a name"),
        errors.ObjectDamaged("cut"),
        errors.ServiceRefused("kept"),
        errors.FanoutError("else"),
        TypeError("not bytes"),
        ValueError("no"),
    ],
)
def test_errors_keep_type_and_words(error: Exception) -> None:
    again = unpacked(packed(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again) == vars(error)


def test_an_error_that_is_not_known_is_named() -> None:
    class Own(LookupError):
        pass

    again = unpacked(packed(Own("x")))
    assert (type(again), str(again)) == (RuntimeError, "Own: x")


@pytest.fixture
def stores() -> tuple[MemoryObjectStore, RemoteStore]:
    real = MemoryObjectStore()
    return real, RemoteStore("memory", lambda header, body: answered(real, Frame(header, body)))


def task(task_id: str, submitted_at: str = "2026-01-01") -> Task:
    return Task(task_id, "x", submitted_at)


def test_a_remote_bucket_does_what_the_bucket_does(stores: tuple[MemoryObjectStore, RemoteStore]) -> None:
    real, remote = stores
    info = remote.write("a", b"1", content_type="text/plain", metadata={"k": "v"}, if_generation=0)
    assert info == real.info("a") == remote.info("a")
    assert remote.read("a") == b"1"
    assert remote.read_with_info("a") == (b"1", info)
    assert remote.patch_metadata("a", {"l": "w"}).metadata == {"k": "v", "l": "w"}
    assert list(remote.list("")) == list(real.list(""))
    with pytest.raises(PreconditionFailed):
        remote.write("a", b"2", if_generation=0)
    assert remote.delete("a")
    assert not remote.delete("a")
    assert remote.info("a") is None
    with pytest.raises(ObjectMissing):
        remote.read("a")
    real.fail_next("read", DependencyForbidden("no"))
    with pytest.raises(DependencyForbidden, match="no"):
        remote.read("a")


def test_an_output_through_it_is_written_once_and_yields_to_a_newer_task(stores: tuple[MemoryObjectStore, RemoteStore]) -> None:
    _real, remote = stores
    first = write_output(remote, task("one"), "out", b"1", "text/plain")
    assert first.created
    again = write_output(remote, task("one"), "out", b"1", "text/plain")
    assert (again.generation, again.created) == (first.generation, False)
    write_output(remote, task("two", "2026-01-02"), "out", b"2", "text/plain")
    with pytest.raises(Superseded, match="two"):
        write_output(remote, task("one"), "out", b"1", "text/plain")
