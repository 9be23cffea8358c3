"""Records of keyed submissions: one object a key, so that a request that is repeated goes on where the first one was interrupted.

While a request works, the record's metadata says who it is and until when it may be believed. When it has ended, the record holds its
receipt, which answers every repeat. A record never expires: another body under its key would make other tasks with the same ids.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any, NamedTuple

from batch.model.clock import Clock, from_iso, iso
from batch.model.errors import DependencyUnavailable, ObjectDamaged, ObjectMissing, PreconditionFailed
from batch.model.message import keyed_task_id
from batch.model.names import KEYED, key_object
from batch.services.ports import ObjectStore

HOLD_S = 60.0
"""How long a request is believed to work without a word: after this another takes over what a killed process has left."""
RENEW_AFTER_S = 20.0
assert 2 * RENEW_AFTER_S < HOLD_S, "one renewal may be late"
MAX_ROUNDS = 10


@dataclass(frozen=True, slots=True)
class Record:
    """What the first request under a key was: the hash of its body and options, when it came (ISO 8601), for which lane. `receipt` is
    None until it has ended."""

    body_hash: str
    submitted_at: str
    lane: str
    receipt: Mapping[str, Any] | None = None


class Turn(StrEnum):
    """What a request with a key is to do."""

    RUN = "run"
    WAIT = "wait"
    DONE = "done"
    OTHER_BODY = "other_body"


class Judged(NamedTuple):
    """`retry_after_s` says when to come again, for WAIT."""

    turn: Turn
    retry_after_s: float = 0.0


def judged(record: Record | None, metadata: Mapping[str, str], now: float, body_hash: str, holder: str = "") -> Judged:
    """What a request with this body is to do, of a record as it was read (None: there is none). What `holder` has marked is its own."""
    if record is None:
        return Judged(Turn.RUN)
    if record.body_hash != body_hash:
        return Judged(Turn.OTHER_BODY)
    if record.receipt is not None:
        return Judged(Turn.DONE)
    left_s = _until(metadata) - now
    # A mark further ahead than any that is written comes of a clock that is wrong.
    if metadata.get("holder") != holder and 0 < left_s <= 2 * HOLD_S:
        return Judged(Turn.WAIT, left_s)
    return Judged(Turn.RUN)


def request_id(scope: str, key: str) -> str:
    """Of a keyed submission, whose scope is its lane, or of a part, whose scope is its submission. Raises MessageRefused."""
    return KEYED + keyed_task_id(scope, key).replace("-", "")


class TakenOver(DependencyUnavailable):
    """Another request goes on with this submission: this one was silent for too long."""


class Held:
    """A record that this request has marked as its own; not for several threads."""

    def __init__(self, store: ObjectStore, request: str, clock: Clock, rng: random.Random) -> None:
        """`request` is its `request_id`. Nothing is asked yet."""
        self.record: Record | None = None
        self.request = request
        self._store, self._name, self._clock, self._holder = store, key_object(request), clock, f"{rng.getrandbits(64):016x}"
        self._generation, self._renewed_at = 0, 0.0

    def look(self, body_hash: str) -> Judged:
        """What is to be done, of the record as it is now. Raises ObjectDamaged, DependencyError."""
        try:
            data, info = self._store.read_with_info(self._name)
        except ObjectMissing:
            self.record, self._generation = None, 0
            return judged(None, {}, self._clock.now(), body_hash)
        self.record, self._generation = _read(self._name, data), info.generation
        return judged(self.record, info.metadata, self._clock.now(), body_hash, self._holder)

    def claim(self, new: Record) -> Judged:
        """Mark it, or take it over, if it is to be run; of several at once one does. Raises ObjectDamaged, DependencyError."""
        for _ in range(MAX_ROUNDS):
            found = self.look(new.body_hash)
            if found.turn is not Turn.RUN:
                return found
            self.record = self.record or new
            try:
                self._write(self.record, self._clock.now() + HOLD_S)
                return found
            except PreconditionFailed:
                continue
        raise DependencyUnavailable(f"object {self._name} changed {MAX_ROUNDS} times while it was written; find who writes under keys/")

    def renew(self) -> None:
        """Before each step: keep the mark, if it is time to. Raises TakenOver, DependencyError."""
        now = self._clock.now()
        if now >= self._renewed_at + RENEW_AFTER_S:
            self._rewrite(None, now + HOLD_S)

    def finish(self, receipt: Mapping[str, Any]) -> None:
        """Keep the receipt, which ends the work. Raises TakenOver, DependencyError."""
        self._rewrite(receipt, 0.0)

    def release(self) -> None:
        """Let a repeat go on at once. Raises TakenOver, DependencyError; then it may after HOLD_S."""
        self._rewrite(None, 0.0)

    def _rewrite(self, receipt: Mapping[str, Any] | None, until: float) -> None:
        assert self.record is not None, "claimed before"
        record = Record(self.record.body_hash, self.record.submitted_at, self.record.lane, receipt)
        try:
            self._write(record, until)
        except PreconditionFailed:
            # Our own request whose answer was lost, or another's.
            info = self._store.info(self._name)
            if info is None or info.metadata != self._mark(until):
                raise TakenOver(f"another request with the same idempotency key has taken over (object {self._name})") from None
            self._generation = info.generation

    def _write(self, record: Record, until: float) -> None:
        body = json.dumps(asdict(record)).encode()
        metadata, at = self._mark(until), self._clock.now()
        info = self._store.write(self._name, body, content_type="application/json", metadata=metadata, if_generation=self._generation)
        self._generation, self._renewed_at = info.generation, at

    def _mark(self, until: float) -> dict[str, str]:
        return {"holder": self._holder, **({"until": iso(until)} if until else {})}


def _until(metadata: Mapping[str, str]) -> float:
    try:
        return from_iso(metadata["until"])
    except (KeyError, ValueError):
        return 0.0


def _read(name: str, data: bytes) -> Record:
    try:
        body = json.loads(data)
        record = Record(**{one.name: body[one.name] for one in fields(Record)})
        from_iso(record.submitted_at)
        return record
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ObjectDamaged(f"object {name} is not the record of a submission: {error!r}; delete it") from error
