"""Looks which submissions may have ended, by counts, and sends `fanout.finish` for each, which proves it and fires its end.

The mark says first that one was sent: of two controllers one stands down, and what a kill swallowed is sent again after its wait.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from batch.client.counting import Requests
from batch.client.submit import NewTask, submit_one
from batch.ends import marks
from batch.ends.counting import NOTHING_SEEN, Seen, ended_count, look_on_shard
from batch.ends.marks import Mark, after_finish, wants_finish
from batch.model.clock import Clock
from batch.model.errors import DependencyError, FanoutError, ObjectMissing, PreconditionFailed
from batch.model.message import FINISH_TYPE, keyed_task_id
from batch.model.names import submission_object
from batch.services.ports import ObjectStore, Topic
from controller.model.lane import DEFAULT_CALLBACKS, Lane
from controller.model.together import together

MOST_PER_TICK = 200
REQUESTS_IN_FLIGHT = 16
MOST_S = 20.0
"""How long one tick sends: a tick must be over before the next one begins."""


@dataclass(slots=True)
class Known:
    """What one controller process remembers of a submission: when it looked (Unix seconds), how many tasks it has (None: it is not
    closed), and what was seen in which shard."""

    looked_at: float = float("-inf")
    task_count: int | None = None
    shards: tuple[str, ...] = ()
    seen: dict[str, Seen] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Endings:
    """What a tick has found: `open_count` ends are still to be fired, `looked_count` submissions were looked at, for `sent` ones a
    `fanout.finish` was published, by the lane that runs it. `request_count` requests went to the bucket and to Pub/Sub."""

    open_count: int = 0
    looked_count: int = 0
    sent: Mapping[str, int] = field(default_factory=dict)
    request_count: int = 0
    problems: tuple[str, ...] = ()


def chosen(open_marks: Sequence[Mark], known: Mapping[str, Known], rng: random.Random, most: int = MOST_PER_TICK) -> list[Mark]:
    """Those to look at: the longest unlooked first, and of those that this process does not know any."""
    mixed = rng.sample(open_marks, len(open_marks))
    return sorted(mixed, key=lambda mark: known[mark.name].looked_at if mark.name in known else float("-inf"))[:most]


def no_callbacks(lane: str, wanted: str) -> str:
    """What to tell where the lane that fires the ends of another does not exist."""
    return f"ends of lane {lane} wait: there is no lane {wanted!r} to fire them; name one as fanout/callbacks of {lane}"


@dataclass(slots=True)
class EndingsLook:
    """One tick's look. `known` is remembered between ticks, by the names of marks."""

    lanes: Sequence[Lane]
    topic: Callable[[str], Topic]
    store: ObjectStore
    clock: Clock
    rng: random.Random
    known: dict[str, Known]
    _asked: Requests = field(init=False)
    _published_count: int = 0
    _problems: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._asked = Requests(self.store)

    def run(self) -> Endings:
        """Errors of services become problems; they are not raised, and the next tick looks again."""
        open_marks: list[Mark] = []
        looked: list[Mark] = []
        sent: Counter[str] = Counter()
        until_s = self.clock.monotonic() + MOST_S
        try:
            open_marks = list(marks.listed(self._asked.store))
            for name in self.known.keys() - {mark.name for mark in open_marks}:
                del self.known[name]
            looked = chosen(open_marks, self.known, self.rng)
            ready = self._ready(looked)
            for mark, count in ready:
                if self.clock.monotonic() >= until_s:
                    break
                sent += self._tried(mark, count)
        except FanoutError as error:
            self._problems.append(f"ends that are to be fired wait for the next tick: {error}")
        return Endings(len(open_marks), len(looked), sent, self._asked.count + self._published_count, tuple(dict.fromkeys(self._problems)))

    def _ready(self, looked: Sequence[Mark]) -> list[tuple[Mark, int]]:
        """Those whose counts suggest the end, with how many of their tasks have ended. Raises DependencyError."""
        now = self.clock.now()
        together(self._read, looked, REQUESTS_IN_FLIGHT, "endings")
        shards: dict[str, dict[str, Seen]] = {}
        closed = [mark for mark in looked if self.known[mark.name].task_count is not None]
        for mark in closed:
            known = self.known[mark.name]
            # What a replay announces may stand in a minute that was settled long ago.
            again = mark.round > 0 or mark.told.times > 0
            for shard in known.shards:
                shards.setdefault(shard, {})[mark.submission_id] = NOTHING_SEEN if again else known.seen.get(shard, NOTHING_SEEN)
        counted = together(
            lambda one: (one[0], look_on_shard(self._asked.store, one[0], one[1], now)), shards.items(), REQUESTS_IN_FLIGHT, "endings"
        )
        seen = dict(counted)
        ready = []
        for mark in closed:
            known = self.known[mark.name]
            known.seen = {shard: seen[shard][mark.submission_id] for shard in known.shards}
            counts = sum((Counter(dict(one.counts)) for one in known.seen.values()), Counter[str]())
            if wants_finish(mark, count := ended_count(counts), known.task_count or 0, now):
                ready.append((mark, count))
        for mark in looked:
            self.known[mark.name].looked_at = now
        return ready

    def _read(self, mark: Mark) -> None:
        """How many tasks the submission has, which never changes once it is closed."""
        known = self.known.setdefault(mark.name, Known())
        if known.task_count is not None:
            return
        try:
            body = json.loads(self._asked.store.read(submission_object(mark.submission_id)))
            known.shards = tuple(map(str, body["shards"]))
            known.task_count = int(body["task_count"])
        except ObjectMissing:
            return  # it is open: it ends after it was closed
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            name = submission_object(mark.submission_id)
            self._problems.append(
                f"{name} does not say how many tasks there are ({error!r:.100}): its end is never fired; delete {mark.name}"
            )

    def _tried(self, mark: Mark, count: int) -> Counter[str]:
        """As `_sent`; what is wrong with one mark does not hold up the others. Raises DependencyError."""
        try:
            return self._sent(mark, count)
        except PreconditionFailed:  # a finish, a replay or another controller was faster
            return Counter()
        except DependencyError:
            raise
        except FanoutError as error:
            self._problems.append(str(error))
            return Counter()

    def _sent(self, mark: Mark, count: int) -> Counter[str]:
        """Say in the mark that a `fanout.finish` is sent, then send it; its lane. Raises FanoutError."""
        lanes = {lane.name: lane for lane in self.lanes}
        wanted = lanes[mark.lane].policy.callbacks if mark.lane in lanes else DEFAULT_CALLBACKS
        if wanted not in lanes:
            self._problems.append(no_callbacks(mark.lane, wanted))
            return Counter()
        found = marks.read(self._asked.store, mark.lane, mark.submission_id)
        if found is None or found[0].generation != mark.generation:
            return Counter()
        key = f"{FINISH_TYPE}/{mark.submission_id}/{mark.round}"
        told = after_finish(mark, count, self.clock.now(), keyed_task_id(wanted, key))
        told = marks.write(self._asked.store, told, found[1])
        task = NewTask(FINISH_TYPE, {"submission_id": told.submission_id, "lane": told.lane, "round": told.round}, key)
        topic = self.topic(lanes[wanted].topic)
        self._published_count += 1
        submit_one(topic, task, lane=wanted, clock=self.clock, rng=self.rng, store=self._asked.store, built_in=True)
        return Counter([wanted])
