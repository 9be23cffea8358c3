"""Numbers from JSON, checked: Python's own reader lets NaN, infinities and booleans through."""

from __future__ import annotations

from math import isfinite


def whole(value: object) -> int:
    """A count, 0 or more. Raises ValueError."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{value!r:.100} where a count is expected")
    return value


def finite(value: float | str) -> float:
    """A finite number. Raises ValueError."""
    number = float(value)
    if not isfinite(number):
        raise ValueError(f"{number} where a number is expected")
    return number
