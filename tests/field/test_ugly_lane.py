"""An ugly lane: 2,000 tasks with all that people do in handlers, at once, in real workers, over an hour of the lane's clock."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from batch.worker.admission.slowing import LONGEST_DELAY_S
from tests.e2e.site import ROOT, Site
from tests.field.ugly_handlers import EXPECTED, OBJECTS, expected_of
from tests.local_cloud.fault_orders import Orders
from tests.support import Service, start_service

Try = tuple[str, ...]
ROUND_S = 150.0
"""How far the clock goes between the first two executions; then twice as far each time."""
MAX_ROUNDS = 24
WORKERS = 2
TRIES = 3
LIMIT_S = 240.0
LEAST_TASKS = 2000
MOST_MB = 400
"""What a worker may have used at most; it is as small as the last one as in the first."""
PRECONDITION = {"kind": "precondition_failed"}


@pytest.fixture
def pubsub(tmp_path: Path) -> Iterator[Service]:
    """Its clock is moved here."""
    service = start_service("pubsub", tmp_path / "pubsub", "--sample-period-s", "0", "--visibility-lag-s", "0")
    yield service
    service.stop()


@dataclass
class Lane:
    """Executions of two workers, one after the other."""

    site: Site
    pubsub: Service
    folder: Path
    ahead_s: float = 0.0
    codes: dict[Try, int] = field(default_factory=dict)
    """By execution, index and retry."""
    lines: list[dict[str, Any]] = field(default_factory=list)
    noise: list[str] = field(default_factory=list)

    def execution(self, number: int) -> None:
        """Each worker with as many retries as Cloud Run gives it."""
        waiting = [(index, 0) for index in range(WORKERS)]
        while waiting:
            started = [(index, retry, self._start(number, index, retry)) for index, retry in waiting]
            waiting = []
            for index, retry, process in started:
                code = process.wait(LIMIT_S)
                self.codes[f"lane-{number}", str(index), str(retry)] = code
                self._read(self._log(number, index, retry))
                if code != 0 and retry + 1 < TRIES:
                    waiting.append((index, retry + 1))
            if waiting:
                self.advance(11)  # the leases of the one that was killed run out

    def advance(self, seconds: float) -> None:
        self.pubsub.advance(seconds)
        self.ahead_s += seconds

    def _log(self, number: int, index: int, retry: int) -> Path:
        return self.folder / f"{number}-{index}-{retry}.log"

    def _start(self, number: int, index: int, retry: int) -> subprocess.Popen[bytes]:
        environment = self.site.environment(
            HANDLERS="tests.field.ugly_handlers",
            TEST_FOLDER=self.folder,
            CHILD_ENVIRONMENT="TEST_FOLDER",
            CLOCK_AHEAD_S=self.ahead_s,
            CLOUD_RUN_EXECUTION=f"lane-{number}",
            CLOUD_RUN_TASK_INDEX=index,
            CLOUD_RUN_TASK_COUNT=WORKERS,
            CLOUD_RUN_TASK_ATTEMPT=retry,
            TOPIC_NAME="lane",
            MAX_MESSAGES=5000,
            CONCURRENCY=6,
            PROCESSES=1,
            FLUSH_INTERVAL_S=0.2,
            DRAIN_AFTER_S=0.5,
            BILLING_FLOOR_S=0,
        )
        with self._log(number, index, retry).open("wb") as log:
            command = [sys.executable, "-m", "tests.field.later"]
            process = subprocess.Popen(command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.site.processes.append(process)
        return process

    def _read(self, log: Path) -> None:
        for line in log.read_text(errors="replace").splitlines():
            try:
                self.lines.append(json.loads(line))
            except ValueError:
                self.noise.append(line)

    def events(self, name: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line.get("event") == name]


def survivors(folder: Path) -> dict[int, Try]:
    """Processes of this lane that live on, and whose they are."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            lines = (process / "environ").read_bytes().decode(errors="replace").split("\0")
            told = dict(line.split("=", 1) for line in lines if "=" in line)
            if told.get("TEST_FOLDER") == str(folder):
                names = ("CLOUD_RUN_EXECUTION", "CLOUD_RUN_TASK_INDEX", "CLOUD_RUN_TASK_ATTEMPT")
                found[int(process.name)] = tuple(told[name] for name in names)
    return found


def bodies() -> list[dict[str, Any]]:
    """All tasks, the kinds mixed."""
    made = [
        (number / kind.count, {"task_id": f"{name}-{number}", "task_type": name, **kind.fields(number)})
        for name, kind in EXPECTED.items()
        for number in range(kind.count)
    ]
    return [body for _, body in sorted(made, key=lambda one: (one[0], one[1]["task_id"]))]


def as_expected(task: dict[str, Any], outcome: dict[str, Any] | None) -> str:
    """Empty, or what is wrong with this task's outcome."""
    name = task["task_type"]
    kind = expected_of(name, int(task["task_id"].rpartition("-")[2]))
    if outcome is None:
        return f"{task['task_id']}: missing"
    told = (outcome["outcome"], outcome.get("error_type", ""), outcome.get("reason", ""))
    right = told[0] == kind.outcome and kind.error_type in ("", told[1]) and re.search(kind.reason, told[2]) is not None
    return "" if right else f"{task['task_id']}: {told} instead of {(kind.outcome, kind.error_type, kind.reason)}"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_task_of_an_ugly_lane_ends_as_it_should(project: str, local_storage: Service, pubsub: Service, tmp_path: Path) -> None:
    tasks = bodies()
    assert len(tasks) >= LEAST_TASKS
    with closing(Site(project, pubsub.grpc, local_storage.http)) as site:
        storage = Orders(local_storage.http, project)
        for name, data in OBJECTS.items():
            site.upload_encoded(name, data, "gzip")
        late = [task for task in tasks if task["task_type"] == "same-output" and task["number"]]
        site.publish([task for task in tasks if task not in late])
        storage.rate("objects.insert", 0.002, 1, PRECONDITION)
        lane = Lane(site, pubsub, tmp_path)
        best: dict[str, dict[str, Any]] = {}
        try:
            for number in range(MAX_ROUNDS):
                lane.execution(number)
                best = strongest(site)
                if all(task["task_id"] in best for task in tasks):
                    break
                lane.advance(min(LONGEST_DELAY_S, ROUND_S * 2**number))  # what is left of a slowed type waits ever longer
                site.publish(late)
                late = []
            wrong = [problem for task in tasks if (problem := as_expected(task, best.get(task["task_id"])))]
            assert not wrong, f"{len(wrong)} of {len(tasks)} tasks: {wrong[:40]}"
            assert set(best) == {task["task_id"] for task in tasks}
            others = [one for one in lane.events("worker_ended") if one.get("exit_reason") not in ("drained", "share_done")]
            assert others == [], f"a lane is held for other ends: {others}; {lane.events('worker_broken')}"
            assert set(lane.codes.values()) <= {0, -signal.SIGSEGV}, lane.codes
            for event in ("runner_fault", "worker_crashed", "worker_broken", "dead_letter_refused"):
                assert lane.events(event) == [], event
            dead = [one for one in best.values() if one["outcome"] == "dead"]
            letters = site.pull("dead-letters")
            assert {one.message.attributes["task_id"] for one in letters} == {one["task_id"] for one in dead}
            assert all(one.message.attributes.get("dead_reason") for one in letters), "nothing went through the subscription's net"
            assert site.pull("lane") == []
            left = survivors(tmp_path).values()
            assert all(lane.codes[one] != 0 for one in left), f"only what a worker that crashed had started may live on: {left}"
            peaks = [line["peak_mb"] for line in lane.lines if "peak_mb" in line]
            print(f"{len(tasks)} tasks, {number + 1} executions, {lane.ahead_s:.0f} s of the lane's clock; peaks of workers in MB: {peaks}")
            assert peaks
            assert max(peaks) <= MOST_MB, f"memory is not flat: {peaks}"
        finally:
            storage.clear()
            for process in survivors(tmp_path):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)


def strongest(site: Site) -> dict[str, dict[str, Any]]:
    """The outcome that counts, by task id."""
    order = ["succeeded", "superseded", "cancelled", "dead"]
    found: dict[str, dict[str, Any]] = {}
    for one in site.outcomes():
        known = found.setdefault(one["task_id"], one)
        if order.index(one["outcome"]) < order.index(known["outcome"]):
            found[one["task_id"]] = one
    return found
