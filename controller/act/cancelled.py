"""Ends the delayed tasks of a lane that clients have cancelled: the outcome is written, then the object is deleted, never the other way.

A list is gone through once, when it is new; what a worker delays later is found when it is due.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple

from batch.handling.cancels import Cancel, Cancels
from batch.model.clock import Clock, iso
from batch.model.deadletters import replay_number_of
from batch.model.delayed import DelayedMessage, from_object
from batch.model.errors import ObjectMissing, PreconditionFailed
from batch.model.message import shard_in_id, shard_of, task_type_of
from batch.model.names import delayed_folder, delayed_parts, outcome_object
from batch.model.outcomes import Outcome, to_line
from batch.services.ports import ObjectInfo, ObjectStore
from controller.model.together import together

REQUESTS_IN_FLIGHT = 16
PORTION_COUNT = 500
PORTION_BYTES = 9_000_000


@dataclass(slots=True)
class Swept:
    """What one controller process remembers of a lane's list: how far the delayed objects were compared with its `generation`."""

    cancels: Cancels = field(default_factory=Cancels)
    generation: int = 0
    after: str = ""


class Found(NamedTuple):
    """A delayed object of a cancelled task."""

    info: ObjectInfo
    message: DelayedMessage
    entry: Cancel


@dataclass(slots=True)
class CancelledTasks:
    """Those of one lane in one tick. `count`: how many were ended."""

    lane: str
    subscription: str
    store: ObjectStore
    clock: Clock
    rng: random.Random
    swept: Swept
    count: int = 0

    def look(self) -> str:
        """As `Cancels.look`: one request while the list is the same. Raises DependencyError."""
        return self.swept.cancels.look(self.store, self.lane, self.clock.now())

    def entry_for(self, message: DelayedMessage) -> Cancel | None:
        """What cancels a delayed message; None when nothing does."""
        cancels, attributes = self.swept.cancels, message.attributes
        return cancels.entry_for(message.task_id, attributes.get("submission_id", ""), attributes) if cancels.by_id else None

    def sweep(self, until_s: float) -> None:
        """End all delayed tasks that the list names, if it is new, until `until_s` (monotonic); the next tick goes on from there. Raises
        FanoutError."""
        cancels, swept = self.swept.cancels, self.swept
        generation = cancels.generation
        if not cancels.by_id or swept.generation == generation:
            return
        for portion in _portions(self._candidates()):
            if self.clock.monotonic() >= until_s:
                return
            found = [one for one in together(self._found, portion, REQUESTS_IN_FLIGHT, "cancelled") if one is not None]
            self.end(found)
            swept.after = portion[-1].name
        swept.generation, swept.after = generation, ""

    def end(self, found: Sequence[Found]) -> None:
        """Write the outcomes, then delete the objects. Raises FanoutError."""
        now = self.clock.now()
        by_shard: dict[str, list[bytes]] = defaultdict(list)
        for one in found:
            message = one.message
            task_type = message.attributes.get("task_type") or task_type_of(message.data) or "unknown"
            outcome = Outcome(
                message.task_id,
                task_type,
                "cancelled",
                iso(now),
                attempt_count=0,
                message_id=message.message_id,
                reason=one.entry.reason,
                replay_number=replay_number_of(message.attributes),
            )
            shard = shard_of(message.attributes, lane=self.lane, published_s=message.published_s)
            by_shard[shard].append(to_line(outcome))
        for shard, lines in by_shard.items():
            name = outcome_object(shard, now, f"tick-{self.rng.getrandbits(64):016x}", 0)
            with suppress(PreconditionFailed):  # nobody else has this name: the answer to our own write was lost
                self.store.write(
                    name, b"".join(lines), content_type="application/x-ndjson", metadata={"cancelled": str(len(lines))}, if_generation=0
                )
        together(self._delete, found, REQUESTS_IN_FLIGHT, "cancelled")
        self.count += len(found)

    def _delete(self, one: Found) -> None:
        with suppress(PreconditionFailed):  # somebody replaced it meanwhile: a worker that receives it looks at the list
            self.store.delete(one.info.name, if_generation=one.info.generation)

    def _candidates(self) -> Iterator[ObjectInfo]:
        """The objects whose names do not show that the list leaves them alone: unless a task's id tells its submission, only its message
        does."""
        by_id, folder = self.swept.cancels.by_id, delayed_folder(self.subscription)
        any_submission = any(shard_in_id(one) is None for one in by_id)
        for info in self.store.list(folder):
            parts = delayed_parts(info.name)
            if parts is None or "/" in info.name.removeprefix(folder) or info.name <= self.swept.after:
                continue
            shard = shard_in_id(parts[1])
            if parts[1] in by_id or shard in by_id or (any_submission and (shard is None or shard.startswith("rolling-"))):
                yield info

    def _found(self, info: ObjectInfo) -> Found | None:
        try:
            message = from_object(self.store.read(info.name))
        except (ObjectMissing, ValueError):
            return None  # somebody was faster; or it is damaged, and is moved aside when it is due
        entry = self.entry_for(message)
        return None if entry is None else Found(info, message, entry)


def _portions(infos: Iterable[ObjectInfo]) -> Iterator[list[ObjectInfo]]:
    """Each of as many as fit into memory."""
    portion: list[ObjectInfo] = []
    total_bytes = 0
    for info in infos:
        if portion and (len(portion) >= PORTION_COUNT or total_bytes + info.size > PORTION_BYTES):
            yield portion
            portion, total_bytes = [], 0
        portion.append(info)
        total_bytes += info.size
    if portion:
        yield portion
