"""A submission in memory, and outcomes that workers wrote for it."""

from __future__ import annotations

import random
from collections.abc import Iterable

from batch.client.proof import Proof, prove
from batch.client.submission import Submission
from batch.client.submit import NewTask
from batch.model.clock import iso
from batch.model.names import outcome_object, writer_of
from batch.model.outcomes import Outcome, counted, to_line
from batch.testing import ManualClock, MemoryBroker, MemoryObjectStore


class Submitted:
    """A submission of `count` tasks, and outcomes for it."""

    def __init__(self, count: int, *, close: bool = True, tasks_per_part: int = 100) -> None:
        self.clock = ManualClock()
        self.store = MemoryObjectStore(clock=self.clock)
        topic = MemoryBroker(self.clock).topic("default")
        submission = Submission(
            lane="default", topic=topic, store=self.store, clock=self.clock, rng=random.Random(3), tasks_per_part=tasks_per_part
        )
        submission.add(NewTask("work", {}) for _ in range(count))
        if close:
            submission.close()
        self.submission_id = submission.submission_id
        self.ids = [message.attributes["task_id"] for _, message in topic.published]
        self.shard = topic.published[0][1].attributes["shard"] if topic.published else self.submission_id
        self._sequence = 0

    def outcome(self, task_id: str, outcome: str = "succeeded", index: int = 0) -> Outcome:
        self.clock.advance(0.5)
        return Outcome(task_id, "work", outcome, iso(self.clock.now()), 0.25, execution="run", index=index, reason="because")

    def write(self, outcomes: Iterable[Outcome], shard: str = "") -> None:
        self._sequence += 1
        shard, of_shard = shard or self.shard, list(outcomes)
        name = outcome_object(shard, self.clock.now(), writer_of("run", 0, 0), self._sequence)
        metadata = counted(shard, ((one.outcome, self.submission_id) for one in of_shard))
        self.store.write(name, b"".join(to_line(outcome) for outcome in of_shard), metadata=metadata)

    def prove(self) -> Proof:
        return prove(self.store, self.submission_id)
