"""The service as a process: its ready line, its end, and what a restart finds."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests

from local_cloud.processes import start_mark
from local_cloud.run.model.cloud import Cloud
from local_cloud.run.model.execution import Execution
from local_cloud.run.model.job import JobKey
from local_cloud.run.model.store import Store
from local_cloud.run.model.task import Event, Kind
from local_cloud.run.runner.leftovers import Records
from local_cloud.run.spec.template import Container, JobSpec, Overrides, Template
from local_cloud.run.spec.validation import V2_RUN_PATHS
from tests.local_cloud.manual_clock import ManualClock

if TYPE_CHECKING:
    from tests.local_cloud.run.conftest import WaitUntil

# Leaves its process id in a file named after the try, then stays.
UP = ["sh", "-c", 'to="$OUT/$CLOUD_RUN_TASK_ATTEMPT"; echo $$ > "$to.new"; mv "$to.new" "$to"; exec sleep 600']
KEY = JobKey("shop", "us-central1", "lane")


class Process:
    """A running `python -m local_cloud.run`."""

    def __init__(self, state_dir: Path, *options: str) -> None:
        command = [sys.executable, "-m", "local_cloud.run", "--state-dir", str(state_dir), *options]
        environment = {**os.environ, "PUBSUB_EMULATOR_HOST": "there:1"}
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
        assert self.process.stdout is not None
        self.ready: dict[str, str] = json.loads(self.process.stdout.readline())
        self.base = f"{self.ready['http']}/apis/run.googleapis.com/v1/namespaces/shop/"

    def call(self, method: str, path: str, body: Any = None) -> Any:
        answer = requests.request(method, self.base + path, json=body, timeout=60)
        answer.raise_for_status()
        return answer.json()

    def create(self, command: list[str], out: Path, max_retries: int = 0) -> None:
        container = {"image": "i", "command": command, "env": [{"name": "OUT", "value": str(out)}]}
        task = {"containers": [container], "maxRetries": max_retries}
        self.call("POST", "jobs", {"metadata": {"name": "lane"}, "spec": {"template": {"spec": {"template": {"spec": task}}}}})

    def end(self, how: Callable[[subprocess.Popen[bytes]], object]) -> int:
        """Returns the exit code; the process is gone afterwards, whatever happens."""
        try:
            how(self.process)
            return self.process.wait(timeout=60)
        finally:
            self.process.kill()
            self.process.wait()
            for pipe in (self.process.stdin, self.process.stdout):
                if pipe is not None:
                    pipe.close()


def close_stdin(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.close()


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    started: list[Process] = []

    def start(*options: str) -> Process:
        started.append(Process(tmp_path / "state", *options))
        return started[-1]

    yield start
    for process in started:
        if process.process.returncode is None:
            process.end(subprocess.Popen.terminate)


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize(("options", "how"), [(["--exit-with-stdin"], close_stdin), (["--exit-with-stdin"], subprocess.Popen.terminate)])
def test_no_worker_outlives_an_orderly_end(
    begin: Callable[..., Process],
    out: Path,
    wait_until: WaitUntil,
    options: list[str],
    how: Callable[[subprocess.Popen[bytes]], object],
) -> None:
    server = begin(*options)
    assert server.ready["service"] == "run"
    assert requests.get(server.ready["http"], timeout=60).json() == {"service": "run", "status": "ok"}
    server.create(UP, out)
    server.call("POST", "jobs/lane:run")
    wait_until((out / "0").exists, "the worker")
    assert server.end(how) == 0
    assert not runs(int((out / "0").read_text()))


@pytest.mark.parametrize("wrong", ["--startup-delay-s=-1", "--startup-spread=-0.1", "--startup-delay-s=nan", "--max-processes=0"])
def test_options_that_make_no_sense_are_refused(tmp_path: Path, wrong: str) -> None:
    command = [sys.executable, "-m", "local_cloud.run", "--state-dir", str(tmp_path / "state"), wrong]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, wrong.partition("=")[0] in done.stderr, (tmp_path / "state").exists()) == (2, True, False)


def test_options_reach_the_workers_and_the_jobs(begin: Callable[..., Process], out: Path, wait_until: WaitUntil) -> None:
    server = begin("--region", "europe-west1", "--pass-env", "PUBSUB_EMULATOR_HOST", "STORAGE_EMULATOR_HOST")
    server.create(["sh", "-c", 'echo "$PUBSUB_EMULATOR_HOST ${STORAGE_EMULATOR_HOST-unset}" > "$OUT/new"; mv "$OUT/new" "$OUT/env"'], out)
    assert server.call("GET", "jobs/lane")["metadata"]["labels"]["cloud.googleapis.com/location"] == "europe-west1"
    server.call("POST", "jobs/lane:run")
    wait_until((out / "env").exists, "the worker")
    assert (out / "env").read_text() == "there:1 unset\n"
    moved = requests.post(f"{server.ready['http']}/clock/advance", json={"seconds": 60}, timeout=60)
    assert moved.status_code == 200


def test_after_a_kill_the_leftover_is_ended_and_its_try_failed(begin: Callable[..., Process], out: Path, wait_until: WaitUntil) -> None:
    first = begin()
    first.create(UP, out, max_retries=1)
    name = first.call("POST", "jobs/lane:run")["metadata"]["name"]
    wait_until((out / "0").exists, "the worker")
    leftover = int((out / "0").read_text())
    first.end(subprocess.Popen.kill)
    assert runs(leftover)
    second = begin()
    wait_until(lambda: not runs(leftover), f"the end of {leftover}")
    wait_until((out / "1").exists, "the second try")
    status = second.call("GET", f"executions/{name}")["status"]
    assert (status["runningCount"], status["retriedCount"]) == (1, 1)
    assert "stopped while this try" in second.call("GET", f"tasks/{name}-task0")["status"]["lastAttemptResult"]["status"]["message"]
    assert second.call("GET", "jobs/lane")["status"]["executionCount"] == 1


# A worker that leaves its group behind, as a daemon does; the child's id is in the file `child`.
STRAY = ["sh", "-c", 'setsid sh -c "echo \\$\\$ > $OUT/new; mv $OUT/new $OUT/child; exec sleep 600" & exec sleep 600']


@pytest.mark.parametrize("how", [close_stdin, subprocess.Popen.kill])
def test_what_has_left_its_workers_group_is_ended_too(
    begin: Callable[..., Process], out: Path, wait_until: WaitUntil, how: Callable[[subprocess.Popen[bytes]], object]
) -> None:
    first = begin("--exit-with-stdin")
    first.create(STRAY, out)
    first.call("POST", "jobs/lane:run")
    wait_until((out / "child").exists, "the stray process")
    stray = int((out / "child").read_text())
    first.end(how)
    if how is subprocess.Popen.kill:
        assert runs(stray)
        begin()
    wait_until(lambda: not runs(stray), f"the end of {stray}")


def test_a_worker_that_was_never_recorded_is_found_by_its_log(tmp_path: Path) -> None:
    records = Records(tmp_path / "state" / "processes")
    logs = tmp_path / "state" / "executions" / "lane-abcde"
    logs.mkdir(parents=True)
    with (
        (logs / "0-0.log").open("wb") as ours,
        (tmp_path / "other.log").open("wb") as others,
        subprocess.Popen(["sleep", "600"], stdout=ours) as worker,
        subprocess.Popen(["sleep", "600"], stdout=others) as stranger,
    ):
        assert records.kill_leftovers() == [worker.pid]
        assert worker.wait(60) == -signal.SIGKILL
        assert stranger.poll() is None
        stranger.kill()


def test_a_recycled_process_id_is_not_killed(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "600"], start_new_session=True) as stranger:
        records = Records(tmp_path)
        (tmp_path / f"{stranger.pid}.json").write_text(json.dumps({"pid": stranger.pid, "started": "another time"}))
        assert records.kill_leftovers() == []
        assert stranger.poll() is None
        assert list(tmp_path.iterdir()) == []
        records.add(stranger.pid)
        assert records.kill_leftovers() == [stranger.pid]
        assert stranger.wait(60) == -signal.SIGKILL
    assert start_mark(stranger.pid) is None


Open = Callable[..., Cloud]


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Open]:
    """The cloud of this test's folder; the one before it ends."""
    opened: list[Cloud] = []

    def begin(retained_count: int = 1000) -> Cloud:
        for before in opened:
            before.store.close()
        opened.append(Cloud(Store(tmp_path), ManualClock(), random.Random(3), retained_count))
        return opened[-1]

    yield begin
    for before in opened:
        before.store.close()


def run(subject: Cloud, *, finish: bool = True) -> Execution:
    execution = subject.run_job(KEY, Overrides(), V2_RUN_PATHS)
    subject.record(execution, Event(Kind.RESERVED, 1.0, 0))
    subject.record(execution, Event(Kind.STARTED, 2.0, 0))
    if finish:
        subject.record(execution, Event(Kind.ENDED, 3.0, 0, exit_code=0))
    return execution


SPEC = JobSpec(Template((Container(image="i", command=("true",)),)), {"l": "1"}, {"a": "2"})


def test_all_state_is_the_same_after_a_restart(cloud: Open) -> None:
    before = cloud()
    before.create_job(KEY, SPEC)
    executions = [run(before), run(before, finish=False)]
    after = cloud()
    assert after.jobs("shop") == before.jobs("shop")
    assert after.executions(KEY) == executions[::-1]
    assert [execution.name for execution in after.unfinished()] == [executions[1].name]
    assert run(after).sequence == 3


def test_logs_of_an_execution_that_a_kill_left_without_a_record_go(cloud: Open, tmp_path: Path) -> None:
    before = cloud()
    before.create_job(KEY, SPEC)
    name = run(before).name
    (tmp_path / "executions" / "lane-killed").mkdir()
    assert [execution.name for execution in cloud().executions(KEY)] == [name]
    assert [path.name for path in (tmp_path / "executions").iterdir()] == [name]


def test_a_thousand_finished_executions_are_kept(cloud: Open, tmp_path: Path) -> None:
    subject = cloud()
    subject.create_job(KEY, SPEC)
    finished = [run(subject) for _ in range(1003)]
    assert subject.executions(KEY) == finished[:2:-1]
    assert len(list((tmp_path / "executions").iterdir())) == 1000


def test_only_the_newest_finished_executions_are_kept(cloud: Open, tmp_path: Path) -> None:
    subject = cloud(retained_count=2)
    subject.create_job(KEY, SPEC)
    running = run(subject, finish=False)
    finished = [run(subject) for _ in range(4)]
    assert subject.executions(KEY) == [finished[3], finished[2], running]
    assert sorted(path.name for path in (tmp_path / "executions").iterdir()) == sorted(e.name for e in subject.executions(KEY))
    assert subject.job(KEY).execution_count == 5
