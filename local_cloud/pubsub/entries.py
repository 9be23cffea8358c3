"""The entries of the journal as bytes: one kind of change each.

The rule: an entry names topics, subscriptions and messages by name and id, never by a place in the file, so that entries
stay true when the file is rewritten. Numbers are in the machine's own byte order: the file is not for other machines.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Sequence
from enum import IntEnum
from itertools import accumulate

from local_cloud.pubsub.publication import Publication

_COUNT = struct.Struct("=I")
_MOMENT = struct.Struct("=d")


class Kind(IntEnum):
    TOPIC = 1
    TOPIC_DELETED = 2
    SUBSCRIPTION = 3
    SUBSCRIPTION_DELETED = 4
    PUBLISHED = 5  # to a topic: every subscription of it holds them from then on
    MESSAGES = 6  # for those entries that follow and name them
    ACKNOWLEDGED = 7
    FAILED = 8
    RETURNED = 9
    HELD = 10  # messages that a subscription has to deliver, in this order, after those it has
    RETAINED = 11  # what a subscription keeps for a seek from now on, and nothing else
    LAST_ID = 12
    TOPIC_RETAINED = 13  # messages that a topic keeps for a seek
    SNAPSHOT = 14  # of a subscription at this moment; without one: only its settings
    SNAPSHOT_DELETED = 15
    SNAPSHOT_HELD = 16
    LET_GO = 17  # what is too old at that moment, whatever comes after


Place = tuple[float, int, int]
"""A message in the bytes that were decoded: its publish time (unix seconds), and where its body starts and ends. A plain tuple, because
they are made by the hundred thousand."""


class Reader:
    """Takes one entry apart. `start` and `end` bound it within `data`, after its kind was read."""

    def __init__(self, data: memoryview, start: int, end: int) -> None:
        self._data = data
        self._at = start
        self._end = end
        self.kind = Kind(data[start])
        self._at += 1

    def blob(self) -> bytes:
        (length,) = _COUNT.unpack_from(self._data, self._at)
        start = self._at + _COUNT.size
        self._at = start + length
        return bytes(self._data[start : self._at])

    def moment_s(self) -> float:
        """Unix seconds."""
        return float(_MOMENT.unpack(self.blob())[0])

    def text(self) -> str:
        return self.blob().decode()

    def numbers(self) -> array[int]:
        return self._array("Q")

    def messages(self) -> dict[int, Place]:
        """By message id."""
        ids, times, lengths = self._array("Q"), self._array("d"), self._array("Q")
        bounds = list(accumulate(lengths, initial=self._at))
        self._at = bounds[-1]
        return dict(zip(ids, zip(times, bounds, bounds[1:], strict=False), strict=True))

    def _array(self, code: str) -> array[int]:
        (count,) = _COUNT.unpack_from(self._data, self._at)
        found: array[int] = array(code)
        start = self._at + _COUNT.size
        self._at = start + count * found.itemsize
        found.frombytes(self._data[start : self._at])
        return found


def entry(kind: Kind, *fields: str | bytes | Sequence[int]) -> bytes:
    """An entry whose fields are texts, bytes, and sequences of numbers of 0 or more."""
    return b"".join((bytes((kind,)), *(_field(field) for field in fields)))


def let_go(now_s: float) -> bytes:
    return entry(Kind.LET_GO, _MOMENT.pack(now_s))


def published(topic: str, publication: Publication) -> bytes:
    ids, times = array("Q", publication.ids), array("d", (publication.published_s,)) * publication.count
    return b"".join((bytes((Kind.PUBLISHED,)), _field(topic), *_bodies(ids, times, publication.bodies)))


def copied(data: memoryview, places: Sequence[tuple[int, Place]]) -> bytes:
    """A `MESSAGES` entry of messages, by id, that stand in `data`."""
    ids = array("Q", [message_id for message_id, _place in places])
    times = array("d", [published_s for _id, (published_s, _start, _end) in places])
    bodies = [bytes(data[start:end]) for _id, (_published_s, start, end) in places]
    return b"".join((bytes((Kind.MESSAGES,)), *_bodies(ids, times, bodies)))


def _bodies(ids: array[int], times: array[float], bodies: list[bytes]) -> tuple[bytes, ...]:
    count = _COUNT.pack(len(bodies))
    lengths = array("Q", map(len, bodies))
    return (count, ids.tobytes(), count, times.tobytes(), count, lengths.tobytes(), *bodies)


def _field(field: str | bytes | Sequence[int]) -> bytes:
    if isinstance(field, str):
        field = field.encode()
    if isinstance(field, bytes):
        return _COUNT.pack(len(field)) + field
    return _COUNT.pack(len(field)) + array("Q", field).tobytes()
