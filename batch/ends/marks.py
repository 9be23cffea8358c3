"""Marks: `open/<lane>/<submission>` stands from before a submission's first task is published until its end has been fired.

The mark's metadata holds what a tick needs to know, so that one listing tells it of 1,000 submissions.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any

from batch.ends.options import LANE, SUBMISSION, End, Ends, ends_of, to_json
from batch.model.clock import from_iso, iso
from batch.model.errors import MessageRefused, ObjectDamaged, ObjectMissing, PreconditionFailed
from batch.model.names import OPEN, mark_object
from batch.services.ports import ObjectInfo, ObjectStore

FIRST_AGAIN_S = 600.0
"""A second `fanout.finish` while no more tasks have ended is sent after 10 minutes, the next after 20, 40 … minutes."""


@dataclass(frozen=True, slots=True)
class Told:
    """The last `fanout.finish` of this round: when it was published (Unix seconds), how many tasks had ended then, the how many-th it
    was while that number has not grown, how many tasks it found missing (so many more must end), and its task id."""

    at: float = 0.0
    ended_count: int = -1
    times: int = 0
    missing_count: int = 1
    task_id: str = ""


@dataclass(frozen=True, slots=True)
class Firing:
    """What a submission has come to, once it is proven: written down before the end's task is published, so that a finish that goes on
    after an interruption publishes the very same one. `at`: since when (Unix seconds); `counts`: tasks by outcome."""

    at: float
    end: End
    task_count: int
    counts: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Mark:
    """An end that is still to be fired. `round`: 0, one more with each retry or replay, the last by `action_id`. `firing`: its end is being
    fired. `generation`: of the object that was read."""

    submission_id: str
    lane: str
    round: int = 0
    told: Told = Told()
    generation: int = 0
    action_id: str = ""
    firing: Firing | None = None

    @property
    def name(self) -> str:
        return mark_object(self.lane, self.submission_id)

    def next_round(self, action_id: str = "") -> Mark:
        """After a retry or a replay: nothing has been told of it."""
        return replace(self, round=self.round + 1, told=Told(), action_id=action_id, firing=None)


def wants_finish(mark: Mark, ended_count: int, task_count: int, now: float) -> bool:
    """Whether counts suggest the end, and no `fanout.finish` of the same counts is under way. Counts may be too high, for a redelivery
    repeats a line: so what is told only makes somebody look."""
    if ended_count < task_count:
        return False
    told = mark.told
    return ended_count >= told.ended_count + told.missing_count or now >= told.at + FIRST_AGAIN_S * 2.0 ** (min(max(told.times, 1), 16) - 1)


def after_finish(mark: Mark, ended_count: int, now: float, task_id: str = "") -> Mark:
    """The mark once one more `fanout.finish` is to be published."""
    times = mark.told.times + 1 if ended_count == mark.told.ended_count else 1
    return replace(mark, told=Told(now, ended_count, times, task_id=task_id))


def fields_of_end(mark: Mark, firing: Firing, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Of the task that is wanted for this end: its own, and what the submission has come to."""
    told = {
        "submission_id": mark.submission_id,
        "lane": mark.lane,
        "round": mark.round,
        "end": firing.end.value,
        "task_count": firing.task_count,
        "counts": dict(firing.counts),
        "dead": firing.counts.get("dead", 0),
    }
    return {**{name: value for name, value in wanted.items() if name not in (LANE, "task_type")}, SUBMISSION: told}


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


def standing(store: ObjectStore, lane: str, submission_id: str) -> Mark | None:
    """The mark, without what is to happen. Raises DependencyError."""
    info = store.info(mark_object(lane, submission_id))
    return None if info is None else _from_info(info)


def write(store: ObjectStore, mark: Mark, ends: Ends) -> Mark:
    """Over the generation that `mark` was read at (0: none). Raises PreconditionFailed, DependencyError."""
    body = json.dumps(to_json(ends), ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n"
    metadata = _metadata(mark)
    info = store.write(mark.name, body, content_type="application/json", metadata=metadata, if_generation=mark.generation)
    return replace(mark, generation=info.generation)


def delete(store: ObjectStore, mark: Mark) -> None:
    """Its end has been fired. A mark that was written since stays: it is another round's. Raises DependencyError."""
    with suppress(PreconditionFailed):
        store.delete(mark.name, if_generation=mark.generation)


def _metadata(mark: Mark) -> dict[str, str]:
    told = mark.told
    found = {"round": str(mark.round)}
    if told.times:
        found |= {"told_at": iso(told.at), "told_count": str(told.ended_count), "told_times": str(told.times)}
        found |= {"told_missing": str(told.missing_count), "told_task": told.task_id}
    if mark.action_id:
        found["action_id"] = mark.action_id
    if mark.firing is not None:
        found["firing"] = json.dumps({**asdict(mark.firing), "at": iso(mark.firing.at)})
    return found


def _from_info(info: ObjectInfo) -> Mark | None:
    lane, _, submission_id = info.name.removeprefix(OPEN).partition("/")
    if not lane or not submission_id or "/" in submission_id:
        return None
    metadata = info.metadata
    action_id = metadata.get("action_id", "")
    return Mark(submission_id, lane, _whole(metadata, "round"), _told(metadata), info.generation, action_id, _firing(metadata))


def _told(metadata: Mapping[str, str]) -> Told:
    """Nothing, where it cannot be read: then one more is published."""
    try:
        at, missing = from_iso(metadata["told_at"]), int(metadata.get("told_missing", "1"))
        return Told(at, int(metadata["told_count"]), int(metadata["told_times"]), missing, metadata.get("told_task", ""))
    except (KeyError, ValueError):
        return Told()


def _firing(metadata: Mapping[str, str]) -> Firing | None:
    """None, where it cannot be read: then the submission is proven once more."""
    try:
        body = json.loads(metadata["firing"])
        counts = {str(name): int(count) for name, count in body["counts"].items()}
        return Firing(from_iso(body["at"]), End(body["end"]), int(body["task_count"]), counts)
    except (KeyError, ValueError, TypeError, AttributeError, OverflowError, RecursionError):
        return None


def _whole(metadata: Mapping[str, str], name: str) -> int:
    try:
        return int(metadata.get(name, "0"))
    except ValueError:
        return 0
