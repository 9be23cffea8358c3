"""What Google's documentation shows: `subscribe()` with its defaults, the acknowledgement in the callback.

    python -m bench.worker.rivals.subscribe <subscription> <count>

The time ends with the last callback; its acknowledgement, which the client sends a little later, is not waited for.
"""

from __future__ import annotations

import itertools
import sys
import threading
from typing import Any

from google.cloud import pubsub_v1

from bench.worker.rivals.saying import say


def drain(subscription: str, count: int) -> None:
    """Until `count` callbacks have run."""
    subscriber = pubsub_v1.SubscriberClient()
    numbers, done = itertools.count(1), threading.Event()

    def callback(message: Any) -> None:
        message.ack()
        if next(numbers) == count:
            done.set()

    say("first_pull")
    future = subscriber.subscribe(subscription, callback=callback)
    done.wait()
    say("last_ack", count=count)
    future.cancel()
    future.result()


if __name__ == "__main__":
    drain(sys.argv[1], int(sys.argv[2]))
