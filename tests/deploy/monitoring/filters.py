"""The parts of two filter languages that our files use, Cloud Logging's and Cloud Monitoring's: comparisons joined by AND. Anything else is
refused: an evaluator that guesses would prove nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_FIELD = r"[a-zA-Z_][\w.]*"
_TEXT = r'"(?:[^"\\]|\\.)*"'
_EXTRACT = re.compile(rf"EXTRACT\(({_FIELD})\)")


@dataclass(frozen=True, slots=True)
class Comparison:
    """A field, by its path, and the texts that it may have; or a pattern for all of it."""

    field: str
    texts: tuple[str, ...] = ()
    pattern: str = ""

    def holds(self, value: object) -> bool:
        """For the value of the field; None: it has none."""
        if value is None:
            return False
        return bool(re.fullmatch(self.pattern, str(value))) if self.pattern else str(value) in self.texts


def logging_filter(text: str) -> tuple[Comparison, ...]:
    """`a="x" AND b=("y" OR "z")`. Raises ValueError."""
    return tuple(_comparison(part, rf"\(({_TEXT}(?: OR {_TEXT})*)\)", "") for part in _parts(text))


def monitoring_filter(text: str) -> tuple[Comparison, ...]:
    """`a="x" AND b=monitoring.regex.full_match("y|z")`. Raises ValueError."""
    return tuple(_comparison(part, "", rf"monitoring\.regex\.full_match\(({_TEXT})\)") for part in _parts(text))


def _parts(text: str) -> list[str]:
    return [part.strip() for part in re.split(r"\bAND\b", text)]


def _comparison(part: str, several: str, matched: str) -> Comparison:
    if found := re.fullmatch(rf"({_FIELD})\s*=\s*({_TEXT})", part):
        return Comparison(found[1], (_text(found[2]),))
    if several and (found := re.fullmatch(rf"({_FIELD})\s*=\s*{several}", part)):
        return Comparison(found[1], tuple(_text(one) for one in re.findall(_TEXT, found[2])))
    if matched and (found := re.fullmatch(rf"({_FIELD})\s*=\s*{matched}", part)):
        return Comparison(found[1], pattern=_text(found[2]))
    raise ValueError(f"not in the part of the language that is known here: {part}")


def _text(quoted: str) -> str:
    if "\\" in quoted:
        raise ValueError(f"escapes are not known here: {quoted}")
    return quoted[1:-1]


def extracted_field(expression: str) -> str:
    """The field of `EXTRACT(field)`. Raises ValueError."""
    found = _EXTRACT.fullmatch(expression)
    if found is None:
        raise ValueError(f"not an EXTRACT(field): {expression}")
    return found[1]


def value_at(entry: Mapping[str, Any], field: str) -> Any:
    """The value at a path; None where there is none."""
    found: Any = entry
    for name in field.split("."):
        if not isinstance(found, Mapping) or name not in found:
            return None
        found = found[name]
    return found
