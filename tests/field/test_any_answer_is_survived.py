"""Whatever Cloud Storage or Pub/Sub answers to whichever request of a worker's own: the worker ends with a reason, and loses nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from batch.handling.registry import Backoff, Registry
from batch.model.errors import FanoutError, ObjectMissing, Permanent, PreconditionFailed, Snooze
from batch.model.exit import ExitReason
from batch.model.message import Task
from batch.model.names import delayed_parts, outcome_object, progress_object, writer_of
from batch.services.calls import Resource
from batch.services.calls import translated as translated_pubsub
from batch.services.ports import ObjectInfo
from batch.services.refusals import Refusal, Where, translated
from batch.testing import MemoryObjectStore
from batch.worker.committing import committer
from batch.worker.pulling import pulls
from tests.batch.worker.isolated import submit
from tests.batch.worker.plant import Plant, ended, in_thread, write

pytestmark = pytest.mark.slow

REQUESTS = (
    ("write", "workers/"),
    ("patch_metadata", "workers/"),
    ("info", "workers/"),
    ("write", "controller/claims/"),
    ("read", "controller/claims/"),
    ("write", "outcomes/"),
    ("read", "outcomes/"),
    ("read_with_info", "attempts/"),
    ("write", "attempts/"),
    ("delete", "attempts/"),
    ("write", "delayed/"),
    ("write", "out/"),
    ("info", "out/"),
)
STATUSES = (400, 403, 412, 503)
OTHERS = (0, 302, 304, 401, 404, 405, 408, 409, 410, 411, 413, 416, 418, 429, 451, 500, 501, 504, 599)
CODES = ("NOT_FOUND", "PERMISSION_DENIED", "FAILED_PRECONDITION", "INVALID_ARGUMENT", "UNAVAILABLE", "UNIMPLEMENTED")
CALLS = ("pull", "ack", "nack", "extend", "publish")


def answer(status: int, action: str, name: str, if_generation: int | None = None) -> FanoutError:
    """What the real store makes of it. An object's 404 is one of the answers too: to a reader the object is missing."""
    if status == 412 and if_generation is not None:
        return PreconditionFailed(name, if_generation)
    if status == 404 and action in ("read", "read_with_info"):
        return ObjectMissing(name)
    return translated(Where(action, "bucket", "p", name), Refusal(status, "scripted"))


class RefusingStore(MemoryObjectStore):
    """Answers every `action` on names below `prefix` with `status`."""

    def __init__(self, action: str, prefix: str, status: int) -> None:
        super().__init__()
        self.refused, self.count = (action, prefix, status), 0

    def _refuse(self, action: str, name: str, if_generation: int | None = None) -> None:
        refused, prefix, status = self.refused
        if action == refused and name.startswith(prefix):
            self.count += 1
            raise answer(status, action, name, if_generation)

    def write(self, name: str, data: bytes, **options: Any) -> ObjectInfo:
        self._refuse("write", name, options.get("if_generation"))
        return super().write(name, data, **options)

    def read(self, name: str) -> bytes:
        self._refuse("read", name)
        return super().read(name)

    def read_with_info(self, name: str) -> tuple[bytes, ObjectInfo]:
        self._refuse("read_with_info", name)
        return super().read_with_info(name)

    def info(self, name: str) -> ObjectInfo | None:
        self._refuse("info", name)
        return super().info(name)

    def patch_metadata(self, name: str, metadata: Mapping[str, str]) -> ObjectInfo:
        self._refuse("patch_metadata", name)
        return super().patch_metadata(name, metadata)

    def delete(self, name: str, *, if_generation: int | None = None) -> bool:
        self._refuse("delete", name, if_generation)
        return super().delete(name, if_generation=if_generation)


def fails(task: Task, ctx: Any) -> None:
    raise ValueError("always")


def never(task: Task, ctx: Any) -> None:
    raise Permanent("never")


def later(task: Task, ctx: Any) -> None:
    raise Snooze(3600.0)


TYPES: dict[str, Callable[[Task, Any], Any]] = {"write": write, "fails": fails, "never": never, "later": later}


@pytest.fixture(autouse=True)
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(committer, "RETRY_FLUSH_S", 0.001)
    monkeypatch.setattr(pulls, "FAILURE_PAUSE_S", 0.001)


def plant() -> Plant:
    registry = Registry()
    for task_type, function in TYPES.items():
        registry.task(task_type, retries=1, backoff=Backoff(0.0, 1.0, 0.0))(function)
    made = Plant(registry=registry)
    for task_type in TYPES:
        submit(made, task_type, task_type, name=f"out/{task_type}")
    # All were delivered before: their records are read, and in-progress markers written.
    made.subscription.nack([one.ack_id for one in made.subscription.pull(len(TYPES), 1.0)])
    return made


def accounted(made: Plant) -> set[str]:
    """Tasks that have an outcome, wait in the bucket, or can be pulled again."""
    waiting = {json.loads(one.data)["task_id"] for one in made.subscription.waiting()}
    delayed = {parts[1] for name in made.store.names("delayed/") if (parts := delayed_parts(name))}
    lines = [one for name in made.store.names("outcomes/") for one in made.store._objects[name][0].splitlines()]
    return waiting | delayed | {task_id for task_id in TYPES if any(f'"{task_id}"'.encode() in line for line in lines)}


def survived(made: Plant, **environment: object) -> None:
    worker = made.worker(**{"BACKLOG": 8, "DECISION_ID": "d.0", "CLOUD_RUN_TASK_ATTEMPT": 1, "DRAIN_AFTER_S": 0, **environment})
    thread, reasons = in_thread(worker)
    ended(thread)
    assert worker.shutdown.fault is None
    assert "a fault in Fanout" not in worker.shutdown.breaker.reason
    (reason,) = reasons
    assert reason in (ExitReason.BROKEN, ExitReason.SHARE_DONE, ExitReason.DRAINED, ExitReason.NOT_CLAIMED)
    assert bool(worker.shutdown.breaker.reason) == (reason is ExitReason.BROKEN)
    assert accounted(made) == set(TYPES)


def run_against(action: str, prefix: str, status: int) -> None:
    made = plant()
    store = made.store = RefusingStore(action, prefix, status)
    if (action, prefix) == ("read", "controller/claims/"):
        made.store.write("controller/claims/d.0", b'{"execution": "another"}')
    if (action, prefix) == ("read", "outcomes/"):
        for at in (made.clock.now(), made.clock.now() + 60):
            made.store.write(outcome_object("s-1", at, writer_of("lane-x", 0, 1), 0), b"another's")
    if (action, prefix) == ("info", "out/"):
        made.store.write("out/write", b"a person's")
    survived(made)
    assert store.count > 0


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize(("action", "prefix"), REQUESTS, ids=["-".join(one) for one in REQUESTS])
def test_a_bucket_may_answer_anything(action: str, prefix: str, status: int) -> None:
    run_against(action, prefix, status)


@pytest.mark.slow
@pytest.mark.parametrize("status", OTHERS)
@pytest.mark.parametrize(("action", "prefix"), REQUESTS, ids=["-".join(one) for one in REQUESTS])
def test_a_bucket_may_answer_anything_else(action: str, prefix: str, status: int) -> None:
    run_against(action, prefix, status)


def test_progress_of_an_earlier_try_that_cannot_be_read_is_not_none() -> None:
    made = plant()
    made.store.write(progress_object("lane-x", 0, 0), b"")
    survived(made)
    assert made.subscription.backlog == len(TYPES)


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("call", CALLS)
def test_pubsub_may_answer_anything(call: str, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = plant()
    topic = made.broker.topic("dead-letters")

    def refuse(*arguments: Any, **options: Any) -> Any:
        raise translated_pubsub(call, Resource("subscription", "p", "lane"), code, "scripted")

    monkeypatch.setattr(topic if call == "publish" else made.subscription, call, refuse)
    survived(made)
