"""What is to happen when a submission has ended, as its client says it: a task for either end, and how many dead tasks are tolerated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from batch.model.errors import MessageRefused
from batch.model.message import short

WEBHOOK = "webhook"
LANE = "lane"
SUBMISSION = "submission"
"""The field of an end's task that says what the submission has come to."""


class End(StrEnum):
    """Which of its two ends a submission has come to."""

    COMPLETE = "on_complete"
    FAILURE = "on_failure"


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How many dead tasks do not make a submission fail: it fails if either limit is exceeded; without any, by the first dead task."""

    count: int | None = None
    percent: float | None = None

    def allows(self, dead_count: int, task_count: int) -> bool:
        """Whether so many dead tasks of so many are tolerated."""
        if self.count is None and self.percent is None:
            return dead_count == 0
        few = self.count is None or dead_count <= self.count
        # A quotient is rounded as the percentage was; a product may fall short of 57 of 10,000 at 0.57 %.
        return few and (self.percent is None or not dead_count or dead_count * 100 / task_count <= self.percent)


@dataclass(frozen=True, slots=True)
class Ends:
    """A task for either end, as its client writes it: `task_type`, its own fields, and `lane` if it is for another lane than the
    submission's; or `webhook`, the address that is told. None: nothing is to happen."""

    on_complete: Mapping[str, Any] | None = None
    on_failure: Mapping[str, Any] | None = None
    tolerate: Tolerance = Tolerance()

    def __bool__(self) -> bool:
        return self.on_complete is not None or self.on_failure is not None

    def come_to(self, dead_count: int, task_count: int) -> End:
        """The end of a submission whose every task has ended."""
        return End.COMPLETE if self.tolerate.allows(dead_count, task_count) else End.FAILURE

    def task(self, end: End) -> Mapping[str, Any] | None:
        """What is to happen at this end."""
        return self.on_complete if end is End.COMPLETE else self.on_failure


NO_ENDS = Ends()


def ends_of(given: Mapping[str, Any]) -> Ends:
    """From JSON values: `on_complete`, `on_failure` and `tolerate` (`count`, `percent`). Raises MessageRefused naming each wrong field;
    the handlers, which are not known here, tell whether a task of theirs is right."""
    problems: dict[str, str] = {}
    tasks = {end: _task(end.value, given.get(end.value), problems) for end in End}
    tolerance = _tolerance(given.get("tolerate"), problems)
    if problems:
        raise MessageRefused("invalid", "; ".join(f"{name} {problem}" for name, problem in problems.items()), tuple(problems))
    return Ends(tasks[End.COMPLETE], tasks[End.FAILURE], tolerance)


def to_json(ends: Ends) -> dict[str, Any]:
    """As `ends_of` reads it; what is not set is left out."""
    tolerate = {name: value for name, value in (("count", ends.tolerate.count), ("percent", ends.tolerate.percent)) if value is not None}
    found = {end.value: dict(task) for end in End if (task := ends.task(end)) is not None}
    return {**found, "tolerate": tolerate} if tolerate else found


def _task(name: str, given: object, problems: dict[str, str]) -> Mapping[str, Any] | None:
    if given is None:
        return None
    if not isinstance(given, dict):
        problems[name] = f'must be an object, {{"task_type": …}} or {{"webhook": "https://…"}}, got {short(given)}'
    elif (WEBHOOK in given) == ("task_type" in given):
        problems[name] = "must name either a task_type or a webhook"
    elif WEBHOOK in given and (not isinstance(given[WEBHOOK], str) or not given[WEBHOOK]):
        problems[f"{name}.{WEBHOOK}"] = f"must be an address, https://…, got {short(given[WEBHOOK])}"
    elif not isinstance(given.get(LANE, ""), str):
        problems[f"{name}.{LANE}"] = f"must be the name of a lane, got {short(given[LANE])}"
    elif SUBMISSION in given:
        problems[f"{name}.{SUBMISSION}"] = "must be left out: it is set when the end is fired"
    else:
        return given
    return None


def _tolerance(given: object, problems: dict[str, str]) -> Tolerance:
    if given is None:
        return Tolerance()
    if not isinstance(given, dict):
        problems["tolerate"] = f'must be an object, {{"count": …, "percent": …}}, got {short(given)}'
        return Tolerance()
    for other in given.keys() - {"count", "percent"}:
        problems[f"tolerate.{other}"] = "is unknown: there are count and percent"
    count, percent = given.get("count"), given.get("percent")
    if count is not None and (type(count) is not int or count < 0):
        problems["tolerate.count"] = f"must be a whole number, 0 or more, got {short(count)}"
    if percent is not None and (type(percent) not in (int, float) or not 0 <= percent <= 100):
        problems["tolerate.percent"] = f"must be from 0 to 100, got {short(percent)}"
    return Tolerance(count, percent) if not problems else Tolerance()
