"""What the tests of isolated handlers and of quarantined tasks share: a plant whose handlers a child can import."""

from __future__ import annotations

from typing import Any

from batch.handling.registry import Registry, default_registry
from batch.model.clock import iso
from batch.model.delivery import Outgoing
from batch.model.message import Task, encode
from batch.worker.life import Worker
from tests.batch.child import handlers
from tests.batch.worker.plant import SHARD, Plant

MODULE = handlers.__name__


def plant_with(*task_types: str, **settings: Any) -> Plant:
    """A plant that knows these types of `tests.batch.child.handlers`."""
    registry = Registry()
    registry._handlers.update({task_type: default_registry[task_type] for task_type in task_types})
    return Plant(registry=registry, **settings)


def submit(plant: Plant, task_id: str, task_type: str, **fields: Any) -> None:
    task = Task(task_id, task_type, iso(plant.clock.now()), fields, "s-1", "lane", SHARD)
    plant.broker.topic("lane").publish([Outgoing(*encode(task))])


def worker(plant: Plant, **environment: object) -> Worker:
    return plant.worker(**{"HANDLERS": MODULE, "PROCESSES": 2, **environment})
