"""What only the local service has: its workers, their logs, what they used, and moving one of them."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from local_cloud.run.runner.settings import StartUp

if TYPE_CHECKING:
    from tests.local_cloud.run.conftest import Service, Starter, WaitUntil

# Writes down each signal that it hears, then stays; a file named `up` says that it listens.
LISTENER = """
import os, pathlib, signal, sys
out = pathlib.Path(os.environ["OUT"])
def hear(number, frame):
    with (out / "heard").open("a") as heard:
        heard.write(signal.Signals(number).name + "\\n")
    if number == signal.SIGTERM:
        sys.exit(0)
for number in (signal.SIGTSTP, signal.SIGCONT, signal.SIGTERM):
    signal.signal(number, hear)
(out / "up").touch()
while True:
    signal.pause()
"""
PARENT = "projects/shop/locations/us-central1"
BUSY = """
import time
big = bytearray(150_000_000)
until = time.process_time() + 0.4
while time.process_time() < until:
    pass
"""


def short(name: str) -> str:
    return name.rpartition("/")[2]


def finished(service: Service, job: str = "lane") -> str:
    """The short name of an execution that is over."""
    name = service.run(job)
    service.finish(name)
    return short(name)


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_the_running_workers_are_listed(service: Service, out: Path) -> None:
    service.create_waiting(task_count=2, max_retries=1)
    before_s = service.clock.now()
    name = service.run()
    service.wait_for_files("0-0.up", "1-0.up")
    os.kill(int((out / "0-0.up").read_text()), signal.SIGKILL)
    service.wait_for_files("0-1.up")
    workers: list[dict[str, Any]] = service.local("workers")["workers"]
    assert [(one["job"], one["execution"], one["index"], one["retry"]) for one in workers] == [
        ("lane", short(name), 0, 1),
        ("lane", short(name), 1, 0),
    ]
    assert [str(one["pid"]) for one in workers] == [(out / file).read_text() for file in ("0-1.up", "1-0.up")]
    assert all(before_s <= one["start_s"] <= service.clock.now() for one in workers)
    service.executions.cancel_execution(name=name)
    service.finish(name)
    assert service.local("workers") == {"workers": []}


def test_each_try_has_its_log(service: Service) -> None:
    service.create(command=["sh", "-c", 'echo "try $CLOUD_RUN_TASK_ATTEMPT"; echo problem >&2; exit 1'], max_retries=1)
    name = finished(service)
    logs = service.local(f"executions/{name}/logs")["logs"]
    assert logs == [{"index": 0, "retry": retry, "size_bytes": 14} for retry in (0, 1)]
    shown = service.get(f"{PARENT}/jobs/lane/executions/{name}")
    assert shown.log_uri == f"{service.url}/executions/{name}/logs"
    assert service.task_list(shown.name)[0].log_uri == f"{shown.log_uri}/0"
    assert service.text(f"executions/{name}/logs/0") == "try 1\nproblem\n", "the last try, where none is named"
    assert service.text(f"executions/{name}/logs/0?retry=0&offset=6") == "problem\n"
    for path, status in [("logs/1", 404), ("logs/0?retry=2", 404), ("logs/x", 400), ("logs/0?offset=-1", 400)]:
        assert "error" in service.local(f"executions/{name}/{path}", status=status)
    assert "executions/none" in service.local("executions/none/logs", status=404)["error"]["message"]


@pytest.mark.slow
def test_cpu_and_memory_of_each_worker_are_measured_and_survive_a_restart(start: Starter) -> None:
    service = start()
    service.create(command=["python", "-c", BUSY], task_count=2)
    service.create("idle", command=["sh", "-c", "sleep 0.6"])
    busy, idle = finished(service), finished(service, "idle")
    used = service.local(f"executions/{busy}/usage")
    assert [(one["index"], one["retry"], one["exit_code"]) for one in used["tries"]] == [(0, 0, 0), (1, 0, 0)]
    for one in used["tries"]:
        assert 0.4 <= one["cpu_s"] < 3
        assert 150e6 <= one["peak_memory_bytes"] < 250e6
        assert one["end_s"] - one["start_s"] >= 0.4
    assert used["cpu_s"] == pytest.approx(sum(one["cpu_s"] for one in used["tries"]))
    small = service.local(f"executions/{idle}/usage")
    assert small["cpu_s"] < 0.2
    assert small["peak_memory_bytes"] < 10e6, "the server's own memory does not count as the worker's"
    service.stop()
    assert start().local(f"executions/{busy}/usage") == used


def test_a_migration_warns_stops_and_continues(service: Service, out: Path, wait_until: WaitUntil) -> None:
    service.create(command=["python", "-c", LISTENER])
    name = short(service.run())
    service.wait_for_files("up")
    pid = service.local("workers")["workers"][0]["pid"]
    moved = service.local(f"executions/{name}/migrate", {"index": 0, "pause_s": 30})
    assert moved == {"execution": name, "index": 0, "retry": 0, "pause_s": 30}
    service.wait_for_files("heard")
    assert "being moved" in service.local(f"executions/{name}/migrate", {"index": 0}, status=400)["error"]["message"]
    assert state_of(pid) != "T"
    service.clock.advance(10)
    wait_until(lambda: state_of(pid) == "T", "the worker stands still")
    service.clock.advance(29)
    assert state_of(pid) == "T"
    service.clock.advance(2)
    wait_until(lambda: (out / "heard").read_text() == "SIGTSTP\nSIGCONT\n", "the worker goes on")
    service.local(f"executions/{name}/migrate", {"index": 0, "pause_s": 0})


def test_a_worker_that_stands_still_hears_the_cancel(service: Service, out: Path, wait_until: WaitUntil) -> None:
    service.create(command=["python", "-c", LISTENER])
    run = service.run()
    name = short(run)
    service.wait_for_files("up")
    pid = service.local("workers")["workers"][0]["pid"]
    service.local(f"executions/{name}/migrate", {"index": 0, "pause_s": 300})
    service.wait_for_files("heard")
    service.clock.advance(10)
    wait_until(lambda: state_of(pid) == "T", "the worker stands still")
    service.local(f"apis/run.googleapis.com/v1/namespaces/shop/executions/{name}:cancel", {})
    service.finish(run)
    assert "SIGTERM" in (out / "heard").read_text().split()


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        ({"index": 5}, 404, "/5"),
        ({"index": 0}, 400, "is Succeeded; only a running worker"),
        ({"index": 0, "pause_s": -1}, 400, "pause_s: got -1"),
        ({"index": 0, "pause": 3}, 400, "did you mean 'pause_s'?"),
    ],
)
def test_moves_that_are_refused(service: Service, body: dict[str, Any], status: int, told: str) -> None:
    service.create()
    name = finished(service)
    assert told in service.local(f"executions/{name}/migrate", body, status=status)["error"]["message"]


def test_a_drawn_delay_counts_before_the_worker_starts(start: Starter) -> None:
    delays = StartUp(100, 0.5, 5)
    service = start(startup=delays)
    service.create(task_count=3)
    name = service.run()
    service.wait_for_slot(name)
    drawn = sorted(delays.delay_s(1, index, 0) for index in range(3))
    service.clock.advance(drawn[0] + (drawn[1] - drawn[0]) / 2)
    with service.cloud.condition:
        found = service.cloud.execution_named(short(name))
        assert service.cloud.condition.wait_for(lambda: found.succeeded_count, timeout=10)
        assert found.succeeded_count == 1
    service.clock.advance(drawn[2])
    service.finish(name)


@pytest.mark.parametrize("query", ["?offset=-1", f"?offset={'9' * 30}", f"?retry={'9' * 5000}", "?retry=x"])
def test_numbers_that_are_none(service: Service, query: str) -> None:
    service.create()
    answer = service.http.get(f"{service.url}/executions/{short(finished(service))}/logs/0{query}")
    assert (answer.status_code, "must be a whole number" in answer.text) == (400, True)
