"""What the worker's tests share: a worker on the in-memory twins, and what a person would look at afterwards."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from batch.handling.registry import Registry
from batch.model.clock import Clock, SystemClock, iso
from batch.model.delivery import Outgoing
from batch.model.errors import FanoutError
from batch.model.exit import ExitReason
from batch.model.message import Task, encode
from batch.model.outcomes import Outcome, from_lines, merged
from batch.model.progress import Progress, from_metadata
from batch.settings import worker_settings
from batch.telemetry.ports import AttemptWatch
from batch.testing import MemoryBroker, MemoryObjectStore
from batch.worker.life import Worker
from tests.clocks import JumpingClock
from tests.support import wait_until

SHARD = "s-1"


@dataclass
class Plant:
    """A broker, a bucket and a registry; workers are made on them."""

    clock: Clock = field(default_factory=SystemClock)
    registry: Registry = field(default_factory=Registry)
    ack_deadline_s: float = 60.0
    max_delivery_attempts: int | None = 100
    deferred_count: int = 0
    watch: AttemptWatch | None = None

    def __post_init__(self) -> None:
        self.broker = MemoryBroker(self.clock)
        self.subscription = self.broker.subscription("lane", "lane", self.ack_deadline_s, max_delivery_attempts=self.max_delivery_attempts)
        self.dead = self.broker.subscription("dead-letters", "dead-letters")
        self.store = MemoryObjectStore(clock=self.clock)

    def submit(self, count: int, task_type: str = "write", shard: str = SHARD, **fields: Any) -> list[str]:
        ids = [f"task-{number}" for number in range(count)]
        tasks = [Task(one, task_type, iso(self.clock.now()), {"name": f"out/{one}", **fields}, "s-1", "lane", shard) for one in ids]
        self.broker.topic("lane").publish([Outgoing(*encode(task)) for task in tasks])
        return ids

    def publish(self, data: bytes, **attributes: str) -> None:
        self.broker.topic("lane").publish([Outgoing(data, attributes)])

    def worker(self, **environment: object) -> Worker:
        given = {
            "GOOGLE_CLOUD_PROJECT": "p",
            "SUBSCRIPTION_NAME": "lane",
            "BUCKET_NAME": "bucket",
            "CLOUD_RUN_JOB": "lane",
            "CLOUD_RUN_EXECUTION": "lane-x",
            "CONCURRENCY": "4",
            "FLUSH_INTERVAL_S": "0.1",
            "PROGRESS_INTERVAL_S": "0.1",
            "BILLING_FLOOR_S": "0",
            "DRAIN_AFTER_S": "0.2",
            **{name: str(value) for name, value in environment.items()},
        }
        return Worker(
            worker_settings(given),
            self.registry,
            self.subscription,
            self.broker.topic("dead-letters"),
            self.store,
            self.clock,
            random.Random(1),
            self.broker.topic,
            watch=self.watch,
        )

    def outcomes(self) -> list[Outcome]:
        return [one for name in self.store.names("outcomes/") for one in from_lines(self.store.read(name))]

    def final(self) -> dict[str, str]:
        return {task_id: one.outcome for task_id, one in merged(self.outcomes()).items()}

    def progress(self, index: int = 0, retry: int = 0, execution: str = "lane-x") -> Progress:
        (name,) = [name for name in self.store.names("workers/") if name.endswith(f"/{execution}/{index}-{retry}")]
        info = self.store.info(name)
        assert info is not None
        return from_metadata(info.metadata)

    def letters(self) -> list[dict[str, str]]:
        return [dict(message.attributes) for _, message in self.broker.topic("dead-letters").published]


def write(task: Task, ctx: Any) -> dict[str, str]:
    """The plainest handler: one output, named by the task."""
    written = ctx.write(str(task.fields["name"]), json.dumps({"task_id": task.task_id}).encode())
    return {"name": written.name}


class Leases:
    """Lets ack deadlines pass, one after the other, as fast as the worker extends what it holds.

    A clock that ran by itself would have to be so slow that no busy machine can keep a lease from being extended in time.
    """

    def __init__(self, plant: Plant, clock: JumpingClock) -> None:
        self._clock, self._subscription, self._deadline_s = clock, plant.subscription, plant.ack_deadline_s
        self._extended_count = self._refused_count = 0
        original = plant.subscription.extend

        def extend(ack_ids: Sequence[str], deadline_s: float) -> list[str]:
            try:
                lost = original(ack_ids, deadline_s)
            except FanoutError:
                self._refused_count += 1
                raise
            self._extended_count += 1
            return lost

        plant.subscription.extend = extend  # type: ignore[method-assign]

    def outlive(self, deadline_count: int) -> None:
        """Returns when as many deadlines have passed, and the lease of the one message that is held was extended after each step."""
        for _ in range(round(deadline_count / 0.55) + 1):
            before = self._extended_count
            self._clock.advance(0.55 * self._deadline_s)
            assert self._subscription.leased == 1, "the lease has run out"
            wait_until(partial(self._is_extended, before), 30, "an extension of the lease")

    def _is_extended(self, before: int) -> bool:
        if self._refused_count:
            self._refused_count -= 1
            self._clock.advance(self._deadline_s / 10)  # the next round, which tries again
        return self._extended_count > before


def in_thread(worker: Worker) -> tuple[threading.Thread, list[ExitReason]]:
    """Run a worker beside the test; its reason stands in the list once the thread has ended."""
    reasons: list[ExitReason] = []
    thread = threading.Thread(target=lambda: reasons.append(worker.run()), daemon=True)
    thread.start()
    return thread, reasons


def ended(thread: threading.Thread, limit_s: float = 60.0) -> None:
    thread.join(limit_s)
    assert not thread.is_alive(), f"the worker did not end within {limit_s} s"
