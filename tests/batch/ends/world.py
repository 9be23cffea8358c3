"""One submission with ends in memory, and all that may happen to it: workers, ticks, finishes and replays, killed at any request."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from batch.built_in.finish import Finish
from batch.dead import segments
from batch.dead.lanes import LaneFacts, write_lanes
from batch.dead.letters import Letter
from batch.dead.replaying import replay, resume_stalled
from batch.dead.rules import Rules
from batch.ends import marks
from batch.ends.marks import Mark
from batch.ends.options import Ends, to_json
from batch.model.clock import iso
from batch.model.deadletters import fingerprint_of, replay_number_of
from batch.model.delivery import Delivery, Outgoing
from batch.model.errors import HandlerSignal
from batch.model.message import Task, decode, encode
from batch.model.names import dead_segment_object, manifest_object, outcome_object, submission_object
from batch.model.outcomes import Outcome, counted, to_line
from batch.testing import ManualClock, MemoryBroker, MemoryObjectStore
from controller.act.endings import Endings, EndingsLook, Known
from controller.model.lane import Lane

ID = "s-1"
ENDS = Ends({"task_type": "report"}, {"task_type": "alarm"})
LANE = LaneFacts("default", "tasks-sub", "tasks", Rules())


class Killed(BaseException):
    """The process is gone."""


class Mortal:
    """A store or a topic whose caller is killed at its n-th request, before or after it takes effect. `written` sees each write."""

    def __init__(self, inner: Any, world: World) -> None:
        self._inner, self._world = inner, world

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)

        def called(*arguments: Any, **options: Any) -> Any:
            self._world.request(before=True)
            answer = found(*arguments, **options)
            if name == "write":
                self._world.written(arguments[0], options.get("metadata") or {})
            self._world.request(before=False)
            return answer

        return called if callable(found) else found


@dataclass
class World:
    count: int = 3
    ends: Ends = ENDS
    shard: str = ID
    seed: int = 1
    kill_at: int | None = None
    kill_before: bool = True
    fired: list[tuple[int, str, str]] = field(default_factory=list)
    """Round, end and task id of each end's task that was published."""
    early: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.clock, self.rng = ManualClock(), random.Random(self.seed)
        self.bucket, self.broker = MemoryObjectStore(clock=self.clock), MemoryBroker(self.clock)
        self.subscription = self.broker.subscription("tasks-sub", "tasks", 60.0, max_delivery_attempts=1000)
        self.store: Any = Mortal(self.bucket, self)
        self.known: dict[str, Known] = {}
        self.outcomes: dict[tuple[str, int], str] = {}
        self.told: dict[str, Any] = {}
        """What the task of the last round's end says."""
        self.ids = [f"{number:016x}-{self.shard}" for number in range(self.count)]
        self.pending = set(self.ids)
        self.writes = 0
        write_lanes(self.bucket, {"default": LANE})
        marks.write(self.bucket, Mark(ID, "default"), self.ends)
        told = "".join(json.dumps({"task_id": one, "task_type": "work", "shard": self.shard}) + "\n" for one in self.ids)
        if self.ids:
            self.bucket.write(manifest_object(ID, 0), told.encode())
        tasks = [Task(one, "work", iso(self.clock.now()), {}, ID, "default", self.shard) for one in self.ids]
        self.broker.topic("tasks").publish([Outgoing(*encode(task)) for task in tasks])

    def close(self) -> World:
        body = {
            "submission_id": ID,
            "lane": "default",
            "task_count": self.count,
            "part_count": 1 if self.ids else 0,
            "shards": [self.shard] if self.ids else [],
            "ends": to_json(self.ends),
        }
        self.bucket.write(submission_object(ID), json.dumps(body).encode())
        return self

    # --- kills

    def request(self, *, before: bool) -> None:
        if self.kill_at is None or before is not self.kill_before:
            return
        self.kill_at -= 1
        if self.kill_at < 0:
            self.kill_at = None
            raise Killed

    def written(self, name: str, metadata: dict[str, str]) -> None:
        if name.startswith("open/") and "firing" in metadata and self.pending:
            self.early.append(f"{metadata['firing']} while {self.pending} are pending")

    def mortally(self, action: Callable[[], Any], kill_at: int | None, *, before: bool = True) -> Any:
        """What it gives; None if it was killed."""
        self.kill_at, self.kill_before = kill_at, before
        try:
            return action()
        except Killed:
            return None
        finally:
            self.kill_at = None

    # --- who acts

    def topic(self, name: str) -> Any:
        return Mortal(self.broker.topic(name), self)

    def tick(self) -> Endings:
        lane = Lane("default", "jobs/default", "tasks-sub", "tasks")
        return EndingsLook([lane], self.topic, self.store, self.clock, self.rng, self.known).run()

    def work(self, outcome: str = "succeeded", *, ack: bool = True) -> str:
        """Any message through a worker; what type its task has. Without `ack` it is delivered again."""
        deliveries = self.subscription.pull(100, 0.0)
        if not deliveries:
            return ""
        delivery = deliveries.pop(self.rng.randrange(len(deliveries)))
        self.subscription.nack([one.ack_id for one in deliveries])
        task = decode(delivery.data, delivery.attributes, message_id=delivery.message_id, published_s=delivery.published_s, lane="default")
        if task.task_type == "work":
            self.end(task, outcome, delivery)
        elif task.task_type == "fanout.finish":
            try:
                Finish(self.store, self.topic, self.clock, self.rng).run(task)
            except HandlerSignal:
                ack = False
        else:
            told = task.fields["submission"]
            self.told = told if told["round"] >= self.told.get("round", 0) else self.told
            self.fired.append((told["round"], told["end"], task.task_id))
        if ack:
            self.subscription.ack([delivery.ack_id])
        return task.task_type

    def end(self, task: Task, outcome: str, delivery: Delivery) -> None:
        """As a worker and the dead-letters job write it."""
        number = replay_number_of(delivery.attributes)
        outcome = self.outcomes.setdefault((task.task_id, number), outcome)  # a redelivery ends as the delivery before it
        self.line(task.task_id, outcome, number)
        if outcome == "dead":
            reason = f"no line of {task.task_id}"
            made = Letter(
                task.task_id, "work", "default", self.shard, iso(self.clock.now()), iso(self.clock.now()), "KeyError", reason,
                fingerprint_of("KeyError", reason), submission_id=ID, replay_number=number, attempt_count=1,
                first_message_id=delivery.message_id, attributes=dict(delivery.attributes), data=delivery.data,
            )  # fmt: skip
            self.writes += 1
            segments.write(self.bucket, dead_segment_object("default", self.clock.now(), f"dl-{self.writes}-0-0", 0), [made])
        self.pending.discard(task.task_id)

    def line(self, task_id: str, outcome: str, number: int = 0) -> None:
        self.writes += 1
        line = to_line(Outcome(task_id, "work", outcome, iso(self.clock.now()), replay_number=number))
        name = outcome_object(self.shard, self.clock.now(), "e-0-0", self.writes)
        self.bucket.write(name, line, metadata=counted(self.shard, [(outcome, ID)]))

    def repeat(self, rng: random.Random) -> None:
        """A redelivery tells once more how a task has ended."""
        names = [name for name in self.bucket.names("outcomes/") if b'"replayed"' not in self.bucket.read(name)]
        if names:
            (line,) = self.bucket.read(rng.choice(names)).splitlines()
            body = json.loads(line)
            self.line(body["task_id"], body["outcome"], body.get("replay_number", 0))

    def replay(self, choose: Callable[[Letter], bool] = lambda _: True) -> None:
        """The tasks whose messages it publishes are pending from then on."""
        replay(self.store, self._topic_of_replay, LANE, choose, details={}, rate=None, clock=self.clock, rng=self.rng, who="ann", why="")

    def resume(self) -> None:
        resume_stalled(self.store, self._topic_of_replay, LANE, clock=self.clock, rng=self.rng)

    def _topic_of_replay(self, name: str) -> Any:
        topic = self.topic(name)
        world = self

        class Watched:
            def publish(self, messages: list[Outgoing]) -> Any:
                answer = topic.publish(messages)
                world.pending |= {one.attributes["task_id"] for one in messages}
                return answer

        return Watched()

    # --- what came of it

    @property
    def mark(self) -> Mark | None:
        return marks.standing(self.bucket, "default", ID)

    def settle(self, outcome: str = "succeeded", limit: int = 40) -> None:
        """Nobody is killed any more: everything that is under way ends."""
        for _ in range(limit):
            self.clock.advance(660)
            self.resume()
            while self.work(outcome):
                pass
            self.tick()
            if self.mark is None and not self.pending and not self.work(outcome):
                return
        raise AssertionError(f"the end was not fired: {self.mark}, pending {self.pending}")

    def ids_by_round(self) -> dict[int, set[tuple[str, str]]]:
        found: dict[int, set[tuple[str, str]]] = {}
        for number, end, task_id in self.fired:
            found.setdefault(number, set()).add((end, task_id))
        return found

    def task_counts(self) -> Counter[str]:
        return Counter(message.attributes["task_type"] for _, message in self.broker.topic("tasks").published)
