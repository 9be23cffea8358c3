"""Computing with the numeric columns of a table: normalizing them, and aggregating them group by group.

Nothing loses digits, overflows or underflows on the way: sums are exactly rounded (`math.fsum`), the population standard deviation takes
a second pass over differences from the mean, and values are scaled by a power of two, which changes no digit, so that squares stay
within what a double can hold. Missing values count nowhere and stay missing.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal

from batch.handlers.tables.measures import MISSING, Numbers
from batch.handlers.tables.table import Row, Table
from batch.model.errors import Permanent

Method = Literal["z-score", "min-max"]
STATISTICS = ("count", "sum", "mean", "min", "max")


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


def header(group_by: str, columns: Sequence[str]) -> list[str]:
    """The group, how many rows it has, then `<column>_<statistic>` for each column."""
    return [group_by, "row_count", *(f"{column}_{one}" for column in columns for one in STATISTICS)]


def aggregated(names: Sequence[str], rows: Sequence[int], columns: Mapping[str, Numbers]) -> Iterator[list[object]]:
    """One row a group, in the order of `names`; `rows` has the place of each row's group. Values as `header` names them.

    Missing values count nowhere; a column without values in a group has count 0, sum 0 and blanks. Raises Permanent when a sum is
    more than a double can hold.
    """
    order = sorted(range(len(rows)), key=rows.__getitem__)
    for place, members in groupby(order, key=rows.__getitem__):
        of_group = list(members)
        cells: list[object] = [names[place], len(of_group)]
        for column, values in columns.items():
            present = [value for value in map(values.__getitem__, of_group) if not math.isnan(value)]
            cells += _statistics(present, f"column {column[:200]!r} in group {names[place][:200]!r}")
        yield cells


def _statistics(present: list[float], where: str) -> list[object]:
    if not present:
        return [0, 0.0, "", "", ""]
    try:
        whole = total(present)
    except OverflowError as error:
        raise Permanent(f"the sum of {where} is larger than a double can hold; aggregate smaller numbers") from error
    return [len(present), whole, spread(present).mean, min(present), max(present)]


@dataclass(frozen=True, slots=True)
class Spread:
    """Where values lie, in units of 2**exponent: `middle + correction` is their mean, `stdev` their population deviation."""

    exponent: int
    middle: float
    correction: float
    stdev: float

    @property
    def mean(self) -> float:
        return math.ldexp(self.middle + self.correction, self.exponent)

    def z_score(self, value: float) -> float:
        """How many standard deviations a value lies from the mean. `stdev` must not be 0."""
        return (math.ldexp(value, -self.exponent) - self.middle - self.correction) / self.stdev


def total(values: Iterable[float]) -> float:
    """The sum, exactly rounded. Raises OverflowError when no double can hold it."""
    kept = list(values)
    try:
        return math.fsum(kept)
    except OverflowError:
        # The sum may fit although a sum on the way to it did not.
        exponent = binary_exponent(kept)
        return math.ldexp(math.fsum(math.ldexp(one, -exponent) for one in kept), exponent)


def spread(values: Sequence[float]) -> Spread:
    """Of one value or more. `stdev` is 0 exactly when all values are equal; it divides by n, not n − 1."""
    exponent = binary_exponent(values)
    scaled = [math.ldexp(one, -exponent) for one in values]
    if min(scaled) == max(scaled):
        return Spread(exponent, scaled[0], 0.0, 0.0)
    count = len(scaled)
    middle = math.fsum(scaled) / count
    differences = [one - middle for one in scaled]
    # The mean was rounded; what that left over is the mean of the differences.
    correction = math.fsum(differences) / count
    stdev = math.sqrt(math.fsum((one - correction) ** 2 for one in differences) / count)
    return Spread(exponent, middle, correction, stdev)


def binary_exponent(values: Iterable[float]) -> int:
    """The e for which the largest magnitude, divided by 2**e, lies from 0.5 up to, not including, 1; 0 when all are 0."""
    return math.frexp(max(abs(one) for one in values))[1]
