"""The real client under pressure: races for a name, a shared counter, a torn 20 MB upload, long lists while others write."""

from __future__ import annotations

import random
import socket
import struct
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from google.api_core.exceptions import PreconditionFailed, ServiceUnavailable
from google.cloud.storage.retry import DEFAULT_RETRY
from requests.adapters import HTTPAdapter

from tests.support import wait_until

CHUNK = 256 * 1024
AT_ONCE = DEFAULT_RETRY.with_delay(initial=0.01, maximum=0.02, multiplier=1)


@pytest.mark.slow
def test_sixteen_threads_create_one_object_and_one_wins_in_each_of_200_rounds(bucket: Any) -> None:
    start = threading.Barrier(16)

    def create_all(me: int) -> list[int]:
        won = []
        for number in range(200):
            start.wait(timeout=30)
            try:
                bucket.blob(f"race/{number}").upload_from_string(str(me), if_generation_match=0)
                won.append(number)
            except PreconditionFailed:
                continue
        return won

    with ThreadPoolExecutor(16) as pool:
        wins = {me: set(won) for me, won in enumerate(pool.map(create_all, range(16)))}
    winners = {number: [me for me, won in wins.items() if number in won] for number in range(200)}
    assert {number: found for number, found in winners.items() if len(found) != 1} == {}
    assert all(bucket.blob(f"race/{number}").download_as_bytes() == str(found[0]).encode() for number, found in winners.items())


@pytest.mark.slow
def test_a_counter_by_compare_and_swap_of_8_times_60_is_exact(bucket: Any) -> None:
    bucket.blob("counter").upload_from_string("0")

    def add(_: int) -> None:
        for _ in range(60):
            while not swapped():
                pass

    def swapped() -> bool:
        blob = bucket.blob("counter")
        value = int(blob.download_as_bytes())
        try:
            blob.upload_from_string(str(value + 1), if_generation_match=blob.generation)
        except PreconditionFailed:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(8)))
    assert bucket.blob("counter").download_as_bytes() == b"480"


class Torn(HTTPAdapter):
    """A connection that fails at chosen chunks of a resumable upload, in the way that is given for the chunk's number."""

    def __init__(self, state_dir: Path, failures: dict[int, str]) -> None:
        super().__init__()
        self._staging = state_dir / "staging"
        self.failures = failures
        self.chunk_count = 0

    def under(self, client: Any) -> Torn:
        """Put it in the place of the client's own connections."""
        client._http.get_adapter("http://").close()
        client._http.mount("http://", self)
        return self

    def send(self, request: requests.PreparedRequest, *args: Any, **options: Any) -> requests.Response:
        if request.method != "PUT":
            return super().send(request, *args, **options)
        failure = self.failures.pop(self.chunk_count, None)
        self.chunk_count += 1
        if failure == "reset in the middle":
            self._reset_in_the_middle(request)
            raise requests.ConnectionError("reset in the middle")
        if failure == "busy":
            answer = requests.Response()
            answer.status_code, answer.url, answer.request = 503, request.url or "", request
            return answer
        answer = super().send(request, *args, **options)
        if failure == "answer lost":
            answer.close()
            raise requests.ConnectionError("answer lost")
        return answer

    def _reset_in_the_middle(self, request: requests.PreparedRequest) -> None:
        url = urlsplit(str(request.url))
        body = request.body
        assert isinstance(body, bytes)
        staged = self._staging / parse_qs(url.query)["upload_id"][0]
        size_before = staged.stat().st_size
        head = "".join(f"{key}: {value}\r\n" for key, value in request.headers.items() if isinstance(value, str))
        with socket.create_connection((str(url.hostname), url.port or 0)) as connection:
            connection.sendall(f"PUT {request.path_url} HTTP/1.1\r\nHost: {url.netloc}\r\n{head}\r\n".encode() + body[: len(body) // 2])
            wait_until(lambda: staged.stat().st_size > size_before, description="half a chunk on disk")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close with a reset


def test_a_20_mb_upload_in_small_chunks_survives_a_torn_connection(server: Any, client: Any, bucket: Any) -> None:
    content = random.Random(20).randbytes(20_000_000)
    failures = {3: "busy", 30: "reset in the middle", 31: "busy", 50: "answer lost", 77: "reset in the middle"}
    adapter = Torn(server.state_dir, dict(failures)).under(client)
    blob = bucket.blob("large", chunk_size=CHUNK)
    blob.upload_from_file(BytesIO(content), size=len(content), checksum="crc32c", if_generation_match=0, retry=AT_ONCE)
    assert adapter.failures == {}
    assert adapter.chunk_count == -(-len(content) // CHUNK) + len(failures)  # it went on where it was, and did not start anew
    assert bucket.blob("large").download_as_bytes(checksum="crc32c") == content
    assert [found.generation for found in bucket.list_blobs()] == [blob.generation]


def test_an_upload_that_is_torn_for_good_leaves_no_object(server: Any, client: Any, bucket: Any) -> None:
    Torn(server.state_dir, {1: "busy"}).under(client)
    with pytest.raises(ServiceUnavailable):
        bucket.blob("never", chunk_size=CHUNK).upload_from_file(BytesIO(b"x" * 3 * CHUNK), retry=None)
    assert list(bucket.list_blobs()) == []


@pytest.fixture
def meanwhile() -> Any:
    """Run a call again and again in a thread while the body of the `with` runs; it must have run at least once, and never failed."""

    class Meanwhile:
        def __init__(self, call: Callable[[int], object]) -> None:
            self._call, self._stop, self.count = call, threading.Event(), 0
            self._pool = ThreadPoolExecutor(1)

        def _run(self) -> None:
            while not self._stop.is_set():
                self._call(self.count)
                self.count += 1

        def __enter__(self) -> Meanwhile:
            self._running = self._pool.submit(self._run)
            wait_until(lambda: self.count or self._running.done(), description="the first write beside the list")
            return self

        def __exit__(self, *_: object) -> None:
            self._stop.set()
            self._running.result(timeout=30)
            self._pool.shutdown()

    return Meanwhile


@pytest.mark.slow
def test_3000_objects_are_listed_in_pages_while_others_write(client: Any, bucket: Any, meanwhile: Any) -> None:
    stay = [f"stay/{number:04}" for number in range(3000)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: bucket.blob(name).upload_from_string(b""), random.Random(1).sample(stay, len(stay))))

    def disturb(number: int) -> None:
        bucket.blob(f"a/{number}").upload_from_string("before all of them")
        bucket.blob(f"stay/{number * 37 % 3000:04}-between").upload_from_string("between them")
        bucket.blob(stay[number * 41 % 3000]).upload_from_string("an overwrite")
        bucket.blob(f"a/{number}").delete()

    with meanwhile(disturb):
        for page_size in (None, 999, 100):
            pages = [[blob.name for blob in page] for page in client.list_blobs(bucket, page_size=page_size).pages]
            names = [name for page in pages for name in page]
            assert names == sorted(set(names))
            assert [name for name in names if name in set(stay)] == stay
            assert max(map(len, pages)) <= (page_size or 1000)
            assert len(pages) >= 3000 // (page_size or 1000)
    listed = [blob.name for blob in client.list_blobs(bucket, prefix="stay/", match_glob="stay/????", page_size=700, max_results=2500)]
    assert listed == stay[:2500]
    sliced = client.list_blobs(bucket, start_offset="stay/0500", end_offset="stay/2500", match_glob="**/????", page_size=333)
    assert [blob.name for blob in sliced] == stay[500:2500]


def test_many_files_with_names_in_unicode_go_there_and_back(bucket: Any, tmp_path: Path) -> None:
    from google.cloud.storage import transfer_manager

    names = ["ä ö/ü.txt", "日本/語.bin", "emoji 😀", "a%2Fb", "a+b&c=d?e#f", "ไทย/𝒳"]
    there, back = tmp_path / "there", tmp_path / "back"
    for name in names:
        (there / name).parent.mkdir(parents=True, exist_ok=True)
        (there / name).write_bytes(name.encode() * 3)
    options = {"worker_type": transfer_manager.THREAD, "raise_exception": True}
    transfer_manager.upload_many_from_filenames(bucket, names, source_directory=str(there), **options)
    assert {blob.name for blob in bucket.list_blobs()} == set(names)
    back.mkdir()
    transfer_manager.download_many_to_path(bucket, names, destination_directory=str(back), **options)
    assert {name: (back / name).read_bytes() for name in names} == {name: name.encode() * 3 for name in names}


def test_a_download_in_concurrent_ranges_is_whole(bucket: Any, tmp_path: Path) -> None:
    from google.cloud.storage import transfer_manager

    content = random.Random(3).randbytes(5_000_001)
    bucket.blob("ranges").upload_from_string(content)
    target = tmp_path / "ranges"
    transfer_manager.download_chunks_concurrently(
        bucket.blob("ranges"), str(target), chunk_size=CHUNK, worker_type=transfer_manager.THREAD, max_workers=4
    )
    assert target.read_bytes() == content
