"""Marks: `open/<lane>/<submission>` stands from before a submission's first task is published until its end has been fired.

The mark's metadata holds what a tick needs to know, so that one listing tells it of 1,000 submissions.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from batch.ends.options import Ends, ends_of, to_json
from batch.model.clock import from_iso, iso
from batch.model.errors import MessageRefused, ObjectDamaged, ObjectMissing
from batch.model.names import OPEN, mark_object
from batch.services.ports import ObjectInfo, ObjectStore

FIRST_AGAIN_S = 600.0
"""A second `fanout.finish` while no more tasks have ended is sent after 10 minutes, the next after 20, 40 … minutes."""


@dataclass(frozen=True, slots=True)
class Told:
    """The last `fanout.finish` of this round: when it was published (Unix seconds), how many tasks had ended then, and the how many-th it
    was while that number has not grown."""

    at: float = 0.0
    ended_count: int = -1
    times: int = 0


@dataclass(frozen=True, slots=True)
class Mark:
    """An end that is still to be fired. `round`: 0, one more with each retry or replay. `generation`: of the object that was read."""

    submission_id: str
    lane: str
    round: int = 0
    told: Told = Told()
    generation: int = 0

    @property
    def name(self) -> str:
        return mark_object(self.lane, self.submission_id)

    def next_round(self) -> Mark:
        """After a retry or a replay: nothing has been told of it."""
        return replace(self, round=self.round + 1, told=Told())


def wants_finish(mark: Mark, ended_count: int, task_count: int, now: float) -> bool:
    """Whether counts suggest the end, and no `fanout.finish` of the same counts is under way. Counts may be too high, for a redelivery
    repeats a line: so what is told only makes somebody look."""
    if ended_count < task_count:
        return False
    told = mark.told
    return ended_count > told.ended_count or now >= told.at + FIRST_AGAIN_S * 2.0 ** (min(told.times, 16) - 1)


def after_finish(mark: Mark, ended_count: int, now: float) -> Mark:
    """The mark once one more `fanout.finish` is to be published."""
    times = mark.told.times + 1 if ended_count == mark.told.ended_count else 1
    return replace(mark, told=Told(now, ended_count, times))


def listed(store: ObjectStore, lane: str = "") -> Iterator[Mark]:
    """The marks of a lane, or of all. Raises DependencyError."""
    for info in store.list(f"{OPEN}{lane}/" if lane else OPEN):
        if (mark := _from_info(info)) is not None:
            yield mark


def read(store: ObjectStore, lane: str, submission_id: str) -> tuple[Mark, Ends] | None:
    """None once the end has been fired, or where there is none to fire. Raises ObjectDamaged, DependencyError."""
    name = mark_object(lane, submission_id)
    try:
        data, info = store.read_with_info(name)
    except ObjectMissing:
        return None
    mark = _from_info(info)
    try:
        ends = ends_of(json.loads(data))
    except (ValueError, AttributeError, RecursionError, MessageRefused) as error:
        raise ObjectDamaged(f"mark {name} does not tell what is to happen ({error}): delete it, and the end will not be fired") from error
    assert mark is not None, "its name is that of a mark"
    return mark, ends


def write(store: ObjectStore, mark: Mark, ends: Ends) -> Mark:
    """Over the generation that `mark` was read at (0: none). Raises PreconditionFailed, DependencyError."""
    body = json.dumps(to_json(ends), ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n"
    metadata = _metadata(mark)
    info = store.write(mark.name, body, content_type="application/json", metadata=metadata, if_generation=mark.generation)
    return replace(mark, generation=info.generation)


def _metadata(mark: Mark) -> dict[str, str]:
    told = mark.told
    found = {"round": str(mark.round)}
    if told.times:
        found |= {"told_at": iso(told.at), "told_count": str(told.ended_count), "told_times": str(told.times)}
    return found


def _from_info(info: ObjectInfo) -> Mark | None:
    lane, _, submission_id = info.name.removeprefix(OPEN).partition("/")
    if not lane or not submission_id or "/" in submission_id:
        return None
    return Mark(submission_id, lane, _whole(info.metadata, "round"), _told(info.metadata), info.generation)


def _told(metadata: Mapping[str, str]) -> Told:
    """Nothing, where it cannot be read: then one more is published."""
    try:
        return Told(from_iso(metadata["told_at"]), int(metadata["told_count"]), int(metadata["told_times"]))
    except (KeyError, ValueError):
        return Told()


def _whole(metadata: Mapping[str, str], name: str) -> int:
    try:
        return int(metadata.get(name, "0"))
    except ValueError:
        return 0
