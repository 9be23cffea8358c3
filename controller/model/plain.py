"""Values from JSON, checked: Python's own reader lets NaN, infinities, booleans and wrong kinds through."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from math import isfinite
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

T = TypeVar("T")


def whole(value: object) -> int:
    """A count, 0 or more. Raises ValueError."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{value!r:.100} where a count is expected")
    return value


def finite(value: float | str) -> float:
    """A finite number. Raises ValueError."""
    number = float(value)
    if not isfinite(number):
        raise ValueError(f"{number} where a number is expected")
    return number


def read(kind: type[T], body: Any) -> T:
    """The dataclass from its `asdict` as JSON, or from a list of its fields in their order. Fields that are the wanted dataclass already
    are taken as they are. Raises KeyError, TypeError or ValueError on anything else."""
    hints = _hints(kind)  # type: ignore[arg-type]  # a class is hashable
    if isinstance(body, list):
        body = dict(zip(hints, body, strict=True))
    return kind(**{name: _value(hint, body[name]) for name, hint in hints.items()})


@cache
def _hints(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {one.name: hints[one.name] for one in fields(kind)}


def _value(hint: Any, found: Any) -> Any:
    origin, parts = get_origin(hint), get_args(hint)
    if origin is UnionType:
        return None if found is None else _value(parts[0], found)
    if origin is tuple and parts[-1] is ...:
        return tuple(_value(parts[0], one) for one in found)
    if origin is tuple:
        return tuple(_value(part, one) for part, one in zip(parts, found, strict=True))
    if is_dataclass(hint):
        return found if isinstance(found, hint) else read(hint, found)  # type: ignore[arg-type]
    parse: Any = {int: whole, float: finite, Mapping: dict}.get(origin or hint, hint)
    return parse(found)
