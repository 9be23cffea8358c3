"""CloudEvents 1.x over Pub/Sub: in binary mode the context stands in attributes that begin with `ce-`, and the data is the event's; in
structured mode both stand in one JSON object, whose content type is `application/cloudevents+json`.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from typing import Any

from batch.formats.read import Read
from batch.model.errors import MessageRefused
from batch.model.message import json_object, short

PREFIX = "ce-"
STRUCTURED = "application/cloudevents+json"
_ANY = "application/cloudevents"
_NEEDED = ("id", "source", "type")
_VERSION = re.compile(r"1\.\d{1,9}", re.ASCII)
_JSON_TYPE = re.compile(r"[^/;]*/(?:[^;]*\+)?json\s*(?:;.*)?", re.ASCII | re.IGNORECASE | re.DOTALL)


def is_one(attributes: Mapping[str, str]) -> bool:
    """Whether the attributes are those of a CloudEvent, in either mode."""
    return any(name[:3].lower() == PREFIX for name in attributes) or _content_type(attributes).lower().startswith(_ANY)


def read(data: bytes, attributes: Mapping[str, str]) -> Read:
    """Raises MessageRefused for one of another version or mode, or without what every event has."""
    content_type = _content_type(attributes)
    mode = content_type.partition(";")[0].strip().lower()
    if mode.startswith(_ANY):
        if mode != STRUCTURED:
            batched = ": publish each event by itself" if mode.startswith(f"{_ANY}-batch") else ""
            raise MessageRefused("not_accepted", f"a CloudEvent as {short(content_type)}, where only {STRUCTURED} is read{batched}")
        context, body = _structured(data)
    else:
        # In order, since Pub/Sub keeps none: of names that differ only in case the same one counts whenever the message comes.
        context = {name[3:].lower(): value for name, value in sorted(attributes.items()) if name[:3].lower() == PREFIX}
        context |= {"datacontenttype": content_type} if content_type else {}
        body = data
    version = context.get("specversion")
    if not isinstance(version, str) or not _VERSION.fullmatch(version):
        raise MessageRefused("invalid", f"a CloudEvent's specversion must be 1.x, got {short(version)}", ("specversion",))
    lacking = [name for name in _NEEDED if not isinstance(context.get(name), str) or not context[name]]
    if lacking:
        raise MessageRefused("invalid", f"a CloudEvent without {', '.join(lacking)}: each must be a non-empty text", lacking)
    source = context["source"].replace("\n", "%0A")  # as a URI has it: no two events are one by where their parts meet
    return Read(f"{source}\n{context['id']}", context["type"], context, body)


def _content_type(attributes: Mapping[str, str]) -> str:
    if "content-type" in attributes:
        return attributes["content-type"].strip()
    return next((value.strip() for name, value in sorted(attributes.items()) if name.lower() == "content-type"), "")


def _structured(data: bytes) -> tuple[dict[str, Any], bytes]:
    """The context and the event's data, as bytes."""
    event = json_object(data, "a structured CloudEvent")
    context = {name: value for name, value in event.items() if name not in ("data", "data_base64") and value is not None}
    value, encoded = event.get("data"), event.get("data_base64")
    if encoded is not None:
        if value is not None:
            raise MessageRefused("invalid", "a CloudEvent has data or data_base64, not both", ("data", "data_base64"))
        try:
            return context, base64.b64decode(encoded, validate=True)
        except (binascii.Error, TypeError, ValueError) as error:
            raise MessageRefused("invalid", f"a CloudEvent's data_base64 is no base64: {error}", ("data_base64",)) from error
    if value is None:
        return context, b""
    content_type = context.get("datacontenttype", STRUCTURED)
    if isinstance(value, str) and not (isinstance(content_type, str) and _JSON_TYPE.fullmatch(content_type)):
        return context, value.encode("utf-8", "surrogatepass")
    return context, json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
