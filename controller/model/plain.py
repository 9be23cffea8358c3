"""Numbers from JSON that anybody may have written: counts and finite numbers."""

from __future__ import annotations

from math import isfinite


def whole(value: object) -> int:
    """A count from JSON. Raises ValueError."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{value!r:.100} where a count is expected")
    return value


def finite(value: float | str) -> float:
    """A number from JSON. Raises ValueError for NaN and infinities, which Python's JSON lets in."""
    number = float(value)
    if not isfinite(number):
        raise ValueError(f"{number} where a number is expected")
    return number
