"""Duplicates: rows that are alike in some columns, of which one is kept. Rows keep their order.

What was seen is remembered as 16-byte digests, about 100 bytes for each distinct row, however long its cells are.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator, Sequence
from typing import Literal

from batch.handlers.tables.table import Row, Table

Keep = Literal["first", "last"]


def distinct_rows(table: Table, columns: Sequence[str], keep: Keep) -> Iterator[Row]:
    """Cells are compared as the texts they are; two missing ones are alike. Raises Permanent for a column that the table does not have."""
    places = [table.index(one) for one in columns]
    return _first_ones(table, places) if keep == "first" else _last_ones(table, places)


def _first_ones(table: Table, places: Sequence[int]) -> Iterator[Row]:
    seen: set[bytes] = set()
    for cells in table.rows():
        count = len(seen)
        seen.add(_digest(cells, places))
        if len(seen) > count:
            yield cells


def _last_ones(table: Table, places: Sequence[int]) -> Iterator[Row]:
    """In two passes: which row is the last of its kind is known only at the end."""
    kinds: dict[bytes, int] = {}
    last = array("Q")
    for row, cells in enumerate(table.rows()):
        kind = kinds.setdefault(_digest(cells, places), len(kinds))
        if kind == len(last):
            last.append(row)
        else:
            last[kind] = row
    kinds.clear()
    kept = iter(sorted(last))
    following = next(kept, None)
    for row, cells in enumerate(table.rows()):
        if row == following:
            following = next(kept, None)
            yield cells


def _digest(cells: Row, places: Sequence[int]) -> bytes:
    """Each cell with its length before it, so that no two rows can look alike by where a cell ends."""
    digest = hashlib.blake2b(digest_size=16)
    for place in places:
        cell = cells[place]
        text = "" if not cell.strip() else cell
        data = text.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "big"))
        digest.update(data)
    return digest.digest()
