"""The local cloud as a whole: it starts, hands on what clients need, notices a death, and leaves nothing behind, however it ends."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from google.cloud import pubsub_v1

from local_cloud.addresses import PASSED
from local_cloud.clock import Clock
from local_cloud.processes import runs, start_mark
from local_cloud.storage.model.storage import Storage
from local_cloud.supervisor.child import Child, ServiceFailed
from local_cloud.supervisor.folder_lock import FolderLock, InUse
from local_cloud.supervisor.http_call import call
from local_cloud.supervisor.supervisor import LocalCloud, Options
from local_cloud.supervisor.watchman import watch
from local_cloud.supervisor.workers import RunningWorker, running_workers
from tests.support import clean_environment, slow_but, wait_until

pytestmark = pytest.mark.slow

QUICK = Options(sample_period_s=0, visibility_lag_s=0)
SLEEPER = "import os,json; print(json.dumps(dict(os.environ)), flush=True); import signal; signal.pause()"
JOBS = "/apis/run.googleapis.com/v1/namespaces/local/jobs"


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[LocalCloud]:
    cloud = LocalCloud(tmp_path / "state", QUICK, clean_environment())
    with cloud:
        pids = [*cloud.pids.values()]
        yield cloud
    assert not alive(pids)


def alive(pids: list[int]) -> list[int]:
    """Those that are still there, also as zombies of somebody else."""
    return [pid for pid in pids if start_mark(pid) is not None and not _zombie(pid)]


def _zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def start_sleeper(run_url: str) -> None:
    """A job with one worker that prints its environment and waits."""
    container = {"image": "local", "command": ["python"], "args": ["-c", SLEEPER], "env": [{"name": "OWN", "value": "1"}]}
    spec = {"template": {"spec": {"taskCount": 1, "template": {"spec": {"containers": [container], "maxRetries": 0}}}}}
    job = {"apiVersion": "run.googleapis.com/v1", "kind": "Job", "metadata": {"name": "sleeper"}, "spec": spec}
    call("run", f"{run_url}{JOBS}", job)
    call("run", f"{run_url}{JOBS}/sleeper:run", {})


def the_worker(state_dir: Path) -> RunningWorker:
    return wait_until(lambda: running_workers(state_dir), description="a worker runs")[0]


def test_the_environment_sends_google_s_clients_here(cloud: LocalCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in cloud.environment.items():
        monkeypatch.setenv(name, value)
    with pubsub_v1.PublisherClient() as publisher:
        assert publisher.create_topic(name="projects/local/topics/one", timeout=60).name == "projects/local/topics/one"
    assert cloud.environment["CLOUD_MONITORING_EMULATOR_HOST"] == cloud.environment["PUBSUB_EMULATOR_HOST"] == cloud.addresses.pubsub
    assert cloud.environment["GOOGLE_CLOUD_PROJECT"] == "local"
    assert all(call(name, url) for name, url in cloud.addresses.http.items())


def test_all_clocks_are_advanced(cloud: LocalCloud) -> None:
    before = {name: float(str(call(name, f"{url}/clock")["now"])) for name, url in cloud.addresses.http.items()}
    cloud.advance(3600)
    for name, url in cloud.addresses.http.items():
        assert float(str(call(name, f"{url}/clock")["now"])) - before[name] > 3599
    with pytest.raises(ValueError, match="forward"):
        cloud.advance(-1)


def test_a_worker_gets_the_addresses_and_ends_with_the_cloud(cloud: LocalCloud) -> None:
    start_sleeper(cloud.addresses.run)
    worker = the_worker(cloud.state_dir)
    log = cloud.state_dir / "run" / "executions" / worker.execution / "0-0.log"
    wait_until(lambda: log.exists() and log.read_text().endswith("\n"), description="the worker has printed its environment")
    given = json.loads(log.read_text())
    assert {name: given[name] for name in PASSED} == {name: cloud.environment[name] for name in PASSED}
    assert (worker.job, worker.index, worker.retry, given["OWN"]) == ("sleeper", 0, 0, "1")
    cloud.stop()
    assert not alive([worker.pid])
    assert running_workers(cloud.state_dir) == []


@pytest.mark.parametrize("service", slow_but(["pubsub"], ["storage", "pubsub", "run"]))
def test_a_service_that_dies_is_noticed_and_named(cloud: LocalCloud, service: str) -> None:
    cloud.check()
    os.kill(cloud.pids[service], signal.SIGKILL)
    assert cloud.died.wait(60)
    with pytest.raises(ServiceFailed, match=f"{service} .* was killed by signal 9"):
        cloud.check()


def test_the_end_of_a_killed_run_service_takes_its_workers(cloud: LocalCloud) -> None:
    start_sleeper(cloud.addresses.run)
    worker = the_worker(cloud.state_dir)
    os.kill(cloud.pids["run"], signal.SIGKILL)
    assert cloud.died.wait(60)
    cloud.stop()
    wait_until(lambda: not alive([worker.pid]), description="the worker is gone")


@pytest.mark.slow
def test_a_failed_start_shows_what_the_service_said_and_leaves_nothing(tmp_path: Path) -> None:
    with LocalCloud(tmp_path / "one", QUICK, clean_environment()) as first:
        port = int(first.addresses.storage.rpartition(":")[2])
        second = LocalCloud(tmp_path / "two", Options(storage_port=port), clean_environment())
        with pytest.raises(ServiceFailed, match=f"{port} cannot be the port of storage: .*already in use; choose another one"):
            second.start()
        assert second.pids == {}
        first.check()
        storage = Storage(tmp_path / "three" / "storage", Clock())
        storage.create_bucket("bucket", "p", {})
        storage.close()
        with closing(sqlite3.connect(tmp_path / "three" / "storage" / "meta" / "state.db")) as database, database:
            database.execute("UPDATE bucket SET record = '{}'")  # a fault of ours: its frames stand in the log, not in the message
        third = LocalCloud(tmp_path / "three", QUICK, clean_environment())
        with pytest.raises(ServiceFailed, match=r"(?s)storage .*ended with exit code 1.*TypeError") as failed:
            third.start()
        assert third.pids == {}
        assert "Traceback" not in str(failed.value)
        assert '  File "' not in str(failed.value)
        assert "Traceback" in (tmp_path / "three" / "storage.log").read_text()


def test_two_services_cannot_share_a_port(tmp_path: Path) -> None:
    cloud = LocalCloud(tmp_path / "state", Options(storage_port=1234, run_port=1234), clean_environment())
    with pytest.raises(ServiceFailed, match="1234 is the port of storage and the port of run"):
        cloud.start()


@pytest.mark.slow
def test_a_second_local_cloud_in_the_folder_is_refused_and_disturbs_nothing(cloud: LocalCloud) -> None:
    start_sleeper(cloud.addresses.run)
    everyone = [*cloud.pids.values(), the_worker(cloud.state_dir).pid]
    second = LocalCloud(cloud.state_dir, QUICK, clean_environment())
    with pytest.raises(ServiceFailed, match=rf"another local cloud uses .* \(process {os.getpid()}\)"):
        second.start()
    second.stop()
    assert alive(everyone) == everyone
    cloud.check()


@pytest.mark.slow
def test_the_folder_is_free_again_after_the_end(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path)
    cloud = LocalCloud(tmp_path, QUICK, clean_environment())
    with cloud, pytest.raises(InUse):
        lock.take()
    lock.take()
    lock.release()


@pytest.mark.slow
def test_a_new_local_cloud_waits_for_what_a_killed_one_has_left(tmp_path: Path) -> None:
    """The lock stays with the watchman, also of a killed supervisor, until services and workers are gone."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=clean_environment(), text=True
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    with holder.stdin, holder.stdout:
        *pids, run_url = holder.stdout.readline().split()
        start_sleeper(run_url)
        everyone = [*map(int, pids), the_worker(tmp_path).pid]
        print("freeze storage", file=holder.stdin, flush=True)
        assert holder.stdout.readline() == "done\n"
        holder.kill()
        holder.wait(60)
        lock = FolderLock(tmp_path)
        lock.take()
        assert alive(everyone) == []
        lock.release()


@pytest.mark.slow
def test_what_run_is_told(tmp_path: Path) -> None:
    options = Options(sample_period_s=0, visibility_lag_s=0, startup_delay_s=0.5, startup_spread=0.25, seed=7)
    with LocalCloud(tmp_path, options, clean_environment()) as cloud:
        command = Path(f"/proc/{cloud.pids['run']}/cmdline").read_text().split("\0")
    for name, value in (("--startup-delay-s", "0.5"), ("--startup-spread", "0.25"), ("--seed", "7")):
        assert command[command.index(name) + 1] == value


def test_a_service_that_is_never_ready_is_given_up(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import signal\nwhile True:\n    signal.pause()\n")  # runs before anything else
    environment = {**clean_environment(), "PYTHONPATH": str(tmp_path)}
    child = Child("storage", [], state_dir=tmp_path / "s", log=tmp_path / "s.log", environment=environment, on_death=print)
    with pytest.raises(ServiceFailed, match=r"storage was not ready within 0\.2 s"):
        child.ready(0.2)
    child.stop(0.2)
    assert not child.alive


def test_a_frozen_service_still_ends_in_order(tmp_path: Path) -> None:
    child = Child("storage", [], state_dir=tmp_path / "s", log=tmp_path / "s.log", environment=clean_environment(), on_death=print)
    child.ready(30)
    child.freeze()
    child.stop(10)
    assert "ended with exit code 0" in child.exit_report()


def test_a_zombie_does_not_run() -> None:
    with subprocess.Popen(["sleep", "600"]) as process:
        mark = start_mark(process.pid)
        assert runs(process.pid, mark)
        assert not runs(process.pid, "another time")
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert start_mark(process.pid) == mark
        assert not runs(process.pid, mark)


HOLDER = """
import sys, pathlib
from local_cloud.supervisor.supervisor import LocalCloud
cloud = LocalCloud(pathlib.Path(sys.argv[1]))
cloud.start()
print(*cloud.pids.values(), cloud.addresses.run, flush=True)
for line in sys.stdin:
    verb, service = line.split()
    getattr(cloud, verb)(service)
    print("done", flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_is_left_when_the_supervisor_is_killed(tmp_path: Path, number: signal.Signals) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=clean_environment(), text=True
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    with holder.stdin, holder.stdout:
        *pids, run_url = holder.stdout.readline().split()
        start_sleeper(run_url)
        everyone = [*map(int, pids), the_worker(tmp_path).pid]
        assert alive(everyone) == everyone
        holder.send_signal(number)
        holder.wait(60)
        wait_until(lambda: not alive(everyone), description="services and worker are gone")


def test_nothing_is_left_of_frozen_services_and_orphaned_workers(tmp_path: Path) -> None:
    """The supervisor is killed while one service cannot see it, and another one is no longer there to end its workers."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=clean_environment(), text=True
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    with holder.stdin, holder.stdout:
        *pids, run_url = holder.stdout.readline().split()
        start_sleeper(run_url)
        everyone = [*map(int, pids), the_worker(tmp_path).pid]
        for request in ("freeze pubsub", "freeze storage", "kill run"):
            print(request, file=holder.stdin, flush=True)
            assert holder.stdout.readline() == "done\n"
        assert len(alive(everyone)) == 3
        holder.kill()
        holder.wait(60)
        wait_until(lambda: not alive(everyone), description="services and worker are gone")


def test_a_process_that_has_the_id_of_a_noted_one_is_left_alone(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "600"], start_new_session=True) as stranger:
        processes = tmp_path / "run" / "processes"
        processes.mkdir(parents=True)
        (processes / f"{stranger.pid}.json").write_text(json.dumps({"pid": stranger.pid, "started": "another time"}))
        lines = iter([f"{stranger.pid} another time\n", ""])
        watch(tmp_path, lambda: next(lines))
        assert stranger.poll() is None
        (processes / f"{stranger.pid}.json").write_text(json.dumps({"pid": stranger.pid, "started": start_mark(stranger.pid)}))
        watch(tmp_path, str)
        assert stranger.wait(60) == -signal.SIGKILL
