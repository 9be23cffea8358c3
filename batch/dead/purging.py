"""Purging: segments whose letters are all done with are deleted, then what was done to these letters. An act says so first.

The acts go last: without them the letters would wait again.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

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


def purge_of(store: ObjectStore, lane: str, before_s: float) -> Purge:
    """Of what was written before that (Unix seconds). Raises DependencyError."""
    infos = list(segments.listed(store, lane))
    fold = segments.folded(store, infos)
    kept: set[Key] = set()
    gone: list[str] = []
    raw: list[str] = []
    letter_count = 0
    for info in filter(segments.has_letters, infos):
        lines = list(segments.lines(store, [info]))
        letters = [line.what for line in lines if isinstance(line.what, Letter)]
        own = {one.key for one in letters}
        others = any(line.problem or (isinstance(line.what, Entry) and line.what.key not in own) for line in lines)
        old = _is_before(info, before_s) and not others
        if old and letters and not any(fold.waits(one.key) for one in letters):
            gone.append(info.name)
            letter_count += len(letters)
            raw += [one.raw_object for one in letters if one.raw_object]
        else:
            kept |= own
    acts = [info for info in infos if info.name not in gone and _is_before(info, before_s) and not segments.has_letters(info)]
    return Purge(tuple(gone), letter_count, tuple(raw), tuple(_over(store, acts, kept, fold)))


def _over(store: ObjectStore, infos: Sequence[ObjectInfo], kept: set[Key], fold: Fold) -> list[str]:
    """Segments with acts on letters that are not kept, and of actions that have ended."""
    needed = {
        line.segment
        for line in segments.lines(store, infos)
        if not isinstance(line.what, Entry)
        or (line.what.key in kept if line.what.task_id else line.what.act is Act.OPENED and line.what.action_id not in fold.closed)
    }
    return [info.name for info in infos if info.name not in needed]


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
