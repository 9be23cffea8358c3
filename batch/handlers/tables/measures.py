"""Measures: the numeric columns of a table as doubles, and its rows by group. A cell asked for is a number, or missing, or refused.

Missing values are NaN here; a NaN never comes from a cell, since `cells.number` takes none.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from typing import TypeAlias

from batch.handlers.tables.cells import number
from batch.handlers.tables.table import Table
from batch.model.errors import Permanent

Numbers: TypeAlias = "array[float]"  # in quotes, since Python 3.11 cannot subscript arrays
MISSING = math.nan


def numbers_of(table: Table, wanted: Sequence[str] | None, leave_out: str | None = None) -> tuple[int, dict[str, Numbers]]:
    """The row count, and one number for each row of each column in `wanted`. Raises Permanent at a cell that is not a number.

    Without `wanted`: those that the table gives, or else all columns that hold a number and nothing but numbers, except `leave_out`.
    """
    chosen = wanted if wanted is not None else table.given_columns
    names = [one for one in (table.columns if chosen is None else chosen) if wanted is not None or one != leave_out]
    left = [(name, table.index(name), array("d")) for name in names]
    row_count = 0
    for cells in table.rows():
        row_count += 1
        refused = [one for one in left if not _took(one[2], cells[one[1]])]
        if refused:
            if chosen is not None:
                name, index, _ = refused[0]
                raise Permanent(f"{table.name}, row {row_count}: column {name[:200]!r} holds {cells[index][:60]!r}, which is not a number")
            left = [one for one in left if one not in refused]
    kept = {name: values for name, _, values in left if chosen is not None or not all(map(math.isnan, values))}
    return row_count, kept


def groups_of(table: Table, column: str) -> tuple[list[str], array[int]]:
    """The groups' names, sorted, and for each row the place of its group among them. A blank cell is a group, too."""
    index = table.index(column)
    seen: dict[str, int] = {}
    rows = array("L", (seen.setdefault(cells[index], len(seen)) for cells in table.rows()))
    names = sorted(seen)
    place = {seen[name]: at for at, name in enumerate(names)}
    return names, array("L", (place[row] for row in rows))


def _took(values: Numbers, cell: str) -> bool:
    if not cell.strip():
        values.append(MISSING)
        return True
    value = number(cell)
    if value is None:
        return False
    values.append(value)
    return True
