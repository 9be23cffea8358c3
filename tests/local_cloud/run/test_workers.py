"""Workers as real processes: what they are given, how their ends count, how they are stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from local_cloud.run.runner.settings import StartUp

if TYPE_CHECKING:
    from tests.local_cloud.run.conftest import Service, Starter, WaitUntil

SAVE_ENV = ["sh", "-c", 'env > "$OUT/$CLOUD_RUN_TASK_INDEX-$CLOUD_RUN_TASK_ATTEMPT"']


def environment(path: Path) -> dict[str, str]:
    return dict(line.split("=", 1) for line in path.read_text().splitlines() if "=" in line)


def counters(execution: object) -> dict[str, int]:
    names = ("running", "succeeded", "failed", "cancelled", "retried")
    return {name: getattr(execution, f"{name}_count") for name in names if getattr(execution, f"{name}_count")}


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_worker_gets_the_listed_environment_and_nothing_else(service: Service, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEAKED", "no")
    service.create(command=SAVE_ENV, task_count=2, env={"A": "from the job", "B": "kept"})
    name = service.run(container_overrides=[{"env": [{"name": "A", "value": "from the run"}, {"name": "C", "value": "new"}]}])
    assert counters(service.finish(name)) == {"succeeded": 2}
    seen = environment(out / "1-0")
    assert (seen["A"], seen["B"], seen["C"], seen["PASSED"]) == ("from the run", "kept", "new", "on")
    assert "LEAKED" not in seen
    assert {key: value for key, value in seen.items() if key.startswith("CLOUD_RUN_")} == {
        "CLOUD_RUN_JOB": "lane",
        "CLOUD_RUN_EXECUTION": name.rpartition("/")[2],
        "CLOUD_RUN_TASK_INDEX": "1",
        "CLOUD_RUN_TASK_COUNT": "2",
        "CLOUD_RUN_TASK_ATTEMPT": "0",
    }
    assert seen["PATH"] == os.environ["PATH"]
    assert seen["PYTHONUNBUFFERED"] == "1"


def test_python_is_the_servers_own_and_output_goes_to_the_log(service: Service) -> None:
    service.create(command=["python", "-c", "import sys; print(sys.executable); print('bad', file=sys.stderr)"])
    name = service.run()
    service.finish(name)
    log = service.state_dir / "executions" / name.rpartition("/")[2] / "0-0.log"
    assert log.read_text().splitlines() == [sys.executable, "bad"]


def test_a_failed_try_is_repeated_until_none_is_left(service: Service, out: Path) -> None:
    service.create(command=["sh", "-c", 'touch "$OUT/$CLOUD_RUN_TASK_INDEX-$CLOUD_RUN_TASK_ATTEMPT"; exit 3'], max_retries=2, task_count=2)
    execution = service.finish(service.run())
    assert sorted(path.name for path in out.iterdir()) == ["0-0", "0-1", "0-2", "1-0", "1-1", "1-2"]
    assert counters(execution) == {"failed": 2, "retried": 2}
    completed = execution.conditions[0]
    assert (completed.type_, completed.state.name) == ("Completed", "CONDITION_FAILED")
    assert completed.execution_reason.name == "NON_ZERO_EXIT_CODE"
    task = service.task_list(execution.name)[0]
    assert (task.index, task.retried, task.last_attempt_result.exit_code) == (0, 2, 3)
    assert "code 3" in task.last_attempt_result.status.message


def test_a_retry_that_succeeds_makes_a_success_and_the_others_go_on_after_a_failure(service: Service) -> None:
    script = 'case "$CLOUD_RUN_TASK_INDEX-$CLOUD_RUN_TASK_ATTEMPT" in 0-0|2-*) exit 1;; esac'
    service.create(command=["sh", "-c", script], max_retries=1, task_count=4, parallelism=1)
    execution = service.finish(service.run())
    assert counters(execution) == {"succeeded": 3, "failed": 1, "retried": 2}
    assert [task.completion_time <= execution.completion_time for task in service.task_list(execution.name)] == [True] * 4


def test_a_worker_killed_from_outside_is_a_failed_try(service: Service, out: Path) -> None:
    service.create_waiting()
    name = service.run()
    service.wait_for_files("0-0.up")
    os.kill(int((out / "0-0.up").read_text()), signal.SIGKILL)
    execution = service.finish(name)
    assert counters(execution) == {"failed": 1}
    assert service.task_list(name)[0].last_attempt_result.term_signal == signal.SIGKILL


def test_a_command_that_does_not_exist_fails_with_its_name(service: Service) -> None:
    service.create(command=["no-such-program"])
    execution = service.finish(service.run())
    assert counters(execution) == {"failed": 1}
    assert "no-such-program" in execution.conditions[0].message


def test_a_timeout_by_the_clock_ends_the_try_and_leads_to_the_next(service: Service) -> None:
    service.create_waiting(timeout_s=300, max_retries=1)
    name = service.run()
    service.wait_for_files("0-0.up")
    assert counters(service.get(name)) == {"running": 1}
    service.clock.advance(290)
    assert counters(service.get(name)) == {"running": 1}
    service.clock.advance(20)
    service.wait_for_files("0-0.term", "0-1.up")
    service.clock.advance(301)
    execution = service.finish(name)
    assert counters(execution) == {"failed": 1, "retried": 1}
    assert "timeout" in service.task_list(name)[0].last_attempt_result.status.message


def test_a_worker_that_ignores_sigterm_is_killed_ten_clock_seconds_later(service: Service, out: Path) -> None:
    service.create_waiting(env={"STUBBORN": "1"}, timeout_s=60)
    name = service.run()
    service.wait_for_files("0-0.up")
    service.clock.advance(60)
    service.wait_for_files("0-0.term")
    assert alive(int((out / "0-0.up").read_text()))
    service.clock.advance(10)
    service.finish(name)
    assert service.task_list(name)[0].last_attempt_result.term_signal == signal.SIGKILL
    assert not alive(int((out / "0-0.up").read_text()))


def test_the_start_up_delay_counts_against_the_timeout(start: Starter, out: Path) -> None:
    service = start(startup=StartUp(50))
    service.create(command=SAVE_ENV, timeout_s=40)
    name = service.run()
    service.wait_for_slot(name)
    service.clock.advance(45)
    assert counters(service.finish(name)) == {"failed": 1}
    assert list(out.iterdir()) == []
    service.create("patient", command=SAVE_ENV, timeout_s=60)
    name = service.run("patient")
    service.wait_for_slot(name)
    assert counters(service.get(name)) == {}
    service.clock.advance(51)
    assert counters(service.finish(name)) == {"succeeded": 1}


def test_cancel_stops_what_runs_and_what_waits(service: Service) -> None:
    service.create_waiting(task_count=5, parallelism=2)
    name = service.run()
    service.wait_for_files("0-0.up", "1-0.up")
    operation = service.executions.cancel_execution(name=name)
    execution = service.finish(name)
    assert counters(execution) == {"cancelled": 5}
    assert operation.result(timeout=60).name == name
    assert (service.out / "0-0.term").exists()
    completed = execution.conditions[0]
    assert (completed.state.name, completed.execution_reason.name) == ("CONDITION_FAILED", "CANCELLED")
    latest = service.jobs.get_job(name=name.partition("/executions")[0]).latest_created_execution
    assert latest.completion_status.name == "EXECUTION_CANCELLED"


def test_cancel_kills_a_stubborn_worker_and_a_second_cancel_changes_nothing(service: Service) -> None:
    service.create_waiting(env={"STUBBORN": "1"}, max_retries=3)
    name = service.run()
    service.wait_for_files("0-0.up")
    service.executions.cancel_execution(name=name)
    service.wait_for_files("0-0.term")
    service.executions.cancel_execution(name=name)
    assert not service.get(name).completion_time
    service.clock.advance(10)
    assert counters(service.finish(name)) == {"cancelled": 1}


@pytest.mark.parametrize(("parallelism", "max_process_count", "together"), [(2, 64, 2), (0, 3, 3), (4, 3, 3)])
def test_no_more_workers_than_allowed(start: Starter, parallelism: int, max_process_count: int, together: int) -> None:
    service = start(max_process_count=max_process_count)
    service.create_waiting(task_count=5, parallelism=parallelism)
    name = service.run()
    service.wait_for_files(*[f"{index}-0.up" for index in range(together)])
    assert counters(service.get(name)) == {"running": together}
    assert sorted(path.name for path in service.out.iterdir()) == [f"{index}-0.up" for index in range(together)]


def test_what_a_worker_leaves_behind_dies_with_it(service: Service, out: Path, wait_until: WaitUntil) -> None:
    service.create(command=["sh", "-c", 'sleep 600 & echo $! > "$OUT/child"'])
    service.finish(service.run())
    child = int((out / "child").read_text())
    wait_until(lambda: not _runs(child), f"the end of process {child}")


# Leaves its group and its parent; says so only when all is done.
DAEMON = """
import os, pathlib, signal
if os.fork():
    while not pathlib.Path(os.environ["OUT"], "daemon").exists():
        os.sched_yield()
    os._exit(0)
os.setsid()
if os.fork():
    os._exit(0)
if "SILENT" in os.environ:
    os.close(1)
    os.close(2)
pathlib.Path(os.environ["OUT"], "draft").write_text(str(os.getpid()))
os.rename(os.environ["OUT"] + "/draft", os.environ["OUT"] + "/daemon")
while True:
    signal.pause()
"""


@pytest.mark.parametrize("env", [{}, {"SILENT": "1"}])
def test_a_daemon_dies_with_its_worker(service: Service, out: Path, wait_until: WaitUntil, env: dict[str, str]) -> None:
    service.create_waiting("other")
    other = service.run("other")
    service.wait_for_files("0-0.up")
    service.create(command=["python", "-c", DAEMON], env=env)
    assert counters(service.finish(service.run())) == {"succeeded": 1}
    daemon = int((out / "daemon").read_text())
    wait_until(lambda: not _runs(daemon), f"the end of process {daemon}")
    assert counters(service.get(other)) == {"running": 1}


def _runs(pid: int) -> bool:
    """Alive and no zombie: nobody but the system's first process may reap an orphan."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.slow
def test_200_small_workers_end_soon_and_leave_nothing(service: Service) -> None:
    service.create(command=["sh", "-c", "sleep 600 & echo $$"], task_count=200, parallelism=20)
    name = service.run()
    execution = service.finish(name)
    assert counters(execution) == {"succeeded": 200}
    assert service.local("workers")["workers"] == []
    logs = [service.text(f"executions/{execution.name.rpartition('/')[2]}/logs/{index}") for index in range(200)]
    assert not [group for group in logs if group_runs(int(group))]


def group_runs(group: int) -> bool:
    """Whether a process of the group is alive; zombies, which only their parent can reap, do not count."""
    listed = subprocess.run(["ps", "-o", "stat=", "-g", str(group)], capture_output=True, text=True, check=False)
    return any(not line.startswith("Z") for line in listed.stdout.split())


def test_stop_ends_all_workers_and_the_next_server_goes_on(start: Starter, out: Path, wait_until: WaitUntil) -> None:
    first = start()
    first.create_waiting(max_retries=1, task_count=2)
    name = first.run()
    first.wait_for_files("0-0.up", "1-0.up")
    first.stop()
    assert not any(alive(int((out / f"{index}-0.up").read_text())) for index in range(2))
    second = start()
    second.wait_for_files("0-1.up", "1-1.up")
    assert counters(second.get(name)) == {"running": 2, "retried": 2}
    assert [task.retried for task in second.task_list(name)] == [1, 1]


def test_overrides_change_arguments_count_and_timeout(service: Service, out: Path) -> None:
    service.create(command=["sh", "-c", 'echo "$0 $*" > "$OUT/$CLOUD_RUN_TASK_INDEX"'])
    runs: list[tuple[dict[str, object], str]] = [({"args": ["x", "y z"]}, "x y z\n"), ({"clear_args": True}, "sh \n")]
    for override, expected in runs:
        execution = service.finish(service.run(task_count=3, timeout={"seconds": 77}, container_overrides=[override]))
        assert [(out / str(index)).read_text() for index in range(3)] == [expected] * 3
        assert (execution.task_count, execution.template.timeout.seconds) == (3, 77)
