"""YAML documents: read from a text, and checked to be such as can travel as JSON: a tree of plain values with texts for names.

Whatever a file holds, what is wrong comes out as lines for a person, never as an exception of the parser's.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import isfinite
from typing import Any

import yaml

from batch.model.errors import SettingsError

MAX_DEPTH = 50
MAX_VALUES = 100_000


def documents(text: str) -> list[Any]:
    """The documents of a text, without empty ones. Raises SettingsError."""
    try:
        return [document for document in yaml.safe_load_all(text) if document is not None]
    except (yaml.YAMLError, ValueError) as error:
        raise SettingsError([f"not YAML: {' '.join(str(error).split())}"]) from error
    except RecursionError as error:
        raise SettingsError([f"nested more than {MAX_DEPTH} levels deep"]) from error


def odd_values(where: str, document: object) -> list[str]:
    """A line for each name that is no text and each value that JSON does not know. Raises SettingsError for what is no tree of a
    reasonable size."""
    return list(_Walk(where).odd("", document, ()))


class _Walk:
    """Anchors let a small file stand for an endless document, so depth and number of values are bounded."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._seen_count = 0

    def odd(self, path: str, node: object, above: tuple[int, ...]) -> Iterator[str]:
        self._seen_count += 1
        if id(node) in above:
            raise SettingsError([f"{self._where}: {path}: an anchor that holds itself: write its content out"])
        if len(above) > MAX_DEPTH:
            raise SettingsError([f"{self._where}: {path[:100]}…: nested more than {MAX_DEPTH} levels deep"])
        if self._seen_count > MAX_VALUES:
            raise SettingsError([f"{self._where}: more than {MAX_VALUES} values, with those that anchors repeat"])
        if isinstance(node, dict):
            for key, value in node.items():
                if not isinstance(key, str):
                    yield f"{self._where}: {path or 'document'}: the name {in_yaml(key)} {must_be_text(key)}"
                yield from self.odd(f"{path}.{key}" if path else f"{key}", value, (*above, id(node)))
        elif isinstance(node, list):
            for at, value in enumerate(node):
                yield from self.odd(f"{path}[{at}]", value, (*above, id(node)))
        elif not isinstance(node, str | int | None) and not (isinstance(node, float) and isfinite(node)):
            yield f"{self._where}: {path}={in_yaml(node)}: {must_be_text(node)}"


def in_yaml(value: object) -> str:
    """A value as its author wrote it, as far as can be told."""
    if isinstance(value, bool):
        return str(value).lower()
    return "null" if value is None else repr(value)[:200]


def must_be_text(value: object) -> str:
    """The rule, and what to write instead."""
    if value is None:
        return 'must be a text; write "" for an empty one, or leave it out'
    if isinstance(value, list | dict | set | bytes | tuple):
        return "must be a text"
    text = in_yaml(value) if isinstance(value, bool) else str(value)[:200]
    return f'must be a text; write "{text}" in quotes'
