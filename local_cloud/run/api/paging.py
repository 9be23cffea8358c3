"""Pages of a list, for both versions of the API.

A token names the last item of its page and not a number of items: an item that is added or removed between two pages neither repeats nor
hides the others.
"""

from __future__ import annotations

import base64
import bisect
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeVar

from local_cloud.run.spec.errors import ApiError

MAX_PAGE_SIZE = 1000
DEFAULT_PAGE_SIZE = 100

Item = TypeVar("Item")
Position = list[str | int]


def page(items: Sequence[Item], size: str, token: str, position: Callable[[Item], Position]) -> tuple[Sequence[Item], str]:
    """One page and the next page's token, empty on the last one. `items` are sorted by `position`; `size` and `token` come
    from the query, empty where absent. Raises ApiError INVALID_ARGUMENT."""
    begin = _begin(items, token, position) if token else 0
    end = begin + _size(size)
    found = items[begin:end]
    next_token = base64.urlsafe_b64encode(json.dumps(position(found[-1])).encode()).decode() if end < len(items) else ""
    return found, next_token


def _begin(items: Sequence[Item], token: str, position: Callable[[Item], Position]) -> int:
    """The index behind the last item of the page before."""
    with suppress(ValueError, TypeError):  # TypeError: the token of another list, whose positions are of other types
        last = json.loads(base64.urlsafe_b64decode(token))
        if isinstance(last, list):
            return bisect.bisect_right(items, last, key=position)
    text = f"page token {token!r} is not one that this server gave out for this list; list from the beginning"
    raise ApiError("INVALID_ARGUMENT", text)


def _size(text: str) -> int:
    try:
        size = int(text or 0)
    except ValueError:
        size = -1
    if size < 0:
        raise ApiError("INVALID_ARGUMENT", f"page size: got {text!r}, must be a whole number, 0 or more")
    return min(size or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)
