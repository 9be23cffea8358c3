"""Ends the delayed tasks of a lane that clients have cancelled: the outcome is written, then the object is deleted, never the other way.

A list is gone through once, when it is new; what a worker delays later is found when it is due.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

from batch.formats.forms import ENVELOPES, Forms
from batch.handling.cancels import Cancels
from batch.model.clock import Clock, iso
from batch.model.delayed import DelayedMessage, from_object
from batch.model.errors import ObjectMissing, PreconditionFailed
from batch.model.message import shard_in_id
from batch.model.names import delayed_folder, delayed_parts, outcome_object
from batch.model.outcomes import Outcome, counted, to_line
from batch.services.ports import ObjectInfo, ObjectStore
from controller.model.together import together

REQUESTS_IN_FLIGHT = 16
PORTION_COUNT = 500


@dataclass(slots=True)
class Swept:
    """What one controller process remembers of a lane's list: the delayed objects are compared with all of its generation `done`, and up
    to the name `after` with the generation `begun`."""

    cancels: Cancels = field(default_factory=Cancels)
    done: int = 0
    begun: int = 0
    after: str = ""


class Found(NamedTuple):
    """A delayed object of a cancelled task, and the line of its outcome."""

    info: ObjectInfo
    shard: str
    line: bytes
    submission_id: str


@dataclass(slots=True)
class CancelledTasks:
    """Those of one lane in one tick. `count`: how many were ended."""

    lane: str
    subscription: str
    store: ObjectStore
    clock: Clock
    rng: random.Random
    swept: Swept
    forms: Forms = ENVELOPES
    count: int = 0

    def look(self) -> str:
        """As `Cancels.look`: one request while the list is the same. Raises DependencyError."""
        return self.swept.cancels.look(self.store, self.lane, self.clock.now())

    def found(self, info: ObjectInfo, message: DelayedMessage) -> Found | None:
        """The end of a delayed message; None if nothing cancels it."""
        cancels, attributes = self.swept.cancels, message.attributes
        named = attributes.get("submission_id", "")
        if not cancels.by_id or cancels.entry_for(message.task_id, named, attributes) is None:
            return None
        message_id, published_s = message.message_id, message.published_s
        task, _ = self.forms.told(message.data, attributes, message_id=message_id, published_s=published_s, lane=self.lane)
        if (entry := cancels.entry_for(message.task_id, task.submission_id, attributes)) is None:
            return None  # a publisher that does not know Fanout has an attribute of this name, too
        outcome = Outcome(
            message.task_id,
            task.task_type,
            "cancelled",
            iso(self.clock.now()),
            attempt_count=0,
            message_id=message.message_id,
            reason=entry.reason,
            replay_number=task.replay_number,
        )
        return Found(info, task.shard, to_line(outcome), task.submission_id)

    def sweep(self, until_s: float) -> None:
        """End all delayed tasks that the list names, if it is new, until `until_s` (monotonic); the next tick goes on from there. Raises
        FanoutError."""
        cancels, swept = self.swept.cancels, self.swept
        generation = cancels.generation
        if not cancels.by_id or swept.done == generation:
            return
        if swept.begun != generation:
            swept.begun, swept.after = generation, ""
        candidates = self._candidates()
        while portion := list(islice(candidates, PORTION_COUNT)):
            if self.clock.monotonic() >= until_s:
                return
            self.end([one for one in together(self._read, portion, REQUESTS_IN_FLIGHT, "cancelled") if one is not None])
            swept.after = portion[-1].name
        swept.done = generation

    def end(self, found: Sequence[Found]) -> None:
        """Write the outcomes, then delete the objects. Raises FanoutError."""
        for shard in dict.fromkeys(one.shard for one in found):
            of_shard = [one for one in found if one.shard == shard]
            name = outcome_object(shard, self.clock.now(), f"tick-{self.rng.getrandbits(64):016x}", 0)
            counts = counted(shard, (("cancelled", one.submission_id) for one in of_shard))
            lines = [one.line for one in of_shard]
            with suppress(PreconditionFailed):  # nobody else has this name: the answer to our own write was lost
                self.store.write(name, b"".join(lines), content_type="application/x-ndjson", metadata=counts, if_generation=0)
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

    def _read(self, info: ObjectInfo) -> Found | None:
        try:
            return self.found(info, from_object(self.store.read(info.name)))
        except (ObjectMissing, ValueError):
            return None  # somebody was faster; or it is damaged, and is moved aside when it is due
