"""Tasks as clients describe them, and the messages that they become. Single ones are submitted here, many together by `submission`."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from batch.client.keys import Keyed, settled
from batch.client.strict import Strict
from batch.handling.registry import Registry
from batch.model.clock import Clock, iso
from batch.model.delivery import Outgoing
from batch.model.errors import MessageRefused
from batch.model.message import (
    BUILT_IN,
    ENVELOPE,
    TASK_ID_PATTERN,
    Task,
    check_task_type,
    encode,
    keyed_task_id,
    new_task_id,
    rolling_shard,
    shard_in_id,
    short,
)
from batch.services.ports import ObjectStore, Topic


@dataclass(frozen=True, slots=True)
class NewTask:
    """A task as its client describes it. `position` is where it stood in the source, from 1 (0: count for me)."""

    task_type: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    idempotency_key: str | None = None
    position: int = 0


@dataclass(frozen=True, slots=True)
class Refusal:
    """A task that was not accepted, and why. `position` as in NewTask; `fields`: the names of those that are wrong, where known."""

    position: int
    reason: str
    fields: Sequence[str] = ()


Check = Callable[[NewTask], None]
"""Raises MessageRefused when a task must not be submitted."""


def task_from_line(line: bytes, position: int = 0, strict: Strict | None = None) -> NewTask | Refusal:
    """One line of NDJSON, `{"task_type", "idempotency_key"?, ...own fields}`, as a task; what submits it checks it. `strict` may serve many
    lines."""
    try:
        return task_of((strict or Strict()).whole(line), position)
    except (ValueError, RecursionError) as error:
        return Refusal(position, f"the line is not JSON: {error}")


def task_of(body: object, position: int = 0) -> NewTask | Refusal:
    """A task of what was read as JSON; its `task_type` and `idempotency_key` are taken out."""
    if not isinstance(body, dict):
        return Refusal(position, f"a task is a JSON object, got {type(body).__name__}")
    return NewTask(body.pop("task_type", None), body, body.pop("idempotency_key", None), position)


def checked_message(
    new: NewTask,
    *,
    lane: str,
    unix_s: float,
    rng: random.Random,
    check: Check | None,
    submission_id: str = "",
    shard: str = "",
    first_digits: str = "",
    built_in: bool = False,
) -> tuple[bytes, dict[str, str]]:
    """A new task's message data and attributes: the one way in for every client, and the only place that checks the envelope. Raises
    MessageRefused unless type, field names, key and size are such that the task can travel and be told apart, and `check` lets it pass.
    `first_digits` of the task's id are random if left out; only Fanout itself may submit a `built_in` type."""
    # Clients also hand over what they parsed from JSON: the annotations promise nothing here.
    check_task_type(new.task_type)
    if not new.task_type.strip() or not new.task_type.isprintable():
        raise MessageRefused("no_task_type", f"task_type must be a text that can be read, got {short(new.task_type)}", ("task_type",))
    if not built_in and new.task_type.startswith(BUILT_IN):
        reason = f"task_type {short(new.task_type)} is one of Fanout's own, which only Fanout submits; choose another name"
        raise MessageRefused("invalid", reason, ("task_type",))
    if not new.fields.keys().isdisjoint(ENVELOPE):
        raise _envelope_refused([name for name in ENVELOPE if name in new.fields])
    for name in new.fields:
        if not isinstance(name, str):
            raise MessageRefused("invalid", f"names of fields must be texts, got {short(name)}")
    if check is not None:
        check(new)
    key = new.idempotency_key
    if key is not None:
        task_id = keyed_task_id(lane, key)
    elif first_digits:
        task_id = f"{first_digits}-{shard or submission_id}"
    else:
        task_id = new_task_id(rng, shard or submission_id)
    return encode(Task(task_id, new.task_type, iso(unix_s), new.fields, submission_id, lane, shard))


def _envelope_refused(taken: Sequence[str]) -> MessageRefused:
    reason = "must be left out: set when the task is submitted; for a task that may be submitted twice give an idempotency key"
    if "task_id" in taken:
        reason += f" (only who publishes to the topic itself names a task_id: a text that matches {TASK_ID_PATTERN})"
    return MessageRefused("invalid", f"{' and '.join(taken)} {reason}", taken)


def check_by(registry: Registry, *, unknown_types: bool = False) -> Check:
    """A check by the handlers' payload models; `unknown_types` lets types pass that no handler is registered for."""

    def check(new: NewTask) -> None:
        if not unknown_types or new.task_type in registry:
            registry[new.task_type].checked(new.fields)

    return check


def checked_lane(lane: str) -> str:
    """Raises MessageRefused for a name that ids could not hold: workers would give such tasks other ids, and no proof would find them."""
    if shard_in_id(f"{0:016x}-{rolling_shard(lane, 0.0)}") is None:
        raise MessageRefused("invalid", f"lane {short(lane)} cannot stand in task ids: at most 92 letters, digits, '.', '_' and '-'")
    return lane


def submit_one(
    topic: Topic,
    new: NewTask,
    *,
    lane: str,
    clock: Clock,
    rng: random.Random,
    check: Check | None = None,
    store: ObjectStore | None = None,
    built_in: bool = False,
) -> tuple[str, str]:
    """Publish a single task; its task_id and message_id. With a bucket another task under the same idempotency key is refused. Raises
    MessageRefused, DependencyError."""
    unix_s = clock.now()
    message = single_message(new, lane=lane, unix_s=unix_s, rng=rng, check=check, built_in=built_in)
    if store is not None and new.idempotency_key is not None:
        message = settled(store, Keyed(new.idempotency_key, message), unix_s)
    return message.attributes["task_id"], topic.publish([message])[0]


def single_message(
    new: NewTask, *, lane: str, unix_s: float, rng: random.Random, check: Check | None = None, built_in: bool = False
) -> Outgoing:
    """The message of a task without a submission: its outcome goes to the shard of its lane and hour. Raises MessageRefused."""
    shard = rolling_shard(checked_lane(lane), unix_s)
    return Outgoing(*checked_message(new, lane=lane, unix_s=unix_s, rng=rng, check=check, shard=shard, built_in=built_in))
