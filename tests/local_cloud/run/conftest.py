"""A Cloud Run service in this process per test, with its clients, and what tests need to wait for its workers."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from google.auth.credentials import AnonymousCredentials
from google.cloud import run_v2

from local_cloud.clock import Clock
from local_cloud.run.api.server import Server
from local_cloud.run.runner.settings import Settings, StartUp, base_environment

PARENT = "projects/shop/locations/us-central1"
WAIT_S = 20.0

# Says that it is up, then ends with code 7 on SIGTERM, or not at all when told to be stubborn.
WAITING_WORKER = """
import os, pathlib, signal, sys
here = pathlib.Path(os.environ["OUT"]) / (os.environ["CLOUD_RUN_TASK_INDEX"] + "-" + os.environ["CLOUD_RUN_TASK_ATTEMPT"])
def end(number, frame):
    here.with_suffix(".term").write_text("")
    if "STUBBORN" not in os.environ:
        sys.exit(7)
signal.signal(signal.SIGTERM, end)
here.with_suffix(".new").write_text(str(os.getpid()))
here.with_suffix(".new").rename(here.with_suffix(".up"))
while True:
    signal.pause()
"""


def wait_until(predicate: Callable[[], object], description: str, timeout_s: float = WAIT_S) -> None:
    """For things outside this process only; fails with what was waited for."""
    pause = threading.Event()
    for _ in range(int(timeout_s / 0.02)):
        if predicate():
            return
        pause.wait(0.02)
    pytest.fail(f"not within {timeout_s} s: {description}")


class Service:
    """A started server with the clients that a user would have."""

    def __init__(self, state_dir: Path, max_process_count: int, startup: StartUp, out: Path) -> None:
        self.clock = Clock()
        self.out = out
        self.state_dir = state_dir
        settings = Settings(max_process_count, base_environment({**os.environ, "PASSED": "on"}, ["PASSED"]), Path.cwd(), startup)
        self._server = Server(state_dir, settings, self.clock, random.Random(7))
        self.cloud = self._server.cloud
        self.url = f"http://{self._server.start()}"
        self.http = requests.Session()
        self.jobs = self._client(run_v2.JobsClient)
        self.executions = self._client(run_v2.ExecutionsClient)
        self.tasks = self._client(run_v2.TasksClient)

    def _client(self, kind: Any) -> Any:
        return kind(transport="rest", credentials=AnonymousCredentials(), client_options={"api_endpoint": self.url})

    def stop(self) -> None:
        for client in (self.jobs, self.executions, self.tasks):
            client.transport.close()
        self.http.close()
        self._server.stop()

    def create(self, name: str = "lane", command: list[str] | None = None, **template: Any) -> Any:
        """A job as the v2 client makes it; `template` as in `Job.template`, with `env`, `max_retries`, `timeout_s` beside."""
        env = {"OUT": str(self.out), **template.pop("env", {})}
        variables = [{"name": key, "value": value} for key, value in env.items()]
        container = {"image": "example.com/worker", "command": command or ["true"], "env": variables}
        timeout = {"seconds": template.pop("timeout_s", 600)}
        task = {"containers": [container], "max_retries": template.pop("max_retries", 0), "timeout": timeout}
        job = run_v2.Job(template={**template, "template": task})
        return self.jobs.create_job(parent=PARENT, job=job, job_id=name).result()

    def create_waiting(self, name: str = "lane", **template: Any) -> Any:
        return self.create(name, ["python", "-c", WAITING_WORKER], **template)

    def run(self, name: str = "lane", **overrides: Any) -> str:
        """Starts an execution and returns its full name."""
        operation = self.jobs.run_job(request={"name": f"{PARENT}/jobs/{name}", "overrides": overrides})
        return str(operation.metadata.name)

    def get(self, execution: str) -> Any:
        return self.executions.get_execution(name=execution)

    def finish(self, execution: str) -> Any:
        """The execution once it is over."""
        name = execution.rpartition("/")[2]
        with self.cloud.condition:
            found = self.cloud.execution_named(name, "shop")
            assert self.cloud.condition.wait_for(lambda: found.is_over, timeout=WAIT_S), f"{name} is not over: {found}"
        return self.get(execution)

    def wait_for_slot(self, execution: str) -> None:
        """Until a task of it is about to start."""
        with self.cloud.condition:
            found = self.cloud.execution_named(execution.rpartition("/")[2], "shop")
            assert self.cloud.condition.wait_for(lambda: found.active, timeout=WAIT_S)

    def wait_for_files(self, *names: str) -> None:
        wait_until(lambda: all((self.out / name).exists() for name in names), f"{names} in {self.out}")

    def local(self, path: str, body: Any = None, status: int = 200) -> Any:
        """What only the local service has."""
        answer = self.http.request("GET" if body is None else "POST", f"{self.url}/{path}", json=body)
        assert answer.status_code == status, answer.text
        return answer.json()

    def text(self, path: str) -> str:
        answer = self.http.get(f"{self.url}/{path}")
        assert answer.status_code == 200, answer.text
        return answer.text

    def task_list(self, execution: str) -> list[Any]:
        return list(self.tasks.list_tasks(parent=execution))


Starter = Callable[..., Service]
WaitUntil = Callable[[Callable[[], object], str], None]


@pytest.fixture(name="wait_until")
def wait_until_fixture() -> WaitUntil:
    return wait_until


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Where workers leave what they saw."""
    made = tmp_path / "out"
    made.mkdir()
    return made


@pytest.fixture
def start(tmp_path: Path, out: Path) -> Iterator[Starter]:
    """`start(max_process_count=…, startup=…)` starts services on one state folder; at the end none leaves a worker."""
    started: list[Service] = []

    def begin(startup: StartUp | None = None, max_process_count: int = 64) -> Service:
        started.append(Service(tmp_path / "state", max_process_count, startup or StartUp(), out))
        return started[-1]

    yield begin
    for service in started:
        service.stop()
    left = [name for name in os.listdir(tmp_path / "state" / "processes") if name.endswith(".json")] if started else []
    assert left == [], f"workers were left behind: {left}"


@pytest.fixture
def service(start: Starter) -> Service:
    return start()
