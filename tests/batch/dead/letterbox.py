"""What the tests of the dead-letters job share: a dead-letter subscription in memory, what may lie in it, and what came of it."""

from __future__ import annotations

import json
import random
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from batch.dead.draining.drain import Drain
from batch.dead.draining.settings import DeadLetterSettings
from batch.dead.lanes import LaneFacts
from batch.dead.letters import Key, Letter
from batch.dead.log import Act, Entry
from batch.dead.rules import Rules
from batch.dead.segments import folded, lines, listed
from batch.model.attempts import AttemptError, Attempts, to_json
from batch.model.clock import iso
from batch.model.deadletters import dead_letter
from batch.model.delivery import Outgoing
from batch.model.exit import ExitReason
from batch.model.names import attempts_object
from batch.model.outcomes import Outcome, from_lines
from batch.settings import read
from batch.testing import ManualClock, MemoryBroker, MemoryObjectStore

SHARD = "s-1"
LANE = LaneFacts("lane", "lane-sub", "lane-topic", Rules())


def settings(**environment: object) -> DeadLetterSettings:
    given = {"GOOGLE_CLOUD_PROJECT": "p", "BUCKET_NAME": "bucket", "CLOUD_RUN_EXECUTION": "dl-1", "DRAIN_AFTER_S": "2"}
    return read(DeadLetterSettings, given | {name: str(value) for name, value in environment.items()})


def body(task_id: str, task_type: str = "work", **more: Any) -> bytes:
    return json.dumps({"task_id": task_id, "task_type": task_type, **more}).encode()


@dataclass
class Letterbox:
    clock: ManualClock = field(default_factory=ManualClock)
    lanes: dict[str, LaneFacts] = field(default_factory=lambda: {LANE.name: LANE})

    def __post_init__(self) -> None:
        self.broker = MemoryBroker(self.clock)
        self.dead = self.broker.subscription("dead-letters", "dead-letters")
        self.lane = self.broker.subscription(LANE.subscription, LANE.topic, max_delivery_attempts=5)
        self.store = MemoryObjectStore(clock=self.clock)

    # --- what comes

    def by_worker(self, task_id: str, data: bytes | None = None, error_type: str = "permanent", **facts: Any) -> None:
        """As a worker of the lane sends it."""
        attributes = {"task_type": "work", "shard": SHARD, "lane": "lane"} | facts.pop("attributes", {})
        given = {"reason": "no such row", "attempt_count": 1, "execution": "lane-x", "index": 3, "lane": "lane", **facts}
        data = body(task_id) if data is None else data
        self.broker.topic("dead-letters").publish([dead_letter(data, attributes, task_id=task_id, error_type=error_type, **given)])

    def by_net(self, data: bytes, **attributes: str) -> None:
        """As Pub/Sub's dead-letter policy sends it."""
        source = {
            "CloudPubSubDeadLetterSourceDeliveryCount": "5",
            "CloudPubSubDeadLetterSourceSubscription": LANE.subscription,
            "CloudPubSubDeadLetterSourceSubscriptionProject": "p",
            "CloudPubSubDeadLetterSourceTopicPublishTime": iso(self.clock.now() - 60),
        }
        self.broker.topic("dead-letters").publish([Outgoing(data, {"shard": SHARD, **source, **attributes})])

    def failed(self, task_id: str, *reasons: str, replay_number: int = 0) -> None:
        """These attempts of the task are on record."""
        attempts = Attempts(replay_number=replay_number)
        for reason in reasons:
            attempts = attempts.after(AttemptError(iso(self.clock.now()), "TimeoutError", reason, "lane-x", 1, "", "m"), 0.0)
        self.store.write(attempts_object(task_id), to_json(attempts, task_id))

    # --- the job

    def drain(self, **environment: object) -> tuple[ExitReason, Drain]:
        drain = self.made(**environment)
        return drain.run(), drain

    def made(self, **environment: object) -> Drain:
        end_s = self.clock.monotonic() + 3600
        topics: Callable[[str], Any] = self.broker.topic
        stopping = threading.Event()
        given = settings(**environment)
        return Drain(given, self.dead, topics, self.store, self.lanes, self.clock, random.Random(1), stopping, end_s)

    # --- what came of it

    def all_lines(self, lane: str = "lane") -> list[Letter | Entry]:
        found = []
        for line in lines(self.store, listed(self.store, lane)):
            assert line.what is not None, line.problem
            found.append(line.what)
        return found

    def letters(self, lane: str = "lane") -> dict[Key, Letter]:
        """Those that wait."""
        fold = folded(self.store, listed(self.store, lane))
        return {one.key: one for one in self.all_lines(lane) if isinstance(one, Letter) and fold.waits(one.key)}

    def letter(self, task_id: str, lane: str = "lane", replay_number: int = 0) -> Letter:
        return self.letters(lane)[Key(task_id, replay_number)]

    def entries(self, act: Act, lane: str = "lane") -> list[Entry]:
        return [one for one in self.all_lines(lane) if isinstance(one, Entry) and one.act is act]

    def outcomes(self, shard: str = SHARD) -> list[Outcome]:
        return [one for name in self.store.names(f"outcomes/{shard}/") for one in from_lines(self.store.read(name))]

    def returned(self) -> Counter[str]:
        """How often the message of which task went back to the lane."""
        return Counter(json.loads(message.data)["task_id"] for _, message in self.broker.topic(LANE.topic).published)
