"""Schedules of a lane: which task is due when. Pure: cronsim and the rules of the time zone say when.

What a tick runs of the times that came since the last one is the newest, and none that is older than MISSED_S.
"""

from __future__ import annotations

import random
import re
import zoneinfo
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from difflib import get_close_matches
from functools import lru_cache

from batch.client.submit import Refusal, single_message, task_from_line
from batch.model.clock import iso
from batch.model.errors import MessageRefused

MISSED_S = 24 * 3600.0
"""A time that was missed, by a controller that did not run, is made up for within a day."""
FORM = 'a cron expression, a time zone and a task, such as `0 3 * * *; Europe/Berlin; {"task_type": "report"}`'
_NAME = re.compile(r"[a-z]([a-z0-9-]{0,52}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Schedule:
    """A task, as a line of JSON, that is submitted whenever its cron expression says so in its time zone."""

    name: str
    cron: str
    zone: str
    task: str

    @property
    def times(self) -> str:
        """What says when: a schedule that is given another one begins anew."""
        return f"{self.cron}; {self.zone}"


@dataclass(frozen=True, slots=True)
class Scheduled:
    """What the lane's state knows of a schedule. It ran, or began, at `last` (Unix seconds) by `times`; a `task` is due and not known to
    be published, none if it is empty."""

    name: str
    times: str
    last: float
    task: str = ""

    def key(self, lane: str) -> str:
        """The idempotency key of the task that is due: so it has one id, however often it is published."""
        return f"fanout.schedule/{lane}/{self.name}/{iso(self.last)}"


@lru_cache(maxsize=1024)
def schedule_of(name: str, text: str) -> Schedule:
    """A schedule from the name and the text of its annotation. Raises ValueError with every rule that is broken."""
    cron, zone, task = ([part.strip() for part in text.split(";", 2)] + ["", ""])[:3]
    if text.count(";") < 2:
        raise ValueError(FORM)
    found = [
        _name_problem(name),
        zone_problem := _zone_problem(zone),
        _cron_problem(cron, "UTC" if zone_problem else zone),
        _task_problem(task),
    ]
    if problems := [one for one in found if one]:
        raise ValueError("; ".join(problems))
    return Schedule(name, cron, zone, task)


def due(schedule: Schedule, last: float, now: float) -> float | None:
    """The newest time after `last` and until `now` at which it is due, at most MISSED_S ago; Unix seconds."""
    from cronsim import CronSim  # a lane without schedules needs no such library

    newest = None
    for at in CronSim(schedule.cron, datetime.fromtimestamp(max(last, now - MISSED_S), zoneinfo.ZoneInfo(schedule.zone))):
        if (found := at.timestamp()) > now:
            break
        # In the hour that a clock repeats, the library may begin at its first time once more.
        if found > last:
            newest = found
    return newest


def brought_up(schedules: Sequence[Schedule], known: Sequence[Scheduled], now: float) -> tuple[Scheduled, ...]:
    """What is known, with what is due now. A schedule that is new, or has other times, begins with its next time; so does one whose last
    time is further ahead than a clock can be. What was due stays so until it is published, or its schedule is due again."""
    by_name = {one.name: one for one in known}
    found: dict[str, Scheduled] = {}
    for one in schedules:
        before = by_name.get(one.name)
        if before is None or before.times != one.times or before.last > now + MISSED_S:
            found[one.name] = Scheduled(one.name, one.times, now)
        else:
            at = due(one, before.last, now)
            found[one.name] = before if at is None else Scheduled(one.name, one.times, at, one.task)
    return tuple(found.values())


def _name_problem(name: str) -> str:
    return "" if _NAME.fullmatch(name) else f"a schedule's name is lower-case letters, digits and hyphens, at most 54, not {name[:80]!r}"


def _zone_problem(zone: str) -> str:
    try:
        zoneinfo.ZoneInfo(zone)
    except (ValueError, KeyError, OSError):
        near = get_close_matches(zone, zoneinfo.available_timezones(), n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        return f"{zone[:80]!r} is no time zone of the IANA database, such as UTC or Europe/Berlin{hint}"
    return ""


def _cron_problem(cron: str, zone: str) -> str:
    from cronsim import CronSim, CronSimError

    if len(cron.split()) != 5:
        return f"{cron[:80]!r} is no cron expression: minute, hour, day of the month, month and day of the week, such as 0 3 * * *"
    try:
        first = next(CronSim(cron, datetime(2026, 1, 1, tzinfo=zoneinfo.ZoneInfo(zone))), None)
    except (CronSimError, ValueError, TypeError, AssertionError) as error:
        return f"{cron[:80]!r} is no cron expression: {error or 'a field of it is wrong'}"
    return "" if first else f"{cron[:80]!r} never comes"


def _task_problem(task: str) -> str:
    """As for any client: the task is refused here if it could not travel."""
    try:
        new = task_from_line(task.encode("utf-8", "surrogatepass"))
        if isinstance(new, Refusal):
            return f"the task: {new.reason}"
        if new.idempotency_key is not None:
            return "the task: idempotency_key must be left out, it is made from the time that is due"
        single_message(new, lane="default", unix_s=0.0, rng=random.Random(0))
    except MessageRefused as error:
        return f"the task: {error}"
    return ""
