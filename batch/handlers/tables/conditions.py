"""Conditions on the cells of a row: the small grammar that `filter` takes. Data only, never an expression that is evaluated.

A number in a condition compares as numbers do, exactly, a text as texts do, letter by letter. A missing (blank) cell fulfils `is_missing`
and nothing else, so that no row is chosen for what it does not say.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from batch.handlers.contract import ColumnName
from batch.handlers.tables.cells import number
from batch.handlers.tables.table import Row, Table
from batch.model.errors import Permanent

MAX_TEXT_CHARS = 10_000
MAX_CHOICES = 1000
Operator = Literal["=", "!=", "<", "<=", ">", ">=", "in", "contains", "is_missing"]
Holds = Callable[[str], bool]
"""Whether a cell that is not missing fulfils a condition. Raises ValueError for one that cannot be compared."""

_ORDERS: dict[str, Callable[[Any, Any], bool]] = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
_BOOLEANS = {"true": True, "yes": True, "false": False, "no": False}


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


def chooser(table: Table, conditions: Sequence[Condition]) -> Callable[[int, Row], bool]:
    """Whether a row, given with its number from 1, fulfils all conditions. Raises Permanent for a column that the table does not have, and,
    when a row is asked for, for a cell that cannot be compared."""
    tests = [(one, table.index(one.column), _holds(one)) for one in conditions]

    def chosen(row_number: int, cells: Row) -> bool:
        for condition, place, holds in tests:
            cell = cells[place]
            missing = not cell.strip()
            if condition.operator == "is_missing":
                fulfilled = missing is (condition.value is not False)
            else:
                try:
                    fulfilled = not missing and holds(cell)
                except ValueError as error:
                    where = f"{table.name}, row {row_number}: column {condition.column[:200]!r}"
                    raise Permanent(
                        f"{where} holds {cell[:60]!r}, which is not a number; {condition.operator!r} compares numbers"
                    ) from error
            if not fulfilled:
                return False
        return True

    return chosen


def _holds(condition: Condition) -> Holds:
    value, named = condition.value, condition.operator
    if named == "contains":
        return lambda cell: value in cell
    if named == "in":
        choices = [_equals(one) for one in value]
        return lambda cell: any(equals(cell) for equals in choices)
    if named in ("=", "!="):
        equals = _equals(value)
        return equals if named == "=" else lambda cell: not equals(cell)
    return _ordered(_ORDERS.get(named, operator.eq), value)


def _ordered(order: Callable[[Any, Any], bool], value: Any) -> Holds:
    if isinstance(value, str):
        return lambda cell: order(cell, value)
    return lambda cell: order(_demanded(cell), value)


def _equals(value: object) -> Holds:
    if isinstance(value, bool):
        return lambda cell: _BOOLEANS.get(cell.strip().lower()) is value
    if isinstance(value, str):
        return lambda cell: cell == value
    return lambda cell: _exact(cell) == value


def _demanded(cell: str) -> int | float:
    """Raises ValueError unless it is a number."""
    value = _exact(cell)
    if value is None:
        raise ValueError(cell)
    return value


def _exact(cell: str) -> int | float | None:
    """The number that a cell holds, whole ones exactly, however long: ids must not be rounded to a double. None for anything else."""
    value = number(cell)
    if value is None or not value.is_integer():
        return value
    try:
        return int(cell)
    except ValueError:
        return value


def _wrong_value(named: Operator, value: object) -> str:
    """What is needed instead; empty when the value will do."""
    if named == "is_missing":
        return "" if value is None or isinstance(value, bool) else "true or false"
    if named == "in":
        fits = isinstance(value, list | tuple) and 1 <= len(value) <= MAX_CHOICES and all(map(_is_value, value))
        return "" if fits else f"a list of 1 to {MAX_CHOICES} numbers and texts"
    if named == "contains":
        fits = isinstance(value, str) and 1 <= len(value) <= MAX_TEXT_CHARS
        return "" if fits else f"a text of 1 to {MAX_TEXT_CHARS} characters"
    if named in _ORDERS:
        if isinstance(value, str) and number(value) is not None:
            return f"a number without quotes: {value.strip()}"
        return "" if _is_value(value) and not isinstance(value, bool) else "a number or a text"
    return "" if _is_value(value) else "a number, a text, true or false; for missing values use 'is_missing'"


def _is_value(value: object) -> bool:
    if isinstance(value, str):
        return len(value) <= MAX_TEXT_CHARS
    return isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))
