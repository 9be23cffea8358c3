"""Everything that a tick touches, as one value: the seams, and what one process remembers between ticks."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from batch.dead.lanes import LaneFacts
from batch.model.clock import Clock
from batch.services.ports import ObjectStore, Topic
from controller.act.cancelled import Swept
from controller.act.endings import Known
from controller.act.state import Stored
from controller.decide.budget import Quotas
from controller.decide.waits import TICK_EVERY_S
from controller.lanes.lanes import lane_of
from controller.lanes.rules import NOWHERE, Home
from controller.model.execution import Worked
from controller.model.lane import Lane
from controller.observe.backlog import BacklogReader
from controller.observe.jobs import JobInfo, JobRunner
from controller.observe.sources import SourceReader, SubscriptionFacts

MINUTE_S = 60.0
LANES_KEPT_S = 600.0
"""After so long a round looks whether what it wrote of the lanes is still there."""


@dataclass(frozen=True, slots=True)
class Subscriptions:
    """Those of the project as they were read at `read_at` (Unix seconds), and names of lanes' that do not exist; `unread` says why none
    could be read."""

    read_at: float
    found: Mapping[str, SubscriptionFacts] = field(default_factory=dict)
    missing: frozenset[str] = frozenset()
    unread: str = ""

    def knows(self, names: Iterable[str]) -> bool:
        """Whether nothing new has to be asked about these."""
        return bool(self.unread) or all(name in self.found or name in self.missing for name in names)


@dataclass(slots=True)
class Memory:
    """What one controller process remembers. Losing it costs requests, never correctness. Safe from any thread.

    A state that is remembered only serves to find that there is nothing to do: a tick that launches has read it, and a write names its
    generation."""

    _lock: threading.Lock = field(default_factory=threading.Lock)
    _ended: dict[str, Mapping[str, Worked]] = field(default_factory=dict)
    _states: dict[str, Stored] = field(default_factory=dict)
    _swept: dict[str, Swept] = field(default_factory=dict)
    ends: dict[str, Known] = field(default_factory=dict)
    """What is known of submissions whose end is to be fired; the one round that looks at them changes it."""
    ends_lock: threading.Lock = field(default_factory=threading.Lock)
    sources: Subscriptions | None = None
    sources_lock: threading.Lock = field(default_factory=threading.Lock)
    """The thread that holds it asks Pub/Sub; others at the same time wait for that answer."""
    _run_calls: tuple[float, ...] = ()
    _lanes: tuple[float, Mapping[str, LaneFacts]] | None = None
    _judged: dict[str, tuple[JobInfo, Home, Lane]] = field(default_factory=dict)

    def ended(self, lane: str) -> Mapping[str, Worked]:
        """Executions that will not change any more, by full name."""
        with self._lock:
            return self._ended.get(lane, {})

    def remember_ended(self, lane: str, worked: Iterable[Worked]) -> None:
        """Replaces what was remembered: other executions do not matter any more."""
        with self._lock:
            self._ended[lane] = {one.info.full_name: one for one in worked if not one.info.live}

    def state(self, lane: str) -> Stored | None:
        """None: it has to be read."""
        with self._lock:
            return self._states.get(lane)

    def remember_state(self, lane: str, stored: Stored | None) -> None:
        """None forgets it. An older state than the remembered one comes from a slower thread and is ignored."""
        with self._lock:
            if stored is None:
                self._states.pop(lane, None)
            elif lane not in self._states or stored.generation >= self._states[lane].generation:
                self._states[lane] = stored

    def lanes(self, now: float) -> Mapping[str, LaneFacts] | None:
        """What was read of lanes, or written, for what serves several, at most LANES_KEPT_S ago. None: it has to be read."""
        with self._lock:
            return self._lanes[1] if self._lanes is not None and 0 <= now - self._lanes[0] <= LANES_KEPT_S else None

    def remember_lanes(self, lanes: Mapping[str, LaneFacts], at: float) -> None:
        """As they were read or written at `at` (Unix seconds)."""
        with self._lock:
            self._lanes = (at, lanes)

    def lane_of(self, job: JobInfo, home: Home) -> Lane:
        """The lane of a job, judged anew only when the job has changed: the rules cost most of a quiet tick. Raises SettingsError."""
        judged = (replace(job, execution_count=0, latest_execution=""), home)
        with self._lock:
            known = self._judged.get(job.full_name)
        if known is not None and known[:2] == judged:
            return known[2]
        lane = lane_of(job, home)
        with self._lock:
            self._judged[job.full_name] = (*judged, lane)
        return lane

    def swept(self, lane: str) -> Swept:
        """What is known of a lane's cancelled tasks; the tick that looks at the lane changes it."""
        with self._lock:
            return self._swept.setdefault(lane, Swept())

    def remember_run_call(self, at: float) -> None:
        """A launch is tried at `at` (Unix seconds)."""
        with self._lock:
            self._run_calls = (*(one for one in self._run_calls if one > at - MINUTE_S), at)

    def run_call_count(self, since: float) -> int:
        """Launches that were tried after `since` (Unix seconds), at most a minute ago."""
        with self._lock:
            return sum(one > since for one in self._run_calls)


@dataclass(frozen=True, slots=True)
class Outside:
    """Used from several threads at a time. `topic` returns a topic by its short name, or raises DependencyError. Without `sources` nobody
    looks at what lanes drain. Scheduled ticks come `tick_every_s` seconds apart."""

    store: ObjectStore
    runner: JobRunner
    backlog: BacklogReader
    clock: Clock
    rng: random.Random
    topic: Callable[[str], Topic]
    quotas: Quotas = field(default_factory=Quotas)
    home: Home = NOWHERE
    sources: SourceReader | None = None
    memory: Memory = field(default_factory=Memory)
    tick_every_s: float = TICK_EVERY_S
