"""Values from JSON, checked: Python's own reader lets NaN, infinities, booleans and wrong kinds through."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
    """The dataclass from what `written` makes of it, or from a list of its fields in their order. Fields that are the wanted dataclass
    already are taken as they are. Raises KeyError, TypeError or ValueError on anything else."""
    found: T = _reader(kind)(body)  # type: ignore[arg-type]  # a class is hashable
    return found


def written(value: Any) -> Any:
    """A dataclass as JSON takes it: as `asdict`, without copying what has no dataclass in it."""
    kind: Any = type(value)
    writer = _writer(kind)
    return value if writer is None else writer(value)


@cache
def _hints(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {one.name: hints[one.name] for one in fields(kind)}


@cache
def _reader(hint: Any) -> Callable[[Any], Any]:
    """Made once for each type, because a state holds hundreds of values."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin is UnionType:
        some = _reader(parts[0])
        return lambda found: None if found is None else some(found)
    if origin is tuple and parts[-1] is ...:
        each = _reader(parts[0])
        return lambda found: tuple([each(one) for one in found])
    if origin is tuple:
        readers = [_reader(part) for part in parts]
        return lambda found: tuple([reader(one) for reader, one in zip(readers, found, strict=True)])
    if is_dataclass(hint):
        return _dataclass_reader(hint)
    parse: Any = {int: whole, float: finite, Mapping: dict}.get(origin or hint, hint)
    return parse  # type: ignore[no-any-return]


def _dataclass_reader(kind: Any) -> Callable[[Any], Any]:
    readers = {name: _reader(hint) for name, hint in _hints(kind).items()}

    def made(body: Any) -> Any:
        if isinstance(body, kind):
            return body
        if isinstance(body, list):
            body = dict(zip(readers, body, strict=True))
        return kind(**{name: reader(body[name]) for name, reader in readers.items()})

    return made


@cache
def _writer(hint: Any) -> Callable[[Any], Any] | None:
    """None: JSON takes the value as it is."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin is UnionType:
        some = _writer(parts[0])
        return None if some is None else lambda value: None if value is None else some(value)
    if origin is tuple:
        each = _writer(parts[0])
        return None if each is None else lambda value: [each(one) for one in value]
    if not is_dataclass(hint):
        return None
    writers = [(name, _writer(part)) for name, part in _hints(hint).items()]  # type: ignore[arg-type]

    def made(value: Any) -> Any:
        return {name: getattr(value, name) if writer is None else writer(getattr(value, name)) for name, writer in writers}

    return made
