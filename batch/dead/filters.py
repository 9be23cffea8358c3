"""Which dead letters an action is about: conditions joined by AND, as a value that the log of dead letters keeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from batch.dead.letters import Letter


@dataclass(frozen=True, slots=True)
class Filter:
    """Of each field a letter has one of the values given; no value is no condition. `died_after` and `died_before` are ISO 8601; `text`
    stands in the message's data, in any case, or in the reason."""

    task_types: tuple[str, ...] = ()
    fingerprints: tuple[str, ...] = ()
    error_types: tuple[str, ...] = ()
    submissions: tuple[str, ...] = ()
    task_ids: frozenset[str] = frozenset()
    died_after: str = ""
    died_before: str = ""
    text: str = ""

    @property
    def is_empty(self) -> bool:
        """Whether it takes every letter."""
        return self == Filter()

    @property
    def needs_contents(self) -> bool:
        """Whether more must be known of a letter than its fingerprint."""
        return self != Filter(fingerprints=self.fingerprints)

    def matches(self, letter: Letter) -> bool:
        """Whether all conditions hold."""
        return (
            (not self.fingerprints or letter.fingerprint in self.fingerprints)
            and (not self.task_types or letter.task_type in self.task_types)
            and (not self.error_types or letter.error_type in self.error_types)
            and (not self.submissions or letter.submission_id in self.submissions)
            and (not self.task_ids or letter.task_id in self.task_ids)
            and (not self.died_after or letter.died_at > self.died_after)
            and (not self.died_before or letter.died_at < self.died_before)
            and (not self.text or self._tells(letter))
        )

    def _tells(self, letter: Letter) -> bool:
        text = self.text.casefold()
        return text in letter.reason.casefold() or text in letter.data.decode("utf-8", "replace").casefold()


def to_json(one: Filter) -> dict[str, Any]:
    """Its conditions alone."""
    given = {of.name: getattr(one, of.name) for of in fields(one)}
    return {name: value if isinstance(value, str) else sorted(value) for name, value in given.items() if value}


def from_json(body: Mapping[str, Any]) -> Filter:
    """Raises ValueError for what `to_json` does not write: a condition that is not known would be none."""
    unknown = body.keys() - {of.name for of in fields(Filter)}
    if unknown:
        raise ValueError(f"a filter of dead letters has no {', '.join(sorted(unknown))}")
    given: dict[str, Any] = {name: value if isinstance(value, str) else tuple(map(str, value)) for name, value in body.items()}
    if "task_ids" in given:
        given["task_ids"] = frozenset(given["task_ids"])
    return Filter(**given)
