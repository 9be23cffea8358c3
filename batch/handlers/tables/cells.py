"""Cells: what a text in a table stands for, and what type the cells of a column have in common. Blank cells are missing, of every type.

Types, in the order in which they are tried: `boolean` (true/false, yes/no), `integer`, `number`, `date` (ISO 8601, with or
without a time), `text`; a column without any value is `empty`. Digits after a leading zero, such as `007`, are text: a postcode
read as a number is lost.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import datetime

_BOOLEANS = frozenset(("true", "false", "yes", "no"))
_INTEGER = re.compile(r"[+-]?(?:0|[1-9][0-9]*)")
_NUMBER = re.compile(r"[+-]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_DATE_BEGINS = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(?:[T ]|$)")


def number(cell: str) -> float | None:
    """The finite number that a cell holds; None for anything else, also for `nan`, `inf` and what a double cannot hold."""
    text = cell.strip()
    if not _NUMBER.fullmatch(text):
        return None
    value = float(text)
    return value if math.isfinite(value) else None


def _is_boolean(text: str) -> bool:
    return text.lower() in _BOOLEANS


def _is_integer(text: str) -> bool:
    return _INTEGER.fullmatch(text) is not None


def _is_number(text: str) -> bool:
    return number(text) is not None


def _is_date(text: str) -> bool:
    if not _DATE_BEGINS.match(text):
        return False
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


_TESTS: tuple[tuple[str, Callable[[str], bool]], ...] = (
    ("boolean", _is_boolean),
    ("integer", _is_integer),
    ("number", _is_number),
    ("date", _is_date),
)


class ColumnType:
    """Learns a column's type from its cells, one by one."""

    __slots__ = ("_left", "_seen")

    def __init__(self) -> None:
        self._left = _TESTS
        self._seen = False

    def see(self, cell: str) -> None:
        """Rule out the types that this cell does not have."""
        text = cell.strip() if self._left else ""
        if text:
            self._seen = True
            self._left = tuple(one for one in self._left if one[1](text))

    @property
    def name(self) -> str:
        if not self._seen:
            return "empty"
        return self._left[0][0] if self._left else "text"
