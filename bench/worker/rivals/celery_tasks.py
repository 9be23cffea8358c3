"""Celery on kombu's `gcpubsub://` transport: an application as its tutorial has it, and the program that sends its tasks.

    celery -A bench.worker.rivals.celery_tasks worker
    python -m bench.worker.rivals.celery_tasks <count>

`COUNT` tells the worker after how many tasks to say so. The time runs from the worker's `worker_ready` to the last task, which
Celery has acknowledged by then, for it does so before it runs one.
"""

from __future__ import annotations

import itertools
import os
import sys
from typing import Any

from celery import Celery  # type: ignore[import-untyped]
from celery.signals import worker_ready  # type: ignore[import-untyped]

from bench.worker.lane import DATA_BYTES, PROJECT
from bench.worker.rivals.saying import say

COUNT = int(os.environ.get("COUNT", "0"))
app = Celery("bench", broker=f"gcpubsub://projects/{os.environ.get('GOOGLE_CLOUD_PROJECT', PROJECT)}")
app.conf.update(task_ignore_result=True, broker_connection_retry_on_startup=True)
numbers = itertools.count(1)
SEND_LIMIT_S = 60.0


@app.task(name="noop")  # type: ignore[untyped-decorator]
def noop(_filler: str) -> None:
    """Nothing, but the last one says so."""
    if next(numbers) == COUNT:
        say("last_ack", count=COUNT)


@worker_ready.connect  # type: ignore[untyped-decorator]
def ready(**_: Any) -> None:
    """The worker begins to pull."""
    say("first_pull")


def send(count: int) -> None:
    """`count` tasks, published for certain when it returns. Raises what Pub/Sub's client raises for one that could not be."""
    with app.producer_pool.acquire(block=True) as producer:
        publisher = producer.channel.publisher
        published = kept_answers(publisher)
        for _ in range(count):
            noop.apply_async(("x" * DATA_BYTES,), producer=producer)
        publisher.stop()
        for answer in published:
            answer.result(timeout=SEND_LIMIT_S)


def kept_answers(publisher: Any) -> list[Any]:
    """The futures of all that this publisher publishes from now on.

    The transport drops them, and `stop` does not wait: a process that ends then takes its last batches with it.
    """
    published: list[Any] = []
    publish = publisher.publish

    def keeping(*arguments: Any, **options: Any) -> Any:
        published.append(publish(*arguments, **options))
        return published[-1]

    publisher.publish = keeping
    return published


if __name__ == "__main__":
    from bench.worker.rivals.celery_tasks import send as send_as_imported  # tasks are known by the module's name, not by __main__

    send_as_imported(int(sys.argv[1]))
