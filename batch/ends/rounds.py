"""Rounds: a submission that has ended ends once more after a retry or a replay, and its mark is written anew for that.

The mark is there before a message is published: a task that ends while there is no mark would end in silence.
"""

from __future__ import annotations

import json
from typing import NamedTuple

from batch.ends import marks
from batch.ends.marks import Mark
from batch.ends.options import NO_ENDS, ends_of
from batch.model.errors import DependencyUnavailable, MessageRefused, ObjectMissing, PreconditionFailed
from batch.model.names import ended_object, mark_object, stored_proof_object, submission_object
from batch.services.ports import ObjectStore

MAX_TRIES = 10


class _Ended(NamedTuple):
    """The last round that has ended; -1: none. `generation`: of the object that was read."""

    round: int
    generation: int


def begin(store: ObjectStore, submission_id: str, action_id: str) -> bool:
    """Messages of this submission are about to be published again by this action: see to it that its mark stands, in a round of the
    action's own. False if no end is to be fired, whatever happens. Raises DependencyError."""
    store.delete(stored_proof_object(submission_id))  # it would be believed once outcomes have expired
    try:
        body = json.loads(store.read(submission_object(submission_id)))
        ends, lane = ends_of(body.get("ends") or {}), str(body["lane"])
    except ObjectMissing:
        return True  # not closed yet: its mark stands until it is, and has ended
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, MessageRefused):
        ends, lane = NO_ENDS, ""
    if not ends:
        return False
    for _ in range(MAX_TRIES):
        mark = marks.standing(store, lane, submission_id)
        if mark is None:
            mark = Mark(submission_id, lane, _ended(store, submission_id).round)
        elif mark.action_id == action_id and mark.firing is None:
            return True  # a finish that claims it later sees what this action has announced by now
        try:
            marks.write(store, mark.next_round(action_id), ends)
            return True
        except PreconditionFailed:
            continue
    name = mark_object(lane, submission_id)
    raise DependencyUnavailable(f"mark {name} changed {MAX_TRIES} times while it was written; find who writes under open/")


def end(store: ObjectStore, mark: Mark) -> None:
    """The end of the mark's round has been fired, or there was none: the round is kept, and the mark is deleted. Raises DependencyError."""
    for _ in range(MAX_TRIES):
        known = _ended(store, mark.submission_id)
        if known.round >= mark.round:
            break
        body = {"round": mark.round, "end": mark.firing.end.value if mark.firing else None}
        try:
            name = ended_object(mark.submission_id)
            store.write(name, json.dumps(body).encode() + b"\n", content_type="application/json", if_generation=known.generation)
            break
        except PreconditionFailed:
            continue
    marks.delete(store, mark)


def _ended(store: ObjectStore, submission_id: str) -> _Ended:
    try:
        data, info = store.read_with_info(ended_object(submission_id))
    except ObjectMissing:
        return _Ended(-1, 0)
    try:
        return _Ended(int(json.loads(data)["round"]), info.generation)
    except (ValueError, KeyError, TypeError):
        return _Ended(-1, info.generation)
