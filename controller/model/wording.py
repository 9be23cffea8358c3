"""Counts and durations as people read and write them. Every text about a count goes through here, so that no text says `1 workers`."""

from __future__ import annotations

import re

from batch.model.clock import iso

_UNITS_S = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
LONGEST_S = 365 * 86400.0
_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhd])")


def counted(count: int, noun: str) -> str:
    """`1 worker`, `2 workers`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def are(count: int) -> str:
    """`is` or `are`."""
    return "is" if count == 1 else "are"


def duration(text: str) -> float:
    """Seconds of `90s`, `10m`, `2h` or `1d`, above 0 and at most a year. A bare number is refused: its unit is not known. Raises
    ValueError with the rule."""
    match = _DURATION.fullmatch(text.strip())
    value_s = float(match[1]) * _UNITS_S[match[2]] if match else 0.0
    if not 0 < value_s <= LONGEST_S:
        raise ValueError("a duration above 0 such as 90s, 10m or 2h, at most 365d")
    return value_s


def spoken(seconds: float) -> str:
    """`45 s`, `2 min 10 s`, `3 h 5 min`: for explanations."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min" + (f" {whole % 60} s" if whole % 60 else "")
    return f"{whole // 3600} h" + (f" {whole % 3600 // 60} min" if whole % 3600 // 60 else "")


def told_at(unix_s: float, now: float) -> str:
    """`10:41:07Z`, with its day where that is not the day of `now`: for explanations. Both are Unix seconds."""
    day, _, time = iso(unix_s).partition("T")
    time = f"{time[:8]}Z"
    return time if iso(now).startswith(day) else f"{day}T{time}"


def rough(seconds: float) -> str:
    """`45 s`, `3 min`, `5 h`, `3 d`: for columns. Whole units that have passed, so at most six characters below 1,000 days."""
    whole = max(0, int(seconds))
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if whole >= size:
            return f"{whole // size} {unit}"
    return f"{whole} s"


def brief(seconds: float) -> str:
    """As `spoken`, with three digits below 10 s: for what a single message takes."""
    return spoken(seconds) if seconds >= 10 else f"{seconds:.3g} s"
