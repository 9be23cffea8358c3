"""What a handler returned, as JSON. A value that JSON cannot hold is refused with its place and what to do, never described: the text of
a generator or a lock would be recorded as the success of work that never ran.
"""

from __future__ import annotations

import inspect
import io
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import fields, is_dataclass
from itertools import chain
from types import CoroutineType
from typing import Any

from batch.model.errors import FanoutError, text_of
from batch.model.texts import class_name

MAX_DEPTH = 100
"""Lists and dicts in each other. Readers of outcomes must be able to go as deep."""
MAX_PLACE_CHARS = 120
_TEXTS = frozenset({str})
"""What keys are, as a rule: two that are of different types may be the same in JSON. Keys further inside are not looked at for that."""
_ALLOWED = "return texts, numbers, true or false, None, and lists and dicts of them"


class ResultRefused(FanoutError):
    """A result that JSON cannot hold. The attempt fails with `error`, a TypeError or a ValueError: it says where, and what to do."""

    def __init__(self, error: TypeError | ValueError) -> None:
        self.error = error
        super().__init__(str(error))


def as_json(result: Any) -> str:
    """One line of JSON. Dataclasses become objects, keys that are numbers become texts. Raises ResultRefused."""
    try:
        text = _JSON.encode(result)
        odd = isinstance(result, dict) and not _TEXTS.issuperset(map(type, result))
        odd = odd or (text.count("{") + text.count("[") > MAX_DEPTH and _is_too_deep(result))
        wrong = _wrong(result, "", ()) if odd else None
    except BaseException as error:  # noqa: BLE001 - encoding calls user code: properties, `items()` of odd dicts
        wrong = _wrong_of(result, error)
    if wrong is not None:
        raise ResultRefused(wrong)
    return text


def _is_too_deep(value: Any) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH):
        parts = chain.from_iterable(one.values() if isinstance(one, dict) else one for one in level)
        level = [one for one in parts if isinstance(one, dict | list | tuple)]
        if not level:
            return False
    return True


def _plain(value: Any) -> dict[str, Any]:
    if not is_dataclass(value) or isinstance(value, type | BaseException):
        raise TypeError
    return {one.name: getattr(value, one.name) for one in fields(value)}


_JSON = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=_plain)


def _wrong_of(result: Any, error: BaseException) -> TypeError | ValueError:
    try:
        found = _wrong(result, "", ())
    except BaseException as other:  # noqa: BLE001 - as above
        error, found = other, None
    why = f"{class_name(error)}: {text_of(error)}"
    return found or TypeError(f"the handler returned {_a(result)} that cannot be written as JSON ({why}): {_ALLOWED}")


def _wrong(value: Any, place: str, above: tuple[int, ...]) -> TypeError | ValueError | None:
    """The first part of a result that is no JSON; `above` are the ids of what it stands in."""
    if id(value) in above:
        return ValueError(f"{_named(place)} contains itself: return a copy without the circle")
    if len(above) >= MAX_DEPTH and not isinstance(value, str | int | float | None):
        return ValueError(f"the handler returned lists and dicts that are nested more than {MAX_DEPTH} deep: flatten them")
    parts: Iterator[tuple[str, Any]]
    if isinstance(value, dict):
        wrong = _wrong_key(value, place)
        if wrong is not None:
            return wrong
        parts = ((f"{place}[{key!r:.40}]", one) for key, one in value.items())
    elif isinstance(value, list | tuple):
        parts = ((f"{place}[{number}]", one) for number, one in enumerate(value))
    elif is_dataclass(value) and not isinstance(value, type | BaseException):
        parts = ((f"{place}.{one.name}", getattr(value, one.name)) for one in fields(value))
    else:
        return _wrong_leaf(value, place)
    inside = (*above, id(value))
    return next((wrong for name, one in parts if (wrong := _wrong(one, name, inside)) is not None), None)


def _wrong_key(value: dict[Any, Any], place: str) -> TypeError | ValueError | None:
    seen: dict[str, Any] = {}
    for key in value:
        if not isinstance(key, str | int | float | None):
            return TypeError(f"{_named(place)} has the key {key!r:.40}, {_a(key)}: keys must be texts")
        text = key if isinstance(key, str) else json.loads(_JSON.encode({key: 0}).removesuffix(":0}").removeprefix("{"))
        if text in seen:
            return ValueError(f"{_named(place)} has two keys that are {text!r:.40} in JSON, {seen[text]!r:.40} and {key!r:.40}: rename one")
        seen[text] = key
    return None


def _wrong_leaf(value: Any, place: str) -> TypeError | ValueError | None:
    if value is None or isinstance(value, str):
        return None
    if isinstance(value, float):
        return None if value - value == 0 else ValueError(f"{_said(place)} {value}, which JSON does not have: return None, or a text")
    if isinstance(value, int):
        try:
            _JSON.encode(value)
        except ValueError:
            return ValueError(f"{_said(place)} a number of too many digits: return a text, e.g. hex(value)")
        return None
    return TypeError(f"{_said(place)} {_a(value)}{_advice(value)}")


def _advice(value: Any) -> str:
    """What to do instead: `: …` or `, so …: …`."""
    if isinstance(value, CoroutineType):
        if inspect.getcoroutinestate(value) == inspect.CORO_CREATED:
            value.close()  # or Python warns of it once more
        return " that nothing awaited, so nothing ran: await it, or make the handler itself async"
    if isinstance(value, Awaitable):
        return ": await it, and return what it gives"
    if isinstance(value, BaseException):
        return f" ({text_of(value):.200}): raise it"
    if isinstance(value, io.IOBase):
        return ", an open file: return what stands in it, or put it into the bucket with ctx.write and return its name"
    if isinstance(value, Iterator | AsyncIterator):
        how = "list(...) it" if isinstance(value, Iterator) else "what its steps give, as a list"
        return f", so nothing ran: return a result, or {how}"
    if isinstance(value, bytes | bytearray | memoryview):
        return ": return a text, e.g. value.decode(), or put it into the bucket with ctx.write and return its name"
    return next((f": {_ALLOWED}; e.g. {told}" for fits, told in _TELLING if fits(value)), f": {_ALLOWED}")


def _has(name: str) -> Callable[[Any], bool]:
    return lambda value: not isinstance(value, type) and callable(getattr(type(value), name, None))


_TELLING: tuple[tuple[Callable[[Any], bool], str], ...] = (
    (_has("isoformat"), "value.isoformat()"),
    (_has("tolist"), "value.tolist()"),
    (_has("model_dump"), 'value.model_dump(mode="json")'),
    (_has("result"), "value.result()"),
    (lambda value: isinstance(value, set | frozenset), "sorted(value)"),
    (lambda value: type(value).__module__ == "enum" or hasattr(type(value), "__members__"), "value.value"),
    (lambda value: callable(value) and not isinstance(value, type), "what a call of it gives"),
    (_has("keys"), "dict(value)"),
    (_has("__iter__"), "list(value)"),
    (lambda value: type(value).__module__ in ("decimal", "fractions", "uuid", "pathlib"), "str(value)"),
)
"""What a value is, and how it becomes JSON; the first that fits."""


def _a(value: Any) -> str:
    name = "class" if issubclass(type(value), type) else class_name(value)
    return name if name == "bytes" else f"{'an' if name[:1] in 'aeiouAEIO' else 'a'} {name}"


def _named(place: str) -> str:
    return f"result{place}" if len(place) <= MAX_PLACE_CHARS else f"result{place[:MAX_PLACE_CHARS]}…"


def _said(place: str) -> str:
    return f"{_named(place)} is" if place else "the handler returned"
