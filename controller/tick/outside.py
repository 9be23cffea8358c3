"""Everything that a tick touches, as one value: the seams, and what one process keeps between ticks."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from batch.model.clock import Clock
from batch.services.ports import ObjectStore, Topic
from controller.act.state import Saved
from controller.decide.budget import Quotas
from controller.model.execution import Worked
from controller.observe.backlog import BacklogReader
from controller.observe.jobs import JobRunner


@dataclass(slots=True)
class Memory:
    """Safe from any thread. `ended` holds executions that will not change any more, by lane and full name; `states` by lane."""

    _lock: threading.Lock = field(default_factory=threading.Lock)
    _ended: dict[str, Mapping[str, Worked]] = field(default_factory=dict)
    _states: dict[str, Saved] = field(default_factory=dict)
    _run_calls: tuple[float, ...] = ()

    def ended(self, lane: str) -> Mapping[str, Worked]:
        with self._lock:
            return self._ended.get(lane, {})

    def remember_ended(self, lane: str, worked: Iterable[Worked]) -> None:
        """Only these: what does not matter any more is forgotten."""
        with self._lock:
            self._ended[lane] = {one.info.full_name: one for one in worked if not one.info.live}

    def state(self, lane: str) -> Saved | None:
        with self._lock:
            return self._states.get(lane)

    def remember_state(self, lane: str, saved: Saved | None) -> None:
        """None: it has to be read again. An older one than is remembered comes from a slower thread and is not taken."""
        with self._lock:
            if saved is None:
                self._states.pop(lane, None)
            elif lane not in self._states or saved.generation >= self._states[lane].generation:
                self._states[lane] = saved

    def called_run(self, at: float, within_s: float) -> None:
        """A launch is tried at `at` (Unix seconds)."""
        with self._lock:
            self._run_calls = (*(one for one in self._run_calls if one > at - within_s), at)

    def run_call_count(self, since: float) -> int:
        with self._lock:
            return sum(one > since for one in self._run_calls)


@dataclass(frozen=True, slots=True)
class Outside:
    """All of it is used from several threads at a time. `topic` gives a topic by its short name; raises DependencyError."""

    store: ObjectStore
    runner: JobRunner
    backlog: BacklogReader
    clock: Clock
    rng: random.Random
    topic: Callable[[str], Topic]
    quotas: Quotas = field(default_factory=Quotas)
    memory: Memory = field(default_factory=Memory)
