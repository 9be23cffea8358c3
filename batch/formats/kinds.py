"""The forms of messages that a lane may take, and how its settings name them."""

from __future__ import annotations

import difflib
from collections.abc import Container, Sequence

from batch.model.message import ENVELOPE_FORM

ENVELOPE = ENVELOPE_FORM
"""A JSON object with a task type, as Fanout's clients write it."""
RAW = "raw"
"""Any bytes."""
NOTIFICATION = "gcs-notification"
"""What Cloud Storage publishes about an object of a bucket."""
CLOUD_EVENT = "cloudevents"
"""In structured and in binary mode."""
FORMATS = (ENVELOPE, RAW, NOTIFICATION, CLOUD_EVENT)
EVENT_TYPES = ("OBJECT_FINALIZE", "OBJECT_DELETE", "OBJECT_METADATA_UPDATE", "OBJECT_ARCHIVE")


def formats(text: str) -> tuple[str, ...]:
    """Forms separated by commas. Raises ValueError with the rule."""
    return _some_of(text, FORMATS)


def event_types(text: str) -> tuple[str, ...]:
    """Event types separated by commas. Raises ValueError with the rule."""
    return _some_of(text, EVENT_TYPES)


def untyped(accept: Container[str], default_type: str) -> tuple[str, ...]:
    """The forms among these whose messages name no task type, where no default type stands in."""
    return () if default_type else tuple(form for form in (RAW, NOTIFICATION) if form in accept)


def no_envelopes(lane: str, accept: Sequence[str]) -> str:
    """Why nothing that Fanout's clients publish may go to a lane; empty where it takes envelopes."""
    if ENVELOPE in accept:
        return ""
    takes = f"lane {lane} takes {', '.join(accept)} and no envelope"
    return f"{takes}, so its workers would not read what Fanout publishes as the task that it is: add envelope to fanout/accept"


def _some_of(text: str, known: Sequence[str]) -> tuple[str, ...]:
    found = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    odd = [part for part in found if part not in known]
    if odd or not found:
        near = difflib.get_close_matches(odd[0], known, n=1) if odd else []
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"one or more of {', '.join(known)}, separated by commas{hint}")
    return found
