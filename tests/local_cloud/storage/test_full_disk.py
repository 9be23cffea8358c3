"""A disk that is full: the client is told so, nothing confirmed is lost, and a resumable upload goes on when there is room again.

The system's limit on the size of a file stands for the disk: a write is cut in its middle in the same way.
"""

from __future__ import annotations

import random
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

CHUNK = 256 * 1024
LIMIT_BYTES = 400_000

pytestmark = pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="only Linux limits another process")


def limit(server: Any, length: int) -> None:
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (length, resource.RLIM_INFINITY))


def test_a_full_disk_is_named_and_costs_nothing_that_was_confirmed(tmp_path: Path, start_server: Callable[[Path], Any]) -> None:
    server = start_server(tmp_path / "state")
    client = server.client()
    bucket = client.create_bucket("bucket")
    bucket.blob("small").upload_from_string(b"before")
    content = random.Random(1).randbytes(2 * CHUNK)
    with httpx.Client(base_url=server.url) as http:
        limit(server, LIMIT_BYTES)
        simple = http.post("/upload/storage/v1/b/bucket/o?uploadType=media&name=large", content=content)
        assert (simple.status_code, "Make room" in simple.json()["error"]["message"]) == (500, True)
        url = http.post("/upload/storage/v1/b/bucket/o?uploadType=resumable", json={"name": "resumed"}).headers["location"]
        http.put(url, content=content[:CHUNK], headers={"content-range": f"bytes 0-{CHUNK - 1}/*"})
        rest = {"content-range": f"bytes {CHUNK}-{2 * CHUNK - 1}/{2 * CHUNK}"}
        assert http.put(url, content=content[CHUNK:], headers=rest).status_code == 500
        limit(server, resource.RLIM_INFINITY)
        reached = int(http.put(url, headers={"content-range": "bytes */*"}).headers["range"].rpartition("-")[2]) + 1
        assert CHUNK <= reached <= LIMIT_BYTES
        rest = {"content-range": f"bytes {reached}-{2 * CHUNK - 1}/{2 * CHUNK}"}
        assert http.put(url, content=content[reached:], headers=rest).status_code == 200
    server.kill()
    client.close()
    again = start_server(tmp_path / "state").client()
    assert [blob.name for blob in again.list_blobs("bucket")] == ["resumed", "small"]
    assert again.bucket("bucket").blob("resumed").download_as_bytes() == content
    assert again.bucket("bucket").blob("small").download_as_bytes() == b"before"
    assert list((tmp_path / "state" / "staging").iterdir()) == []
    again.close()


def test_a_record_that_does_not_fit_changes_nothing(tmp_path: Path, start_server: Callable[..., Any]) -> None:
    log = tmp_path / "storage.log"
    log.write_bytes(bytes(LIMIT_BYTES))  # it lies on the full disk as well
    server = start_server(tmp_path / "state", log)
    client = server.client()
    blob = client.create_bucket("bucket").blob("it")
    blob.upload_from_string(b"before")
    limit(server, max(path.stat().st_size for path in (tmp_path / "state" / "meta").iterdir()) + 10)
    with httpx.Client(base_url=server.url) as http:
        changes = [
            http.post("/upload/storage/v1/b/bucket/o?uploadType=media&name=it", content=b"after"),
            http.patch("/storage/v1/b/bucket/o/it", json={"contentType": "text/other"}),
            http.delete("/storage/v1/b/bucket/o/it"),
            http.post("/storage/v1/b?project=p", json={"name": "another"}),
        ]
    assert [change.status_code for change in changes] == [500] * len(changes)
    limit(server, resource.RLIM_INFINITY)
    client.bucket("bucket").blob("later").upload_from_string(b"after")
    for _ in range(2):
        blob.reload()
        assert (blob.download_as_bytes(), blob.metageneration) == (b"before", 1)
        assert [bucket.name for bucket in client.list_buckets()] == ["bucket"]
        server.kill()
        client.close()
        server = start_server(tmp_path / "state")
        client = server.client()
        blob = client.bucket("bucket").blob("it")
    client.close()
