"""A source that the engine can ask: the view `source`, whose columns are c0, c1 …, and what was found out of them."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from batch.handlers.tables.columns import Column
from batch.handlers.tables.digits import Marks, marks_of
from batch.handlers.tables.engine import Engine
from batch.handlers.tables.options import ReadOptions
from batch.handlers.tables.reading import Reading
from batch.handlers.tables.rewriting import (
    line_of_row,
)
from batch.model.errors import Permanent

DESCRIBED_COLUMNS = 1000
COLUMNS_AT_A_TIME = 50
LOOKED_AT_COLUMNS = 20
"""Of so many columns the first value is looked for that is no number."""
T = TypeVar("T")
REWRITTEN = "rewritten.csv"
_ADVISED = "; if it"


class LeftOut(NamedTuple):
    """A column that is not computed with. `is_doubtful`: somebody should look at it."""

    column: str
    reason: str
    is_doubtful: bool


@dataclass(slots=True)
class Source:
    """One table. `reading` is how the object is read, and `path` where it lies; `row_count` counts data rows."""

    engine: Engine
    name: str
    path: Path
    reading: Reading
    options: ReadOptions
    row_count: int = 0
    columns: tuple[Column, ...] = ()
    warnings: list[str] = field(default_factory=list)

    @property
    def rewritten_bytes(self) -> int:
        """The size of the file that was written anew of it."""
        file = self.engine.folder / REWRITTEN
        return file.stat().st_size if file.exists() else 0

    def column(self, name: str) -> Column:
        """Raises Permanent with the nearest column that exists."""
        for one in self.columns:
            if one.name == name:
                return one
        raise Permanent(f"{self.name} has no column {name[:200]!r}{hint(name, [one.name for one in self.columns])}")

    def facts(self) -> dict[str, Any]:
        """How the source was read, for a result."""
        columns = [one.facts() for one in self.columns[:DESCRIBED_COLUMNS]]
        return {**self.reading.facts(), "rows": self.row_count, "column_count": len(self.columns), "columns": columns}

    def numbers(self, wanted: Sequence[str] | None, leave_out: str | None = None) -> tuple[list[Column], list[LeftOut]]:
        """Columns of numbers, and those left out with the reason. With `wanted` these, or Permanent; else all but `leave_out`."""
        if wanted is not None:
            chosen = [self.column(one) for one in wanted]
            for one in chosen:
                if not one.number and one.kind != "empty":
                    raise Permanent(self._not_a_number(one))
            return [replace(one, number="CAST(NULL AS BIGINT)") if one.kind == "empty" else one for one in chosen], []
        kept, left = [], []
        looks = 0
        for one in self.columns:
            if one.number:
                if one.name != leave_out:
                    kept.append(one)
                continue
            if one.name == leave_out:
                continue
            looks += not one.problem
            reason = one.problem or (self._first_other(one) if looks <= LOOKED_AT_COLUMNS else "it holds texts that are no numbers")
            left.append(LeftOut(one.name, reason, one.is_nearly_number or _ADVISED in reason))
        return kept, left

    def place(self, row: int) -> str:
        """Where a data row stands, counted from 1: its line, where there are lines."""
        text, reading = self.reading.text, self.reading
        if text is None:
            return f"row {row}"
        if text.line_count and not text.has_quotes and text.line_count == self.row_count + reading.skipped_lines + reading.has_header:
            return f"line {row + reading.skipped_lines + reading.has_header}"
        return f"line {line_of_row(self.name, self.path, reading, row)}"

    def first(self, column: Column, test: str) -> tuple[int, Any] | None:
        """The first row, from 1, whose value is there and fails a test in SQL; with its value as text."""
        found = self.engine.rows(
            f"SELECT row, found FROM (SELECT row_number() OVER () AS row, CAST({column.cell} AS VARCHAR) AS found, {test} AS fits "
            "FROM source) WHERE found IS NOT NULL AND NOT coalesce(fits, false) ORDER BY row LIMIT 1"
        )
        return (found[0][0], found[0][1]) if found else None

    def _first_other(self, column: Column) -> str:
        found = column.word or (self.first(column, column.marks.test(column.cell)) if column.is_text else None)
        if found is None:
            return "it holds values that are no numbers"
        row, cell = found
        return f"{self.place(row)}: {cell[:60]!r} is not a number{self._advice(cell)}"

    def _not_a_number(self, column: Column) -> str:
        why = column.problem or self._first_other(column)
        return f"{self.name}: column {column.name[:200]!r} cannot be computed with: {why}"

    def _advice(self, cell: str) -> str:
        """What the task may say so that it is one."""
        shown = cell.strip()
        if shown.upper() in ("NA", "N/A", "NAN", "NULL", "NONE", "\\N", "-", "#N/A", "?", "MISSING"):
            return f"{_ADVISED} stands for a missing value, say nulls: [{cell!r}]"
        for decimal, thousands in ((".", ","), (",", None), (",", "."), (".", " "), (".", "'")):
            marks = Marks(decimal, thousands)
            if marks.matches(shown) and marks != marks_of(self.options):
                said = [f"decimal: {decimal!r}"] if decimal != "." else []
                return f"{_ADVISED} is one, say {' and '.join(said + ([f'thousands: {thousands!r}'] if thousands else []))}"
        return ""


def in_parts(columns: Sequence[T]) -> Iterator[Sequence[T]]:
    """As many columns as one statement may compute with: for each value on its way the engine holds thousands."""
    return (columns[start : start + COLUMNS_AT_A_TIME] for start in range(0, len(columns), COLUMNS_AT_A_TIME))


def hint(name: str, names: Sequence[str]) -> str:
    """The nearest name that there is, or the first ones."""
    near = difflib.get_close_matches(name[:200], [one[:200] for one in names], n=1)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; it has {', '.join(repr(one[:60]) for one in names[:20])}{' …' if len(names) > 20 else ''}"
