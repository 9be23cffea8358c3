"""Workers of a budget that lanes share, reserved by a round before it saves its intents, so that a round at the same time counts them.

All reservations are one object, replaced only at the generation that was read; only a round that is about to launch under a budget
touches it. A reservation names the generation of the lane's state that its intent replaces. That tells when it is over: a round that has
read the state at a later generation has seen the intent, or that it can never be saved.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from batch.model.errors import FanoutError, ObjectMissing, PreconditionFailed
from batch.services.ports import ObjectStore
from controller.model.plain import read

RESERVED = "controller/shared/budget.json"
"""No lane's name has a slash."""
ACT_WITHIN_S = 90.0
"""A round that reserved longer ago than this launches nothing for it."""
HELD_S = 120.0
"""By then the intent of a reservation is saved, or never will be."""
LOOK_S = 300.0
"""A round that looked at the lanes longer ago than this reserves nothing."""
KEPT_S = HELD_S + LOOK_S
"""By then no round decides any more from a look that was made before the intent was saved."""


class ReservedUnreadable(FanoutError):
    """The object is not what a controller writes."""


@dataclass(frozen=True, slots=True)
class Reservation:
    """`workers` of `vcpu` each, reserved at `at` (Unix seconds) by the round `round_id`, to be launched by the intent that replaces the
    state of `lane` at `generation`."""

    lane: str
    workers: int
    vcpu: float
    generation: int
    at: float
    round_id: str


@dataclass(frozen=True, slots=True)
class Looked:
    """When (Unix seconds) a lane was looked at, and the generation of the state that was read."""

    at: float
    generation: int


@dataclass(frozen=True, slots=True)
class Book:
    """The reservations of the last minutes, and the generation of their object; 0: there is no object yet."""

    reservations: tuple[Reservation, ...] = ()
    generation: int = 0

    def unseen(self, looked: Mapping[str, Looked], round_id: str, now: float) -> tuple[Reservation, ...]:
        """Reservations of other rounds that may be launched, or may have been, unseen by the round that `looked` at the lanes."""
        return tuple(
            one for one in self.reservations if one.round_id != round_id and _may_be_unseen(one, looked.get(one.lane, Looked(now, 0)))
        )

    def with_round(self, own: Sequence[Reservation], round_id: str, now: float) -> tuple[Reservation, ...]:
        """What is kept, and the round's `own` in place of what it tried to reserve before."""
        return (*(one for one in self.reservations if one.round_id != round_id and abs(now - one.at) <= KEPT_S), *own)


def _may_be_unseen(one: Reservation, looked: Looked) -> bool:
    """Its intent is never saved after `HELD_S`. A reservation from far ahead was made by a clock that was wrong."""
    return looked.generation <= one.generation and -KEPT_S <= looked.at - one.at <= HELD_S


def load(store: ObjectStore) -> Book:
    """Read the reservations. Raises ReservedUnreadable, DependencyError."""
    try:
        data, info = store.read_with_info(RESERVED)
    except ObjectMissing:
        return Book()
    try:
        found = tuple(read(Reservation, one) for one in json.loads(data)["reservations"])
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ReservedUnreadable(f"object {RESERVED} is unreadable ({error!r:.200}): delete it to start afresh") from error
    return Book(found, info.generation)


def save(store: ObjectStore, reservations: Sequence[Reservation], generation: int) -> bool:
    """Replace the reservations. False: another round was faster, or our own answer was lost; read again. Raises DependencyError."""
    data = json.dumps({"reservations": [asdict(one) for one in reservations]}, separators=(",", ":")).encode()
    try:
        store.write(RESERVED, data, content_type="application/json", if_generation=generation)
    except PreconditionFailed:
        return False
    return True
