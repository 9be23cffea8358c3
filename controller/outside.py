"""Everything that a tick touches, as one value: the seams, and what one process keeps between ticks."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from batch.model.clock import Clock
from batch.services.ports import ObjectStore, Topic
from controller.act.memory import Memory
from controller.decide.budget import Quotas
from controller.observe.backlog import BacklogReader
from controller.observe.jobs import JobRunner


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
