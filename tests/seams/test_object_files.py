"""Objects as files: the same tests for the store in memory and for Google's client on the local cloud, and for a child's view of both."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import google_crc32c
import pytest

from batch.child.store import RemoteStore, answered
from batch.child.wire import Frame
from batch.model.errors import ObjectMissing, ObjectTooLarge, PreconditionFailed
from batch.services.ports import ObjectStore


def as_json(frame: Frame) -> Frame:
    """As it comes out of the wire."""
    return Frame(json.loads(json.dumps(frame.header)), frame.body)


@pytest.fixture(params=["in the worker", "in a child"])
def seen(request: pytest.FixtureRequest, store: ObjectStore) -> ObjectStore:
    if request.param == "in the worker":
        return store
    return RemoteStore(store.bucket_name, lambda header, body: as_json(answered(store, as_json(Frame(header, body)))))


@pytest.mark.parametrize("size", [0, 1, 9 * 1024 * 1024 + 1])
def test_a_file_of_any_size_goes_up_and_comes_down(seen: ObjectStore, tmp_path: Path, size: int) -> None:
    data = (bytes(range(251)) * (size // 251 + 1))[:size]
    (tmp_path / "up").write_bytes(data)
    written = seen.upload("a/b.bin", tmp_path / "up", content_type="text/plain", metadata={"task_id": "1"})
    assert seen.read("a/b.bin") == data
    assert (written.size, written.content_type, dict(written.metadata)) == (size, "text/plain", {"task_id": "1"})
    assert written.crc32c == base64.b64encode(google_crc32c.value(data).to_bytes(4, "big")).decode()
    assert seen.download("a/b.bin", tmp_path / "down") == seen.info("a/b.bin") == written
    assert (tmp_path / "down").read_bytes() == data
    assert seen.download("a/b.bin", str(tmp_path / "down"), max_bytes=size) == written
    assert sorted(os.listdir(tmp_path)) == ["down", "up"]


def test_a_download_replaces_what_the_file_held(seen: ObjectStore, tmp_path: Path) -> None:
    seen.write("one", b"short")
    (tmp_path / "file").write_bytes(b"much longer than that")
    seen.download("one", tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"short"


def test_what_is_missing_or_too_large_is_refused_before_there_is_a_file(seen: ObjectStore, tmp_path: Path) -> None:
    seen.write("one", b"12345")
    with pytest.raises(ObjectMissing, match="no-such"):
        seen.download("no-such", tmp_path / "file")
    with pytest.raises(ObjectTooLarge, match="object one is larger than the 4 bytes that its reader takes") as raised:
        seen.download("one", tmp_path / "file", max_bytes=4)
    assert (raised.value.name, raised.value.max_bytes) == ("one", 4)
    assert os.listdir(tmp_path) == []


def test_an_upload_keeps_to_generations_as_a_write_does(seen: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"1" * 9_000_000)
    first = seen.upload("one", tmp_path / "file", if_generation=0)
    with pytest.raises(PreconditionFailed, match="one exists already"):
        seen.upload("one", tmp_path / "file", if_generation=0)
    (tmp_path / "file").write_bytes(b"2")
    second = seen.upload("one", tmp_path / "file", if_generation=first.generation)
    with pytest.raises(PreconditionFailed, match=f"one is not at generation {first.generation} any more"):
        seen.upload("one", tmp_path / "file", if_generation=first.generation)
    assert seen.read("one") == b"2"
    assert seen.info("one") == second


UNREADABLE: dict[str, tuple[Callable[[Path], Any], type[Exception]]] = {
    "missing": (lambda folder: folder / "no" / "file", FileNotFoundError),
    "a folder": (lambda folder: folder, IsADirectoryError),
    "no regular file": (lambda _: "/dev/null", OSError),
    "no path": (lambda _: 3, TypeError),
    "bytes": (lambda _: b"/file", TypeError),
    "empty": (lambda _: "", ValueError),
    "with a zero": (lambda _: "/a\0b", ValueError),
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_a_file_that_cannot_be_is_the_callers_mistake(seen: ObjectStore, tmp_path: Path, kind: str) -> None:
    path, error = UNREADABLE[kind][0](tmp_path), UNREADABLE[kind][1]
    seen.write("one", b"x")
    with pytest.raises(error):
        seen.download("one", path)
    with pytest.raises(error):
        seen.upload("two", path)
    assert seen.info("two") is None
    assert os.path.exists("/dev/null")


@pytest.mark.parametrize(("max_bytes", "error"), [("1", TypeError), (1.0, TypeError), (True, TypeError), (-1, ValueError)])
def test_max_bytes_is_a_number_of_bytes(seen: ObjectStore, tmp_path: Path, max_bytes: Any, error: type[Exception]) -> None:
    seen.write("one", b"")
    with pytest.raises(error, match="max_bytes"):
        seen.download("one", tmp_path / "file", max_bytes=max_bytes)
