"""The message: how a task travels through Pub/Sub. The envelope always wins over a client's fields.

Data is one flat JSON object, `{"task_id", "task_type", "submitted_at", ...the task's own fields}`; attributes repeat what filters
and dead-letter tools need (`task_id`, `task_type`, `submission_id`, `lane`, `shard`), so that they need not parse data.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from dataclasses import fields as fields_of
from functools import lru_cache
from typing import Any, TypeGuard, cast

from batch.model.clock import from_iso, hour, iso
from batch.model.deadletters import REPLAY, replay_number_of
from batch.model.errors import MessageRefused

ENVELOPE = ("task_id", "task_type", "submitted_at")
MAX_MESSAGE_BYTES = 9_000_000
"""What the door accepts: Pub/Sub takes 10 MB a request, and a dead letter adds attributes to the same data."""
BUILT_IN = "fanout."
"""Task types that begin so are Fanout's own; no client submits one."""
FINISH_TYPE = f"{BUILT_IN}finish"
"""Proves a submission and fires its end."""
WEBHOOK_TYPE = f"{BUILT_IN}webhook"
"""Tells an address of it."""
MAX_TASK_TYPE_BYTES = 128
MAX_KEY_BYTES = 1024
MAX_TIME_CHARS = 64
MAX_AHEAD_S = 60.0
"""How far a client's clock may be ahead of Pub/Sub's: a `submitted_at` later than this after the publish time counts as this. Otherwise the
tasks of a client whose clock is years ahead would own their outputs for years."""
ROLLING_BELOW = 100
"""Submissions of fewer tasks share the rolling shard of their lane and hour, so that a flush writes few objects."""

_KEY_NAMESPACE = "6f0d3c1e-3b52-5d0a-9a64-0c6b3f0f4c11"
_SHARD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_ID_WITH_SHARD = re.compile(r"[0-9a-f]{16}-([A-Za-z0-9][A-Za-z0-9._-]{0,110})")
TASK_ID_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}"
_TASK_ID = re.compile(TASK_ID_PATTERN)
_NORMAL_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", re.ASCII)
"""As `iso` writes it."""
_JSON = json.JSONDecoder()
ENVELOPE_FORM = "envelope"
"""The form of the messages that this module reads; those of others are read by `batch.formats`."""


@dataclass(frozen=True, slots=True)
class Task:
    """One unit of work. `fields` are the client's own; `submitted_at` is ISO 8601; `shard` is where its outcome goes; it was
    replayed `replay_number` times after it had died. `form` says how its message was written; of one that was not written for Fanout
    `data` are the bytes and `attributes` the publisher's, both empty for an envelope."""

    task_id: str
    task_type: str
    submitted_at: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    submission_id: str = ""
    lane: str = "default"
    shard: str = ""
    replay_number: int = 0
    form: str = ENVELOPE_FORM
    data: bytes = b""
    attributes: Mapping[str, str] = field(default_factory=dict)

    @property
    def age_key(self) -> tuple[str, str]:
        """Orders tasks that want the same output: by `submitted_at`, then `task_id`."""
        return (self.submitted_at, self.task_id)


def new_task_id(rng: random.Random, shard: str) -> str:
    """`<16 random hex>-<shard>`: an id leads to its outcome, and names that begin with it spread over the bucket."""
    return f"{rng.getrandbits(64):016x}-{shard}"


def shard_in_id(task_id: str) -> str | None:
    """The outcome shard that a task id names; None for one with an idempotency key, or of another client's making."""
    found = _ID_WITH_SHARD.fullmatch(task_id)
    return found[1] if found else None


def keyed_task_id(lane: str, idempotency_key: str) -> str:
    """A UUIDv5 of lane and key, so that the same submission twice is the same task.

    Raises MessageRefused (`invalid`) for a key that is empty, longer than MAX_KEY_BYTES or no proper text.
    """
    import uuid  # a worker makes none, and starts without it

    if not _is_text(idempotency_key, MAX_KEY_BYTES) or not idempotency_key.strip():
        reason = f"an idempotency key is a non-empty text of at most {MAX_KEY_BYTES} bytes, got {short(idempotency_key)}"
        raise MessageRefused("invalid", reason, ("idempotency_key",))
    return str(uuid.uuid5(uuid.UUID(_KEY_NAMESPACE), f"{lane}\n{idempotency_key}"))


def rolling_shard(lane: str, unix_s: float) -> str:
    """The shard of single tasks and small submissions."""
    return f"rolling-{lane}-{hour(unix_s)}"


def encode(task: Task) -> tuple[bytes, dict[str, str]]:
    """Message data and attributes. Raises MessageRefused (`invalid`) when a field cannot be JSON, or the data is over MAX_MESSAGE_BYTES."""
    body = {**task.fields, "task_id": task.task_id, "task_type": task.task_type, "submitted_at": task.submitted_at}
    try:
        data = json.dumps(body, separators=(",", ":"), allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise MessageRefused("invalid", f"the task cannot be written as JSON: {error}") from error
    if len(data) > MAX_MESSAGE_BYTES:
        raise MessageRefused("too_large", f"the task has {len(data)} bytes, at most {MAX_MESSAGE_BYTES} can travel")
    attributes = {"task_id": task.task_id, "task_type": task.task_type, "lane": task.lane, "shard": task.shard}
    if task.submission_id:
        attributes["submission_id"] = task.submission_id
    return data, attributes


def decode(data: bytes, attributes: Mapping[str, str], *, message_id: str, published_s: float, lane: str) -> Task:
    """The task in a message, also one that a foreign client published without attributes or `submitted_at`.

    `lane` is where the message was found; `published_s` stands in for a missing `submitted_at`, bounds one that is given, and names the
    rolling shard.
    Raises MessageRefused; whatever it says, the caller keeps data and attributes unchanged.
    """
    body = json_object(data)
    task_type = body.pop("task_type", None)
    if type(task_type) is not str or not 0 < len(task_type) <= MAX_TASK_TYPE_BYTES or not task_type.isascii():
        check_task_type(task_type)
    named = attributes.get("shard", "")
    task: Any = _Unfrozen(
        task_id_of(body.pop("task_id", None), message_id),
        task_type,
        bounded_time(body.pop("submitted_at", None), published_s) or iso(published_s),
        body,
        attributes.get("submission_id", ""),
        attributes.get("lane", lane),
        named if _is_shard(named) else rolling_shard(lane, published_s),
        replay_number_of(attributes) if REPLAY in attributes else 0,
    )
    task.__class__ = Task
    return cast(Task, task)


class _NoAttributes(dict[str, str]):
    """Shared by all envelopes; pickled and copied as any dict."""

    def __setitem__(self, name: str, _value: str) -> None:
        raise TypeError(f"task.attributes cannot be changed: put {name!r} into a dict of your own")

    def __ior__(self, _others: object) -> _NoAttributes:  # type: ignore[override,misc]
        raise TypeError("task.attributes cannot be changed: put them into a dict of your own")

    update = setdefault = __setitem__  # type: ignore[assignment]


_NO_ATTRIBUTES = _NoAttributes()


class _Unfrozen:
    """Becomes a Task, in half of the time that the checks of a frozen class take: every message has one."""

    __slots__ = tuple(one.name for one in fields_of(Task))

    def __init__(
        self,
        task_id: str,
        task_type: str,
        submitted_at: str,
        fields: Mapping[str, Any],
        submission_id: str,
        lane: str,
        shard: str,
        replay_number: int,
    ) -> None:
        self.task_id, self.task_type, self.submitted_at, self.fields = task_id, task_type, submitted_at, fields
        self.submission_id, self.lane, self.shard, self.replay_number = submission_id, lane, shard, replay_number
        self.form, self.data, self.attributes = ENVELOPE_FORM, b"", _NO_ATTRIBUTES


def check_task_type(task_type: object) -> None:
    """Raises MessageRefused unless it is a non-empty text of at most MAX_TASK_TYPE_BYTES."""
    if not isinstance(task_type, str) or not task_type:
        got = ', such as "file_processing"' if task_type is None else f", got {short(task_type)}"
        raise MessageRefused("no_task_type", f"task_type is required: a non-empty text{got}", ("task_type",))
    if not _is_text(task_type, MAX_TASK_TYPE_BYTES):
        reason = f"task_type must be a text of at most {MAX_TASK_TYPE_BYTES} bytes, got {short(task_type)}"
        raise MessageRefused("invalid", reason, ("task_type",))


def task_id_of(given: object, message_id: str) -> str:
    """A readable task id, or one made from the message's own id."""
    return given if is_task_id(given) else f"message-{message_id}"


def is_task_id(given: object) -> TypeGuard[str]:
    """Whether a task may have this id."""
    return isinstance(given, str) and _TASK_ID.fullmatch(given) is not None


def replaced_task_id(data: bytes) -> object:
    """The task id that a readable message names and that cannot be one; None when it names none, or a good one."""
    given = json_object(data).get("task_id") if b'"task_id"' in data else None
    return None if is_task_id(given) else given


def readable_task_id(data: bytes, attributes: Mapping[str, str], message_id: str) -> str:
    """The id to write down for a message that may be unreadable: from its data, else its attributes, else `message-<message_id>`."""
    try:
        given: object = json_object(data).get("task_id")
    except MessageRefused:
        given = None
    return task_id_of(given if isinstance(given, str) else attributes.get("task_id"), message_id)


def shard_of(attributes: Mapping[str, str], *, lane: str, published_s: float) -> str:
    """The outcome shard that a message names, or the rolling one when it names none, or one that could not be a folder."""
    named = attributes.get("shard", "")
    return named if _is_shard(named) else rolling_shard(lane, published_s)


@lru_cache(maxsize=256)
def _is_shard(named: str) -> bool:
    return _SHARD.fullmatch(named) is not None


def task_type_of(data: bytes) -> str | None:
    """The task type that a message's data names, or None: what else is wrong with it is for `decode` to say."""
    try:
        body = _parsed(data)
    except (ValueError, RecursionError):
        return None
    task_type = body.get("task_type") if isinstance(body, dict) else None
    return task_type if isinstance(task_type, str) else None


def json_object(data: bytes, what: str = "the message") -> dict[str, Any]:
    """Raises MessageRefused, which says of `what` that it is none."""
    try:
        body = _parsed(data)
    except (ValueError, RecursionError) as error:
        raise MessageRefused("not_json", f"{what} is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise MessageRefused("not_an_object", f"{what} is JSON but not an object: {short(body)}")
    return body


def _parsed(data: bytes) -> Any:
    """What `json.loads` gives. An object as its clients write it, in UTF-8 from its first brace on, takes a third of the time."""
    if data[:1] == b"{" and data[1:2] != b"\0":
        text = data.decode("utf-8", "surrogatepass")
        body, end = _JSON.raw_decode(text)
        if end == len(text):
            return body
    return json.loads(data)


def bounded_time(given: object, known_s: float) -> str | None:
    """A `submitted_at` as it counts, in the form of `iso`: at most MAX_AHEAD_S after `known_s`, when the task is known to have been
    submitted (Unix seconds). None when it is no time."""
    read = _read_time(given) if isinstance(given, str) and len(given) <= MAX_TIME_CHARS else None
    if read is None:
        return None
    text, unix_s = read
    return text if unix_s - known_s <= MAX_AHEAD_S else iso(known_s + MAX_AHEAD_S)


@lru_cache(maxsize=256)
def _read_time(given: str) -> tuple[str, float] | None:
    """As `iso` writes it, and in Unix seconds; None when it is no time. Tasks that were submitted together share theirs."""
    try:
        unix_s = from_iso(given)
        return (given if _NORMAL_TIME.fullmatch(given) else iso(unix_s)), unix_s
    except (ValueError, OverflowError):
        return None


def _is_text(value: object, max_bytes: int) -> bool:
    """Whether it is a text within the limit; half a character (a lone surrogate) is no text."""
    try:
        return isinstance(value, str) and len(value.encode()) <= max_bytes
    except UnicodeEncodeError:
        return False


def short(value: object) -> str:
    """A value for a message: at most 80 characters of how Python shows it."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
