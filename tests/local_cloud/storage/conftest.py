"""A storage server as a process of its own, once per test run, and a fresh bucket of it per test."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage

from local_cloud.storage.model.storage import Ref, Storage
from tests.local_cloud.manual_clock import ManualClock

_numbers = itertools.count(1)


class Server:
    """A running `python -m local_cloud.storage`. `log` gets its standard error, at its end."""

    def __init__(self, state_dir: Path, log: Path | None = None) -> None:
        command = [sys.executable, "-m", "local_cloud.storage", "--state-dir", str(state_dir), "--exit-with-stdin"]
        with log.open("ab") if log else nullcontext() as errors:
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors)
        self.state_dir = state_dir
        assert self.process.stdout is not None
        self.url: str = json.loads(self.process.stdout.readline())["http"]

    def client(self, project: str = "test-project") -> Any:
        return storage.Client(project=project, credentials=AnonymousCredentials(), client_options={"api_endpoint": self.url})

    def kill(self) -> None:
        self.process.kill()
        self._reap()

    def stop(self) -> None:
        """End it by closing its standard input; it must end well."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self._reap()
        assert self.process.returncode == 0

    def _reap(self) -> None:
        self.process.wait(timeout=60)
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with suppress(OSError):
                    stream.close()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("storage-state"))
    yield running
    running.stop()


@pytest.fixture
def start_server() -> Iterator[Callable[..., Server]]:
    """Servers that a test may kill; what still runs in the end is killed."""
    started: list[Server] = []

    def start(state_dir: Path, log: Path | None = None) -> Server:
        started.append(Server(state_dir, log))
        return started[-1]

    yield start
    for running in started:
        if running.process.poll() is None:
            running.kill()


@pytest.fixture
def client(server: Server) -> Iterator[Any]:
    made = server.client()
    yield made
    made.close()


@pytest.fixture
def bucket(client: Any) -> Any:
    """A new bucket, as the real client gives it."""
    return client.create_bucket(f"bucket-{next(_numbers)}")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def model(tmp_path: Path, clock: ManualClock) -> Iterator[Storage]:
    """A model with one bucket, `bucket`, on a clock that stands still."""
    made = Storage(tmp_path / "state", clock)
    made.create_bucket("bucket", "project", {})
    yield made
    made.close()


@pytest.fixture
def put(model: Storage) -> Callable[..., Any]:
    """Write an object of the model's bucket."""

    def put_object(name: str, content: bytes = b"content", **options: Any) -> Any:
        staged = model.files.stage()
        staged.write(content)
        return model.put(Ref("bucket", name), staged, options.pop("resource", {}), **options)

    return put_object
