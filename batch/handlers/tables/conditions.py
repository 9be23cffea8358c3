"""Conditions on the values of a row: the small grammar that `filter` takes. Data only, never an expression that is evaluated.

A number in a condition compares as numbers do, exactly, a text as texts do, letter by letter. A missing value fulfils `is_missing` and
nothing else, so that no row is chosen for what it does not say.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import ROUND_FLOOR, Context, Decimal
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from batch.handlers.contract import ColumnName
from batch.handlers.tables.columns import DATE, NO, YES, Column
from batch.handlers.tables.digits import MAX_DIGITS, trimmed
from batch.handlers.tables.engine import text, texts
from batch.handlers.tables.source import Source
from batch.model.errors import Permanent

MAX_TEXT_CHARS = 10_000
MAX_CHOICES = 1000
Operator = Literal["=", "!=", "<", "<=", ">", ">=", "in", "contains", "is_missing"]
_ORDERS = ("<", "<=", ">", ">=")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_TIME = re.compile(
    f"({DATE}(?:[T ][0-9]{{2}}:[0-9]{{2}}(?::[0-9]{{2}})?)?)"
    r"((?<=:[0-9]{2}:[0-9]{2})[.][0-9]{1,9})?(Z|[+-][0-9]{2}(?::?[0-9]{2})?)?"
)
_MICROSECONDS = len(".000000")
_TOO_LARGE: int = 10**MAX_DIGITS
_CONTEXT = Context(prec=MAX_TEXT_CHARS)


class Condition(BaseModel):
    """One condition. `value` is a number, a text, or true or false; for `in` a list of such, for `contains` a text, for `is_missing` true
    (the default) or false."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    column: ColumnName
    operator: Operator = "="
    value: Any = Field(default=None)

    @model_validator(mode="after")
    def _fits(self) -> Condition:
        problem = _wrong_value(self.operator, self.value)
        if problem:
            raise ValueError(f"{self.operator!r} needs {problem}")
        return self


def chosen(source: Source, conditions: Sequence[Condition]) -> str:
    """SQL: whether a row of the source fulfils all conditions. Raises Permanent for a column that it does not have, and for one with a
    value that cannot be compared so."""
    found = []
    for one in conditions:
        column = source.column(one.column)
        if one.operator != "contains" and _is_time(column):
            _refuse_no_time(source, column, one.value)
        found.append(f"coalesce({_holds(source, column, one)}, false)")
    return " AND ".join(found)


def _holds(source: Source, column: Column, condition: Condition) -> str:
    value, named = condition.value, condition.operator
    if named == "is_missing":
        return f"({column.cell} IS {'NOT ' if value is False else ''}NULL)"
    if named == "contains":
        return f"contains({_as_text(column)}, {text(value)})"
    if named == "in":
        return _among(column, value)
    if named in _ORDERS:
        return _ordered(source, column, named, value)
    return _equal(column, value) if named == "=" else f"({column.cell} IS NOT NULL AND NOT coalesce({_equal(column, value)}, false))"


def _among(column: Column, values: Sequence[Any]) -> str:
    words = [one for one in values if isinstance(one, str)]
    found = [_is_boolean(column, one) for one in sorted({one for one in values if isinstance(one, bool)})]
    numbers = [one for one in values if not isinstance(one, str | bool)]
    if words:
        found.append(_in_time(column, "IN", words) if _is_time(column) else f"{_as_text(column)} IN ({texts(words)})")
    if numbers:
        found.append(_is_number(column, numbers))
    return f"({' OR '.join(found)})"


def _equal(column: Column, value: object) -> str:
    if isinstance(value, bool):
        return _is_boolean(column, value)
    if isinstance(value, str):
        return _in_time(column, "=", [value]) if _is_time(column) else f"{_as_text(column)} = {text(value)}"
    assert isinstance(value, int | float)
    return _is_number(column, [value])


def _ordered(source: Source, column: Column, named: str, value: Any) -> str:
    if isinstance(value, str):
        return _in_time(column, named, [value]) if _is_time(column) else f"{_as_text(column)} {named} {text(value)}"
    if not column.number and column.kind != "empty":
        _refuse_order(source, column, named)
    return _ordered_number(column, named, value) if column.number else "false"


def _refuse_order(source: Source, column: Column, named: str) -> None:
    """Raises Permanent with the first value that is no number; a column may also hold numbers that are too long."""
    found = source.first(column, column.marks.test(column.cell)) if column.is_text else None
    if found is not None:
        row, cell = found
        raise Permanent(
            f"{source.name}, {source.place(row)}: column {column.name[:200]!r} holds {cell[:60]!r}, which is not a number; "
            f"{named!r} compares numbers"
        )
    raise Permanent(
        f"{source.name}: column {column.name[:200]!r} cannot be compared with a number: {column.problem or 'it holds other values'}"
    )


# --- values


def _as_text(column: Column) -> str:
    return column.cell if column.is_text else f"CAST({column.cell} AS VARCHAR)"


def _is_time(column: Column) -> bool:
    """By its own type or the task's: texts that look like dates are compared as texts."""
    return column.kind in ("date", "timestamp") and (not column.is_text or column.written == column.typed)


def _refuse_no_time(source: Source, column: Column, value: Any) -> None:
    """Raises Permanent for a text that is no date or time; a column of such compares with nothing else."""
    for one in value if isinstance(value, list | tuple) else [value]:
        if isinstance(one, str) and not _moment(one):
            raise Permanent(
                f"{source.name}: column {column.name[:200]!r} holds values of type {column.kind}: compare it with a date such as "
                f"2026-01-31, or a time such as 2026-01-31T12:00:00Z, not {one[:60]!r}"
            )


def _in_time(column: Column, named: str, values: Sequence[str]) -> str:
    """SQL: whether a time lies so beside these. Beside nanoseconds every type that a column may have is told as text first: the engine
    compares only some of them."""
    moments = ", ".join(map(_moment, values))
    is_finer = "TIMESTAMP_NS" in moments
    return f"{f'CAST(CAST({column.typed} AS VARCHAR) AS TIMESTAMP_NS)' if is_finer else column.typed} {named} ({moments})"


def _moment(value: str) -> str:
    """SQL of a text as date or time, in UTC; empty when it is none. The engine would ignore the offset, and cut a long fraction."""
    found = _TIME.fullmatch(value.strip())
    try:
        moment = datetime.fromisoformat(f"{found[1]}{found[3] or ''}") if found else None
        if moment is None:
            return ""
        moment = moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment
    except (ValueError, OverflowError):
        return ""
    fraction = (found[2] or "").rstrip("0") if found else ""
    return f"CAST({text(moment.isoformat(' ') + fraction)} AS {'TIMESTAMP_NS' if len(fraction) > _MICROSECONDS else 'TIMESTAMP'})"


def _is_boolean(column: Column, value: bool) -> str:
    if not column.is_text:
        return f"{column.cell} = {str(value).lower()}" if column.kind == "boolean" else "false"
    return f"lower({trimmed(column.cell)}) IN {YES if value else NO}"


def _is_number(column: Column, values: Sequence[int | float]) -> str:
    """SQL: whether a value is exactly one of these numbers. In a column of other texts, too, some may be."""
    if column.scale is not None:
        fitting = [_literal(exact, column.scale) for exact in map(_exact, values) if _fits(exact, column.scale)]
        return f"{column.number} IN ({', '.join(fitting)})" if fitting else "false"
    doubles = ", ".join(_double(one) for one in values if float(one) == one)
    if column.number:
        return f"{column.number} IN ({doubles})" if doubles else "false"
    if not column.is_text:
        return "false"
    plain = column.marks.plain(column.cell)
    digits = f"ltrim({plain}, '+')"
    digits = f"CASE WHEN contains({digits}, '.') THEN rtrim(rtrim({digits}, '0'), '.') ELSE {digits} END"
    digits = f"regexp_replace(regexp_replace({digits}, '^(-?)[.]', '\\10.'), '^-?0?$', '0')"
    exact = f"{digits} IN ({texts([_shown(_exact(one)) for one in values])})"
    same = f"CASE WHEN contains(lower({plain}), 'e') THEN TRY_CAST({plain} AS DOUBLE) IN ({doubles or 'NULL'}) ELSE {exact} END"
    return f"({column.marks.test(column.cell)} AND {same})"


def _ordered_number(column: Column, named: str, value: int | float) -> str:
    """SQL: whether a value lies so beside a number. One with more digits than the column has lies between two of the column's."""
    if column.scale is None:
        if float(value) != value:  # the double beside it lies on the other side, or below
            named = ("<" if float(value) > value else "<=") if named in ("<", "<=") else (">=" if float(value) > value else ">")
        return f"{column.number} {named} {_double(value)}"
    exact = _exact(value)
    if exact and exact.adjusted() + 1 + column.scale > MAX_DIGITS:
        return f"({column.number} IS NOT NULL AND {str((exact > 0) == (named in ('<', '<='))).lower()})"
    if not _fits(exact, column.scale):
        exact = exact.quantize(Decimal(1).scaleb(-column.scale), rounding=ROUND_FLOOR, context=_CONTEXT)
        named = "<=" if named in ("<", "<=") else ">"
    return f"{column.number} {named} {_literal(exact, column.scale)}"


def _double(value: int | float) -> str:
    return f"CAST({text(repr(float(value)))} AS DOUBLE)"


def _exact(value: int | float) -> Decimal:
    return Decimal(repr(value)) if isinstance(value, float) else Decimal(value)


def _fits(exact: Decimal, scale: int) -> bool:
    """Whether a number can be one of a column with so many digits after the point."""
    digits = -int(exact.normalize(_CONTEXT).as_tuple().exponent)
    return digits <= scale and (not exact or exact.adjusted() + 1 + scale <= MAX_DIGITS)


def _literal(exact: Decimal, scale: int) -> str:
    return f"CAST({text(format(exact, 'f'))} AS DECIMAL({MAX_DIGITS}, {scale}))"


def _shown(exact: Decimal) -> str:
    return format(exact.normalize(_CONTEXT), "f") if exact else "0"


# --- what a task may ask for


def _wrong_value(named: Operator, value: object) -> str:
    """What is needed instead; empty when the value will do."""
    if named == "is_missing":
        return "" if value is None or isinstance(value, bool) else "true or false"
    if named == "in":
        fits = isinstance(value, list | tuple) and 1 <= len(value) <= MAX_CHOICES and all(map(_is_value, value))
        return "" if fits else f"a list of 1 to {MAX_CHOICES} numbers and texts"
    if named == "contains":
        fits = isinstance(value, str) and 1 <= len(value) <= MAX_TEXT_CHARS and _is_value(value)
        return "" if fits else f"a text of 1 to {MAX_TEXT_CHARS} characters"
    if named in _ORDERS:
        if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
            return f"a number without quotes: {value.strip()[:60]}"
        return "" if _is_value(value) and not isinstance(value, bool) else "a number or a text"
    return "" if _is_value(value) else "a number, a text, true or false; for missing values use 'is_missing'"


def _is_value(value: object) -> bool:
    if isinstance(value, str):
        return len(value) <= MAX_TEXT_CHARS and not any("\ud800" <= one <= "\udfff" for one in value)
    if isinstance(value, int):
        return -_TOO_LARGE < value < _TOO_LARGE
    return isinstance(value, float) and math.isfinite(value)
