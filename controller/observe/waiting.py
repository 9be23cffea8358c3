"""What of a lane waits for more than a worker: dead letters for a person, delayed tasks for their time, cancelled ones to be met, ends of
submissions to be fired.

The counts are approximate, as those in the metadata of objects are: they trigger at most a look.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

from batch.dead.selecting import waiting_count
from batch.ends import marks
from batch.handling.cancels import from_json
from batch.model.errors import FanoutError, ObjectMissing
from batch.model.names import cancel_object, delayed_folder
from batch.services.ports import ObjectStore
from controller.model.lane import Lane
from controller.model.together import together

MAX_COUNTED = 10_000
"""No more are counted: ten requests."""
OVERDUE_TIMES = 3
"""An end that was asked for so often, while no more tasks ended, is told: its `fanout.finish` may be dead, or tasks are missing."""
MAX_OVERDUE = 5


@dataclass(frozen=True, slots=True)
class Waiting:
    """Letters that wait in the log, delayed tasks (at most MAX_COUNTED are counted), and ids on the list of what was cancelled that still
    hold; submissions whose end is to be fired, and what to tell of those that are `overdue`. None: unknown, for a reason that stands in
    `problems`."""

    dead_count: int | None = None
    delayed_count: int | None = None
    cancelled_count: int | None = None
    ends_count: int | None = None
    overdue: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


def waiting_of(lane: Lane, store: ObjectStore, now: float) -> Waiting:
    """Counted side by side."""
    problems: list[str] = []
    overdue: list[str] = []

    def count(asked: tuple[str, Callable[[], int]]) -> int | None:
        what, ask = asked
        try:
            return ask()
        except FanoutError as error:
            problems.append(f"how many {what} is unknown: {error}")
            return None

    asked = [
        ("tasks are dead", lambda: waiting_count(store, lane.name)),
        ("tasks are delayed", lambda: sum(1 for _ in islice(store.list(delayed_folder(lane.subscription)), MAX_COUNTED))),
        ("tasks are cancelled", lambda: _cancelled(store, lane.name, now)),
        ("ends are to be fired", lambda: _ends(store, lane, overdue)),
    ]
    dead_count, delayed_count, cancelled_count, ends_count = together(count, asked, len(asked), "waiting")
    return Waiting(dead_count, delayed_count, cancelled_count, ends_count, tuple(overdue[:MAX_OVERDUE]), tuple(sorted(problems)))


def _ends(store: ObjectStore, lane: Lane, overdue: list[str]) -> int:
    count = 0
    for mark in islice(marks.listed(store, lane.name), MAX_COUNTED):
        count += 1
        if mark.told.times >= OVERDUE_TIMES:
            told = f"the end of submission {mark.submission_id} was asked for {mark.told.times} times and is not fired"
            overdue.append(f"{told}: `fanout proof {mark.submission_id}`, `fanout dead ls --lane {lane.policy.callbacks}`")
    return count


def _cancelled(store: ObjectStore, lane: str, now: float) -> int:
    try:
        return sum(one.id_count for one in from_json(store.read(cancel_object(lane))) if one.until > now)
    except ObjectMissing:
        return 0
    except ValueError as error:
        raise FanoutError(f"{cancel_object(lane)} is damaged, so it cancels nothing: {error}; delete it, and cancel again") from error
