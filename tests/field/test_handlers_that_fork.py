"""Handlers that fork: a copy is no second worker, nobody's signal ends the worker but its own, and nothing outlives it."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from batch.handling.registry import Registry, default_registry
from batch.model.exit import ExitReason
from tests.batch.worker.plant import Plant
from tests.e2e.site import Ended, Site, ended
from tests.support import Service, slow_but, wait_until

pytestmark = pytest.mark.slow

KINDS = ("plain", "async", "async-thread", "group", "isolated", "plain-coroutine")
linux = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a worker does not know what its handlers have left behind")


@pytest.fixture
def site(project: str, local_storage: Service, local_pubsub: Service) -> Iterator[Site]:
    made = Site(project, local_pubsub.grpc, local_storage.http)
    yield made
    made.close()


def settings(folder: Path, **more: object) -> dict[str, object]:
    own = {"HANDLERS": "tests.field.forking_handlers", "NOTES": folder, "CHILD_ENVIRONMENT": "NOTES", "FLUSH_INTERVAL_S": "0.1"}
    return {**own, "CONCURRENCY": 4, "PROCESSES": 2, "DRAIN_AFTER_S": "0.5", "BILLING_FLOOR_S": 0, **more}


def submit(site: Site, kind: str, way: str, count: int = 1) -> list[str]:
    ids = [f"{kind}-{way}-{number}" for number in range(count)]
    site.publish([{"task_id": one, "task_type": f"{kind}-forks", "way": way} for one in ids])
    return ids


def noted(folder: Path, what: str) -> list[int]:
    file = folder / what
    return [int(line) for line in file.read_text().split()] if file.exists() else []


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def surviving(folder: Path, what: str = "copy") -> list[int]:
    return [pid for pid in noted(folder, what) if alive(pid)]


def all_gone(folder: Path, what: str) -> None:
    """A process that has been killed takes a moment to be gone."""
    wait_until(lambda: not surviving(folder, what), 30, f"the end of {noted(folder, what)}")


def worker_ends_well(site: Site, folder: Path, count: int, **more: object) -> Ended:
    """All tasks of the lane are done by one worker, whose end nobody has asked for."""
    end = site.run(**settings(folder, BACKLOG=count, **more))
    assert (end.code, end.summary["exit_reason"]) == (0, "share_done"), end.text
    assert site.final() == {"succeeded": count}, end.text
    assert not end.events("worker_stopping")
    all_gone(folder, "copy")
    return end


@pytest.mark.slow
def test_ten_tasks_that_use_a_pool_of_copies_succeed(site: Site, tmp_path: Path) -> None:
    submit(site, "plain", "pool", 10)
    end = site.run(**settings(tmp_path))
    assert (end.code, end.summary["exit_reason"]) == (0, "drained"), end.text
    assert site.final() == {"succeeded": 10}
    assert not surviving(tmp_path)


@pytest.mark.parametrize("kind", slow_but(["plain", "isolated"], KINDS))
def test_pools_processes_and_bare_forks_end_nothing_but_themselves(site: Site, tmp_path: Path, kind: str) -> None:
    ways = ("pool", "terminate", "executor", "raw", "process")
    for way in ways:
        submit(site, kind, way)
    worker_ends_well(site, tmp_path, len(ways))
    assert noted(tmp_path, "copy")


@pytest.mark.parametrize("kind", slow_but(["plain", "isolated"], KINDS))
def test_tasks_may_share_one_pool_though_the_thread_that_made_it_ends(site: Site, tmp_path: Path, kind: str) -> None:
    submit(site, kind, "shared_pool", 10)
    worker_ends_well(site, tmp_path, 10)


@pytest.mark.parametrize("kind", slow_but(["plain", "isolated"], KINDS))
def test_a_copy_that_comes_back_from_the_handler_ends_quietly(site: Site, tmp_path: Path, kind: str) -> None:
    count = 1 if kind == "group" else 2  # a copy goes on with the rest of its group
    submit(site, kind, "comes_back", count)
    site.publish([{"task_id": f"good-{number}", "task_type": "plain-good"} for number in range(4)])
    end = worker_ends_well(site, tmp_path, 4 + count, PYTHONUNBUFFERED="")
    assert len(noted(tmp_path, "copy")) == count
    results = [one["result"] for one in site.outcomes() if one["task_id"].startswith(kind)]
    assert results == ["handler"] * count
    printed = [line for line in end.text.splitlines() if "printed before the fork" in line]
    assert len(printed) == count, "it stands there once for each task"
    assert len(end.events("worker_started")) == len(end.events("worker_ended")) == 1


@pytest.mark.parametrize("kind", slow_but(["plain"], ["plain", "group", "plain-coroutine"]))
def test_a_copy_may_use_the_bucket_on_connections_of_its_own(site: Site, tmp_path: Path, kind: str) -> None:
    submit(site, kind, "uses_the_bucket", 4)
    worker_ends_well(site, tmp_path, 4)
    results = [said for one in site.outcomes() for said in one["result"]]
    assert results == ["wrote from a copy"] * 8


def test_a_copy_of_an_isolated_handler_is_told_that_the_bucket_is_not_its_own(site: Site, tmp_path: Path) -> None:
    submit(site, "isolated", "uses_the_bucket", 3)
    worker_ends_well(site, tmp_path, 3)
    results = {said for one in site.outcomes() for said in one["result"]}
    (said,) = results
    assert said.startswith("CopyRefused: ")
    assert "return the data" in said


@linux
@pytest.mark.parametrize("kind", slow_but(["plain", "isolated"], KINDS))
def test_what_handlers_leave_behind_ends_with_the_worker(site: Site, tmp_path: Path, kind: str) -> None:
    submit(site, kind, "leaves")
    worker_ends_well(site, tmp_path, 1)
    all_gone(tmp_path, "left")


@linux
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["plain", "isolated"])
def test_it_also_ends_with_a_worker_that_was_told_to_stop(site: Site, tmp_path: Path, kind: str) -> None:
    submit(site, kind, "leaves_and_stays")
    worker = site.start(**settings(tmp_path))
    wait_until(lambda: len(noted(tmp_path, "left")) == 5, 60, "what the handler starts")
    site.publish([{"task_id": "late", "task_type": "plain-good"}])
    worker.send_signal(signal.SIGTERM)
    end = ended(worker)
    assert (end.code, end.summary["exit_reason"]) == (0, "stopped"), end.text
    all_gone(tmp_path, "left")


@linux
def test_at_its_time_limit_an_isolated_handler_ends_with_all_that_it_has_started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Daemons in sessions of their own as well, while the worker, here this process, goes on."""
    monkeypatch.setenv("NOTES", str(tmp_path))
    module = importlib.import_module("tests.field.forking_handlers").__name__
    registry = Registry()
    registry._handlers["isolated-hangs"] = default_registry["isolated-hangs"]
    plant = Plant(registry=registry)
    plant.submit(1, "isolated-hangs")
    assert plant.worker(HANDLERS=module, CHILD_ENVIRONMENT="NOTES", BACKLOG=1).run() is ExitReason.SHARE_DONE
    assert plant.final() == {"task-0": "dead"}
    assert len(noted(tmp_path, "left")) == 5
    all_gone(tmp_path, "left")


ENDS = {"never": (4, "stuck"), "crashes": (1, "broken"), "is_refused": (3, "broken"), "stops": (0, "stopped")}


@linux
@pytest.mark.slow
@pytest.mark.parametrize("way", ENDS)
def test_it_ends_with_a_worker_that_ends_badly(site: Site, tmp_path: Path, way: str) -> None:
    submit(site, "plain", f"leaves_and_{way}")
    end = site.run(**settings(tmp_path, WATCHDOG_S=1))
    assert (end.code, end.events("worker_ended")[-1]["exit_reason"]) == ENDS[way], end.text
    assert noted(tmp_path, "left")
    all_gone(tmp_path, "left")


@linux
@pytest.mark.parametrize("kind", ["plain", "isolated"])
def test_copies_end_with_a_worker_that_was_killed(site: Site, tmp_path: Path, kind: str) -> None:
    submit(site, kind, "leaves_and_stays")
    worker = site.start(**settings(tmp_path), TMPDIR=tmp_path)  # a worker that is killed leaves the folders of its children
    wait_until(lambda: len(noted(tmp_path, "left")) == 5, 60, "what the handler starts")
    worker.kill()
    # Another program, and a copy that has closed all it had, cannot be reached by a worker that is no more.
    wait_until(lambda: len(surviving(tmp_path, "left")) <= 2, 30, "the end of the copies")
    worker.wait()
    for pid in surviving(tmp_path, "left"):
        os.kill(pid, signal.SIGKILL)
