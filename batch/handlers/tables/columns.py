"""What the columns of a source hold: a type that all values have, how many are missing, and whether one can compute with them.

From text a type is only taken when every value, written from that type, is the text that stood there. So nothing becomes a boolean, and
no zero, sign or digit is lost. The types of Parquet and JSON stay what they are, and what a task names in `types` is demanded.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from batch.handlers.tables.digits import BLANKS, CANONICAL, MAX_DIGITS, QUICK_DIGITS, Marks, Shape, marks_of, measures, present, trimmed
from batch.handlers.tables.engine import text
from batch.handlers.tables.options import ReadOptions, TypeName

SAMPLE_ROWS = 1000
SAMPLE_CELLS = 100_000
"""Wide tables are guessed from fewer rows."""
DATE = "[0-9]{4}-[0-9]{2}-[0-9]{2}"
TIMESTAMP = DATE + r"([T ][0-9]{2}:[0-9]{2}(:[0-9]{2}([.][0-9]{1,6})?)?(Z|[+-]([01][0-9]|2[0-3])(:?[0-5][0-9])?)?)?"
OFFSET = r":[0-9.]+(Z|[+-][0-9]{2}(:?[0-9]{2})?)$"
"""Times as ISO 8601 writes them, with the six digits after the second that the engine holds."""
_INTEGERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "HUGEINT", "UHUGEINT")
YES, NO = "('true', 'yes')", "('false', 'no')"


@dataclass(frozen=True, slots=True)
class Column:
    """`cell` is the SQL of the value as it stands, NULL where it is missing; `typed` that of the value with its type; `written` what a CSV
    result gets, empty where CSV has no way to say it. `number` is SQL too: the exact number, empty when it is none, and `problem` says why;
    `scale` its digits after the point, None for doubles. `kind` is for people; `is_nearly_number`: its first values are numbers. `word` is
    the first text among them that is no number, with its row."""

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
    word: tuple[int, str] | None = None
    marks: Marks = field(default_factory=Marks)

    def facts(self) -> dict[str, Any]:
        """As a result tells them."""
        return {"name": self.name, "type": self.kind, "null_count": self.null_count}


@dataclass
class Draft:
    """A column while it is being looked at: the aggregates that it asks for, and what they mean."""

    name: str
    place: int
    sql_type: str
    stated: TypeName | None
    json_kinds: frozenset[str] | None
    options: ReadOptions
    sample: Sequence[str | None] = ()
    keeps_blanks: bool = False
    """A blank text is a value, for the source has another way to say that one is missing."""

    @property
    def is_text(self) -> bool:
        return self.sql_type == "VARCHAR"

    @property
    def raw(self) -> str:
        return f"c{self.place}"

    @property
    def cell(self) -> str:
        if self.is_text:
            shown = self.raw if self.keeps_blanks else present(self.raw)
            return (
                f"CASE WHEN {self.raw} NOT IN ({', '.join(map(text, self.options.nulls))}) THEN {shown} END"
                if self.options.nulls
                else shown
            )
        return f"CASE WHEN NOT isnan({self.raw}) THEN {self.raw} END" if self.sql_type in ("DOUBLE", "FLOAT") else self.raw

    @property
    def marks(self) -> Marks:
        return marks_of(self.options, is_loose=self.stated in ("integer", "decimal", "double"))

    @cached_property
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

    @cached_property
    def quick_scale(self) -> int | None:
        """The digits after the point that all numbers of the sample have: that those of the whole column do is found out at once, with one
        test. None where they differ, or are not written as the engine would write them."""
        if not self.is_text or self.candidate != "number" or self.marks.decimal != "." or self.marks.thousands:
            return None
        cells = [one for one in self.sample if one is not None]
        scales = {len(one.partition(".")[2]) for one in cells}
        if len(scales) > 1 or self.stated == "double" or not all(re.fullmatch(CANONICAL, one) for one in cells):
            return None
        scale = scales.pop() if scales else 0
        return scale if scale <= QUICK_DIGITS and not (scale and self.stated == "integer") else None

    def is_answered(self, found: Sequence[Any]) -> bool:
        """Whether the column is known from the values of `aggregates`. If it is not, the next ones tell."""
        if self.quick_scale is None or found[0] == found[1]:
            return True
        self.quick_scale = None
        return False

    def _first_word(self) -> tuple[int, str] | None:
        for row, one in enumerate(self.sample, 1):
            if one is not None and not self.marks.matches(one):
                return row, one
        return None

    def parts(self) -> tuple[str, str]:
        """SQL of the value, and of it without blanks around it, under names that the aggregates use: each is computed once then."""
        value, trim = f"v{self.place}", f"t{self.place}"
        is_measured = self.is_text and self.candidate == "number" and self.quick_scale is None
        return f"{self.cell} AS {value}", f"{value}, {trimmed(value)} AS {trim}" if is_measured else value

    def aggregates(self) -> tuple[str, ...]:
        """SQL over `parts`, after the count of values that are there."""
        value, trim = f"v{self.place}", f"t{self.place}"
        count = (f"count({value})",)
        if not self.is_text:
            return (*count, f"bool_or(isinf({value}))") if self.sql_type in ("DOUBLE", "FLOAT") else count
        if self.quick_scale is not None:
            same = f"TRY_CAST({value} AS DECIMAL({QUICK_DIGITS}, {self.quick_scale}))::VARCHAR = {value}"
            return (*count, f"count(CASE WHEN {same} THEN 1 END)")
        if self.candidate == "number":
            plain = self.marks.plain(trim, is_trimmed=True)
            test = self._number_test(self.marks.test(trim, is_trimmed=True), plain)
            is_canonical = f"regexp_full_match({value}, {text(CANONICAL)})"
            is_double = f"TRY_CAST({value} AS DOUBLE)::VARCHAR = {value} AND {value} <> '-0.0'"
            texts = (f"bool_and({value} IS NULL OR {test})", f"bool_and({is_canonical})")
            return (*count, *texts, *measures(plain), f"bool_and({is_double})")
        if self.candidate == "timestamp":
            offset = f"regexp_matches({trimmed(value)}, {text(OFFSET)})"
            return (*count, f"bool_and({value} IS NULL OR {self.test(value)})", f"bool_and({offset})", f"bool_or({offset})")
        return count if self.candidate == "text" else (*count, f"bool_and({value} IS NULL OR {self.test(value)})")

    def test(self, cell: str = "") -> str:
        """SQL: whether a value has the type that is looked for."""
        cell = cell or self.cell
        if self.candidate == "number":
            return self._number_test(self.marks.test(cell), self.marks.plain(cell))
        if self.candidate == "boolean":
            return f"lower({trimmed(cell)}) IN ('true', 'yes', 'false', 'no')"
        if self.candidate == "timestamp":
            return _is_time(cell, TIMESTAMP, "TIMESTAMPTZ")
        if self.stated is None:
            return f"coalesce(TRY_CAST({cell} AS DATE)::VARCHAR = {cell}, false)"
        return _is_time(cell, DATE, "DATE")

    def _number_test(self, found: str, plain: str) -> str:
        if self.stated == "integer":
            return f"({found} AND NOT contains({plain}, '.') AND NOT contains(lower({plain}), 'e'))"
        if self.stated == "decimal":
            return f"({found} AND NOT contains(lower({plain}), 'e'))"
        return f"({found} AND coalesce(isfinite(TRY_CAST({plain} AS DOUBLE)), false))" if self.stated == "double" else found

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
        cell = self.raw if count == row_count else self.cell
        nothing = replace(nothing, cell=cell, typed=cell, written=cell if self.options.nulls else self.raw)
        if self.stated == "text" or self.candidate == "text":
            return replace(nothing, problem="it is text" if self.stated or self.json_kinds is not None else "", word=self._first_word())
        if self.candidate == "number":
            return self._of_number(nothing, found)
        if not count or not found[1]:
            return nothing
        kind = sql_type = self.candidate
        if kind == "timestamp" and found[3]:
            if not found[2]:
                return replace(nothing, problem="some of its timestamps have an offset from UTC and others have none; write all alike")
            sql_type = "timestamptz"
        typed = f"CAST({trimmed(self.cell)} AS {sql_type.upper()})"
        if kind == "boolean":
            typed = f"CASE WHEN {self.cell} IS NOT NULL THEN lower({trimmed(self.cell)}) IN {YES} END"
        written = typed if self.stated else nothing.written
        return replace(nothing, kind=kind, typed=typed, written=written, problem=f"it holds values of type {kind}")

    def _of_number(self, nothing: Column, found: Sequence[Any]) -> Column:
        if self.quick_scale is not None:
            found = (found[0], True, True, QUICK_DIGITS - self.quick_scale, self.quick_scale, self.quick_scale, False, False)
        count, fits, is_canonical, whole, scale, least_scale, has_exponent, is_double = found
        if not count:
            return replace(nothing, problem="it has no values")
        if not fits:
            return replace(nothing, is_nearly_number=True)
        shape = Shape(whole, scale, least_scale, has_exponent or self.stated == "double")
        # Doubles as Python writes them have up to 17 digits, and lose none.
        problem = "" if self.stated == "double" or (has_exponent and is_double) else shape.problem
        if problem:
            return replace(nothing, problem=problem, is_nearly_number=True)
        plain = nothing.cell if is_canonical else self.marks.plain(nothing.cell)
        exact = f"CAST({plain} AS {shape.sql_type})"
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
            scale = int(kind.rstrip(")").split(",")[1])
            return replace(
                nothing, kind="decimal", written=f"CAST({self.raw} AS DECIMAL({MAX_DIGITS}, {scale}))", number=self.raw, scale=scale
            )
        if kind in ("DOUBLE", "FLOAT"):
            column = replace(nothing, kind="double")
            if found[1]:
                return replace(column, problem="it holds infinity")
            return replace(column, number=f"CAST({self.cell} AS DOUBLE)")
        shown = {"BOOLEAN": "boolean", "DATE": "date"}.get(kind, "timestamp" if kind.startswith("TIMESTAMP") else kind.lower())
        nested = kind.endswith("]") or kind.startswith(("STRUCT", "MAP", "UNION", "VARIANT"))
        written = "" if "BLOB" in kind else self._json() if nested else self._iso() if shown in ("date", "timestamp") else self.raw
        return replace(nothing, kind="nested" if nested else shown, written=written, problem=f"it holds values of type {shown[:60]}")

    def _json(self) -> str:
        """SQL: a nested value as JSON, which has no NaN and no infinity."""
        json = f"CAST(to_json({self.raw}) AS VARCHAR)"
        if "DOUBLE" not in self.sql_type and "FLOAT" not in self.sql_type:
            return json
        return self._unless(
            f"regexp_matches({json}, '[:,[](NaN|-?Infinity)[],}}]')", json, "NaN or infinity inside a nested value, which JSON"
        )

    def _iso(self) -> str:
        """SQL: a date or time with a year that others can read."""
        wrong = f"coalesce({_year(self.raw, self.sql_type)}, 0) NOT BETWEEN 1 AND 9999"
        return self._unless(wrong, self.raw, "a date outside the years 0001 to 9999, which CSV")

    def _unless(self, wrong: str, written: str, what: str) -> str:
        said = f"column {self.name[:200]!r} holds {what} cannot say; name it in exclude, or say format: parquet"
        return f"CASE WHEN {self.raw} IS NOT NULL AND {wrong} THEN error({text(said)}) ELSE {written} END"


def _is_time(cell: str, pattern: str, sql_type: str) -> str:
    found = trimmed(cell)
    year = _year(f"TRY_CAST({found} AS {sql_type})", sql_type)
    return f"(regexp_full_match({found}, {text(pattern)}) AND coalesce({year} BETWEEN 1 AND 9999, false))"


def _year(value: str, sql_type: str) -> str:
    """SQL of the year in UTC. Of an instant before Christ the engine would tell that of the era."""
    return f"year(CAST({value} AS TIMESTAMP))" if sql_type in ("TIMESTAMPTZ", "TIMESTAMP WITH TIME ZONE") else f"year({value})"


def blank_free(cell: str | None, options: ReadOptions) -> str | None:
    """A cell of the sample, None where it is missing."""
    return None if cell is None or not cell.strip(BLANKS) or cell in options.nulls else cell
