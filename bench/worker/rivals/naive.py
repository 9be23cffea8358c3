"""The loop that a first version has: pull ten, hand each to one of four threads, acknowledge each by itself.

python -m bench.worker.rivals.naive <subscription> <count>
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from google.api_core.exceptions import DeadlineExceeded
from google.cloud import pubsub_v1

from bench.worker.rivals.saying import say

THREADS = 4
PER_PULL = 10


def drain(subscription: str, count: int) -> None:
    """Until `count` messages are acknowledged."""
    subscriber = pubsub_v1.SubscriberClient()

    def process(received: Any) -> None:
        subscriber.acknowledge(subscription=subscription, ack_ids=[received.ack_id])

    say("first_pull")
    acked = 0
    with ThreadPoolExecutor(THREADS) as pool:
        while acked < count:
            try:
                response = subscriber.pull(subscription=subscription, max_messages=PER_PULL)
            except DeadlineExceeded:
                continue
            acked += len(list(pool.map(process, response.received_messages)))
    say("last_ack", count=acked)


if __name__ == "__main__":
    drain(sys.argv[1], int(sys.argv[2]))
