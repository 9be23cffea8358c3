"""`fanout local` against a local cloud that runs: disturbing it, seeing it, deleting its state, and the help of every command."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from google.auth.credentials import AnonymousCredentials
from google.cloud import pubsub_v1, storage

from fanout.local import command
from local_cloud.processes import runs, start_mark
from local_cloud.supervisor import record, state_folder
from local_cloud.supervisor.child import ServiceFailed
from local_cloud.supervisor.control import remote
from local_cloud.supervisor.http_call import call
from tests.support import clean_environment, wait_until

FANOUT = [sys.executable, "-m", "fanout", "local"]


def invoke(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(command, list(arguments))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def done(*arguments: str) -> str:
    code, output = invoke(*arguments)
    assert code == 0, output
    return output


def refused(*arguments: str) -> str:
    code, output = invoke(*arguments)
    assert code in (1, 2)
    return output


def detached(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """`fanout local up --detach` as a process of its own: what it starts is not our child."""
    command = [*FANOUT, "up", "--detach", "--state-dir", str(folder), *options]
    return subprocess.run(command, env=clean_environment(), capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The state folder of a local cloud that was started with --detach."""
    folder = tmp_path_factory.mktemp("local") / "state"
    started = detached(folder, "--quick", "--format", "json")
    assert started.returncode == 0, started.stderr
    assert json.loads(started.stdout) == json.loads(done("env", "--format", "json", "--state-dir", str(folder)))
    assert "fanout local down" in started.stderr
    yield str(folder)
    done("down", "--state-dir", str(folder))


def status(folder: str) -> Any:
    return json.loads(done("status", "--json", "--state-dir", folder))


def states(folder: str) -> dict[str, str]:
    return {one["service"]: one["state"] for one in status(folder)["services"]}


def test_a_killed_service_comes_back_with_its_state(folder: str, monkeypatch: pytest.MonkeyPatch, project: str) -> None:
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", json.loads(done("env", "--format", "json", "--state-dir", folder))["PUBSUB_EMULATOR_HOST"])
    topic, subscription = f"projects/{project}/topics/tasks", f"projects/{project}/subscriptions/workers"
    with pubsub_v1.PublisherClient() as publisher, pubsub_v1.SubscriberClient() as subscriber:
        publisher.create_topic(name=topic)
        subscriber.create_subscription(name=subscription, topic=topic)
        publisher.publish(topic, b"kept").result(60)
    before = status(folder)
    assert done("kill", "pubsub", "--state-dir", folder) == "pubsub is killed\n"
    assert states(folder) == {"pubsub": "killed", "storage": "runs", "run": "runs"}
    assert "restart it first" in refused("kill", "pubsub", "--state-dir", folder)
    assert done("restart", "pubsub", "--state-dir", folder) == "pubsub runs again\n"
    after = status(folder)
    assert [one["url"] for one in after["services"]] == [one["url"] for one in before["services"]]
    assert [one["process"] for one in after["services"]] != [one["process"] for one in before["services"]]
    (held,) = [one for one in after["subscriptions"] if one["project"] == project]
    assert (held["subscription"], held["backlog"], held["outstanding"]) == ("workers", 1, 0)
    assert f"subscription {project}/workers: backlog 1, leased 0" in done("status", "--state-dir", folder)


def test_freeze_thaw_and_advance(folder: str) -> None:
    url = record_of(folder).addresses.storage
    before = float(str(call("storage", f"{url}/clock")["now"]))
    said = done("advance", "500", "--state-dir", folder)
    assert "all clocks of the local cloud are 500 s further" in said
    assert float(str(call("storage", f"{url}/clock")["now"])) - before > 499
    done("freeze", "storage", "--state-dir", folder)
    try:
        assert states(folder)["storage"] == "frozen"
        assert "thaw it first" in refused("advance", "1", "--state-dir", folder)
    finally:
        done("thaw", "storage", "--state-dir", folder)
    assert states(folder)["storage"] == "runs"
    assert "not in the range" in refused("advance", "--state-dir", folder, "--", "-1")


def record_of(folder: str) -> record.Record:
    found = record.read(Path(folder))
    assert found is not None
    return found


def test_status_names_workers_and_silent_services(folder: str) -> None:
    run_url = record_of(folder).addresses.run
    container = {"image": "local", "command": ["sleep"], "args": ["600"]}
    spec = {"template": {"spec": {"taskCount": 1, "template": {"spec": {"containers": [container], "maxRetries": 0}}}}}
    jobs = f"{run_url}/apis/run.googleapis.com/v1/namespaces/local/jobs"
    call("run", jobs, {"apiVersion": "run.googleapis.com/v1", "kind": "Job", "metadata": {"name": "sleeper"}, "spec": spec})
    call("run", f"{jobs}/sleeper:run", {})
    (worker,) = wait_until(lambda: status(folder)["workers"], description="the worker is shown")
    assert (worker["job"], worker["index"], worker["retry"]) == ("sleeper", 0, 0)
    assert f"worker {worker['execution']} index 0 retry 0: process {worker['process']}" in done("status", "--state-dir", folder)


def test_faults(folder: str, project: str) -> None:
    for_project = ("--project", project, "--state-dir", folder)
    done("faults", "add", "storage", "objects.get", "http_503", "slow:seconds=0.25", *for_project)
    done("faults", "add", "run", "jobs.run", "cannot_start:reason=quota", *for_project)
    assert "did you mean 'quota'" in refused("faults", "add", "run", "jobs.run", "cannot_start:reason=qouta", *for_project)
    done("faults", "add", "pubsub", "Pull", "few_messages:count=3", "--rate", "0.5", "--seed", "3", *for_project)
    report = json.loads(done("faults", "list", *for_project))
    assert report["storage"]["faults"][0]["pending"] == [{"kind": "http_503"}, {"kind": "slow", "seconds": 0.25}]
    assert [one["method"] for one in report["pubsub"]["faults"]] == ["Pull"]
    assert "objects.get" in refused("faults", "add", "storage", "objects.gte", "http_503", *for_project)
    assert "seconds needs a number of seconds" in refused("faults", "add", "storage", "objects.get", "slow:seconds=x", *for_project)
    assert "exactly one FAULT" in refused("faults", "add", "run", "jobs.run", "unavailable", "unavailable", "--rate", "1", *for_project)
    done("faults", "clear", *for_project)
    assert json.loads(done("faults", "list", *for_project))["storage"]["faults"] == []
    assert "late_ack (seconds): " in done("faults", "kinds")


def test_only_who_reads_the_folder_may_ask(folder: str) -> None:
    there = remote(Path(folder))
    with pytest.raises(ServiceFailed, match="the secret is another one"):
        call("the local cloud", there.url, {"secret": "guessed", "verb": "kill", "service": "run"})
    with pytest.raises(ServiceFailed, match="is not one of"):
        there.change("stop", "run")
    assert states(folder)["run"] == "runs"
    for path, mode in ((Path(folder), "700"), (Path(folder, "control.json"), "600")):
        assert oct(path.stat().st_mode)[-3:] == mode


def test_gcloud_is_started_in_its_own_surroundings(folder: str, tmp_path: Path) -> None:
    fake = tmp_path / "gcloud"
    fake.write_text('#!/bin/sh\nenv | grep -E "^(CLOUDSDK|MINE)_" | sort\necho "$@"\nexit 3\n')
    fake.chmod(0o755)
    environment = {**clean_environment(), "PATH": f"{tmp_path}:{os.environ['PATH']}", "CLOUDSDK_CORE_ACCOUNT": "me", "MINE_TOO": "1"}
    ran = subprocess.run(
        [*FANOUT, "gcloud", "--state-dir", folder, "--", "run", "jobs", "list", "--limit", "3"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ran.returncode == 3, ran.stderr
    assert ran.stdout.splitlines()[-1] == "run jobs list --limit 3"
    assert f"CLOUDSDK_CONFIG={Path(folder).resolve()}/gcloud\n" in ran.stdout
    assert "MINE_TOO=1\n" in ran.stdout
    assert "CLOUDSDK_CORE_ACCOUNT" not in ran.stdout
    refusal = subprocess.run(
        [*FANOUT, "gcloud", "--state-dir", folder, "--", "compute", "list"], env=environment, capture_output=True, check=False
    )
    assert (refusal.returncode, b"does not serve `gcloud compute`" in refusal.stderr) == (1, True)


@pytest.mark.real
def test_the_real_gcloud_sees_the_local_cloud(folder: str) -> None:
    if shutil.which("gcloud") is None:
        if os.environ.get("REQUIRE_REAL") == "1":
            pytest.fail("REQUIRE_REAL=1, but `gcloud` is not installed")
        pytest.skip("`gcloud` is not installed")
    storage.Client("local", AnonymousCredentials(), client_options={"api_endpoint": record_of(folder).addresses.storage}).create_bucket(
        "seen-by-gcloud"
    )
    ran = subprocess.run(
        [*FANOUT, "gcloud", "--state-dir", folder, "--", "storage", "ls"],
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ran.returncode, "gs://seen-by-gcloud/" in ran.stdout.split()) == (0, True), ran.stderr


def test_reset_deletes_the_state_and_nothing_else(folder: str, tmp_path: Path) -> None:
    assert "end it first" in refused("reset", "--state-dir", folder)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "storage").mkdir()
    (foreign / "storage" / "precious").write_text("x")
    assert "was not made by" in refused("reset", "--state-dir", str(foreign))
    assert (foreign / "storage" / "precious").exists()
    own = tmp_path / "own"
    state_folder.claim(own)
    for name in ("storage", "run"):
        (own / name / "deep").mkdir(parents=True)
    (own / "pubsub.log").write_text("x")
    (own / "local-cloud.json.new").write_text("x")
    assert done("reset", "--state-dir", str(own)) == f"deleted the state in {own}\n"
    assert not own.exists()
    state_folder.claim(own)
    (own / "notes").write_text("mine")
    assert "left there, as it is not ours: notes" in done("reset", "--state-dir", str(own))
    assert [path.name for path in own.iterdir()] == ["notes"]
    assert "was not made by" in refused("reset", "--state-dir", str(own))
    assert "there is no state" in done("reset", "--state-dir", str(tmp_path / "never"))


def test_secrets_may_be_there_before_the_first_start_and_outlive_the_state(tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "key").write_text("x")
    for _ in range(2):
        state_folder.claim(tmp_path)
        (tmp_path / "storage").mkdir()
        assert "left there, as it is not ours: secrets" in done("reset", "--state-dir", str(tmp_path))
        assert [path.name for path in tmp_path.iterdir()] == ["secrets"]
    assert (tmp_path / "secrets" / "key").read_text() == "x"


def test_a_folder_in_other_use_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("mine")
    assert "holds other things (notes)" in refused("up", "--state-dir", str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["notes"]


def test_a_start_that_fails_in_the_background_says_why(folder: str, tmp_path: Path) -> None:
    port = record_of(folder).addresses.storage.rpartition(":")[2]
    second = detached(tmp_path / "second", "--storage-port", port)
    assert second.returncode == 1
    assert "it did not start" in second.stderr
    assert "already in use" in second.stderr


@pytest.mark.slow
def test_a_state_is_there_again_at_the_next_start(tmp_path: Path) -> None:
    folder = ("--state-dir", str(tmp_path / "state"))
    for life in ("first", "second"):
        environment = json.loads(detached(tmp_path / "state", "--format", "json").stdout)
        client = storage.Client("local", AnonymousCredentials(), client_options={"api_endpoint": environment["STORAGE_EMULATOR_HOST"]})
        assert client.bucket("kept").exists() == (life == "second")
        if life == "first":
            client.create_bucket("kept")
        done("down", *folder)
    done("reset", *folder)
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("status",),
        ("env",),
        ("advance", "1"),
        ("freeze", "run"),
        ("kill", "storage"),
        ("restart", "pubsub"),
        ("faults", "list"),
        ("gcloud", "x"),
    ],
)
def test_without_a_local_cloud_every_command_says_how_to_start_one(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    text = (
        refused(*arguments[:1], "--state-dir", str(tmp_path), *arguments[1:])
        if arguments[0] != "faults"
        else refused(*arguments, "--state-dir", str(tmp_path))
    )
    assert text.startswith("Error: ")
    assert text.count("\n") == 1
    assert "start one with `fanout local up`" in text


def leaves(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name, found in group.commands.items():
        if isinstance(found, click.Group):
            yield from leaves(found, (*path, name))
        yield (*path, name), found


@pytest.mark.parametrize(("path", "found"), list(leaves(command)), ids=lambda one: " ".join(one) if isinstance(one, tuple) else "")
def test_every_command_and_option_has_help(path: tuple[str, ...], found: click.Command) -> None:
    text = done(*path, "--help")
    assert found.help
    assert " ".join(found.help.split(".")[0].split()) in " ".join(text.split())
    assert not [one.name for one in found.params if isinstance(one, click.Option) and not one.help]


def gone(pid: int, mark: str | None) -> bool:
    return not runs(pid, mark)


def test_a_signal_to_the_detached_process_ends_it(tmp_path: Path) -> None:
    assert detached(tmp_path / "state").returncode == 0
    found = record_of(str(tmp_path / "state"))
    marks = {pid: start_mark(pid) for pid in (found.pid, *found.services.values())}
    os.kill(found.pid, signal.SIGKILL)
    for pid, mark in marks.items():
        wait_until(partial(gone, pid, mark), description=f"process {pid} is gone")
    assert "start one with" in refused("kill", "run", "--state-dir", str(tmp_path / "state"))
