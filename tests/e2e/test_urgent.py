"""From a submission over HTTP to a launched execution: the two services as processes, Google's clients, and the local cloud."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from controller.config import controller_settings
from controller.lanes.manifests import read_manifests
from controller.lanes.resources import Creator, needed
from controller.observe.deployed import DeployedJobs
from tests.support import Service, clean_environment, start_service, wait_until

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 60.0
MANIFEST = """
apiVersion: run.googleapis.com/v1
kind: Job
metadata:
  name: urgent
  labels: {fanout-lane: urgent}
  annotations:
    {fanout/subscription: urgent-sub, fanout/topic: urgent, fanout/max-messages: "10", fanout/max-workers: "20", fanout/max-wait: 0s}
spec:
  template:
    spec:
      template:
        spec:
          maxRetries: 1
          timeoutSeconds: 900
          containers:
            - image: any
              command: [python, -c, "import time; time.sleep(60)", -m, batch]
              env:
                - {name: SUBSCRIPTION_NAME, value: urgent-sub}
                - {name: TOPIC_NAME, value: urgent}
                - {name: BUCKET_NAME, value: the-bucket}
"""


class Process:
    """A service of ours as a process; its log is read to its end."""

    def __init__(self, package: str, environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", package],
            cwd=ROOT,
            env={**clean_environment(), **environment, "PORT": "0", "HOST": "127.0.0.1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self.process.stdout is not None
        self.log = [self.process.stdout.readline()]
        found = re.search(r"http://127\.0\.0\.1:\d+", self.log[0])
        assert found, self.log[0] + self.process.stdout.read()
        self.url = found.group()
        self._reader = threading.Thread(target=lambda: self.log.extend(self.process.stdout or ()), daemon=True)
        self._reader.start()

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(LIMIT_S)
        self._reader.join(LIMIT_S)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


@pytest.fixture
def run() -> Iterator[Callable[..., Process]]:
    """Starts services; all of them end with the test, and in order."""
    started: list[Process] = []

    def start(package: str, environment: dict[str, str]) -> Process:
        started.append(Process(package, environment))
        return started[-1]

    yield start
    codes = [one.stop() for one in reversed(started)]
    assert codes == [0] * len(codes), [one.log for one in started]


def cloud_with(pubsub: Service, storage: Service, run: Service, project: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A project with the lane `urgent`, and the environment that leads there."""
    environment = {
        "GOOGLE_CLOUD_PROJECT": project,
        "BUCKET_NAME": f"{project}-bucket",
        "PUBSUB_EMULATOR_HOST": pubsub.grpc,
        "CLOUD_MONITORING_EMULATOR_HOST": pubsub.grpc,
        "STORAGE_EMULATOR_HOST": storage.http,
        "CLOUD_RUN_EMULATOR_HOST": run.http,
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    settings = controller_settings(environment)
    (manifest,) = read_manifests(MANIFEST.replace("the-bucket", environment["BUCKET_NAME"]))
    with closing(Creator(project, settings.region)) as creator:
        list(creator.create_missing(needed(manifest)))
    with closing(DeployedJobs(project, settings.region, emulator_url=settings.run_emulator)) as jobs:
        jobs.apply(manifest.name, manifest.document, exists=False)
    return environment


@contextmanager
def silent_server() -> Iterator[str]:
    """Takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"127.0.0.1:{listening.getsockname()[1]}"


def executions(controller: Process) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = httpx.get(f"{controller.url}/executions?lane=urgent", timeout=LIMIT_S).json()["executions"]
    return found


def submit(intake: Process) -> None:
    answer = httpx.post(f"{intake.url}/submit-task", json={"task_type": "thumbnail"}, timeout=LIMIT_S)
    assert answer.status_code == 200, answer.text


@pytest.fixture
def environment(
    local_pubsub: Service, local_storage: Service, local_run: Service, project: str, monkeypatch: pytest.MonkeyPatch
) -> dict[str, str]:
    """With a gauge that is exact at once."""
    return cloud_with(local_pubsub, local_storage, local_run, project, monkeypatch)


@pytest.fixture
def lagging_pubsub(tmp_path: Path) -> Iterator[Service]:
    """A gauge as the real one is: sampled each minute, seen two minutes later."""
    service = start_service("pubsub", tmp_path / "pubsub", "--sample-period-s", "60", "--visibility-lag-s", "120")
    yield service
    service.stop()


def test_an_idle_urgent_lane_starts_long_before_the_gauge_tells(
    run: Callable[..., Process],
    lagging_pubsub: Service,
    local_storage: Service,
    local_run: Service,
    project: str,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, object], None],
) -> None:
    environment = cloud_with(lagging_pubsub, local_storage, local_run, project, monkeypatch)
    controller = run("controller", environment)
    door = {**environment, "LANES": "urgent=urgent", "HANDLERS": "tests.intake.handlers", "CONTROLLER_URL": controller.url}
    intake = run("intake", door)
    tick = httpx.post(f"{controller.url}/tick", timeout=LIMIT_S).json()
    assert [one["decision"]["reading"]["state"] for one in tick["lanes"]] == ["idle"]
    begin = time.monotonic()
    submit(intake)
    (execution,) = wait_until(lambda: executions(controller), LIMIT_S, "an execution")
    took_s = time.monotonic() - begin
    record_property("submission_to_launch_s", round(took_s, 2))
    print(f"from the submission to the launched execution: {took_s:.2f} s, with a gauge that lags by 120 s")
    assert (execution["worker_count"], execution["lane"]) == (1, "urgent")
    again = httpx.post(f"{controller.url}/tick", timeout=LIMIT_S).json()["lanes"][0]
    assert (again["decision"]["kind"], again["launched"]) == ("nothing_to_do", [])
    assert len(executions(controller)) == 1


def test_a_poke_that_is_lost_costs_only_the_time_until_the_gauge_tells(run: Callable[..., Process], environment: dict[str, str]) -> None:
    controller = run("controller", environment)
    door = {**environment, "LANES": "urgent=urgent", "HANDLERS": "tests.intake.handlers", "CONTROLLER_URL": "http://127.0.0.1:1"}
    intake = run("intake", door)
    submit(intake)
    wait_until(lambda: [line for line in intake.log if "was not told of 1 tasks" in line], LIMIT_S, "the drop is logged")
    assert executions(controller) == []
    tick = httpx.post(f"{controller.url}/tick", timeout=LIMIT_S).json()["lanes"][0]
    assert (tick["decision"]["kind"], tick["decision"]["accepted_count"], len(tick["launched"])) == ("launch", 0, 1)


def test_sigterm_in_the_middle_of_a_tick(run: Callable[..., Process], environment: dict[str, str]) -> None:
    """Monitoring does not answer; the tick that waits for it is answered, said to be unfinished, and the process ends with 0."""
    with silent_server() as address:
        controller = run(
            "controller", {**environment, "CLOUD_MONITORING_EMULATOR_HOST": address, "TICK_DEADLINE_S": "0.2", "STOP_TIMEOUT_S": "0.2"}
        )
        answer = httpx.post(f"{controller.url}/tick", timeout=LIMIT_S).json()
        assert answer["status"] == "running"
        assert httpx.post(f"{controller.url}/tick", timeout=LIMIT_S).json()["status"] == "skipped"
        assert httpx.get(f"{controller.url}/healthz", timeout=LIMIT_S).status_code == 200
        assert controller.stop() == 0
    lines = [json.loads(line) for line in controller.log]
    assert any("in the middle of a tick" in line["message"] for line in lines)
