"""Pokes: reports of accepted tasks to the controller, so that an idle lane starts in seconds. A submission never waits for one, nor fails.

A report that the controller does not take is dropped and counted: the gauge shows it the same tasks, only later.
"""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Mapping
from typing import Protocol

from batch.events import log
from batch.model.clock import Clock
from batch.model.errors import FanoutError
from intake.config import IntakeSettings

STOP_S = 1.0
"""How long the last pokes may take when the service ends."""
COMPLAIN_EVERY_S = 60.0


class PokeFailed(FanoutError):
    """The controller did not take it."""


class Controller(Protocol):
    """Where pokes go to."""

    def post(self, body: bytes) -> None:
        """Raises PokeFailed."""


class LanePoker:
    """One lane's pokes: gathered for a moment, then sent by a thread of its own, one at a time."""

    def __init__(self, lane: str, topic: str, controller: Controller, clock: Clock, rng: random.Random, *, gather_s: float) -> None:
        self._lane, self._topic, self._controller = lane, topic, controller
        self._clock, self._rng, self._gather_s = clock, rng, gather_s
        self._count, self._first_at = 0, 0.0
        self._dropped_count, self._complained_at = 0, -COMPLAIN_EVERY_S
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"pokes-{lane}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def accepted(self, count: int, began_at: float) -> None:
        """`count` tasks are in the topic; their publishing began at `began_at` (Unix seconds). Returns at once."""
        with self._changed:
            if not self._count:
                self._first_at = began_at
            self._count += count
            self._changed.notify()

    def stop(self) -> None:
        """Nothing is gathered any more; what there is is sent."""
        self._stopping.set()
        with self._changed:
            self._changed.notify()

    def ended(self, within_s: float) -> bool:
        self._thread.join(within_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while self._something():
            self._clock.wait(self._stopping, self._gather_s)
            count, body = self._taken()
            try:
                self._controller.post(body)
            except Exception as error:  # noqa: BLE001 - a thread that died would drop everything without a word
                self._dropped(count, error)

    def _something(self) -> bool:
        """Wait until there is a task to report; False when the poker was stopped and has none."""
        with self._changed:
            self._changed.wait_for(lambda: self._count or self._stopping.is_set())
            return self._count > 0

    def _taken(self) -> tuple[int, bytes]:
        with self._changed:
            count, self._count = self._count, 0
            at = self._first_at
        poke = {"id": f"{self._rng.getrandbits(96):024x}", "lane": self._lane, "topic": self._topic, "accepted_count": count, "at": at}
        return count, json.dumps({"pokes": [poke]}).encode()

    def _dropped(self, count: int, error: Exception) -> None:
        """Said at the first one, then once a minute."""
        self._dropped_count += count
        now = self._clock.monotonic()
        if now - self._complained_at >= COMPLAIN_EVERY_S:
            text = f"the controller was not told of {self._dropped_count} tasks accepted for lane {self._lane}"
            text += f"; it finds them when the gauge shows them: {error}"
            log("poke_failed", text, lane=self._lane, error=str(error))
            self._dropped_count, self._complained_at = 0, now


class Pokers:
    """The pokers of all lanes."""

    def __init__(self, settings: IntakeSettings, controller: Controller, clock: Clock, rng: random.Random) -> None:
        self.by_lane: Mapping[str, LanePoker] = {
            lane: LanePoker(lane, topic, controller, clock, rng, gather_s=settings.poke_gather_s) for lane, topic in settings.topics.items()
        }

    def start(self) -> None:
        for poker in self.by_lane.values():
            poker.start()

    def close(self) -> None:
        """The last pokes are sent, as far as they can be within a second."""
        for poker in self.by_lane.values():
            poker.stop()
        ended = [poker.ended(STOP_S / len(self.by_lane)) for poker in self.by_lane.values()]
        if not all(ended):
            log("poke_failed", "the controller was not told of the last accepted tasks in time; it finds them when the gauge shows them")
