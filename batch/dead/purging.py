"""Purging: segments whose letters are all done with are deleted, then what was done to these letters. An act says so first.

The acts go last: without them the letters would wait again.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from batch.dead import segments
from batch.dead.letters import Key, Letter
from batch.dead.log import Act, Entry, Fold
from batch.model.clock import Clock, iso, minute
from batch.model.names import dead_claims_object, dead_folder, dead_segment_object
from batch.services.ports import ObjectInfo, ObjectStore


@dataclass(frozen=True, slots=True)
class Purge:
    """What may be deleted, in this order: segments with letters, `letter_count` in all, data that was too large for them, then segments
    with acts alone."""

    with_letters: tuple[str, ...]
    letter_count: int
    raw: tuple[str, ...]
    with_acts: tuple[str, ...]


@dataclass(slots=True)
class _Segment:
    """What the lines of a segment are about. It `stays` whatever becomes of others."""

    stays: bool
    letters: list[Key] = field(default_factory=list)
    keys: set[Key] = field(default_factory=set)
    opened: set[str] = field(default_factory=set)
    raw: list[str] = field(default_factory=list)


def purge_of(store: ObjectStore, lane: str, before_s: float) -> Purge:
    """Of what was written before that (Unix seconds). All lines about one letter go together or not at all: lists are made from the
    counts of what is left, and an act without its letter would hide a letter that waits. Raises DependencyError."""
    infos = list(segments.listed(store, lane))
    left = {info.name: _Segment(stays=not _is_before(info, before_s)) for info in infos}
    fold = Fold()
    for line in segments.lines(store, infos):
        one, what = left[line.segment], line.what
        if what is None:
            one.stays = True
        elif isinstance(what, Letter):
            one.letters.append(what.key)
            one.raw += [what.raw_object] if what.raw_object else []
        else:
            fold.add(what)
            if what.act is Act.OPENED:
                one.opened.add(what.action_id)
        if what is not None and what.task_id:
            one.keys.add(what.key)
    for one in left.values():
        one.stays |= any(map(fold.waits, one.letters)) or not one.opened <= fold.closed.keys()
    kept: set[Key] = set()
    raw_kept: set[str] = set()
    while stay := [name for name, one in left.items() if one.stays or not kept.isdisjoint(one.keys)]:
        for name in stay:
            staying = left.pop(name)
            kept |= staying.keys
            raw_kept.update(staying.raw)  # each death of a task has its data under one name
    gone = {name: one for name, one in left.items() if one.letters}
    raw = tuple(name for one in gone.values() for name in one.raw if name not in raw_kept)
    return Purge(tuple(gone), sum(len(one.letters) for one in gone.values()), raw, tuple(name for name in left if name not in gone))


def purge(store: ObjectStore, lane: str, what: Purge, *, clock: Clock, rng: random.Random, who: str, why: str) -> str:
    """Delete it, once the log says so; returns the action's id. Raises DependencyError."""
    now = clock.now()
    action_id = f"p-{minute(now)}-{rng.getrandbits(32):08x}"
    folder = dead_folder(lane)
    names = [name.removeprefix(folder) for name in (*what.with_letters, *what.with_acts)]
    entry = Entry(Act.PURGED, iso(now), action_id, who, why, details={"letter_count": what.letter_count, "segments": names})
    segments.write(store, dead_segment_object(lane, now, action_id, 0), [entry])
    for name in what.with_letters:
        store.delete(name)
        store.delete(dead_claims_object(name))
    for name in (*what.raw, *what.with_acts):
        store.delete(name)
    return action_id


def _is_before(info: ObjectInfo, before_s: float) -> bool:
    return info.name.rpartition("/")[2].partition("-")[0] < minute(before_s)
