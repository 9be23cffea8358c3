"""What the columns of a source hold: a type that all values have, how many are missing, and whether one can compute with them.

From text a type is only taken when every value, written from that type, is the text that stood there. So nothing becomes a boolean, and
no zero, sign or digit is lost. The types of Parquet and JSON stay what they are, and what a task names in `types` is demanded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from batch.handlers.tables.engine import text
from batch.handlers.tables.numbers import BLANKS, CANONICAL, Marks, Shape, marks_of, measures, present, trimmed
from batch.handlers.tables.options import ReadOptions, TypeName

SAMPLE_ROWS = 1000
_INTEGERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "HUGEINT", "UHUGEINT")
_YES, _NO = "('true', 'yes')", "('false', 'no')"


@dataclass(frozen=True, slots=True)
class Column:
    """`cell` is the SQL of the value as it stands, NULL where it is missing; `typed` that of the value with its type; `written` what a CSV
    result gets. `number` is SQL too: the exact number, empty when it is none, and `problem` says why; `scale` its digits after the point,
    None for doubles. `kind` is for people; `is_nearly_number`: its first values are numbers."""

    name: str
    kind: str
    cell: str
    typed: str
    written: str
    number: str = ""
    problem: str = ""
    scale: int | None = None
    null_count: int = 0
    is_text: bool = True
    is_nearly_number: bool = False
    marks: Marks = field(default_factory=Marks)

    def facts(self) -> dict[str, Any]:
        """As a result tells them."""
        return {"name": self.name, "type": self.kind, "null_count": self.null_count}


@dataclass(slots=True)
class Draft:
    """A column while it is being looked at: the aggregates that it asks for, and what they mean."""

    name: str
    place: int
    sql_type: str
    stated: TypeName | None
    json_kinds: frozenset[str] | None
    options: ReadOptions
    sample: Sequence[str | None] = ()

    @property
    def is_text(self) -> bool:
        return self.sql_type == "VARCHAR"

    @property
    def raw(self) -> str:
        return f"c{self.place}"

    @property
    def cell(self) -> str:
        if self.is_text:
            shown = present(self.raw)
            return (
                f"CASE WHEN {self.raw} NOT IN ({', '.join(map(text, self.options.nulls))}) THEN {shown} END"
                if self.options.nulls
                else shown
            )
        return f"CASE WHEN NOT isnan({self.raw}) THEN {self.raw} END" if self.sql_type in ("DOUBLE", "FLOAT") else self.raw

    @property
    def marks(self) -> Marks:
        return marks_of(self.options, is_loose=self.stated in ("integer", "decimal", "double"))

    @property
    def candidate(self) -> str:
        """What to look for in a text column: `number`, `date`, `boolean`, `timestamp` or `text`."""
        if self.stated is not None:
            return "number" if self.stated in ("integer", "decimal", "double") else self.stated
        if self.json_kinds is not None:
            if self.json_kinds and self.json_kinds <= {"integer", "number"}:
                return "number"
            return "boolean" if self.json_kinds == {"boolean"} else "text"
        cells = [one for one in self.sample if one is not None]
        if not cells or all(map(self.marks.matches, cells)):
            return "number"
        return "date" if all(len(one) == 10 and one[4] == one[7] == "-" for one in cells) else "text"

    def aggregates(self) -> tuple[str, ...]:
        """SQL, after the count of values that are there."""
        count = (f"count({self.cell})",)
        if not self.is_text:
            return (*count, f"bool_or(isinf({self.raw}))") if self.sql_type in ("DOUBLE", "FLOAT") else count
        if self.candidate == "number":
            plain = self.marks.plain(self.cell)
            texts = (f"bool_and({self.test()})", f"bool_and(regexp_full_match({self.cell}, {text(CANONICAL)}))")
            return (
                *count,
                *texts,
                *measures(plain),
                f"bool_and(TRY_CAST({self.cell} AS DOUBLE)::VARCHAR = {self.cell} AND {self.cell} <> '-0.0')",
            )
        return count if self.candidate == "text" else (*count, f"bool_and({self.test()})")

    def test(self) -> str:
        """SQL: whether a value has the type that is looked for."""
        cell = self.cell
        if self.candidate == "number":
            found = self.marks.test(cell)
            plain = self.marks.plain(cell)
            if self.stated == "integer":
                return f"({found} AND NOT contains({plain}, '.') AND NOT contains(lower({plain}), 'e'))"
            if self.stated == "decimal":
                return f"({found} AND NOT contains(lower({plain}), 'e'))"
            return f"({found} AND coalesce(isfinite(TRY_CAST({plain} AS DOUBLE)), false))" if self.stated == "double" else found
        if self.candidate == "boolean":
            return f"lower({trimmed(cell)}) IN ('true', 'yes', 'false', 'no')"
        if self.candidate == "timestamp":
            # The engine would cut a fraction of more than six digits.
            return f"coalesce(isfinite(TRY_CAST({trimmed(cell)} AS TIMESTAMP)), false) AND NOT regexp_matches({cell}, '[.][0-9]{{7,}}')"
        if self.stated is None:
            return f"coalesce(TRY_CAST({cell} AS DATE)::VARCHAR = {cell}, false)"
        return f"regexp_full_match({trimmed(cell)}, '[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}') AND TRY_CAST({trimmed(cell)} AS DATE) IS NOT NULL"

    # --- what was found

    def column(self, row_count: int, found: Sequence[Any]) -> Column:
        """`found` are the values of `aggregates`."""
        count = found[0]
        nothing = Column(
            self.name,
            "empty" if not count else "text",
            self.cell,
            self.raw,
            self.raw,
            "",
            "",
            None,
            row_count - count,
            self.is_text,
            marks=self.marks,
        )
        if not self.is_text:
            return self._of_typed(nothing, found)
        nothing = replace(nothing, typed=self.cell, written=self.cell if self.options.nulls else self.raw)
        if self.stated == "text" or self.candidate == "text":
            return replace(nothing, problem="it is text" if self.stated or self.json_kinds is not None else "")
        if self.candidate == "number":
            return self._of_number(nothing, found)
        if not count or not found[1]:
            return nothing
        kind = self.candidate
        typed = f"CAST({trimmed(self.cell)} AS {kind.upper()})"
        if kind == "boolean":
            typed = f"CASE WHEN {self.cell} IS NOT NULL THEN lower({trimmed(self.cell)}) IN {_YES} END"
        written = typed if self.stated else nothing.written
        return replace(nothing, kind=kind, typed=typed, written=written, problem=f"it holds values of type {kind}")

    def _of_number(self, nothing: Column, found: Sequence[Any]) -> Column:
        count, fits, is_canonical, whole, scale, least_scale, has_exponent, is_double = found
        if not count:
            return replace(nothing, problem="it has no values")
        if not fits:
            return replace(nothing, is_nearly_number=True)
        shape = Shape(whole, scale, least_scale, has_exponent or self.stated == "double")
        problem = "" if self.stated == "double" else shape.problem
        if problem:
            return replace(nothing, problem=problem, is_nearly_number=True)
        exact = f"CAST({self.marks.plain(self.cell)} AS {shape.sql_type})"
        column = replace(nothing, kind=shape.kind, number=exact, scale=None if shape.has_exponent else shape.scale)
        if self.stated is not None:
            return replace(column, typed=exact, written=exact)
        if is_canonical and shape.scale == shape.least_scale:
            return replace(column, typed=exact)
        return replace(column, typed=f"CAST({self.cell} AS DOUBLE)") if is_double else column

    def _of_typed(self, nothing: Column, found: Sequence[Any]) -> Column:
        kind = self.sql_type
        if kind in _INTEGERS:
            return replace(nothing, kind="integer", number=self.raw, scale=0)
        if kind.startswith("DECIMAL"):
            return replace(nothing, kind="decimal", number=self.raw, scale=int(kind.rstrip(")").split(",")[1]))
        if kind in ("DOUBLE", "FLOAT"):
            column = replace(nothing, kind="double")
            if found[1]:
                return replace(column, problem="it holds infinity")
            return replace(column, number=f"CAST({self.cell} AS DOUBLE)")
        shown = {"BOOLEAN": "boolean", "DATE": "date"}.get(kind, "timestamp" if kind.startswith("TIMESTAMP") else kind.lower())
        nested = kind.endswith("]") or kind.startswith(("STRUCT", "MAP", "UNION", "VARIANT"))
        written = f"CAST(to_json({self.raw}) AS VARCHAR)" if nested else self.raw
        return replace(nothing, kind="nested" if nested else shown, written=written, problem=f"it holds values of type {shown[:60]}")


def blank_free(cell: str | None, options: ReadOptions) -> str | None:
    """A cell of the sample, None where it is missing."""
    return None if cell is None or not cell.strip(BLANKS) or cell in options.nulls else cell
