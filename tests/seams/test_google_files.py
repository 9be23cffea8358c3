"""Objects as files over Google's client: what a network, a server and a disk do to them on the way."""

from __future__ import annotations

import base64
import gzip
import io
import os
import random
import resource
import traceback
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c
import pytest

from batch.files import Transferred
from batch.handling.results import write_output
from batch.model.clock import iso
from batch.model.errors import DependencyForbidden, DependencyUnavailable, ObjectMissing, ObjectTooLarge, PreconditionFailed
from batch.model.message import Task
from batch.services.objects import UPLOAD_PIECE_BYTES, GoogleObjectStore
from tests.local_cloud.fault_orders import Orders
from tests.seams.conftest import create_bucket
from tests.seams.test_google_objects import OBJECT_404, Server, server  # noqa: F401 - a fixture
from tests.support import Service

MB = 1024 * 1024
CONTENT = random.Random(1).randbytes(3 * MB)


@dataclass
class Site:
    """A bucket of the local cloud, and what its next requests meet."""

    store: GoogleObjectStore
    orders: Orders


@pytest.fixture
def site(local_storage: Service, project: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """One failure is the last: the store has no time for another try."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", local_storage.http)
    create_bucket(local_storage, project, f"bucket-{project}")
    made = Site(GoogleObjectStore(f"bucket-{project}", project=project, timeout_s=1e-9), Orders(local_storage.http, project))
    yield made
    made.store.close()
    assert made.orders.report()["pending"] == 0
    made.orders.clear()


def test_a_download_goes_on_where_the_connection_broke(site: Site, tmp_path: Path) -> None:
    """Each time after a part of what is left, and no time for retries: what came is progress."""
    site.store.write("one", CONTENT)
    broken = [{"kind": "reset_connection", "after_bytes": MB}, {"kind": "partial_body", "after_bytes": MB}]
    site.orders.add("objects.get", "ok", *broken)
    site.store.download("one", tmp_path / "file", max_bytes=len(CONTENT))
    assert (tmp_path / "file").read_bytes() == CONTENT


@pytest.mark.parametrize("before", [[], ["ok"], ["ok", {"kind": "partial_body", "after_bytes": 2 * MB}]], ids=["info", "content", "rest"])
def test_no_part_stays_after_an_error(site: Site, tmp_path: Path, before: list[Any]) -> None:
    site.store.write("one", CONTENT)
    site.orders.add("objects.get", *before, "http_503")
    with pytest.raises(DependencyUnavailable):
        site.store.download("one", tmp_path / "file")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("size", [100, UPLOAD_PIECE_BYTES + 1])
def test_an_upload_whose_answer_is_lost_is_its_own(site: Site, tmp_path: Path, size: int) -> None:
    (tmp_path / "file").write_bytes(bytes(size))
    patient = GoogleObjectStore(site.store.bucket_name, project="p")
    before = [] if size == 100 else ["ok", "ok"]  # the session, and its first piece
    site.orders.add("objects.insert", *before, "lost_response")
    try:
        patient.upload("plain", tmp_path / "file", if_generation=0)
    except PreconditionFailed:
        assert size == 100, "a session answers again for what it has written"
    assert site.store.read("plain") == bytes(size)
    site.orders.add("objects.insert", *before, "lost_response")
    task = Task("one", "t", iso(1))
    written = write_output(patient, task, "output", str(tmp_path / "file"), "text/plain")
    info = site.store.info("output")
    assert info is not None
    assert (written.generation, info.metadata["task_id"]) == (info.generation, "one")
    patient.close()


def test_an_upload_goes_on_where_the_connection_broke(site: Site, tmp_path: Path) -> None:
    content = random.Random(2).randbytes(2 * UPLOAD_PIECE_BYTES + 5)
    (tmp_path / "file").write_bytes(content)
    patient = GoogleObjectStore(site.store.bucket_name, project="p")
    site.orders.add("objects.insert", "ok", "ok", {"kind": "reset_connection", "after_bytes": MB})
    patient.upload("one", tmp_path / "file", if_generation=0)
    assert site.store.read("one") == content
    patient.close()


def test_an_upload_that_fails_writes_nothing(site: Site, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(UPLOAD_PIECE_BYTES + 1))
    site.orders.add("objects.insert", "ok", "ok", "http_503")
    with pytest.raises(DependencyUnavailable):
        site.store.upload("one", tmp_path / "file")
    assert site.store.info("one") is None


def test_the_session_of_an_upload_is_told_to_nobody(server: Server, tmp_path: Path) -> None:  # noqa: F811
    """Who has it may write the object, without credentials."""
    store = GoogleObjectStore("b", project="p", timeout_s=1e-9)
    (tmp_path / "file").write_bytes(bytes(UPLOAD_PIECE_BYTES + 1))
    server.answers.append((200, b"", {"Location": f"{server.url}/upload?uploadType=resumable&upload_id=s3ss10n"}))
    server.fails(403)
    with pytest.raises(DependencyForbidden, match=r"refused with 403.*upload_id=…") as caught:
        store.upload("one", tmp_path / "file")
    assert "s3ss10n" not in "".join(traceback.format_exception(caught.value))
    store.close()


def test_memory_is_that_of_a_piece_and_not_of_the_object(site: Site, tmp_path: Path) -> None:
    size = 40 * MB
    with open(tmp_path / "up", "wb") as file:
        file.truncate(size)
    site.store.write("warm", b"x")
    site.store.download("warm", tmp_path / "warm")
    tracemalloc.start()
    try:
        site.store.upload("one", tmp_path / "up")
        _, up = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        site.store.download("one", tmp_path / "down")
        _, down = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert os.path.getsize(tmp_path / "down") == size
    assert up < 3 * UPLOAD_PIECE_BYTES
    assert down < 6 * MB


# --- stored zipped


def store_zipped(site: Site, data: bytes) -> None:
    blob = site.store._bucket.blob("zipped")
    blob.content_encoding = "gzip"
    blob.upload_from_string(data)


@pytest.mark.parametrize(("size", "max_bytes"), [(1_000, 999), (60 * MB, MB), (60 * MB, 2 * MB + 1)])
def test_a_bomb_is_never_unpacked_beyond_what_its_reader_takes(
    site: Site, tmp_path: Path, size: int, max_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_zipped(site, gzip.compress(bytes(size), 1))
    sizes = [0]
    append = Transferred.append

    def noted(file: Transferred, data: bytes) -> None:
        append(file, data)
        sizes.append(os.fstat(file.fileno()).st_size)

    monkeypatch.setattr(Transferred, "append", noted)
    with pytest.raises(ObjectTooLarge, match=f"object zipped is larger than the {max_bytes:,} bytes"):
        site.store.download("zipped", tmp_path / "file", max_bytes=max_bytes)
    assert max(sizes) <= max_bytes
    assert os.listdir(tmp_path) == []


def test_a_zipped_object_may_be_as_large_as_its_reader_takes(site: Site, tmp_path: Path) -> None:
    store_zipped(site, gzip.compress(CONTENT))
    info = site.store.download("zipped", tmp_path / "file", max_bytes=len(CONTENT))
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert info == site.store.info("zipped"), "the info is of what is stored"


def test_a_zipped_download_goes_on_where_the_connection_broke(site: Site, tmp_path: Path) -> None:
    store_zipped(site, gzip.compress(CONTENT))
    site.orders.add("objects.get", "ok", {"kind": "partial_body", "after_bytes": MB})
    site.store.download("zipped", tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT


# --- a server that answers as it is told


@pytest.fixture
def told(server: Server) -> Iterator[GoogleObjectStore]:  # noqa: F811 - a fixture
    made = GoogleObjectStore("b", project="p", timeout_s=1e-9)
    yield made
    made.close()


def info(content: bytes, generation: int = 7, **more: Any) -> tuple[int, dict[str, Any]]:
    crc32c = base64.b64encode(google_crc32c.value(content).to_bytes(4, "big")).decode()
    return 200, {"name": "one", "bucket": "b", "generation": str(generation), "size": str(len(content)), "crc32c": crc32c, **more}


REFUSED: dict[str, tuple[tuple[int, Any], list[tuple[int, bytes]], str]] = {
    "changed": (info(b"12345"), [(200, b"54321")], "what arrived is not what is stored, by its size or checksum"),
    "a part, unasked": (info(b"12345"), [(206, b"12345")], "206, a part of an object"),
    "longer": (info(b"12345"), [(200, b"123456")], "not what is stored"),
    "nothing": (info(b"12345"), [(200, b"")], "nothing came"),
    "short, then nothing": (info(b"12345"), [(200, b"123"), (206, b"")], "nothing came"),
    "short, then all again": (info(b"12345"), [(200, b"123"), (200, b"12345")], "not what is stored"),
    "zipped, changed": (
        info(gzip.compress(b"12345", mtime=0), contentEncoding="gzip"),
        [(200, gzip.compress(b"1234", mtime=0) + b"?")],
        "what arrived is not what is stored, by its size or checksum",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_not_the_object_is_never_taken_for_it(
    server: Server,  # noqa: F811 - a fixture
    told: GoogleObjectStore,
    tmp_path: Path,
    kind: str,
) -> None:
    about, answers, problem = REFUSED[kind]
    server.answers += [about, *answers]
    with pytest.raises(DependencyUnavailable, match=problem):
        told.download("one", tmp_path / "file")
    assert os.listdir(tmp_path) == []


def test_a_short_answer_is_made_whole(server: Server, told: GoogleObjectStore, tmp_path: Path) -> None:  # noqa: F811 - a fixture
    server.answers += [info(b"12345"), (200, b"123"), (206, b"45")]
    told.download("one", tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"12345"
    assert [one.partition("generation=")[2] for one in server.requests] == ["", "7", "7"], server.requests


def test_an_empty_object_takes_one_request(server: Server, told: GoogleObjectStore, tmp_path: Path) -> None:  # noqa: F811 - a fixture
    server.answers.append(info(b""))
    assert told.download("one", tmp_path / "file").size == 0
    assert (tmp_path / "file").read_bytes() == b""


def test_one_that_is_too_large_takes_one_request(server: Server, told: GoogleObjectStore, tmp_path: Path) -> None:  # noqa: F811 - a fixture
    server.answers.append(info(b"12345"))
    with pytest.raises(ObjectTooLarge):
        told.download("one", tmp_path / "file", max_bytes=4)
    assert len(server.requests) == 1


def test_one_that_is_replaced_meanwhile_is_read_anew(server: Server, told: GoogleObjectStore, tmp_path: Path) -> None:  # noqa: F811 - a fixture
    gone = (404, {"error": {"code": 404, "message": OBJECT_404}})
    server.answers += [info(b"12345"), (200, b"123"), gone, info(b"678", generation=8), (200, b"678")]
    assert told.download("one", tmp_path / "file").generation == 8
    assert (tmp_path / "file").read_bytes() == b"678"
    server.answers += [info(b"12345"), gone, gone]
    with pytest.raises(ObjectMissing):
        told.download("one", tmp_path / "file")
    assert os.listdir(tmp_path) == []


# --- the disk


def test_a_full_disk_is_no_outage_of_cloud_storage(
    server: Server,  # noqa: F811 - a fixture
    told: GoogleObjectStore,
    tmp_path: Path,
) -> None:
    """Nor is the rest asked for, as after an outage: the file would have a hole."""
    server.answers += [info(CONTENT), (200, CONTENT)]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MB, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            told.download("one", tmp_path / "file")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert len(server.requests) == 2
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("size", [100, UPLOAD_PIECE_BYTES + 1])
def test_a_file_that_shrinks_while_it_is_uploaded_is_its_owners_affair(
    site: Site, tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(size))
    read = Transferred.read

    def shrunk(file: Transferred, wanted: int = -1) -> bytes:
        os.truncate(path, size - 1)
        return read(file, wanted)

    monkeypatch.setattr(Transferred, "read", shrunk)
    with pytest.raises(OSError, match=rf"it became shorter than {size:,} bytes while it was uploaded: '{path}'"):
        site.store.upload("one", path)
    assert site.store.info("one") is None


def test_a_file_that_is_deleted_ends_its_transfer(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    with Transferred(str(tmp_path / "file"), "rb") as file:
        assert file.read() == b"x"
        file.seek(0, io.SEEK_SET)
        os.unlink(tmp_path / "file")
        with pytest.raises(FileNotFoundError, match="it was deleted while it was being transferred"):
            file.read()
