"""Normalizing: each column on a common scale, z-score or min-max. Missing values stay missing, a constant column becomes zeros."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

from batch.handlers.measures import MISSING, Numbers
from batch.handlers.moments import binary_exponent, spread
from batch.handlers.tables import Row, Table

Method = Literal["z-score", "min-max"]


def normalized(values: Numbers, method: Method) -> tuple[Numbers, dict[str, Any]]:
    """The column on its new scale, and how: `count`, `missing_count`, `constant`, and for z-score `mean` and `stdev` (population), for
    min-max `min` and `max`. Min-max maps the smallest to 0 and the largest to 1."""
    present = array("d", (one for one in values if not math.isnan(one)))
    facts: dict[str, Any] = {"count": len(present), "missing_count": len(values) - len(present)}
    if not present:
        return values, facts
    scale, more = _z_score(present) if method == "z-score" else _min_max(present)
    return array("d", (MISSING if math.isnan(one) else scale(one) + 0.0 for one in values)), facts | more


def normalized_rows(table: Table, columns: Mapping[str, Numbers]) -> Iterator[Row]:
    """The table's rows with the cells of `columns` replaced; numbers are written so that they read back to the same double."""
    places = [(table.index(name), values) for name, values in columns.items()]
    for row, cells in enumerate(table.rows()):
        for index, values in places:
            cells[index] = "" if math.isnan(values[row]) else repr(values[row])
        yield cells


def _z_score(present: Numbers) -> tuple[Callable[[float], float], dict[str, Any]]:
    found = spread(present)
    constant = found.stdev == 0
    facts = {"constant": constant, "mean": found.mean, "stdev": math.ldexp(found.stdev, found.exponent)}
    return (_zero if constant else found.z_score), facts


def _min_max(present: Numbers) -> tuple[Callable[[float], float], dict[str, Any]]:
    low, high = min(present), max(present)
    facts = {"constant": low == high, "min": low, "max": high}
    if low == high:
        return _zero, facts
    # Scaled to at most 1, or the range of the largest doubles would be infinite.
    exponent = binary_exponent((low, high))
    begin = math.ldexp(low, -exponent)
    width = math.ldexp(high, -exponent) - begin
    return lambda value: (math.ldexp(value, -exponent) - begin) / width, facts


def _zero(_: float) -> float:
    return 0.0
