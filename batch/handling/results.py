"""How a task's output reaches the bucket: once per task and replay number, whatever is redelivered, killed or repeated.

An output is created only if absent, with `task_id`, `submitted_at` and, after a replay, its number in its metadata. When something is there
already it is compared: ours counts as written, that of an older task, or of a lower replay number of ours, is replaced at exactly that
generation, one of a newer task or a higher number makes us yield.
A `submitted_at` long after the object itself was written is a wrong clock's (`message.MAX_AHEAD_S`): it counts only up to there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from batch.model.errors import DependencyUnavailable, PreconditionFailed, ServiceRefused, Superseded
from batch.model.message import Task, bounded_time
from batch.services.ports import ObjectInfo, ObjectStore

MAX_ROUNDS = 20
"""Each lost round means that another writer won one; so many in a row mean that the store breaks its promises."""


@dataclass(frozen=True, slots=True)
class Written:
    """An output that is durable. `created` is False when an earlier run of the same task had written it."""

    name: str
    generation: int
    created: bool


def write_output(store: ObjectStore, task: Task, name: str, content: bytes | str, content_type: str) -> Written:
    """Write one output of a task: bytes, or the file with this path. Raises Superseded when a newer task owns the name, ServiceRefused when
    the bucket keeps what is there, DependencyError when it fails, OSError for a file that cannot be read."""
    put: Callable[..., ObjectInfo] = store.write if isinstance(content, bytes) else store.upload
    metadata = {"task_id": task.task_id, "submitted_at": task.submitted_at}
    if task.replay_number:
        metadata["replay_number"] = str(task.replay_number)
    if_generation = 0
    for _ in range(MAX_ROUNDS):
        refused: ServiceRefused | None = None
        try:
            info = put(name, content, content_type=content_type, metadata=metadata, if_generation=if_generation)
            return Written(name, info.generation, created=True)
        except PreconditionFailed:
            existing = store.info(name)
        except ServiceRefused as error:
            # A bucket with a retention policy may say so before it compares generations: of what an earlier run has written, too.
            existing, refused = store.info(name), error
        if existing is None:
            if refused is not None:
                raise refused
            if_generation = 0
            continue
        owner = existing.metadata.get("task_id", "")
        if owner == task.task_id:
            number = _replay_number(existing)
            if number == task.replay_number:
                return Written(name, existing.generation, created=False)
            if number > task.replay_number:
                raise Superseded(f"{name} was written by replay {number} of this task")
        else:
            # An object without our metadata (put there by a person) counts as older.
            submitted_at = bounded_time(existing.metadata.get("submitted_at"), existing.updated_s) or ""
            if (submitted_at, owner) > task.age_key:
                raise Superseded(f"{name} belongs to the newer task {owner}")
        if refused is not None:
            raise refused
        if_generation = existing.generation
    what = f"{name} changed {MAX_ROUNDS} times while task {task.task_id} tried to write it"
    raise DependencyUnavailable(f"{what}: find who writes it so often, or what answers for bucket {store.bucket_name}")


def _replay_number(existing: ObjectInfo) -> int:
    given = existing.metadata.get("replay_number", "0")
    return int(given) if given.isdecimal() else 0
