"""The records of attempts in the bucket: read and written with the generation that was read, so that no worker's note is lost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from batch.model.attempts import NONE, AttemptError, Attempts, from_json, to_json
from batch.model.errors import DependencyUnavailable, ObjectMissing, PreconditionFailed
from batch.model.names import attempts_object
from batch.services.ports import ObjectStore

MAX_ROUNDS = 10


def read_attempts(store: ObjectStore, task_id: str) -> tuple[Attempts, int]:
    """The record and its generation; `NONE` and 0 when there is none. Raises DependencyError."""
    try:
        data, info = store.read_with_info(attempts_object(task_id))
    except ObjectMissing:
        return NONE, 0
    return from_json(data), info.generation


def write_attempts(store: ObjectStore, task_id: str, attempts: Attempts, if_generation: int) -> int:
    """Replace the record at exactly this generation (0: there is none); returns the new one. Raises PreconditionFailed, DependencyError."""
    data, name = to_json(attempts, task_id), attempts_object(task_id)
    return store.write(name, data, content_type="application/json", if_generation=if_generation).generation


def add_failure(store: ObjectStore, task_id: str, error: AttemptError, delay_s: float, now_s: float, replay_number: int = 0) -> Attempts:
    """Record one more failed attempt, also while another worker records one. Nothing is added to the record of a later replay, which comes
    back as it is. Raises DependencyError."""

    def added(known: Attempts) -> Attempts:
        known = known.of_replay(replay_number)
        if known.replay_number > replay_number:
            return known
        # The same error again: the answer to our own write was lost, and one run is one attempt.
        return known if known.errors and known.errors[-1] == error else known.after(error, now_s + delay_s)

    return _changed(store, task_id, added, "a failure")


def postpone(store: ObjectStore, task_id: str, not_before: float, replay_number: int = 0) -> None:
    """Note that the task may not run before this time (Unix seconds); no attempt is spent. Raises DependencyError."""

    def noted(known: Attempts) -> Attempts:
        current = known.of_replay(replay_number)
        if current.replay_number > replay_number or current.not_before >= not_before:
            return known
        return replace(current, not_before=not_before)

    _changed(store, task_id, noted, "a wait")


def _changed(store: ObjectStore, task_id: str, change: Callable[[Attempts], Attempts], what: str) -> Attempts:
    """The record after `change`, which is made again on whatever another worker has written meanwhile."""
    for _ in range(MAX_ROUNDS):
        known, generation = read_attempts(store, task_id)
        wanted = change(known)
        if wanted is known:
            return known
        try:
            write_attempts(store, task_id, wanted, generation)
            return wanted
        except PreconditionFailed:
            continue
    changed = f"{attempts_object(task_id)} changed {MAX_ROUNDS} times while {what} was added to it"
    raise DependencyUnavailable(f"{changed}: find who writes it so often, or what answers for bucket {store.bucket_name}")


def end_marker(store: ObjectStore, task_id: str, written: Attempts, generation: int, *, done: bool) -> bool:
    """Take the in-progress marker of `written`, the record as its writer left it, out of the record; delete the record when nothing else
    is in it. It is read again only where it has changed since. `done`: the task will not run again. Returns whether there may still be a
    record. Raises DependencyError."""
    marker, known = written.in_progress, written
    for round_number in range(MAX_ROUNDS):
        if round_number:
            known, generation = read_attempts(store, task_id)
        if known.in_progress != marker:
            return generation != 0
        left = replace(known, in_progress=None, lost=() if done else known.lost)
        if done and known.attempt_count == 0 and not known.errors:
            left = NONE
        try:
            if left == NONE:
                store.delete(attempts_object(task_id), if_generation=generation)
            else:
                write_attempts(store, task_id, left, generation)
            return left != NONE
        except PreconditionFailed:
            continue
    return True
