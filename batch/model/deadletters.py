"""Dead letters: a message that can never succeed, republished with its data unchanged and the reason as attributes; what makes two of them
alike; and what a message carries that is replayed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass

from batch.model.delayed import DELAYED
from batch.model.delivery import MAX_ATTRIBUTES, Outgoing, own_attributes

MAX_REASON_BYTES = 1024
MAX_DATA_BYTES = 8_000_000
"""Larger data goes to the bucket, and the letter names the object."""
OURS = "dead_"
"""The attributes that a worker adds to a dead letter begin with this, those of Pub/Sub with `THEIRS`."""
THEIRS = "CloudPubSubDeadLetter"
REPLAY = "replay"
"""The attribute of a message that was replayed."""
_HOUSE = ("task_id", "task_type", "submission_id", "lane", "shard", DELAYED, REPLAY)
"""What says which task a message is, and which death this would be: these stay where attributes are too many."""
_NEEDED = frozenset(
    (
        "ce-id",
        "ce-source",
        "ce-type",
        "ce-specversion",
        "content-type",
        "eventtype",
        "bucketid",
        "objectid",
        "objectgeneration",
        "payloadformat",
    )
)
"""Without which a CloudEvent, or a bucket's notification, is none; in lower case."""
_SAID = frozenset(("notificationconfig", "eventtime", "overwrotegeneration", "overwrittenbygeneration"))
"""What a notification says beside."""
MAX_TITLE_CHARS = 80
FRAMES = 3

_REPLAY = re.compile(r"(?P<number>[1-9]\d{0,5}) (?P<at>\d{1,10}\.\d{3}) (?P<id>[a-z0-9-]{1,64})", re.ASCII)
_FRAME = re.compile(r'^\s*File "(?P<file>[^"\n]+)", line \d+, in (?P<function>.+)$', re.MULTILINE)
_NOT_THEIR_CODE = re.compile(r"(^|/)(batch/(?!handlers/)|lib/python3|site-packages/|<frozen)")
_VARIABLE = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
    r"|\b(?=[0-9a-f]*\d)[0-9a-f]{8,}(?:-[A-Za-z0-9._:-]+)?\b|0x[0-9a-fA-F]+|\d+(?:[.,:]\d+)*",
    re.ASCII,
)
"""Numbers and ids: what makes two messages of one mistake differ."""


def dead_letter(
    data: bytes,
    attributes: Mapping[str, str],
    *,
    task_id: str,
    error_type: str,
    reason: str,
    attempt_count: int,
    execution: str,
    index: int,
    lane: str = "",
    fingerprint: str = "",
    message_id: str = "",
    published_s: float = 0.0,
) -> Outgoing:
    """The message to publish on the dead-letter topic: data unchanged (also when empty), attributes kept, the facts added; where there are
    too many attributes, the client's last ones make room. `lane` is where the message was found; `message_id` and `published_s` are those
    of the first publish."""
    facts = {
        "task_id": task_id,
        "dead_error_type": cut(error_type, MAX_REASON_BYTES),
        "dead_reason": cut(reason, MAX_REASON_BYTES),
        "dead_attempt_count": str(attempt_count),
        "dead_execution": execution,
        "dead_index": str(index),
    }
    if lane:
        facts["dead_lane"] = lane
    if fingerprint:
        facts["dead_fingerprint"] = fingerprint
    if message_id:
        facts["dead_first"] = f"{published_s:.6f} {message_id}"
    return Outgoing(data, with_facts(attributes, facts))


def undead_attributes(attributes: Mapping[str, str]) -> dict[str, str]:
    """A message's own attributes, as they may be published again: without those of a dead letter, also where a client has set them."""
    return {key: value for key, value in own_attributes(attributes).items() if not key.startswith((OURS, THEIRS))}


def publishers_attributes(attributes: Mapping[str, str]) -> dict[str, str]:
    """What the publisher of a message that was not written for Fanout has set, without the names that Fanout keeps for itself."""
    return undead_attributes({name: value for name, value in attributes.items() if name not in _HOUSE}) if attributes else {}


def with_facts(attributes: Mapping[str, str], facts: Mapping[str, str]) -> dict[str, str]:
    """A message's own attributes with these. Where they are too many the client's make room, never those of the house, and last those that
    say what a message of another's making is."""
    own = {name: value for name, value in undead_attributes(attributes).items() if name not in facts}
    house = {name: own.pop(name) for name in _HOUSE if name in own}
    room = MAX_ATTRIBUTES - len(house) - len(facts)
    if len(own) > room:
        kept = sorted(own, key=_weight)[:room]
        own = {name: own[name] for name in reversed(kept)}  # a letter without its data loses its first one
    return {**own, **house, **facts}


def _weight(name: str) -> int:
    """The less, the longer an attribute stays."""
    lower = name.lower()
    return 0 if lower in _NEEDED else 1 if lower in _SAID or lower.startswith("ce-") else 2


def referring(letter: Outgoing, raw_object: str) -> Outgoing:
    """The same letter without its data, which lies in the bucket: for data too large to travel with the facts."""
    return Outgoing(b"", dict(list(letter.attributes.items())[1 - MAX_ATTRIBUTES :]) | {"dead_raw": raw_object})


def cut(text: str, limit_bytes: int) -> str:
    """At most `limit_bytes` of UTF-8, never half a character."""
    return text.encode("utf-8", "replace")[:limit_bytes].decode("utf-8", "ignore")


def title_of(error_type: str, reason: str) -> str:
    """One line for a group of dead letters: the error's type and message, with `#` in place of numbers and ids."""
    text = f"{error_type}: {reason}" if reason else error_type
    return cut(_VARIABLE.sub("#", " ".join(text.split())), 4 * MAX_TITLE_CHARS)[:MAX_TITLE_CHARS]


def fingerprint_of(error_type: str, reason: str, traceback: str = "") -> str:
    """16 hex digits, the same for letters of one mistake: of the error's type, its message without numbers and ids, and where in the user's
    code it came from (file and function of the innermost frames)."""
    frames = [(one["file"], one["function"].strip()) for one in _FRAME.finditer(traceback)]
    theirs = [f"{file.rpartition('/')[2]}:{function}" for file, function in frames if not _NOT_THEIR_CODE.search(file)][-FRAMES:]
    message = _VARIABLE.sub("#", " ".join(reason.split()))
    return hashlib.sha256("\n".join((error_type, message, *theirs)).encode("utf-8", "replace")).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Replay:
    """What the attribute of a replayed message says. `number` counts the task's replays, from 1; `at` is when it was published (Unix
    seconds), by the replay `replay_id`."""

    number: int
    at: float
    replay_id: str

    def __str__(self) -> str:
        return f"{self.number} {self.at:.3f} {self.replay_id}"


def replay_of(attributes: Mapping[str, str]) -> Replay | None:
    """None for a message that was not replayed."""
    found = _REPLAY.fullmatch(attributes[REPLAY]) if REPLAY in attributes else None
    return Replay(int(found["number"]), float(found["at"]), found["id"]) if found else None


def replay_number_of(attributes: Mapping[str, str]) -> int:
    """0 for a message that was not replayed."""
    found = replay_of(attributes) if REPLAY in attributes else None
    return found.number if found else 0
