"""What JSON cannot hold is refused with its place and what to do; what it can hold stays as it was."""

from __future__ import annotations

import asyncio
import collections
import concurrent.futures
import datetime
import decimal
import enum
import io
import itertools
import json
import threading
import types
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch.model.result import MAX_DEPTH, ResultRefused, as_json


class Colour(enum.Enum):
    RED = 1


class Size(enum.IntEnum):
    LARGE = 3


class Word(enum.StrEnum):
    YES = "yes"


class Point(NamedTuple):
    x: int
    y: int


class Model(pydantic.BaseModel):
    x: int = 1


class Text(str):
    __slots__ = ()


@dataclass
class Inner:
    value: Any


@dataclass
class Outer:
    inner: Inner
    rest: list[Any] = field(default_factory=list)


class Broken(dict[str, Any]):
    def items(self) -> Any:
        raise RuntimeError("gone")


class Panic(BaseException):
    pass


class Panicking(dict[str, Any]):
    def items(self) -> Any:
        raise Panic("rust")


class Scalar:
    """As numpy's numbers are."""

    def tolist(self) -> int:
        return 1


def generator() -> Iterator[int]:
    yield 1


async def later() -> int:
    return 1


async def stream() -> AsyncIterator[int]:
    yield 1


def circle() -> list[Any]:
    one: list[Any] = []
    one.append({"again": one})
    return one


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (None, "null"),
        ("", '""'),
        (True, "true"),
        (10**400, str(10**400)),
        (Word.YES, '"yes"'),
        (Size.LARGE, "3"),
        (Text("a"), '"a"'),
        (Point(1, 2), "[1,2]"),
        ((1, (2,)), "[1,[2]]"),
        ({1: "a", None: "b", 2.5: "c", False: "d"}, '{"1":"a","null":"b","2.5":"c","false":"d"}'),
        ({Word.YES: 1}, '{"yes":1}'),
        (collections.Counter("aa"), '{"a":2}'),
        (Outer(Inner(1), [Inner("b")]), '{"inner":{"value":1},"rest":[{"value":"b"}]}'),
    ],
)
def test_what_json_holds_is_written(value: Any, written: str) -> None:
    assert as_json(value) == written


def test_as_deep_as_readers_can_go() -> None:
    assert json.loads(as_json(nested(MAX_DEPTH)))
    assert as_json([[]] * 1000)
    with pytest.raises(ResultRefused, match="nested more than 100 deep: flatten"):
        as_json(nested(MAX_DEPTH + 1))


REFUSED: dict[str, tuple[Callable[[], Any], str, str]] = {
    "a generator": (generator, "TypeError", "the handler returned a generator, so nothing ran: return a result, or list(...) it"),
    "a generator inside": (lambda: {"rows": generator()}, "TypeError", "result['rows'] is a generator, so nothing ran"),
    "a map": (lambda: map(str, [1]), "TypeError", "the handler returned a map, so nothing ran"),
    "a filter": (lambda: filter(None, [1]), "TypeError", "the handler returned a filter, so nothing ran"),
    "an iterator": (itertools.count, "TypeError", "the handler returned a count, so nothing ran"),
    "an async generator": (stream, "TypeError", "the handler returned an async_generator, so nothing ran: return a result"),
    "a coroutine": (later, "TypeError", "the handler returned a coroutine that nothing awaited, so nothing ran: await it"),
    "a coroutine inside": (lambda: [1, later()], "TypeError", "result[1] is a coroutine that nothing awaited"),
    "a future": (concurrent.futures.Future, "TypeError", "the handler returned a Future: "),
    "a function": (lambda: len, "TypeError", "the handler returned a builtin_function_or_method: "),
    "a class": (lambda: Model, "TypeError", "the handler returned a class: "),
    "a lock": (threading.Lock, "TypeError", "the handler returned a lock: return texts, numbers"),
    "a file": (io.BytesIO, "TypeError", "the handler returned a BytesIO, an open file: "),
    "an error": (lambda: ValueError("no"), "TypeError", "the handler returned a ValueError (no): raise it"),
    "an error inside": (lambda: [KeyError("no")], "TypeError", "result[0] is a KeyError ('no'): raise it"),
    "a date": (lambda: {"when": datetime.date(2026, 1, 1)}, "TypeError", "result['when'] is a date: .*; e.g. value.isoformat()"),
    "a set": (lambda: {1}, "TypeError", "the handler returned a set: .*; e.g. sorted(value)"),
    "bytes": (lambda: {"a": [b"x"]}, "TypeError", "result['a'][0] is bytes: return a text, e.g. value.decode()"),
    "a mapping": (lambda: types.MappingProxyType({}), "TypeError", "the handler returned a mappingproxy: .*; e.g. dict(value)"),
    "a decimal": (lambda: decimal.Decimal(1), "TypeError", "the handler returned a Decimal: .*; e.g. str(value)"),
    "a uuid": (lambda: uuid.UUID(int=1), "TypeError", "the handler returned a UUID: .*; e.g. str(value)"),
    "a path": (lambda: PurePosixPath("a"), "TypeError", "the handler returned a PurePosixPath: .*; e.g. str(value)"),
    "an enum": (lambda: Colour.RED, "TypeError", "the handler returned a Colour: .*; e.g. value.value"),
    "a model": (Model, "TypeError", 'the handler returned a Model: .*; e.g. value.model_dump(mode="json")'),
    "a number of numpy's": (lambda: [Scalar()], "TypeError", "result[0] is a Scalar: .*; e.g. value.tolist()"),
    "a field": (lambda: Outer(Inner({2})), "TypeError", "result.inner.value is a set: "),
    "a field that cannot be copied": (lambda: Inner(threading.Lock()), "TypeError", "result.value is a lock: "),
    "an object": (object, "TypeError", "the handler returned an object: return texts, numbers, true or false, None, and lists and dicts"),
    "nan": (lambda: {"score": float("nan")}, "ValueError", "result['score'] is nan, which JSON does not have: return None, or a text"),
    "infinity": (lambda: float("-inf"), "ValueError", "the handler returned -inf, which JSON does not have"),
    "too many digits": (lambda: [10**6000], "ValueError", "result[0] is a number of too many digits"),
    "a circle": (circle, "ValueError", "result[0]['again'] contains itself"),
    "too deep": (lambda: nested(100_000), "ValueError", "the handler returned lists and dicts that are nested more than 100 deep"),
    "a key": (lambda: {"a": {(1, 2): 3}}, "TypeError", "result['a'] has the key (1, 2), a tuple: keys must be texts"),
    "keys that collide": (lambda: {1: "a", "1": "b"}, "ValueError", "result has two keys that are '1' in JSON, 1 and '1': rename one"),
    "a dict that panics": (
        lambda: Panicking(a=1),
        "TypeError",
        "the handler returned a Panicking that cannot be written as JSON (Panic: rust)",
    ),
    "a dict that fails": (
        lambda: Broken(a=1),
        "TypeError",
        "the handler returned a Broken that cannot be written as JSON (RuntimeError: gone)",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_json_cannot_hold_is_refused_with_its_place(name: str) -> None:
    make, error_type, reason = REFUSED[name]
    with pytest.raises(ResultRefused) as refused:
        as_json(make())
    assert type(refused.value.error).__name__ == error_type
    text, start, end = str(refused.value), *(*reason.split(".*"), "")[:2]
    assert text.startswith(start)
    assert end in text


def test_a_future_of_asyncio_is_to_be_awaited() -> None:
    async def give() -> Any:
        return asyncio.get_running_loop().create_future()

    with pytest.raises(ResultRefused, match="the handler returned a Future: await it"):
        as_json(asyncio.run(give()))


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=3)
    | st.binary(max_size=2)
    | st.sets(st.integers(), max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2) | st.integers() | st.none(), inner, max_size=3),
    max_leaves=6,
)


@given(anything)
def test_a_value_is_refused_or_comes_back_as_json_has_it(value: Any) -> None:
    try:
        text = as_json(value)
    except ResultRefused as refused:
        assert isinstance(refused.error, TypeError | ValueError)  # noqa: PT017 - a refusal is as good as a text
    else:
        assert "\n" not in text
        assert json.loads(text) == json.loads(json.dumps(value))
