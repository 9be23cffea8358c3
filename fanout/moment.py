"""A moment as people write it: a time, a time of day, or how long ago. Times are UTC, as they are in logs and records."""

from __future__ import annotations

import re

from batch.model.clock import from_iso, iso
from controller.model.wording import duration

DAY_S = 86_400.0
_TIME_OF_DAY = re.compile(r"\d{1,2}:\d{2}(:\d{2})?")
RULE = "a time such as 2026-01-31T03:10, 03:10 (the last one, UTC), or 2h (that long ago)"


def moment(text: str, now: float) -> float:
    """Unix seconds. A time without a zone is UTC. Raises ValueError with the rule."""
    text = text.strip()
    try:
        if _TIME_OF_DAY.fullmatch(text):
            at = from_iso(f"{iso(now)[:10]}T{text.zfill(8 if text.count(':') == 2 else 5)}")
            return at if at <= now else at - DAY_S
        return now - duration(text) if text[-1:] in "smhd" and text else from_iso(text)
    except (ValueError, OverflowError):
        raise ValueError(RULE) from None
