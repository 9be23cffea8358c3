"""Several calls of services at a time, for rooms that have a list of things to ask about."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
U = TypeVar("U")


def together(call: Callable[[T], U], items: Iterable[T], at_a_time: int, name: str) -> list[U]:
    """The results in order, from threads called `name`. After the first error no more calls are begun; it is raised when those that are
    under way have ended."""
    items = list(items)
    if len(items) < 2:
        return [call(item) for item in items]
    pool = ThreadPoolExecutor(min(at_a_time, len(items)), thread_name_prefix=name)
    try:
        return list(pool.map(call, items))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
