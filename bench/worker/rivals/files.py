"""The two requests of a task that reads an object and writes one, create-only and with metadata, without a worker around them.

    python -m bench.worker.rivals.files <who> <url> <bucket> <count> <threads>

`urllib3` is the limit: what the two requests cost on pooled connections. `Storage client` is what a user of Google's client would write.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote, urlsplit

from bench.worker.contenders import URLLIB3
from bench.worker.lane import PROJECT, task_id
from bench.worker.rivals.saying import say

REPORT = json.dumps({"report": "x" * 400}).encode()
"""As long as a report of `file_processing`."""
BOUNDARY = "0123456789abcdef0123456789abcdef"

Task = Callable[[str], None]


def by_urllib3(url: str, bucket: str, threads: int) -> Task:
    """A task by its id, on a pool for so many threads."""
    import urllib3

    pool = urllib3.HTTPConnectionPool(str(urlsplit(url).hostname), urlsplit(url).port, maxsize=threads)
    upload = f"/upload/storage/v1/b/{bucket}/o?uploadType=multipart&ifGenerationMatch=0"
    headers = {"Content-Type": f'multipart/related; boundary="{BOUNDARY}"'}

    def run(own: str) -> None:
        read = pool.request("GET", f"/download/storage/v1/b/{bucket}/o/{quote(f'input/{own}', safe='')}?alt=media")
        resource = {"name": f"processed/{own}", "contentType": "application/json", "metadata": _metadata(own)}
        parts = [("application/json; charset=UTF-8", json.dumps(resource).encode()), ("application/json", REPORT)]
        body = b"".join(f"--{BOUNDARY}\r\ncontent-type: {kind}\r\n\r\n".encode() + part + b"\r\n" for kind, part in parts)
        written = pool.request("POST", upload, body=body + f"--{BOUNDARY}--".encode(), headers=headers)
        if (read.status, written.status) != (200, 200) or not json.loads(written.data)["generation"]:
            raise RuntimeError(f"{url} answered {read.status} and {written.status}: {written.data!r:.300}")

    return run


def by_client(_url: str, bucket: str, threads: int) -> Task:
    """The same; STORAGE_EMULATOR_HOST tells the client where to go."""
    from google.cloud import storage
    from requests.adapters import HTTPAdapter

    client = storage.Client(project=PROJECT)
    client._http.mount("http://", HTTPAdapter(pool_maxsize=threads))
    objects = client.bucket(bucket)

    def run(own: str) -> None:
        objects.blob(f"input/{own}").download_as_bytes()
        blob = objects.blob(f"processed/{own}")
        blob.metadata = _metadata(own)
        blob.upload_from_string(REPORT, content_type="application/json", if_generation_match=0)

    return run


def _metadata(own: str) -> dict[str, str]:
    return {"task_id": own, "submitted_at": "2026-01-02T03:04:05.678901Z"}


def main(who: str, url: str, bucket: str, count: int, threads: int) -> None:
    """All tasks, by threads that share the connections."""
    run = (by_urllib3 if who == URLLIB3 else by_client)(url, bucket, threads)
    with ThreadPoolExecutor(threads) as pool:
        say("first_pull")
        list(pool.map(run, map(task_id, range(count))))
    say("last_ack", count=count)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
