"""A lane whose log holds letters, and what a replay of them did: for tests of what acts on dead letters."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from batch.dead import segments
from batch.dead.lanes import LaneFacts
from batch.dead.letters import Letter
from batch.dead.log import Entry
from batch.dead.rules import Rules
from batch.model.clock import iso
from batch.model.deadletters import fingerprint_of, replay_of
from batch.model.message import Task, encode
from batch.model.names import dead_segment_object, outcome_folder, outcome_object
from batch.model.outcomes import Outcome, from_lines, to_line
from batch.services.ports import ObjectStore
from batch.testing import MemoryBroker, MemoryObjectStore
from batch.testing.clock import START_S

LANE = LaneFacts("default", "tasks-sub", "tasks", Rules())
BULK = LaneFacts("bulk", "bulk-sub", "bulk", Rules())
SHARD = "s-1"


def letter(number: int, error_type: str = "KeyError", **changes: Any) -> Letter:
    """Of task `number`, which died a minute after it was submitted."""
    reason = f"no line {number}"
    task = Task(f"{number:016x}-{SHARD}", "resize", iso(START_S - 120), {"width": number}, "s-1", "default", SHARD)
    data, attributes = encode(task)
    made = Letter(
        task_id=task.task_id,
        task_type=task.task_type,
        lane="default",
        shard=SHARD,
        died_at=iso(START_S - 60),
        first_at=iso(START_S - 120),
        error_type=error_type,
        reason=reason,
        fingerprint=fingerprint_of(error_type, reason),
        submission_id="s-1",
        attempt_count=1,
        first_message_id=f"first-{number}",
        attributes=attributes,
        data=data,
    )
    return replace(made, **changes)


def write_log(store: ObjectStore, letters: Iterable[Letter], *, a_segment: int = 4, writer: str = "dead-letters-x-0-0") -> None:
    """And the outcome lines of their tasks, as their workers wrote them."""
    ones = list(letters)
    for at in range(0, len(ones), a_segment):
        part = ones[at : at + a_segment]
        segments.write(store, dead_segment_object(part[0].lane, START_S - 30, writer, at // a_segment), part)
    body = b"".join(to_line(Outcome(one.task_id, one.task_type, "dead", one.died_at, replay_number=one.replay_number)) for one in ones)
    store.write(outcome_object(SHARD, START_S - 60, writer, 0), body)


def outcome_lines(store: ObjectStore, outcome: str) -> list[tuple[str, int]]:
    """Task ids and replay numbers of all lines with this outcome."""
    found = (one for info in store.list(outcome_folder("").rstrip("/")) for one in from_lines(store.read(info.name)))
    return sorted((one.task_id, one.replay_number) for one in found if one.outcome == outcome)


def acts(store: ObjectStore, lane: str = "default") -> list[Entry]:
    """In the order of the log."""
    return [line.what for line in segments.lines(store, segments.listed(store, lane)) if isinstance(line.what, Entry)]


def published(broker: MemoryBroker, topic: str = "tasks") -> Counter[tuple[str, int]]:
    """How often each task was published, with which replay number."""
    found = broker.topic(topic).published
    return Counter((one.attributes["task_id"], replay.number) for _, one in found if (replay := replay_of(one.attributes)) is not None)


def keys(letters: Iterable[Letter]) -> list[tuple[str, int]]:
    """As `published` counts them, once they are replayed."""
    return sorted((one.task_id, one.replay_number + 1) for one in letters)


def here(clock: Any) -> tuple[MemoryObjectStore, MemoryBroker, random.Random]:
    """An empty bucket, the topics, and chance that repeats."""
    return MemoryObjectStore(clock=clock), MemoryBroker(clock), random.Random(7)
