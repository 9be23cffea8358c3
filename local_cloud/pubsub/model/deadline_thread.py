"""The thread that ends leases and delays in time when nobody pulls, so that waiting pulls wake up and dead letters are forwarded.

It decides nothing: every operation settles its own subscription first, so nothing goes wrong when this thread is late.
"""

from __future__ import annotations

import math
import threading

from local_cloud.clock import Clock
from local_cloud.pubsub.model.pubsub import PubSub


class DeadlineThread:
    def __init__(self, model: PubSub, clock: Clock) -> None:
        self._model = model
        self._clock = clock
        self._condition = threading.Condition()
        self._planned_s = math.inf
        self._changed = False
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="deadlines", daemon=True)
        clock.on_advance(self._wake)
        model.on_due(self._expect)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped = True
        self._wake()
        self._thread.join()

    def _expect(self, due_s: float) -> None:
        if due_s < self._planned_s:
            self._wake()

    def _wake(self) -> None:
        with self._condition:
            self._changed = True
            self._condition.notify_all()

    def _run(self) -> None:
        while not self._stopped:
            # Until the new plan is made, every lease and delay that begins has to wake this thread.
            self._planned_s = math.inf
            with self._condition:
                self._changed = False
            due_s = self._model.settle()
            with self._condition:
                self._planned_s = math.inf if due_s is None else due_s
                while not self._changed and not self._stopped and self._clock.now() < self._planned_s:
                    self._clock.wait_until(self._condition, None if due_s is None else due_s)
