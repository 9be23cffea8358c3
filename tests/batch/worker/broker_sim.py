"""A subscription and a worker under simulated time: only the decisions are real. What the broker does is drawn from a seed.

The broker answers with fewer messages than it has, and has blind spells, shorter than the proof of drained takes, in which every pull
finds nothing, some at once and some after their whole time. Pulls may fail, at once or after a while, and bring nothing then.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from batch.services.drain import MAX_WAIT_S, MOST_LOST_PART, DrainProof
from batch.worker.flow import wanted_count
from batch.worker.pulling.pulls import Need, Pull, Pulls


@dataclass
class Simulation:
    """`run` goes on until the worker says that its share is done, or that nothing is left."""

    rng: random.Random
    backlog: int
    share: int
    least_s: float = 5.0
    fails: float = 0.0
    """The part of the pulls that fail."""
    slots: int = 8
    now_s: float = 1000.0
    ended: str = ""
    most_asked: int = 0
    most_open: int = 0
    pull_count: int = 0
    _events: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    _number: int = 0
    _waiting: list[tuple[Pull, float]] = field(default_factory=list)
    _ready: int = 0
    _running: int = 0
    _taken: int = 0
    _idle_since_s: float = 1000.0

    def __post_init__(self) -> None:
        self.pulls = Pulls(DrainProof(least_s=self.least_s), max_bytes=10**9)
        self.mean_s = self.rng.choice([0.001, 0.05, 0.5, 3.0])
        self.retried = self.rng.choice([0.0, 0.1, 0.3])
        self.answers_early = self.rng.random()
        self.most_per_pull = self.rng.choice([1, 3, 10, 100, 1000])
        self.spells = self._spells()

    def _spells(self) -> list[tuple[float, float]]:
        """Each shorter than the proof takes; between two there is time for a pull that waits as long as any does, also when as many
        failed as the proof bears."""
        lost_s = MOST_LOST_PART * self.least_s if self.fails else 0.0
        spells, at_s = [], self.now_s + self.rng.uniform(-2, 5)
        for _ in range(40):
            length_s = self.rng.uniform(0, 0.999) * self.least_s
            spells.append((at_s, at_s + length_s))
            at_s += length_s + lost_s + MAX_WAIT_S + self.rng.uniform(0.1, 20)
        return spells

    def blind(self) -> bool:
        return any(begin_s <= self.now_s < end_s for begin_s, end_s in self.spells)

    def at(self, time_s: float, action: Callable[[], None]) -> None:
        self._number += 1
        heapq.heappush(self._events, (time_s, self._number, action))

    def run(self) -> Simulation:
        for _, end_s in self.spells:
            self.at(end_s, self._serve)
        self._decide()
        while not self.ended:
            self.now_s, _, action = heapq.heappop(self._events)
            action()
            self._decide()
        return self

    # --- the worker

    @property
    def idle_s(self) -> float:
        """How long it has had nothing to do: what saying `drained` takes."""
        return self.now_s - self._idle_since_s

    @property
    def held(self) -> int:
        return self._ready + self._running

    def _decide(self) -> None:
        self._start()
        if self._taken == self.share and not self.pulls.open:
            self.ended = "share_done"
        elif self.pulls.drained:
            self.ended = "drained"
        elif self.pulls.broken:
            self.ended = "broken"
        if self.ended:
            return
        wanted = wanted_count(concurrency=self.slots, busy=self._running, mean_s=self.mean_s, prefetch_s=1.0)
        need = Need(wanted, self._ready, self.share - self._taken)
        while (pull := self.pulls.begin(self.now_s, need)) is not None:
            self._open(pull)
        self.most_asked = max(self.most_asked, self._taken + self.pulls.asked)
        self.most_open = max(self.most_open, len(self.pulls.open))
        if not self.pulls.open:
            self.at(self.now_s + 0.2, lambda: None)

    def _start(self) -> None:
        while self._ready and self._running < self.slots:
            self._ready -= 1
            self._running += 1
            self.at(self.now_s + self.mean_s * self.rng.uniform(0.5, 1.5), self._finish)

    def _finish(self) -> None:
        self._running -= 1
        if self.rng.random() < self.retried:
            self.backlog += 1
            self._serve()
        if self.held == 0:
            self._idle_since_s = self.now_s

    def _close(self, pull: Pull, count: int) -> None:
        self._taken += count
        self._ready += count
        self.pulls.ended(pull, self.now_s, count, 200 * count, None if self.held else self._idle_since_s)

    # --- the broker

    def _open(self, pull: Pull) -> None:
        self.pull_count += 1
        self._waiting.append((pull, self.now_s + pull.wait_s))
        early = self.blind() and self.rng.random() < self.answers_early
        if self.fails and self.rng.random() < self.fails:
            self._waiting.pop()
            self.at(self.now_s + self.rng.choice([0.0, self.rng.random(), 1.0]) * pull.wait_s, lambda: self._fail(pull))
        else:
            self.at(self.now_s if early else self.now_s + pull.wait_s, lambda: self._give_up(pull))
        self._serve()

    def _fail(self, pull: Pull) -> None:
        self.pulls.failed(pull, self.now_s)

    def _give_up(self, pull: Pull) -> None:
        for entry in self._waiting:
            if entry[0] is pull:
                self._waiting.remove(entry)
                self._close(pull, 0)

    def _serve(self) -> None:
        """What waits gets what there is, as soon as anybody sees it."""
        while self._waiting and self.backlog and not self.blind():
            pull, _ = self._waiting.pop(0)
            count = min(self.backlog, pull.max_messages, self.rng.randint(1, self.most_per_pull))
            self.backlog -= count
            self.at(self.now_s + 0.05, lambda pull=pull, count=count: self._close(pull, count))  # type: ignore[misc]
