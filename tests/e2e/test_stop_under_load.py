"""Real worker processes that must end: told to, with thousands of messages in hand, or because one of their own threads stands still."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.e2e.site import ROOT, Site, ended, wait_for_event
from tests.support import pulled_at_once, wait_until

HANDLERS = """
import os
from pathlib import Path

from batch.handling.registry import task

FOLDER = Path(os.environ["TEST_FOLDER"])
started = os.open(FOLDER / "started", os.O_WRONLY | os.O_CREAT | os.O_APPEND)


@task("quick")
def quick(task, ctx):
    os.write(started, b"%s\\n" % task.task_id.encode())
    ctx.sleep(0.01)


@task("long")
def long(task, ctx):
    os.write(started, b"%s\\n" % task.task_id.encode())
    while not (FOLDER / "release").exists():
        ctx.sleep(0.02)
"""

HANGING = """
import threading

from batch.handling.registry import task
from batch.worker.committing.committer import Committer


@task("quick")
def quick(task, ctx):
    return None


def never(self):
    threading.Event().wait()


Committer.try_flush = never
"""


def start(site: Site, folder: Path, source: str, **settings: object) -> subprocess.Popen[bytes]:
    (folder / "own_handlers.py").write_text(source)
    path = f"{folder}{os.pathsep}{ROOT}"
    return site.start(HANDLERS="own_handlers", PYTHONPATH=path, TEST_FOLDER=folder, **settings)


def started(folder: Path) -> list[str]:
    return (folder / "started").read_text().split()


@dataclass
class Another:
    """What another client gets from the lane, by the time (monotonic) at which it has it."""

    site: Site
    got: dict[str, float] = field(default_factory=dict)
    enough: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """As fast as it can; what it gets is acknowledged, so that it is seen once."""
        path = f"projects/{self.site.project}/subscriptions/lane"
        while not self.enough.is_set():
            received = pulled_at_once(self.site.subscriber, path)
            now_s = time.monotonic()
            if received:
                self.got.update((one.message.message_id, now_s) for one in received)
                self.site.subscriber.acknowledge(subscription=path, ack_ids=[one.ack_id for one in received])
            else:
                self.enough.wait(0.05)


@contextmanager
def another_worker(site: Site) -> Iterator[Another]:
    """One that pulls from now on."""
    another = Another(site)
    thread = threading.Thread(target=another.run)
    thread.start()
    try:
        yield another
    finally:
        another.enough.set()
        thread.join()


@pytest.mark.slow
def test_thousands_in_hand_are_anothers_before_a_stopped_worker_has_ended(site: Site, tmp_path: Path) -> None:
    count = 15_000
    site.publish([{"task_id": "long", "task_type": "long"}])
    site.publish([{"task_id": f"task-{number}", "task_type": "quick"} for number in range(count)])
    # A busy machine may answer a pull later than its deadline, and what it brought is then on a lease that nobody knows: a long wait.
    settings = {"FLUSH_INTERVAL_S": "0.5", "PREFETCH_S": 4, "DRAIN_AFTER_S": 15}
    worker = start(site, tmp_path, HANDLERS, MAX_MESSAGES=100_000, CONCURRENCY=16, **settings)
    wait_until(lambda: (tmp_path / "started").exists() and len(started(tmp_path)) > 3000, 30, "thousands of tasks")
    with another_worker(site) as another:
        signal_s = time.monotonic()
        worker.send_signal(signal.SIGTERM)
        wait_for_event(worker, "worker_stopping")
        wait_until(lambda: len(another.got) >= count + 1 - len(started(tmp_path)), 30, "all that has not started, in other hands")
        began = started(tmp_path)
    took_s = max(another.got.values()) - signal_s
    print(f"{len(another.got)} messages that had not started were in other hands {took_s:.2f} s after the signal")
    assert worker.poll() is None, "the long handler still runs, and what has not started is somebody else's already"
    assert started(tmp_path) == began, "nothing starts after the signal"
    (tmp_path / "release").touch()
    end = ended(worker)
    assert (end.code, end.summary["exit_reason"]) == (0, "stopped"), end.text
    summary = end.summary
    assert summary["taken"] == summary["acked"] + summary["returned"]
    assert summary["returned"] >= 1000, "it had thousands in hand"
    assert len(another.got) == count + 1 - summary["acked"]
    assert len(set(began)) == len(began) == summary["acked"], "everything that began has ended"
    assert site.final() == {"succeeded": summary["acked"]}
    assert site.names("attempts/") == [], "no attempt is spent"


@pytest.mark.slow
def test_a_worker_whose_committer_stands_still_says_so_and_ends_with_its_own_code(local_site: Site, tmp_path: Path) -> None:
    local_site.publish([{"task_id": f"task-{number}", "task_type": "quick"} for number in range(20)])
    worker = start(local_site, tmp_path, HANGING, BACKLOG=20, WATCHDOG_S=1, FLUSH_INTERVAL_S="0.1")
    end = ended(worker, 30)
    assert (end.code, end.summary["exit_reason"]) == (4, "stuck"), end.text
    (stuck,) = end.events("worker_stuck")
    assert stuck["parts"] == ["committer"]
    assert "in never" in stuck["stacks"]
    assert len(local_site.pull("lane")) == 20, "its leases are handed back"
    assert local_site.progress()["lane-x/0-0"]["exit_reason"] == "stuck"
