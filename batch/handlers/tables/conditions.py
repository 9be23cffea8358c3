"""Conditions on the values of a row: the small grammar that `filter` takes. Data only, never an expression that is evaluated.

A number in a condition compares as numbers do, exactly, a text as texts do, letter by letter. A missing value fulfils `is_missing` and
nothing else, so that no row is chosen for what it does not say.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from decimal import ROUND_FLOOR, Context, Decimal
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from batch.handlers.contract import ColumnName
from batch.handlers.tables.columns import Column
from batch.handlers.tables.engine import text, texts
from batch.handlers.tables.numbers import MAX_DIGITS, trimmed
from batch.handlers.tables.source import Source
from batch.model.errors import Permanent

MAX_TEXT_CHARS = 10_000
MAX_CHOICES = 1000
Operator = Literal["=", "!=", "<", "<=", ">", ">=", "in", "contains", "is_missing"]
_ORDERS = ("<", "<=", ">", ">=")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_TOO_LARGE: int = 10**MAX_DIGITS
_CONTEXT = Context(prec=MAX_TEXT_CHARS)
_YES, _NO = "('true', 'yes')", "('false', 'no')"


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
    return " AND ".join(f"coalesce({_holds(source, source.column(one.column), one)}, false)" for one in conditions)


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
    found = [_equal(column, one) for one in values if isinstance(one, bool)]
    numbers = [one for one in values if not isinstance(one, str | bool)]
    if words:
        found.append(
            f"{_as_text(column)} IN ({texts(words)})" if _is_texts(column) else f"({' OR '.join(_equal(column, one) for one in words)})"
        )
    if numbers and column.scale is not None:
        fitting = [_literal(exact, column.scale) for exact in map(_exact, numbers) if _fits(exact, column.scale)]
        found.append(f"{column.number} IN ({', '.join(fitting)})" if fitting else "false")
    elif numbers:
        found += [_equals_number(column, one) for one in numbers]
    return f"({' OR '.join(found)})"


def _equal(column: Column, value: object) -> str:
    if isinstance(value, bool):
        return _is_boolean(column, value)
    if isinstance(value, str):
        native = _native(column, value)
        return f"{column.typed} = {native}" if native else f"{_as_text(column)} = {text(value)}"
    assert isinstance(value, int | float)
    return _equals_number(column, value)


def _ordered(source: Source, column: Column, named: str, value: Any) -> str:
    if isinstance(value, str):
        native = _native(column, value)
        return f"{column.typed} {named} {native}" if native else f"{_as_text(column)} {named} {text(value)}"
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


def _is_texts(column: Column) -> bool:
    return column.is_text or column.kind not in ("date", "timestamp")


def _as_text(column: Column) -> str:
    return column.cell if column.is_text else f"CAST({column.cell} AS VARCHAR)"


def _native(column: Column, value: str) -> str:
    """SQL of a text as the date or time that a column holds by its own type or the task's; empty where texts are compared."""
    if column.kind not in ("date", "timestamp") or (column.is_text and column.written != column.typed):
        return ""
    if not re.fullmatch(r"[0-9]{4,}-[0-9]{2}-[0-9]{2}([T ][0-9:.]+(Z|[+-][0-9:]+)?)?", value.strip()):
        raise Permanent(
            f"column {column.name[:200]!r} holds values of type {column.kind}: compare it with a date such as 2026-01-31, not "
            f"{value[:60]!r}"
        )
    return f"CAST({text(value.strip())} AS TIMESTAMP)"


def _is_boolean(column: Column, value: bool) -> str:
    if not column.is_text:
        return f"{column.cell} = {str(value).lower()}" if column.kind == "boolean" else "false"
    return f"lower({trimmed(column.cell)}) IN {_YES if value else _NO}"


def _equals_number(column: Column, value: int | float) -> str:
    """SQL: whether a value is exactly this number. In a column of other texts, too, some may be."""
    if column.scale is not None:
        exact = _exact(value)
        return f"{column.number} = {_literal(exact, column.scale)}" if _fits(exact, column.scale) else f"({column.cell} IS NULL AND NULL)"
    double = f"CAST({text(repr(value))} AS DOUBLE)"
    if column.number:
        return f"{column.number} = {double}"
    if not column.is_text:
        return "false"
    plain = column.marks.plain(column.cell)
    digits = f"ltrim({plain}, '+')"
    digits = f"CASE WHEN contains({digits}, '.') THEN rtrim(rtrim({digits}, '0'), '.') ELSE {digits} END"
    digits = f"regexp_replace(regexp_replace({digits}, '^(-?)[.]', '\\10.'), '^-?0?$', '0')"
    exact = f"{digits} = {text(_shown(_exact(value)))}"
    same = f"CASE WHEN contains(lower({plain}), 'e') THEN TRY_CAST({plain} AS DOUBLE) = {double} ELSE {exact} END"
    return f"({column.marks.test(column.cell)} AND {same})"


def _ordered_number(column: Column, named: str, value: int | float) -> str:
    """SQL: whether a value lies so beside a number. One with more digits than the column has lies between two of the column's."""
    if column.scale is None:
        return f"{column.number} {named} CAST({text(repr(value))} AS DOUBLE)"
    exact = _exact(value)
    if exact.adjusted() + 1 + column.scale > MAX_DIGITS:
        return f"({column.number} IS NOT NULL AND {str((exact > 0) == (named in ('<', '<='))).lower()})"
    if not _fits(exact, column.scale):
        exact = exact.quantize(Decimal(1).scaleb(-column.scale), rounding=ROUND_FLOOR, context=_CONTEXT)
        named = "<=" if named in ("<", "<=") else ">"
    return f"{column.number} {named} {_literal(exact, column.scale)}"


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
