"""Who is measured: how each is started on a lane, how many messages it gets, and which of its lines begin and end the time."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

from bench.worker.handlers import module_of
from bench.worker.lane import Lane, delete, fresh_lane, publish
from bench.worker.process import Line, Program, started

FANOUT, GROUPED = "Fanout", "Fanout, grouped"
URLLIB3, CLIENT = "urllib3", "Storage client"
SUBSCRIBE, CELERY, NAIVE, BARE = "subscribe()", "Celery", "naive loop", "bare loop"
CELERY_POOL = ("-P", "solo")
"""One process like the others. 32 threads are a fifth faster, where the rounds are next to each other."""
RUN_LIMIT_S = 300.0
RIVAL_LIMIT_S = 40.0
START_LIMIT_S = 60.0


@dataclass(frozen=True, slots=True)
class Site:
    """Where a contender runs: the servers themselves, and where its clients find them, which may be a proxy."""

    pubsub: str
    storage: str
    seen_pubsub: str
    seen_storage: str


@dataclass(frozen=True, slots=True)
class Run:
    """One run: messages, seconds and processor seconds from its first pull to its last acknowledgement, the processor seconds before,
    and the peak memory in 10**6 bytes."""

    count: int
    seconds: float
    cpu_s: float
    start_cpu_s: float
    peak_mb: float

    @property
    def rate(self) -> float:
        return self.count / self.seconds

    @property
    def cpu_us(self) -> float:
        """Processor microseconds a message, without the start."""
        return self.cpu_s / self.count * 1e6


@dataclass(frozen=True, slots=True)
class Contender:
    """`counts` gives the messages of a run by the added round trip in ms: as many as take it a few seconds."""

    name: str
    counts: Mapping[int, int]
    task_type: str = "noop"


CONTENDERS = (
    Contender(FANOUT, {0: 50_000, 5: 50_000, 50: 50_000}),
    Contender(GROUPED, {0: 50_000, 5: 50_000, 50: 50_000}, "grouped"),
    Contender(SUBSCRIBE, {0: 10_000, 5: 10_000, 50: 10_000}),
    Contender(CELERY, {0: 4_000, 5: 500, 50: 100}),
    Contender(NAIVE, {0: 4_000, 5: 1_000, 50: 200}),
    Contender(BARE, {0: 50_000, 5: 20_000, 50: 4_000}),
)


def run(contender: Contender, site: Site, count: int) -> Run:
    """One run on a fresh lane. Raises RuntimeError when it does not do its work."""
    if contender.name == CELERY:
        return _celery(site, count)
    with_lane = fresh_lane(site.pubsub, site.storage)
    try:
        publish(with_lane, site.pubsub, contender.task_type, count)
        lane = replace(with_lane, pubsub=site.seen_pubsub, storage=site.seen_storage)
        if contender.name in (FANOUT, GROUPED):
            return worker_run(lane, count, module_of(contender.task_type))
        return _rival(contender.name, lane, count)
    finally:
        delete(with_lane, site.pubsub)


def worker(lane: Lane, backlog: int, handlers: str, **settings: object) -> Program:
    """`python -m batch` with that module, launched for `backlog` messages, as the controller does it."""
    own = {"SUBSCRIPTION_NAME": lane.name, "BUCKET_NAME": lane.bucket, "DEAD_LETTER_TOPIC": f"{lane.name}-dead", "HANDLERS": handlers}
    given = {name: str(value) for name, value in {**own, "BACKLOG": backlog, **settings}.items()}
    return started([sys.executable, "-m", "batch"], **lane.environment(), **given)


def worker_run(lane: Lane, count: int, handlers: str, **settings: object) -> Run:
    """A worker with that module, from `worker_started`, which is before its first pull, to its last `flushed`, after its last ack."""
    program = worker(lane, count, handlers, **settings)
    try:
        program.wait(RUN_LIMIT_S)
    finally:
        program.end()
    ended = program.wait_for("worker_ended", 0)
    succeeded = ended.body.get("succeeded")
    if succeeded != count:
        raise RuntimeError(f"the worker succeeded with {succeeded} of {count} tasks; the end of its log:\n{program.tail()}")
    return _measured(program, count, program.wait_for("worker_started", 0), last_flush(program))


def last_flush(program: Program) -> Line:
    """The line after a worker's last acknowledgement."""
    return [line for line in program.lines if line.event == "flushed"][-1]


def _rival(name: str, lane: Lane, count: int) -> Run:
    commands = {
        SUBSCRIBE: ["bench.worker.rivals.subscribe", lane.subscription, str(count)],
        NAIVE: ["bench.worker.rivals.naive", lane.subscription, str(count)],
        BARE: ["bench.worker.rivals.bare", lane.pubsub, lane.subscription, str(count)],
    }
    program = started([sys.executable, "-m", *commands[name]], **lane.environment())
    return until_last_ack(program, count)


def _celery(site: Site, count: int) -> Run:
    """In a project of its own, for its topic and subscription have fixed names; it sends its tasks itself, to the server directly."""
    project = {"GOOGLE_CLOUD_PROJECT": f"celery-{time.time_ns()}"}
    module = "bench.worker.rivals.celery_tasks"
    sender = started([sys.executable, "-m", module, str(count)], PUBSUB_EMULATOR_HOST=site.pubsub, **project)
    if sender.wait(RUN_LIMIT_S) != 0:
        raise RuntimeError(f"Celery could not send {count} tasks:\n{sender.tail()}")
    command = [sys.executable, "-m", "celery", "-A", module, "worker", "-l", "WARNING", *CELERY_POOL]
    return until_last_ack(started(command, PUBSUB_EMULATOR_HOST=site.seen_pubsub, COUNT=str(count), **project), count)


def until_last_ack(program: Program, count: int) -> Run:
    """A rival, from its line `first_pull` to its line `last_ack`."""
    try:
        first = program.wait_for("first_pull", START_LIMIT_S)
        last = program.wait_for("last_ack", RIVAL_LIMIT_S)
        with suppress(subprocess.TimeoutExpired):
            program.process.wait(1.0)
    finally:
        program.end()
    return _measured(program, count, first, last)


def _measured(program: Program, count: int, first: Line, last: Line) -> Run:
    return Run(count, last.came_s - first.came_s, last.cpu_s - first.cpu_s, first.cpu_s, program.peak_mb)
