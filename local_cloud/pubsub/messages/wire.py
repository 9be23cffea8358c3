"""The few protobuf messages that are written by hand, because they are written once for every message that passes through.

The rule: what is written here reads back, with Google's own types, as if they had written it.
Format: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from functools import lru_cache
from itertools import starmap
from operator import itemgetter

from google.protobuf.timestamp_pb2 import Timestamp

# Tags: a field's number times 8, plus 2 for bytes or 0 for a number.
_DATA = 0x0A  # PubsubMessage.data = 1
_MESSAGE_ID = b"\x1a"  # PubsubMessage.message_id = 3
_PUBLISH_TIME = b"\x22"  # PubsubMessage.publish_time = 4

_HEAD = itemgetter(slice(0, 3))


@lru_cache(maxsize=4_096)
def varint(number: int) -> bytes:
    """A number of 0 or more, seven bits a byte, lowest first."""
    head = bytearray()
    while number >= 0x80:
        head.append(number & 0x7F | 0x80)
        number >>= 7
    head.append(number)
    return bytes(head)


def is_only_data(body: bytes) -> bool:
    """Whether a serialized PubsubMessage surely has data and nothing else; false if it may have more, or is larger than 16 KiB."""
    return _tells_only_data(len(body), body[:3])


def are_only_data(bodies: list[bytes]) -> bool:
    """Whether that is so of all. Most publishers send few sizes, so that few bodies have to be looked at."""
    return all(starmap(_tells_only_data, set(zip(map(len, bodies), map(_HEAD, bodies), strict=True))))


def _tells_only_data(size: int, head: bytes) -> bool:
    if size < 3 or head[0] != _DATA:
        return False
    if size < 0x80 + 2:
        return head[1] == size - 2
    return head[1] >= 0x80 and head[2] < 0x80 and head[1] & 0x7F | head[2] << 7 == size - 3


@lru_cache(maxsize=1_000)
def publish_time(now_s: float) -> bytes:
    """To be appended to a serialized PubsubMessage that has none; `now_s` are unix seconds, kept to the microsecond."""
    time = Timestamp()
    time.FromNanoseconds(int(now_s * 1_000_000) * 1000)
    content: bytes = time.SerializeToString()
    return _PUBLISH_TIME + varint(len(content)) + content


def message_id_head(size: int) -> bytes:
    """To be appended to a serialized PubsubMessage that has no id, before an id of this size."""
    return _MESSAGE_ID + varint(size)
