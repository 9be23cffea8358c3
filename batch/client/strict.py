"""JSON of clients, read strictly: what parsers read differently (a name twice, NaN, very deep nesting) is a problem, not a guess."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

MAX_DEPTH = 100
"""Objects and arrays within each other: a worker reads the message again, with less room on its stack."""


class Strict:
    """Reads values, and notes what is wrong with the last one. Not for several threads."""

    def __init__(self) -> None:
        self._problems: list[str] = []
        self._decoder = json.JSONDecoder(object_pairs_hook=self._object, parse_constant=self._constant)

    def value(self, text: str, at: int = 0) -> tuple[Any, int, str]:
        """The value that begins at `at`, where it ends, and what is wrong with it, if anything. Raises ValueError, RecursionError."""
        self._problems.clear()
        value, end = self._decoder.raw_decode(text, at)
        if text.count("{", at, end) + text.count("[", at, end) > MAX_DEPTH and _deeper(value, MAX_DEPTH):
            self._problems.append(f"it is nested more than {MAX_DEPTH} deep")
        return value, end, self._problems[0] if self._problems else ""

    def whole(self, data: bytes) -> Any:
        """The only value in `data`. Raises ValueError, RecursionError."""
        text = data.decode(json.detect_encoding(data), "surrogatepass").strip(" \t\r\n")
        value, end, problem = self.value(text)
        if problem or end != len(text):
            raise ValueError(problem or f"Extra data: char {end}")
        return value

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
            self._problems.append(f"the name {twice[:80]!r} stands twice in one object")
        return found

    def _constant(self, name: str) -> None:
        self._problems.append(f"{name} is no JSON number")


def _deeper(value: Any, depth: int) -> bool:
    level = [value]
    for _ in range(depth):
        level = [inner for one in level if isinstance(one, dict | list) for inner in (one.values() if isinstance(one, dict) else one)]
    return any(isinstance(one, dict | list) for one in level)
