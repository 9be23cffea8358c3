"""SIGKILL at each step of a task's way, twice in a row, on real processes: nothing lost, one output, exactly one end of each task."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.site import ROOT, Ended, Site, ended
from tests.support import Service, start_service

HANDLERS = '''
"""The process kills itself where DIES says, the DIES_AT-th time it comes there."""

import os
import signal
import threading

from batch.model.errors import Permanent
from batch.services.pubsub import GoogleSubscription
from batch.services.topic import GoogleTopic
from batch.handling.registry import task
from batch.worker.committing.committer import Committer

passed = []
lock = threading.Lock()
created = os.open(os.environ["TEST_FOLDER"] + "/created", os.O_WRONLY | os.O_CREAT | os.O_APPEND)


def passes(step):
    if os.environ.get("DIES") == step:
        with lock:
            passed.append(step)
            if len(passed) == int(os.environ["DIES_AT"]):
                os.kill(os.getpid(), signal.SIGKILL)
                threading.Event().wait()


def around(owner, name, before="", after=""):
    original = getattr(owner, name)

    def stepped(*arguments, **options):
        passes(before)
        result = original(*arguments, **options)
        if result or name != "pull":
            passes(after)
        return result

    setattr(owner, name, stepped)


around(GoogleSubscription, "pull", after="pulled")
around(GoogleSubscription, "ack", before="before the ack", after="acknowledged")
around(GoogleTopic, "publish", after="dead letter published")
around(Committer, "_write", after="outcomes written")


@task("work")
def work(task, ctx):
    ctx.sleep(0.01)
    passes("in the handler")
    if ctx.write(f"out/{task.task_id}", task.task_id.encode()).created:
        os.write(created, f"{task.task_id}\\n".encode())
    passes("output written")


@task("never")
def never(task, ctx):
    raise Permanent("it never can")
'''

STEPS = [
    "pulled",
    "in the handler",
    "output written",
    "dead letter published",
    "outcomes written",
    "before the ack",
    "acknowledged",
]
GOOD = [f"good-{number:02d}" for number in range(40)]
BAD = [f"bad-{number}" for number in range(4)]
SETTINGS = {"MAX_MESSAGES": 1000, "CONCURRENCY": 4, "FLUSH_INTERVAL_S": "0.1", "DRAIN_AFTER_S": "0.5", "HANDLERS": "own_handlers"}


@pytest.fixture
def own_pubsub(tmp_path: Path) -> Iterator[Service]:
    """Its clock is moved here."""
    service = start_service("pubsub", tmp_path / "pubsub", "--sample-period-s", "0", "--visibility-lag-s", "0")
    yield service
    service.stop()


@pytest.fixture
def sites(own_pubsub: Service, local_storage: Service, project: str) -> Iterator[dict[str, Site]]:
    """One for each step: all are killed side by side."""
    made = {step: Site(f"{project}-{number}", own_pubsub.grpc, local_storage.http) for number, step in enumerate(STEPS)}
    yield made
    for site in made.values():
        site.close()


def tried(sites: dict[str, Site], folder: Path, retry: int, *, dying: bool) -> dict[str, Ended]:
    """One try of the worker of each site."""
    processes = {}
    for step, site in sites.items():
        own = folder / site.project
        own.mkdir(exist_ok=True)
        (own / "own_handlers.py").write_text(HANDLERS)
        settings: dict[str, object] = {
            **SETTINGS,
            "CLOUD_RUN_TASK_ATTEMPT": retry,
            "TEST_FOLDER": own,
            "PYTHONPATH": f"{own}{os.pathsep}{ROOT}",
        }
        if dying:
            # The first pull brings a single message, so that the first worker dies at the second; the last letters come together.
            settings |= {"DIES": step, "DIES_AT": 2 if retry == 0 and step != "dead letter published" else 1}
        processes[step] = site.start(**settings)
    return {step: ended(process) for step, process in processes.items()}


@pytest.mark.slow
def test_a_worker_killed_at_any_step_loses_nothing_and_repeats_nothing(sites: dict[str, Site], own_pubsub: Service, tmp_path: Path) -> None:
    for site in sites.values():
        bodies = [{"task_id": task_id, "task_type": "work"} for task_id in GOOD]
        bodies[8:8] = [{"task_id": task_id, "task_type": "never"} for task_id in BAD[:2]]
        site.publish(bodies + [{"task_id": task_id, "task_type": "never"} for task_id in BAD[2:]])
    for retry in (0, 1):
        for step, end in tried(sites, tmp_path, retry, dying=True).items():
            assert end.code == -signal.SIGKILL, f"{step}, try {retry}: {end.text}"
        own_pubsub.advance(next(iter(sites.values())).ack_deadline_s + 1)
    for step, end in tried(sites, tmp_path, 2, dying=False).items():
        assert (end.code, end.summary["exit_reason"]) == (0, "drained"), f"{step}: {end.text}"
    for step, site in sites.items():
        best = {one["task_id"]: one["outcome"] for one in site.outcomes()}
        assert best == {**dict.fromkeys(GOOD, "succeeded"), **dict.fromkeys(BAD, "dead")}, step
        created = Counter((tmp_path / site.project / "created").read_text().split())
        assert max(created.values()) == 1, f"{step}: an output was made twice"
        assert {(item["name"], item["metageneration"]) for item in site.items("out/")} == {(f"out/{one}", "1") for one in GOOD}, step
        letters = {one.message.attributes["task_id"] for one in site.pull("dead-letters")}
        assert letters == set(BAD), step
        assert site.pull("lane") == [], step
        assert site.names("attempts/") == [], f"{step}: no attempt is spent on what the kills cut short"
