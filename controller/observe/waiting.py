"""What of a lane waits for more than a worker: dead letters for a person, delayed tasks for their time, cancelled ones to be met.

The counts are approximate, as those in the metadata of objects are: they trigger at most a look.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

from batch.dead.selecting import waiting_count
from batch.handling.cancels import from_json
from batch.model.errors import FanoutError, ObjectMissing
from batch.model.names import cancel_object, delayed_folder
from batch.services.ports import ObjectStore
from controller.model.lane import Lane
from controller.model.together import together

MAX_DELAYED = 10_000
"""No more are counted: ten requests."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """Letters that wait in the log, delayed tasks (at most MAX_DELAYED are counted), and ids on the list of what was cancelled that still
    hold. None: unknown, for a reason that stands in `problems`."""

    dead_count: int | None = None
    delayed_count: int | None = None
    cancelled_count: int | None = None
    problems: tuple[str, ...] = ()


def waiting_of(lane: Lane, store: ObjectStore, now: float) -> Waiting:
    """Counted side by side."""
    problems: list[str] = []

    def count(asked: tuple[str, Callable[[], int]]) -> int | None:
        what, ask = asked
        try:
            return ask()
        except FanoutError as error:
            problems.append(f"how many tasks are {what} is unknown: {error}")
            return None

    asked = [
        ("dead", lambda: waiting_count(store, lane.name)),
        ("delayed", lambda: sum(1 for _ in islice(store.list(delayed_folder(lane.subscription)), MAX_DELAYED))),
        ("cancelled", lambda: _cancelled(store, lane.name, now)),
    ]
    dead_count, delayed_count, cancelled_count = together(count, asked, len(asked), "waiting")
    return Waiting(dead_count, delayed_count, cancelled_count, tuple(sorted(problems)))


def _cancelled(store: ObjectStore, lane: str, now: float) -> int:
    try:
        return sum(one.id_count for one in from_json(store.read(cancel_object(lane))) if one.until > now)
    except ObjectMissing:
        return 0
    except ValueError as error:
        raise FanoutError(f"{cancel_object(lane)} is damaged, so it cancels nothing: {error}; delete it, and cancel again") from error
