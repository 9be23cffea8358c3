"""A bucket with what workers and the tick leave of single tasks, and what is told of one by it."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence

from batch.client.life import Life, Running, Tracing, Where, located
from batch.dead.letters import Letter
from batch.dead.segments import write
from batch.model.attempts import AttemptError, Attempts, to_json
from batch.model.clock import iso
from batch.model.delayed import DelayedMessage, to_object
from batch.model.message import new_task_id, rolling_shard
from batch.model.names import attempts_object, dead_segment_object, delayed_object, outcome_object, writer_of
from batch.model.outcomes import Outcome, to_line
from batch.services.ports import ObjectStore
from batch.testing import ManualClock, MemoryObjectStore

ERROR = AttemptError("2026-01-01T00:00:00.000000Z", "KeyError", "'lines'", "default-x", 3, "Traceback\n  File ...")


class Bucket:
    """Written to as workers and the tick do."""

    def __init__(self, store: ObjectStore | None = None, clock: ManualClock | None = None) -> None:
        self.clock = clock or ManualClock()
        self.store = store or MemoryObjectStore(clock=self.clock)
        self.shard = rolling_shard("default", self.clock.now())
        self.subscriptions: dict[str, str] = {"default": "tasks-sub", "bulk": "bulk-sub"}
        self.running: Running | None = None
        self.asked: list[int] = []
        self.lanes_asked: list[str] = []
        self._rng = random.Random(4)
        self._sequence = 0

    def new_id(self, shard: str = "") -> str:
        return new_task_id(self._rng, shard or self.shard)

    def line(self, task_id: str, outcome: str, **facts: object) -> Outcome:
        return Outcome(task_id, "work", outcome, iso(self.clock.now()), 0.5, execution="default-x", index=3, **facts)  # type: ignore[arg-type]

    def flush(self, lines: Iterable[Outcome], shard: str = "", *, counted: bool = True) -> str:
        """An object of outcomes with its counts."""
        self._sequence += 1
        lines = list(lines)
        name = outcome_object(shard or self.shard, self.clock.now(), writer_of("default-x", 3, 0), self._sequence)
        metadata = {one.outcome: str(sum(other.outcome == one.outcome for other in lines)) for one in lines} if counted else {}
        self.store.write(name, b"".join(map(to_line, lines)), metadata=metadata)
        return name

    def ended(self, task_id: str, outcome: str, shard: str = "", **facts: object) -> None:
        self.flush([self.line(task_id, outcome, **facts)], shard)

    def attempts(self, task_id: str, **facts: object) -> None:
        self.store.write(attempts_object(task_id), to_json(Attempts(**facts), task_id))  # type: ignore[arg-type]

    def delay(self, task_id: str, due: float, subscription: str = "tasks-sub") -> str:
        name = delayed_object(subscription, due, task_id, "17")
        self.store.write(name, to_object(DelayedMessage(task_id, "17", 0.0, {"lane": "default"}, b'{"n":1}')))
        return name

    def letters(self, *letters: Letter, lane: str = "default") -> str:
        self._sequence += 1
        name = dead_segment_object(lane, self.clock.now(), "dead-letters-0-0", self._sequence)
        write(self.store, name, letters)
        return name

    def letter(self, task_id: str, **facts: object) -> Letter:
        base: dict[str, object] = {"error_type": "KeyError", "reason": "'lines'", "fingerprint": "f00d", **facts}
        return Letter(task_id, "work", "default", self.shard, iso(self.clock.now()), ERROR.at, errors=(ERROR,), data=b"\xff raw", **base)  # type: ignore[arg-type]

    def life(self, task_id: str, **known: object) -> Life:
        return self.traced(task_id, located(self.store, task_id, **known))  # type: ignore[arg-type]

    def traced(self, task_id: str, where: Where) -> Life:
        def subscriptions() -> Mapping[str, str]:
            return self.subscriptions

        def running(lanes: Sequence[str]) -> Running | None:
            self.lanes_asked += lanes
            return self.running

        return Tracing(self.store, task_id, where, self.clock.now(), subscriptions, running, self.asked.append).life()
