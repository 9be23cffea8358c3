"""What survives: a killed and a stopped server, half-written uploads, and a folder that is not left alone."""

from __future__ import annotations

import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import requests
from google.api_core.exceptions import GoogleAPICallError

from local_cloud.clock import Clock
from local_cloud.storage.model.conditions import NO_CONDITIONS
from local_cloud.storage.model.storage import Ref, Storage
from local_cloud.storage.model.uploads import SESSION_LIFE_S, Uploads
from tests.local_cloud.manual_clock import ManualClock

REF = Ref("bucket", "folder/it")


def test_all_that_was_confirmed_is_there_after_a_kill(tmp_path: Path, start_server: Callable[[Path], Any]) -> None:
    first = start_server(tmp_path)
    bucket = first.client().create_bucket("bucket")
    confirmed: dict[str, tuple[bytes, int, int]] = {}

    def write(number: int) -> None:
        """Each name is written again and again until the server is gone."""
        blob = bucket.blob(f"o/{number % 8}")
        content = f"{number}".encode() * (number * 50 + 1)
        with suppress(requests.RequestException, GoogleAPICallError):
            blob.upload_from_string(content, retry=None, timeout=60)
            blob.metadata = {"number": str(number)}
            confirmed[blob.name] = (content, blob.generation, 1)
            blob.patch(retry=None, timeout=60)
            confirmed[blob.name] = (content, blob.generation, 2)
        if number == 200:
            first.process.kill()

    def write_slice(start: int) -> None:
        for number in range(start, 400, 8):
            write(number)

    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(write_slice, start) for start in range(8)]:
            done.result()
    first.kill()
    second = start_server(tmp_path)
    bucket = second.client().bucket("bucket")
    listed = {blob.name: blob for blob in bucket.list_blobs()}
    assert set(confirmed) <= set(listed)
    for name, (content, generation, metageneration) in confirmed.items():
        found = listed[name]
        assert found.generation >= generation
        if found.generation == generation:  # else the last write took effect without being confirmed
            assert found.metageneration >= metageneration
            assert found.download_as_bytes() == content
        assert found.download_as_bytes(checksum="crc32c")
    second.stop()


def test_a_cut_upload_leaves_nothing(tmp_path: Path, start_server: Callable[[Path], Any]) -> None:
    running = start_server(tmp_path)
    bucket = running.client().create_bucket("bucket")
    address = urlsplit(running.url)
    with socket.create_connection((address.hostname, address.port)) as connection:
        head = "POST /upload/storage/v1/b/bucket/o?uploadType=media&name=half HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"
        connection.sendall(head.encode() + b"x" * 500)
        assert bucket.get_blob("half") is None
        running.kill()
    again = start_server(tmp_path)
    assert list(again.client().bucket("bucket").list_blobs()) == []
    assert list((tmp_path / "staging").iterdir()) == []
    assert list((tmp_path / "buckets" / "bucket").iterdir()) == []


def test_a_resumable_upload_goes_on_after_a_kill(tmp_path: Path, start_server: Callable[[Path], Any]) -> None:
    first = start_server(tmp_path)
    bucket = first.client().create_bucket("bucket")
    url = bucket.blob("long").create_resumable_upload_session(content_type="text/plain", if_generation_match=0)
    part = b"a" * 100  # so few that a buffer in the server's memory would hold them
    assert httpx.put(url, content=part, headers={"content-range": "bytes 0-99/*"}).status_code == 308
    first.kill()
    second = start_server(tmp_path)
    url = url.replace(first.url, second.url)
    status = httpx.put(url, headers={"content-range": "bytes */*"})
    assert status.headers["range"] == "bytes=0-99"
    done = httpx.put(url, content=b"b", headers={"content-range": "bytes 100-100/101"})
    assert done.status_code == 200
    second.kill()
    third = start_server(tmp_path)
    again = httpx.put(url.replace(second.url, third.url), headers={"content-range": "bytes */*"})
    assert again.json()["generation"] == done.json()["generation"]
    assert third.client().bucket("bucket").blob("long").download_as_bytes() == part + b"b"


class Killed(BaseException):
    """The process ends here."""


def write(storage: Storage, content: bytes) -> None:
    staged = storage.files.stage()
    staged.write(content)
    storage.put(REF, staged, {})


def content_of(storage: Storage) -> bytes:
    stored, file = storage.open(REF)
    with file:
        content = file.read()
    assert len(content) == stored.size
    return content


@pytest.mark.parametrize(("step", "expected"), [("save_object", b"old"), ("publish", b"new")])
def test_a_kill_between_two_steps_of_an_overwrite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, expected: bytes) -> None:
    """Before its record the old object stands, after it the new one, though its file had not been moved yet."""
    storage = Storage(tmp_path, Clock())
    storage.create_bucket("bucket", "p", {})
    write(storage, b"old")
    old_generation = storage.get(REF).generation

    def killed(*_: object) -> None:
        raise Killed

    owner = "local_cloud.storage.model.store.Store" if step == "save_object" else "local_cloud.storage.model.files.Files"
    with monkeypatch.context() as patched:
        patched.setattr(f"{owner}.{step}", killed)
        with pytest.raises(Killed):
            write(storage, b"new")
    storage.close()
    after = Storage(tmp_path, Clock())
    assert content_of(after) == expected
    assert (after.get(REF).generation > old_generation) == (expected == b"new")
    assert after.files.staged_tokens() == set()
    after.close()


def test_a_kill_before_a_deleted_file_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = Storage(tmp_path, Clock())
    storage.create_bucket("bucket", "p", {})
    write(storage, b"x")
    with monkeypatch.context() as patched:
        patched.setattr("local_cloud.storage.model.files.Files.remove", lambda *_: None)
        storage.delete(REF)
    storage.close()
    after = Storage(tmp_path, Clock())
    assert after.peek(REF) is None
    assert not (tmp_path / "buckets/bucket/folder").exists()
    after.close()


def test_a_damaged_state_is_named(tmp_path: Path) -> None:
    storage = Storage(tmp_path, Clock())
    storage.create_bucket("bucket", "p", {})
    storage.close()
    (tmp_path / "meta" / "state.db").write_bytes(b"torn" * 5_000)
    with pytest.raises(ValueError, match=r"state\.db cannot be read .*move it away"):
        Storage(tmp_path, Clock())


def test_a_restart_keeps_buckets_and_the_rise_of_generations(tmp_path: Path) -> None:
    clock = ManualClock()
    clock.advance(1_000)  # ahead of the clock of the next process
    storage = Storage(tmp_path, clock)
    storage.create_bucket("bucket", "p", {"labels": {"a": "b"}})
    write(storage, b"x")
    last = storage.get(REF).generation
    storage.delete(REF)
    storage.close()
    after = Storage(tmp_path, ManualClock())
    assert after.bucket("bucket").fields == {"labels": {"a": "b"}}
    after.close()
    again = Storage(tmp_path, ManualClock())
    write(again, b"later")
    assert again.get(REF).generation > last
    again.close()


def test_two_processes_cannot_share_a_folder(tmp_path: Path) -> None:
    storage = Storage(tmp_path, Clock())
    with pytest.raises(RuntimeError, match="another process uses"):
        Storage(tmp_path, Clock())
    storage.close()


def test_upload_sessions_end_after_a_week(tmp_path: Path, clock: ManualClock) -> None:
    storage = Storage(tmp_path, clock)
    storage.create_bucket("bucket", "p", {})
    Uploads(storage, clock).start(REF, {}, NO_CONDITIONS).staged.close()
    Uploads(storage, clock)
    assert len(storage.files.staged_tokens()) == 1
    clock.advance(SESSION_LIFE_S)
    Uploads(storage, clock)
    assert storage.files.staged_tokens() == set()
    storage.close()
