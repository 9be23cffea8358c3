"""What the endpoints about submissions and tasks share: bucket, topics, who may, and threads of their own.

All that asks the bucket runs in these threads: however slow readers are, they never take a thread from a client that submits.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from anyio import CapacityLimiter, to_thread
from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError

from batch.client.reading.lane_of import lane_of, lane_of_submission
from batch.client.reading.progress import Known
from batch.model.clock import Clock
from batch.model.errors import DependencyError, FanoutError, MessageRefused, ObjectDamaged, ObjectMissing, SettingsError
from batch.model.message import TASK_ID_PATTERN, shard_in_id
from batch.services.ports import ObjectStore, Topic
from intake.access import Access, Verb
from intake.bodies import NO_BUCKET
from intake.collector import Collector
from intake.problems import Problem, RequestRefused, Wrong, answer_refused
from intake.rules import ALL
from intake.submissions.lane_topic import LaneTopic

THREADS = 8
MAX_WAITING, MAX_WAITING_LONG = 64, 4
"""Requests that wait for a thread, and for what takes long; more are refused."""
RETRY_AFTER_S = 5
SUBMISSIONS_KNOWN = 500
"""Of which the last look is kept, so that the next reads on from there."""
T = TypeVar("T")


@dataclass
class Context:
    """`store` is None without a bucket. `topics` are those that this front door publishes to, by name."""

    clock: Clock
    rng: random.Random
    access: Access
    store: ObjectStore | None = None
    topics: Mapping[str, Topic] = field(default_factory=dict)
    threads: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(THREADS))
    slow: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(1))
    """For what takes long: one proof, or one retry, at a time."""
    stream_count: int = 0
    _known: OrderedDict[str, Known] = field(default_factory=OrderedDict)
    _lanes: OrderedDict[str, str] = field(default_factory=OrderedDict)

    def open(self, collectors: Mapping[str, Collector]) -> None:
        """Called by the running event loop."""
        loop = asyncio.get_running_loop()
        self.topics = {collector.topic.name: LaneTopic(collector, loop) for collector in collectors.values()}

    @property
    def bucket(self) -> ObjectStore:
        """Raises RequestRefused without one."""
        if self.store is None:
            raise RequestRefused(503, NO_BUCKET)
        return self.store

    async def run(self, action: Callable[[], T], limiter: CapacityLimiter | None = None) -> T:
        """In a thread. Raises RequestRefused for every error that Fanout can explain."""
        limiter, most = (self.threads, MAX_WAITING) if limiter is None else (limiter, MAX_WAITING_LONG)
        if limiter.statistics().tasks_waiting >= most:
            raise RequestRefused(503, f"{most} requests already wait for the same; try again later", retry_after_s=RETRY_AFTER_S)
        try:
            return await to_thread.run_sync(action, limiter=limiter)
        except FanoutError as error:
            raise refused(error) from error

    async def submission(self, request: Request, verb: Verb, submission_id: str) -> tuple[str, str]:
        """The lane of a submission, and who calls, and may do this there. Raises RequestRefused."""
        store, lane = self.bucket, self._lanes.get(submission_id, "")
        lane = lane or await self._about(submission_id, lambda: lane_of_submission(store, submission_id))
        return _keep(self._lanes, submission_id, lane), self.access.check(request, verb, lane)

    async def task(self, request: Request, verb: Verb, task_id: str, lane: str = "", shard: str = "") -> tuple[str, str]:
        """The lane of a task, and who calls, and may do this in every lane that id and `shard` lead to; only where none tells it, in
        `lane`. Attempts and results lie below the id alone: to read them where it does not tell the lane is to read in every lane. Raises
        RequestRefused."""
        store = self.bucket
        found = await self._about(task_id, lambda: _lanes_of_task(store, task_id, shard))
        lanes = list(found.values()) or [lane]
        if not lanes[0]:
            need = "?lane= and ?at=" if verb is Verb.READ else "?lane="
            raise RequestRefused(422, f"neither the id nor the record of a key tells the task's lane: give {need}")
        if verb is Verb.READ and task_id not in found:
            lanes.append(ALL)
        who = [self.access.check(request, verb, one) for one in lanes]
        return lanes[0], who[0]

    async def _about(self, one: str, find: Callable[[], T]) -> T:
        if not re.fullmatch(TASK_ID_PATTERN, one):
            raise RequestRefused(422, f"{one[:200]!r} is no id of a task or submission: it must match {TASK_ID_PATTERN}")
        return await self.run(find)

    def known(self, submission_id: str) -> Known:
        """What the last look at a submission has left."""
        return _keep(self._known, submission_id, self._known.get(submission_id) or Known())


def _lanes_of_task(store: ObjectStore, task_id: str, shard: str) -> dict[str, str]:
    """By the id, and by an id in the shard; those that tell none are left out."""
    in_shard = f"{0:016x}-{shard}"
    if shard and shard_in_id(in_shard) is None:
        raise SettingsError([f"{shard[:200]!r} can be no outcome shard"])
    found: dict[str, str] = {}
    for one in (task_id, *([in_shard] if shard else [])):
        try:
            found[one] = lane_of(store, one)
        except (ObjectMissing, ObjectDamaged):
            if shard_in_id(one) is not None:
                raise
    return found


def _keep(kept: OrderedDict[str, T], name: str, value: T) -> T:
    kept[name] = value
    kept.move_to_end(name)
    if len(kept) > SUBMISSIONS_KNOWN:
        kept.popitem(last=False)
    return value


def refused(error: FanoutError) -> RequestRefused:
    """What an error of the house is answered with."""
    if isinstance(error, RequestRefused):
        return error
    if isinstance(error, ObjectMissing):
        return RequestRefused(404, f"there is no such submission or task here ({error})")
    if isinstance(error, MessageRefused):
        return RequestRefused(422, str(error), wrong=[Wrong(pointer=f"?{name}", detail=str(error)) for name in error.fields])
    if isinstance(error, SettingsError):
        return RequestRefused(422, re.sub(r"--(lane|at|shard)\b", r"?\1", str(error)))  # an option of the command is a parameter here
    if isinstance(error, DependencyError):
        return RequestRefused(503, str(error), retry_after_s=RETRY_AFTER_S)
    return RequestRefused(409, str(error))


async def answer_invalid(request: Request, error: Exception) -> Response:
    """The answer to parameters of a wrong kind: all of them at once."""
    if not isinstance(error, RequestValidationError):
        raise error
    wrong = [Wrong(pointer=f"?{one['loc'][-1]}", detail=str(one["msg"])) for one in error.errors()]
    text = "; ".join(f"{one.pointer}: {one.detail}" for one in wrong)
    return await answer_refused(request, RequestRefused(422, text, wrong=wrong))


def documented(what: str) -> dict[int | str, dict[str, Any]]:
    """Every status of an endpoint that is about `what`."""
    texts = {
        401: "The caller is not known",
        403: "The caller may not do this in this lane",
        404: f"There is no such {what}",
        409: "The bucket holds what cannot be read, or what this front door cannot do",
        422: "The id or a parameter is wrong",
        503: "The bucket did not answer, or too many wait; see Retry-After",
    }
    return {status: {"model": Problem, "description": text} for status, text in texts.items()}
