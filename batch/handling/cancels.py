"""What clients have cancelled in a lane: one object, written by `fanout cancel`, read by workers and by the tick.

An entry names a task, a submission, or an object with many ids. It holds for 7 days, but not for a message that was replayed after it. A
list that is damaged cancels nothing.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from math import inf
from typing import Any, NamedTuple

from batch.model.clock import iso
from batch.model.deadletters import REPLAY, replay_of
from batch.model.errors import DependencyUnavailable, FanoutError, ObjectMissing, PreconditionFailed
from batch.model.names import CANCEL, cancel_object, cancelled_ids_object
from batch.services.ports import ObjectStore

KEPT_S = 7 * 24 * 3600.0
MAX_INLINE = 100
"""More ids of one command go into an object of their own."""
MAX_ENTRIES = 1000
MAX_IDS = 100_000
"""In one command."""
MAX_LISTED_IDS = 300_000
"""In a lane's list: every worker of the lane holds them in memory, some 60 MB."""
MAX_ROUNDS = 20
_FORMAT = 1
_LAST_S = 9_999_999_999
_IDS_OBJECT = re.compile(rf"{CANCEL}[!-~]{{1,900}}")


class Cancel(NamedTuple):
    """One entry: of the task or submission `id`, or of all `id_count` ids in `ids_object`. `at` and `until` are Unix seconds."""

    at: float
    until: float
    who: str = ""
    why: str = ""
    id: str = ""
    ids_object: str = ""
    id_count: int = 1

    @property
    def reason(self) -> str:
        """By whom and when, as it stands in an outcome."""
        return f"cancelled by {self.who or 'somebody'} at {iso(self.at)}" + (f": {self.why}" if self.why else "")

    def holds_for(self, attributes: Mapping[str, str]) -> bool:
        """Not for a message that was replayed later."""
        replay = replay_of(attributes) if REPLAY in attributes else None
        return replay is None or replay.at <= self.at


class Cancels:
    """A lane's list as it was read last. `by_id` is empty while nothing is cancelled: look at it before you call. Read by any thread."""

    __slots__ = ("_objects", "_until", "by_id", "generation")

    def __init__(self) -> None:
        self.by_id: Mapping[str, Cancel] = {}
        self.generation = 0
        self._until = 0.0
        self._objects: dict[str, Sequence[str]] = {}

    def entry_for(self, task_id: str, submission_id: str, attributes: Mapping[str, str]) -> Cancel | None:
        """What cancels this task, whose message has these attributes; None when nothing does."""
        for name in (task_id, submission_id):
            found = self.by_id.get(name)
            if found is not None and found.holds_for(attributes):
                return found
        return None

    def look(self, store: ObjectStore, lane: str, now: float) -> str:
        """Read the list if it has changed; what is wrong with it, empty when nothing is. Raises DependencyError: then what was known
        before still holds."""
        name = cancel_object(lane)
        info = store.info(name)
        if info is None:
            self.by_id, self.generation = {}, 0
            return ""
        if info.generation == self.generation and now < self._until:
            return ""
        try:
            data, info = store.read_with_info(name)
            entries, problem = from_json(data), ""
        except ObjectMissing:
            return ""  # the next look finds that it is gone
        except ValueError as error:
            entries, problem = (), f"{name} cancels nothing: {error}; delete it, and cancel again"
        by_id: dict[str, Cancel] = {}
        holding = sorted(one for one in entries if one.until > now)
        for one in holding:  # of several the newest holds
            by_id.update(dict.fromkeys(self._ids(store, one), one))
        self.by_id, self.generation = by_id, info.generation
        self._until = min((one.until for one in holding), default=inf)
        self._objects = {one.ids_object: self._objects[one.ids_object] for one in holding if one.ids_object in self._objects}
        return problem

    def _ids(self, store: ObjectStore, one: Cancel) -> Sequence[str]:
        if not one.ids_object:
            return (one.id,)
        if one.ids_object not in self._objects:
            try:
                self._objects[one.ids_object] = store.read(one.ids_object).decode("utf-8", "replace").split()
            except ObjectMissing:
                return ()
        return self._objects[one.ids_object]


def to_json(entries: Sequence[Cancel]) -> bytes:
    """The object's content."""
    return json.dumps({"format": _FORMAT, "entries": [to_body(one) for one in entries]}, indent=1).encode() + b"\n"


def to_body(one: Cancel) -> dict[str, Any]:
    """An entry as JSON values; empty texts are left out."""
    return {name: value for name, value in one._asdict().items() if value != ""}


def from_json(data: bytes) -> tuple[Cancel, ...]:
    """Raises ValueError when it is not what `to_json` writes."""
    try:
        body = json.loads(data)
        if body["format"] != _FORMAT:
            raise ValueError(f"its format is {body['format']!r:.50}")
        return tuple(from_body(one) for one in body["entries"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"not a list of what was cancelled: {error!r}"[:300]) from error


def from_body(body: Mapping[str, Any]) -> Cancel:
    """Raises ValueError, KeyError or TypeError when it is no entry."""
    who, why, name, ids_object = texts = [body.get(field, "") for field in ("who", "why", "id", "ids_object")]
    at, until, id_count = numbers = [body["at"], body["until"], body.get("id_count", 1)]
    is_typed = all(type(one) is str for one in texts) and all(type(one) in (int, float) for one in numbers)
    can_be = not ids_object or _IDS_OBJECT.fullmatch(ids_object)  # the bucket would refuse another name, and a worker would end
    if not is_typed or not (name or ids_object) or not can_be or not all(0 <= one <= _LAST_S for one in numbers):
        raise ValueError(f"no entry: {dict(body)!r:.200}")
    return Cancel(float(at), float(until), who, why, name, ids_object, int(id_count))


def cancel(store: ObjectStore, lane: str, ids: Sequence[str], *, who: str, why: str = "", now: float) -> Cancel:
    """Add these tasks and submissions to a lane's list, also while somebody else changes it: those that are on it are cancelled from now
    on, too, and what has expired is removed. Returns one of the entries. Raises FanoutError for more than fit, DependencyError."""
    if len(ids) > MAX_IDS:
        raise FanoutError(f"{len(ids):,} ids are more than one command cancels, which is {MAX_IDS:,}: cancel their submissions instead")
    name = cancel_object(lane)
    for _ in range(MAX_ROUNDS):
        known, generation = _read(store, name)
        left = [one for one in known if one.until > now]
        if sum(one.id_count for one in left) + len(ids) > MAX_LISTED_IDS:
            raise FanoutError(f"{name} would name more than {MAX_LISTED_IDS:,} ids, which workers hold: cancel their submissions instead")
        new = _new(store, lane, list(dict.fromkeys(ids)), left, Cancel(now, now + KEPT_S, who, why))
        named = {(one.id, one.ids_object) for one in new}
        entries = [*(one for one in left if (one.id, one.ids_object) not in named), *new]
        if len(entries) > MAX_ENTRIES:
            raise FanoutError(f"{name} has {len(left):,} entries, at most {MAX_ENTRIES:,} fit: cancel a submission, or use --from-file")
        try:
            store.write(name, to_json(entries), content_type="application/json", if_generation=generation)
        except PreconditionFailed:
            continue
        for one in known:
            if one.until <= now and one.ids_object:
                store.delete(one.ids_object)
        return new[0]
    raise DependencyUnavailable(f"{name} changed {MAX_ROUNDS} times while it was written: find who writes it so often, and try again")


def _read(store: ObjectStore, name: str) -> tuple[tuple[Cancel, ...], int]:
    try:
        data, info = store.read_with_info(name)
    except ObjectMissing:
        return (), 0
    try:
        return from_json(data), info.generation
    except ValueError as error:
        raise FanoutError(f"{name} is damaged, so it cancels nothing: {error}; delete it, and cancel again") from error


def _new(store: ObjectStore, lane: str, ids: Sequence[str], known: Sequence[Cancel], entry: Cancel) -> list[Cancel]:
    """The entries to write; many ids are in an object first, the one that holds the same ids already if there is one."""
    if len(ids) <= MAX_INLINE:
        return [entry._replace(id=one) for one in ids]
    content = "".join(f"{one}\n" for one in sorted(ids)).encode()
    digest = hashlib.sha256(content).hexdigest()[:16]
    name = next((one.ids_object for one in known if f"/{digest}-" in one.ids_object), "")
    if not name:
        name = cancelled_ids_object(lane, digest, entry.at)
        with suppress(PreconditionFailed):  # the same ids in the same second
            store.write(name, content, content_type="text/plain", if_generation=0)
    return [entry._replace(ids_object=name, id_count=len(ids))]
