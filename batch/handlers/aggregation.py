"""Aggregation: count, sum, mean, min and max of columns, group by group. Every row belongs to exactly one group."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

from batch.handlers.measures import Numbers
from batch.handlers.moments import spread, total
from batch.model.errors import Permanent

STATISTICS = ("count", "sum", "mean", "min", "max")


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
