"""A dead letter as the log keeps it: one JSON line with the message, unchanged, and all that is known of why its task is dead.

A letter is known by its task and replay number: a second letter of both, after a redelivery, is the same death told twice.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import Any, NamedTuple

from batch.model.attempts import AttemptError
from batch.model.deadletters import title_of
from batch.model.message import task_type_of

DIED = "died"
MAX_INLINE_BYTES = 256 * 1024
"""Larger data lies in the bucket under `dead/raw/`, so that a segment stays small."""


class Key(NamedTuple):
    """Which death of which task."""

    task_id: str
    replay_number: int


@dataclass(frozen=True, slots=True)
class Letter:
    """`died_at` and `first_at` (first publish) are ISO 8601. `attributes` are the message's own, as they may be published again; `source`
    is what Pub/Sub says of a letter that its dead-letter policy took. `errors` are those of `attempts/`, the oldest first. `data` is the
    message's, or lies in `raw_object`. `kept_because`: why no rule may replay it, only a person. `form`: of a message that was not
    written for Fanout, as its lane names it."""

    task_id: str
    task_type: str
    lane: str
    shard: str
    died_at: str
    first_at: str
    error_type: str
    reason: str
    fingerprint: str
    submission_id: str = ""
    replay_number: int = 0
    attempt_count: int = 0
    execution: str = ""
    index: int = 0
    first_message_id: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)
    source: Mapping[str, str] = field(default_factory=dict)
    errors: tuple[AttemptError, ...] = ()
    data: bytes = b""
    raw_object: str = ""
    kept_because: str = ""
    form: str = ""

    @property
    def key(self) -> Key:
        """Which death of which task it tells of."""
        return Key(self.task_id, self.replay_number)

    @property
    def is_envelope(self) -> bool:
        """Whether its message is a task as Fanout's clients write it, and not one that nobody could read."""
        return not self.form and (bool(self.raw_object) or task_type_of(self.data) is not None)

    @property
    def title(self) -> str:
        """One line for its group."""
        return title_of(self.error_type, self.reason)


_NAMES = tuple(of.name for of in fields(Letter))


def to_line(letter: Letter) -> bytes:
    """One line with its line end; empty fields that need not be there are left out."""
    body: dict[str, Any] = {"event": DIED}
    for of in fields(letter):
        value = getattr(letter, of.name)
        if of.name == "data":
            body |= data_fields(value) if value else {}
        elif of.name == "errors":
            body |= {"errors": [asdict(one) for one in value]} if value else {}
        elif value or (of.default is MISSING and of.default_factory is MISSING) or of.name == "replay_number":
            body[of.name] = value
    return json.dumps(body, separators=(",", ":"), ensure_ascii=True).encode() + b"\n"


def from_body(body: Mapping[str, Any]) -> Letter:
    """Raises ValueError for what is no letter."""
    try:
        known = {name: body[name] for name in _NAMES if name in body}
        errors = tuple(AttemptError(**one) for one in body.get("errors", ()))
        return Letter(**{**known, "errors": errors, "data": data_of(body)})
    except (TypeError, KeyError) as error:
        raise ValueError(f"not a dead letter: {error}") from error


def data_fields(data: bytes) -> dict[str, str]:
    """A message's data in JSON, byte for byte: as text where it is UTF-8, else in base64."""
    try:
        return {"data": data.decode()}
    except UnicodeDecodeError:
        return {"data_base64": base64.b64encode(data).decode()}


def data_of(body: Mapping[str, Any]) -> bytes:
    """The data that `data_fields` wrote. Raises ValueError."""
    if "data_base64" in body:
        return base64.b64decode(body["data_base64"], validate=True)
    return str(body.get("data", "")).encode()
