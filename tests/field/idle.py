"""Handlers whose result is none, in a module that a child can import: nothing ran, or JSON cannot hold what they return."""

from __future__ import annotations

import asyncio
import concurrent.futures
import datetime
import decimal
import functools
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tests.field.kinds import End, in_children

DEAD = "dead"


@dataclass
class Report:
    rows: int
    parts: list[Any]


def rows() -> Iterator[int]:
    yield 1


async def stream() -> AsyncIterator[int]:
    yield 1


def circle() -> list[Any]:
    one: list[Any] = []
    one.append(one)
    return one


def deep() -> Any:
    value: Any = []
    for _ in range(200_000):
        value = [value]
    return value


def future() -> Any:
    return concurrent.futures.Future()


CASES: dict[str, tuple[Callable[[], Any], End]] = {
    "a generator": (rows, (DEAD, "TypeError", "the handler returned a generator, so nothing ran: return a result, or list(...) it")),
    "a generator of a partial": (functools.partial(rows), (DEAD, "TypeError", "the handler returned a generator, so nothing ran")),
    "an async generator": (stream, (DEAD, "TypeError", "the handler returned an async_generator, so nothing ran: return a result")),
    "a map": (lambda: map(str, [1]), (DEAD, "TypeError", "the handler returned a map, so nothing ran")),
    "a generator inside": (lambda: {"rows": rows()}, (DEAD, "TypeError", "result['rows'] is a generator, so nothing ran")),
    "a coroutine inside": (lambda: [asyncio.sleep(0)], (DEAD, "TypeError", "result[0] is a coroutine that nothing awaited")),
    "a future": (future, (DEAD, "TypeError", "the handler returned a Future: ")),
    "a function": (lambda: rows, (DEAD, "TypeError", "the handler returned a function: ")),
    "a lock": (threading.Lock, (DEAD, "TypeError", "the handler returned a lock: return texts, numbers")),
    "an error inside": (lambda: [ValueError("no")], (DEAD, "TypeError", "result[0] is a ValueError (no): raise it")),
    "a time": (lambda: {"when": datetime.datetime.now(datetime.UTC)}, (DEAD, "TypeError", "result['when'] is a datetime: return texts")),
    "bytes": (lambda: b"x", (DEAD, "TypeError", "the handler returned bytes: return a text, e.g. value.decode()")),
    "a set": (lambda: Report(1, [{2}]), (DEAD, "TypeError", "result.parts[0] is a set: ")),
    "a decimal": (lambda: decimal.Decimal(1), (DEAD, "TypeError", "the handler returned a Decimal: ")),
    "nan": (lambda: {"score": float("nan")}, (DEAD, "ValueError", "result['score'] is nan, which JSON does not have")),
    "a key": (lambda: {(1, 2): 3}, (DEAD, "TypeError", "result has the key (1, 2), a tuple: keys must be texts")),
    "keys that collide": (lambda: {1: "a", "1": "b"}, (DEAD, "ValueError", "result has two keys that are '1' in JSON")),
    "a circle": (circle, (DEAD, "ValueError", "result[0] contains itself")),
    "too deep": (deep, (DEAD, "ValueError", "the handler returned lists and dicts that are nested more than 100 deep")),
    "too many digits": (lambda: 10**6000, (DEAD, "ValueError", "the handler returned a number of too many digits")),
    "nothing": (lambda: None, ("succeeded", "", "")),
    "an empty text": (lambda: "", ("succeeded", "", "")),
    "a dataclass": (lambda: Report(1, ["a"]), ("succeeded", "", "")),
    "numbers as keys": (lambda: {1: "a"}, ("succeeded", "", "")),
    "half a character": (lambda: {"a": "half \ud83d"}, ("succeeded", "", "")),
    "too large": (lambda: ["x" * 100_000], ("succeeded", "", "")),
}
RESULTS = {
    "nothing": None,
    "an empty text": None,
    "a dataclass": {"rows": 1, "parts": ["a"]},
    "numbers as keys": {"1": "a"},
    "half a character": {"a": r"half \ud83d"},
}


def act(case: str) -> Any:
    return CASES[case][0]()


in_children("idle", act)
