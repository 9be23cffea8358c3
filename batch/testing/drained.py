"""Draining a list of tasks in memory: the real worker, as often as tasks are due, with a clock that jumps to whatever is due next.

Retries and snoozes that take days in production take milliseconds here; each worker is a whole one, with its threads, its attempts on
record, its dead letters. Only time is not real: it stands still while handlers work, and moves when they sleep and between two workers.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from batch.formats.kinds import ENVELOPE
from batch.handling.registry import Registry, default_registry
from batch.model.clock import iso
from batch.model.delayed import as_outgoing, from_object
from batch.model.delivery import Outgoing
from batch.model.exit import ExitReason
from batch.model.message import Task, encode
from batch.model.names import delayed_folder, delayed_parts
from batch.model.outcomes import Outcome, from_lines, merged
from batch.settings import WorkerSettings, worker_settings
from batch.testing.clock import ManualClock
from batch.testing.handlers import put
from batch.testing.objects import MemoryObjectStore
from batch.testing.observed import Began, WorkerClock, observed
from batch.testing.pubsub import MemoryBroker, MemorySubscription

LANE = "test"
MAX_EXECUTIONS = 100
MAX_DELIVERY_ATTEMPTS = 100
"""Of the subscription's dead-letter policy, as a lane's has it."""
AFTER_BROKEN_S = 60.0
"""How long nothing runs after a worker that ended broken; a controller waits that long at first."""
WEEK_S = 7 * 24 * 3600.0
_OF_FANOUT = ("attempts/", "controller/", "dead/", "delayed/", "outcomes/", "slowed/", "submissions/", "workers/")


class NotDrained(AssertionError):
    """Tasks were left after as many executions as `drain` allows."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that can never succeed. `data` is unchanged; `attempt_count` is 0 when no handler ever ran."""

    task_id: str
    error_type: str
    reason: str
    attempt_count: int
    data: bytes
    attributes: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Drained:
    """How the tasks ended. `outcomes` by task id; `runs`: when each run of its handler began, in seconds since the drain did, and
    which attempt it was; `outputs`: the objects that handlers left, by name; `exit_reasons` of the workers, in order."""

    outcomes: Mapping[str, Outcome]
    runs: Mapping[str, Sequence[Began]]
    outputs: Mapping[str, bytes]
    dead_letters: Sequence[DeadLetter]
    exit_reasons: Sequence[ExitReason]
    elapsed_s: float
    store: MemoryObjectStore

    def outcome(self, task_id: str = "task-1") -> str:
        """In one word: `succeeded`, `superseded`, `cancelled`, `dead`."""
        return self.outcomes[task_id].outcome

    def began_s(self, task_id: str = "task-1") -> list[float]:
        """When each run of the task's handler began."""
        return [one.at_s for one in self.runs.get(task_id, ())]


def drain(
    tasks: Iterable[Mapping[str, Any] | bytes | Outgoing],
    registry: Registry = default_registry,
    *,
    objects: Mapping[str, bytes] | None = None,
    store: MemoryObjectStore | None = None,
    clock: ManualClock | None = None,
    concurrency: int = 1,
    deliver_twice: bool = False,
    max_executions: int = MAX_EXECUTIONS,
    accept: Sequence[str] = (ENVELOPE,),
    default_type: str = "",
    event_types: Sequence[str] = WorkerSettings.event_types,
) -> Drained:
    """Submit these tasks and run workers until all have an outcome.

    A task is `{"task_type": "greet", "name": "Ada"}`, with a `task_id` (`task-1`, `task-2` … by default) and a `submitted_at` if it
    matters; bytes are published as they are, and so are messages (`raw`, `notification`, `cloud_event`, `structured`). `accept`,
    `default_type` and `event_types` are the lane's, as its annotations name them. `objects` are put into the bucket first. Isolated
    handlers run in threads, and delays have no jitter. `deliver_twice`: each message comes once more than needed. Raises NotDrained after
    `max_executions`, ValueError for what is no task.
    """
    clock = clock or ManualClock()
    store = store if store is not None else MemoryObjectStore(clock=clock)
    put(store, objects)
    forms = {"ACCEPT": ",".join(accept), "DEFAULT_TYPE": default_type, "EVENT_TYPES": ",".join(event_types)}
    begun = _Lane(registry, store, clock, concurrency, forms)
    before = {name: store.read(name) for name in store.names()}
    messages = [_message(one, f"task-{number}", iso(clock.now())) for number, one in enumerate(tasks, 1)]
    begun.publish(messages)
    if deliver_twice:
        begun.subscription.duplicate_next(len(messages))
    while begun.go_on():
        if len(begun.exit_reasons) >= max_executions:
            raise NotDrained(begun.left())
    return begun.drained(before)


class SoleSubscription(MemorySubscription):
    """With one worker at a time that never dies, no lease runs out: time jumps further than leases could be extended."""

    def extend(self, ack_ids: Sequence[str], deadline_s: float) -> list[str]:
        del deadline_s
        return self._unknown(ack_ids)


class _Lane:
    """What lasts from one worker to the next."""

    def __init__(
        self, registry: Registry, store: MemoryObjectStore, clock: ManualClock, concurrency: int, forms: Mapping[str, str]
    ) -> None:
        self.exit_reasons: list[ExitReason] = []
        self._store = store
        self._clock = clock
        self._concurrency = concurrency
        self._forms = forms
        self._began_s = clock.now()
        self._worker_clock = WorkerClock(clock)
        self._broker = MemoryBroker(self._worker_clock)
        self.subscription = SoleSubscription(self._broker, LANE, LANE, WEEK_S, MAX_DELIVERY_ATTEMPTS, "net")
        self._topic = self._broker.topic(LANE)
        self._topic.subscriptions.append(self.subscription)
        self._dead = self._broker.topic("dead-letters")
        self._runs: dict[str, list[Began]] = {}
        self._registry = observed(registry, clock, self._note)

    def publish(self, messages: Sequence[Outgoing]) -> None:
        self._topic.publish(messages)

    def go_on(self) -> bool:
        """One worker on what is due now, or one step in time to what is due next. False when nothing is left."""
        self._publish_due()
        free_count = self.subscription.free
        if free_count:
            reason = self._worker(free_count)
            self.exit_reasons.append(reason)
            if reason is ExitReason.BROKEN:
                self._clock.advance(AFTER_BROKEN_S)
            return True
        due = [due_s for due_s, _ in self._delayed()]
        if self.subscription.next_free_s is not None:
            due.append(self.subscription.next_free_s)
        if due:
            self._clock.advance(max(0.0, min(due) - self._clock.now()))
        return bool(due)

    def left(self) -> str:
        waiting = [delivery.attributes.get("task_id", delivery.message_id) for delivery in self.subscription.waiting()]
        waiting += [parts[1] for _, name in self._delayed() if (parts := delayed_parts(name))]
        ran = ", ".join(f"{one} (ran {len(self._runs.get(one, ()))} times)" for one in sorted(waiting)[:20])
        ends = ", ".join(reason.value for reason in self.exit_reasons[-3:])
        return f"{len(waiting)} tasks are left after {len(self.exit_reasons)} executions, the last of which ended {ends}: {ran}"

    def drained(self, before: Mapping[str, bytes]) -> Drained:
        store = self._store
        lines = [one for name in store.names("outcomes/") for one in from_lines(store.read(name))]
        outputs = {name: store.read(name) for name in store.names() if not name.startswith(_OF_FANOUT)}
        return Drained(
            merged(lines),
            self._runs,
            {name: data for name, data in outputs.items() if before.get(name) != data},
            [_letter(message) for _, message in self._dead.published],
            self.exit_reasons,
            self._clock.now() - self._began_s,
            store,
        )

    def _note(self, task_id: str, attempt: int) -> None:
        self._runs.setdefault(task_id, []).append(Began(self._clock.now() - self._began_s, attempt))

    def _worker(self, share: int) -> ExitReason:
        from batch.worker.life import Worker  # of all of batch.testing, only this needs the worker

        settings = {
            "GOOGLE_CLOUD_PROJECT": "memory",
            "SUBSCRIPTION_NAME": LANE,
            "BUCKET_NAME": "memory",
            "LANE": LANE,
            "CLOUD_RUN_EXECUTION": f"execution-{len(self.exit_reasons) + 1}",
            "MAX_MESSAGES": str(share),
            "CONCURRENCY": str(self._concurrency),
            "TASK_TIMEOUT_S": str(WEEK_S),
            "WATCHDOG_S": "1e12",
            "BILLING_FLOOR_S": "0",
            "DRAIN_AFTER_S": "0",
            **self._forms,
        }
        worker = Worker(
            worker_settings(settings),
            self._registry,
            self.subscription,
            self._dead,
            self._store,
            self._worker_clock,
            _NoJitter(),
            self._broker.topic,
        )
        return worker.run()

    def _delayed(self) -> list[tuple[float, str]]:
        """What waits in the bucket: when it is due, and its name."""
        names = self._store.names(delayed_folder(LANE))
        return [(float(parts[0]), name) for name in names if (parts := delayed_parts(name))]

    def _publish_due(self) -> None:
        """As the controller's tick does."""
        for due_s, name in self._delayed():
            if due_s <= self._clock.now():
                self.publish([as_outgoing(from_object(self._store.read(name)), int(due_s))])
                self._store.delete(name)


class _NoJitter(random.Random):
    """An rng that adds nothing: delays are as long as the handler asked for."""

    def random(self) -> float:
        return 0.0


def _message(given: Mapping[str, Any] | bytes | Outgoing, task_id: str, submitted_at: str) -> Outgoing:
    if isinstance(given, Outgoing):
        return given
    if isinstance(given, bytes):
        return Outgoing(given, {"shard": LANE})
    body = {"task_id": task_id, "submitted_at": submitted_at, **given}
    own_id, task_type, at = (str(body.pop(name, "")) for name in ("task_id", "task_type", "submitted_at"))
    if not task_type:
        raise ValueError(f"a task needs a task_type, got {json.dumps(dict(given), default=str)[:200]}")
    return Outgoing(*encode(Task(own_id, task_type, at, body, lane=LANE, shard=LANE)))


def _letter(message: Outgoing) -> DeadLetter:
    said = message.attributes
    reason, count = said.get("dead_reason", ""), int(said.get("dead_attempt_count", "0"))
    return DeadLetter(said.get("task_id", ""), said.get("dead_error_type", ""), reason, count, message.data, said)
