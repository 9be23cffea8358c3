"""Which lanes take what a front door publishes, by what the controller writes down in the bucket of every lane."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from math import inf

from batch.dead.lanes import read_lanes
from batch.formats.kinds import no_envelopes
from batch.model.clock import Clock
from batch.model.errors import FanoutError
from batch.services.ports import ObjectStore
from intake.asking import Asking
from intake.problems import RequestRefused, Wrong

FRESH_S = 60.0


class Takers:
    """Belongs to one event loop. No request waits for the bucket: it goes by the last answer, and without one every lane takes
    tasks."""

    def __init__(self, store: ObjectStore | None, topics: Mapping[str, str], clock: Clock, asking: Asking) -> None:
        """`topics` by lane, as the front door calls its lanes."""
        self._store, self._topics, self._clock, self._asking = store, topics, clock, asking
        self._refused: Mapping[str, str] = {}
        self._looked_s = -inf
        self.looking: asyncio.Task[None] | None = None

    def check(self, lane: str) -> None:
        """Raises RequestRefused for a lane whose workers would not read a task as the task that it is."""
        if self._clock.monotonic() - self._looked_s >= FRESH_S:
            self.look()
        if lane in self._refused:
            raise RequestRefused(422, self._refused[lane], ["lane"], wrong=[Wrong(pointer="?lane", detail=self._refused[lane])])

    def look(self) -> None:
        """Ask the bucket. Called by the running event loop, and returns at once."""
        self._looked_s = self._clock.monotonic()
        if self._store is not None:
            self.looking = asyncio.get_running_loop().create_task(self._look(self._store))

    async def _look(self, store: ObjectStore) -> None:
        try:
            lanes = await self._asking.asked(lambda: read_lanes(store))
        except (FanoutError, RequestRefused):
            return  # what was known holds until the next look
        refused: dict[str, str] = {}
        for name, topic in self._topics.items():
            found = [no_envelopes(one.name, one.accept) for one in lanes.values() if one.topic == topic]
            if found and all(found):
                refused[name] = found[0]
        self._refused = refused
