"""Publishes the tasks of schedules that are due. The rule it rests on: the time that is due is saved in the lane's state before.

A schedule is a client that submits one task. Its idempotency key is made from the due time, so a controller that publishes it once more,
after a kill or beside another one, publishes the same task.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

from batch.client.submit import Refusal, submit_one, task_from_line
from batch.model.clock import Clock, iso
from batch.model.errors import FanoutError
from batch.services.ports import ObjectStore, Topic
from controller.model.lane import Lane
from controller.model.schedule import Scheduled


def publish_due(
    lane: Lane, scheduled: Sequence[Scheduled], topic: Callable[[str], Topic], store: ObjectStore, clock: Clock, rng: random.Random
) -> tuple[tuple[Scheduled, ...], tuple[str, ...]]:
    """What is known of the schedules afterwards, and a note for each task that was due. A task that could not be published stays due."""
    left: list[Scheduled] = []
    notes: list[str] = []
    for one in scheduled:
        new = task_from_line(one.task.encode()) if one.task else None
        if new is not None and not isinstance(new, Refusal):
            what = f"schedule {one.name}, due {iso(one.last)}"
            try:
                keyed = replace(new, idempotency_key=one.key(lane.name))
                task_id, _ = submit_one(topic(lane.topic), keyed, lane=lane.name, clock=clock, rng=rng, store=store)
                notes.append(f"{what}: submitted task {task_id}")
                one = replace(one, task="")
            except FanoutError as error:
                notes.append(f"{what}: its task is not known to be published, the next tick publishes it: {error}")
        left.append(one)
    return tuple(left), tuple(notes)
