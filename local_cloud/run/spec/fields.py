"""Reads JSON objects of clients: each access knows its path and notes what is wrong instead of raising.

All problems of a request are reported at once, each with path, value and rule. A wrong value is replaced by the default; the caller must
call `Problems.raise_if_any` before it uses what was read.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from local_cloud.run.spec.errors import ApiError

_INTEGER = re.compile(r"-?[0-9]{1,18}\Z")


@dataclass
class Problems:
    """What is wrong with one request, as (path, description)."""

    found: list[tuple[str, str]] = field(default_factory=list)

    def add(self, path: str, value: object, rule: str) -> None:
        self.found.append((path, f"{path}: got {value!r}, {rule}"))

    def raise_if_any(self) -> None:
        """Raises ApiError INVALID_ARGUMENT that lists all problems."""
        if self.found:
            raise ApiError("INVALID_ARGUMENT", "; ".join(description for _, description in self.found), self.found)


class Fields:
    """One JSON object of the request, or an empty one where it is absent or something else (then that is a problem)."""

    def __init__(self, value: object, path: str, problems: Problems) -> None:
        self.path = path
        self.problems = problems
        self.raw: Mapping[str, object] = {}
        if isinstance(value, Mapping):
            self.raw = value
        elif value is not None:
            problems.add(path or "the body", value, "must be an object")

    def at(self, key: str) -> str:
        return f"{self.path}.{key}" if self.path else key

    def child(self, key: str) -> Fields:
        return Fields(self.raw.get(key), self.at(key), self.problems)

    def has(self, key: str) -> bool:
        return self.raw.get(key) is not None

    def text(self, key: str, default: str = "") -> str:
        value = self.raw.get(key)
        if value is None:
            return default
        if not isinstance(value, str):
            self.problems.add(self.at(key), value, "must be a string (quote it)")
            return default
        return value

    def count(self, key: str, default: int) -> int:
        """A whole number, or a string that holds one: both occur in the real API's JSON."""
        value = self.raw.get(key)
        if value is None:
            return default
        if isinstance(value, str) and _INTEGER.match(value):
            return int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            self.problems.add(self.at(key), value, "must be a whole number")
            return default
        return value

    def flag(self, key: str) -> bool:
        value = self.raw.get(key)
        if value is not None and not isinstance(value, bool):
            self.problems.add(self.at(key), value, "must be true or false")
        return value is True

    def items(self, key: str) -> list[Fields]:
        return [Fields(value, f"{self.at(key)}[{index}]", self.problems) for index, value in enumerate(self._list(key))]

    def texts(self, key: str) -> tuple[str, ...]:
        found = []
        for index, value in enumerate(self._list(key)):
            if isinstance(value, str):
                found.append(value)
            else:
                self.problems.add(f"{self.at(key)}[{index}]", value, "must be a string (quote it)")
        return tuple(found)

    def text_map(self, key: str) -> dict[str, str]:
        child = self.child(key)
        return {name: child.text(name) for name in child.raw}

    def only(self, known: frozenset[str]) -> None:
        """Note every key that the API does not have: a misspelt one must not pass unnoticed."""
        for key in self.raw:
            if key not in known:
                close = difflib.get_close_matches(key, known, n=1)
                hint = f"; did you mean {close[0]!r}?" if close else ""
                self.problems.add(self.at(key), self.raw[key], f"there is no such field{hint}")

    def _list(self, key: str) -> list[object]:
        value = self.raw.get(key)
        if value is None:
            return []
        if not isinstance(value, list):
            self.problems.add(self.at(key), value, "must be a list")
            return []
        return value
