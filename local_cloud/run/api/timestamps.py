"""Times as the API writes them: RFC 3339 in UTC with microseconds, and durations as seconds with an `s`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime


def rfc3339(at_s: float) -> str:
    """`at_s`: Unix seconds."""
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def duration(seconds: float) -> str:
    return f"{seconds:.9f}".rstrip("0").rstrip(".") + "s"


def duration_text(seconds: float) -> str:
    """A duration as the messages of conditions write it: `1h2m3.4s`, `56.03s`."""
    minutes, rest = divmod(round(seconds, 2), 60)
    hours, minutes = divmod(int(minutes), 60)
    text = f"{rest:.2f}".rstrip("0").rstrip(".") + "s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text


def parse_duration(text: str) -> float | None:
    """The seconds of a text such as `600s` or `1.5s`; None when it is not one."""
    number = text.removesuffix("s")
    if number == text:
        return None
    try:
        return float(number)
    except ValueError:
        return None


def without_none(values: Mapping[str, object]) -> dict[str, object]:
    """Drops absent fields, as the JSON of the real API does."""
    return {key: value for key, value in values.items() if value is not None}


def optional_time(at_s: float | None) -> str | None:
    return None if at_s is None else rfc3339(at_s)
