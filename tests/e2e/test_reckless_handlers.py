"""Handlers, and modules of handlers, that harm the process they run in: real workers end as they should all the same."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.e2e.site import ROOT, Site, ended, wait_for_event

HANDLERS = """
import os
import sys
import threading
import time
import warnings

from batch.handling.registry import task

warnings.simplefilter("ignore")  # newer versions of Python warn of a fork beside threads
noted = os.open(os.environ["TEST_FOLDER"] + "/noted", os.O_WRONLY | os.O_CREAT | os.O_APPEND)


@task("forks", retries=0)
def forks(task, ctx):
    os.write(noted, b"copy\\n" if os.fork() == 0 else b"handler\\n")


@task("exits", retries=0)
def exits(task, ctx):
    sys.exit(0)


@task("moves")
def moves(task, ctx):
    os.chdir("/")
    for _ in range(20):
        threading.Thread(target=time.sleep, args=(60,)).start()


@task("closes")
def closes(task, ctx):
    sys.stdout.close()


@task("isolated", isolation="process")
def isolated(task, ctx):
    ctx.write(f"out/{task.task_id}", b"1")


@task("writes")
def writes(task, ctx):
    ctx.sleep(0.05)
    ctx.write(f"out/{task.task_id}", b"1")
    os.write(noted, b"written\\n")
"""

TAKES_SIGNALS = {
    "default": "signal.signal(signal.SIGTERM, signal.SIG_DFL)",
    "ignore": "signal.signal(signal.SIGTERM, signal.SIG_IGN)",
    "exit": "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))",
    "wake-up": "signal.set_wakeup_fd(-1)",
}


def settings(folder: Path, source: str = "", **more: object) -> dict[str, object]:
    (folder / "reckless.py").write_text(HANDLERS + source)
    own = {"HANDLERS": "reckless", "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}", "TEST_FOLDER": folder, "FLUSH_INTERVAL_S": "0.1"}
    return {
        **own,
        "CHILD_ENVIRONMENT": "TEST_FOLDER",
        "MAX_MESSAGES": 1000,
        "CONCURRENCY": 4,
        "DRAIN_AFTER_S": "0.5",
        "PROCESSES": 1,
        **more,
    }


@pytest.mark.slow
def test_a_process_that_handlers_copy_leave_and_crowd_does_its_work_once(local_site: Site, tmp_path: Path) -> None:
    good = [f"good-{number}" for number in range(20)]
    for kind in ("forks", "exits", "moves"):
        local_site.publish([{"task_id": kind, "task_type": kind}])
    local_site.publish([{"task_id": task_id, "task_type": "writes"} for task_id in good])
    local_site.publish([{"task_id": "alone", "task_type": "isolated"}])
    # A copy that lived on would keep the pipe of this log open, and `run` would not end.
    end = local_site.run(**settings(tmp_path))
    assert (end.code, end.summary["exit_reason"]) == (0, "drained"), end.text
    noted = (tmp_path / "noted").read_text().split()
    assert sorted(noted) == ["copy", "handler", *["written"] * 20], "the copy of the process has done nothing else"
    final = {one["task_id"]: one["outcome"] for one in local_site.outcomes()}
    assert final == {**dict.fromkeys([*good, "forks", "moves", "alone"], "succeeded"), "exits": "dead"}


def test_a_worker_whose_standard_output_was_closed_ends_well(local_site: Site, tmp_path: Path) -> None:
    local_site.publish([{"task_id": "closes", "task_type": "closes"}, {"task_id": "good", "task_type": "writes"}])
    end = local_site.run(**settings(tmp_path, BACKLOG=2))
    assert end.code == 0, end.text
    assert local_site.final() == {"succeeded": 2}
    assert local_site.progress()["lane-x/0-0"]["exit_reason"] == "share_done"


@pytest.mark.parametrize("how", TAKES_SIGNALS)
def test_a_module_that_takes_the_signals_does_not_keep_a_worker_from_hearing_them(local_site: Site, tmp_path: Path, how: str) -> None:
    local_site.publish([{"task_id": f"task-{number}", "task_type": "writes"} for number in range(200)])
    worker = local_site.start(**settings(tmp_path, f"\nimport signal\n\n{TAKES_SIGNALS[how]}\n"))
    wait_for_event(worker, "flushed")
    worker.send_signal(signal.SIGTERM)
    end = ended(worker)
    assert (end.code, end.summary["exit_reason"]) == (0, "stopped"), end.text
    assert end.summary["taken"] == end.summary["acked"] + end.summary["returned"] > 0
