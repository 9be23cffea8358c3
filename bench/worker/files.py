"""Tasks that read an object and write one, as `file_processing` does: a worker, beside the same two requests in a loop without one."""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor

import urllib3

from bench.worker.contenders import FANOUT, Run, Site, until_last_ack, worker_run
from bench.worker.lane import TASK_ID, Lane, delete, fresh_lane, publish, task_id
from bench.worker.process import started

THREADS = 8
"""As many as a worker has by default."""
CONTENT_BYTES = 10_000
TASKS = 2_000


def files_run(who: str, site: Site, count: int) -> Run:
    """One run on a fresh lane, whose bucket has an input for each task. Raises RuntimeError when it does not do its work."""
    lane = fresh_lane(site.pubsub, site.storage)
    try:
        _fill(lane, count)
        if who == FANOUT:
            publish(lane, site.pubsub, "file_processing", count, filename=TASK_ID, operation="checksum")
            return worker_run(lane, count, "batch.handlers")
        command = [sys.executable, "-m", "bench.worker.rivals.files", who, site.storage, lane.bucket, str(count), str(THREADS)]
        return until_last_ack(started(command, **lane.environment()), count)
    finally:
        delete(lane, site.pubsub)


def _fill(lane: Lane, count: int) -> None:
    content, pool = os.urandom(CONTENT_BYTES), urllib3.PoolManager(maxsize=THREADS)
    url = f"{lane.storage}/upload/storage/v1/b/{lane.bucket}/o?uploadType=media&name=input%2F"

    def put(number: int) -> None:
        answer = pool.request("POST", f"{url}{task_id(number)}", body=content)
        if answer.status != 200:
            raise RuntimeError(f"{lane.storage} answered {answer.status} to an upload: {answer.data!r:.300}")

    with ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(put, range(count)))
    pool.clear()
