"""The local cloud as a whole: three services as processes, started in order, watched, and ended in order.

Workers end before the services they talk to, and nothing outlives the supervisor: not when it stops, not when it is killed.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from local_cloud.addresses import PASSED, Addresses, emulators
from local_cloud.child import Child, ServiceFailed
from local_cloud.run.leftovers import Records

STOP_S = 10.0
"""How long a service may take to end in order."""
REQUEST_S = 10.0
PORT_TRIES = 3

_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True, slots=True)
class Options:
    """Ports of 0 are free ones. `sample_period_s` and `visibility_lag_s` make the backlog gauge as late as the real one; 0 and 0 make
    it exact at once. `max_processes`: workers at a time; `startup_delay_s`: between a worker's slot and its process."""

    host: str = "127.0.0.1"
    pubsub_port: int = 0
    pubsub_http_port: int = 0
    storage_port: int = 0
    run_port: int = 0
    sample_period_s: float = 60.0
    visibility_lag_s: float = 120.0
    max_processes: int = 64
    startup_delay_s: float = 0.0
    start_within_s: float = 30.0


class LocalCloud:
    """A context manager; `start` and `stop` do the same by hand. `died` is set when a service has ended by itself."""

    def __init__(self, state_dir: Path, options: Options | None = None, environment: Mapping[str, str] | None = None) -> None:
        """`state_dir` gets one folder and one log per service. `environment` is what the services start with: ours by default."""
        self.state_dir = state_dir.resolve()
        self.options = options or Options()
        self.died = threading.Event()
        self._environment = dict(os.environ if environment is None else environment)
        self._children: dict[str, Child] = {}
        self._addresses: Addresses | None = None
        self._stop_lock = threading.Lock()

    def __enter__(self) -> LocalCloud:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    @property
    def addresses(self) -> Addresses:
        """Raises RuntimeError before the start."""
        if self._addresses is None:
            raise RuntimeError("the local cloud is not started")
        return self._addresses

    @property
    def environment(self) -> dict[str, str]:
        """The variables that send Google's clients, and Fanout's, here."""
        return self.addresses.environment

    @property
    def pids(self) -> dict[str, int]:
        """Process ids by service."""
        return {name: child.pid for name, child in self._children.items()}

    def start(self) -> None:
        """Returns when all services answer. Raises ServiceFailed, with nothing left running."""
        self.state_dir.mkdir(parents=True, exist_ok=True)
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def check(self) -> None:
        """Raises ServiceFailed naming every service that has ended by itself."""
        dead = [child.obituary() for child in self._children.values() if not child.alive]
        if dead:
            raise ServiceFailed("\n".join(dead))

    def advance(self, seconds: float) -> None:
        """Move the clocks of all services forward. Raises ServiceFailed when one does not answer, ValueError on a negative step."""
        if seconds < 0:
            raise ValueError(f"the clock only moves forward, got {seconds} s")
        for name, url in self.addresses.http.items():
            call(name, f"{url}/clock/advance", {"seconds": seconds})

    def stop(self) -> None:
        """End Run first, and with it every worker; then the others. May be called twice, and when the start has failed."""
        with self._stop_lock:
            run = self._children.get("run")
            if run is not None:
                run.stop(STOP_S)
                # Run kills its workers when it ends in order; when it was killed they are still there.
                Records(self.state_dir / "run" / "processes").kill_leftovers()
            others = [child for name, child in self._children.items() if name != "run"]
            for child in others:
                child.ask_to_stop()
            for child in others:
                child.stop(STOP_S)
            self._children = {}

    def _start(self) -> None:
        options = self.options
        self._spawn("storage", ["--port", str(options.storage_port)])
        gauge = ["--sample-period-s", str(options.sample_period_s), "--visibility-lag-s", str(options.visibility_lag_s)]
        self._spawn("pubsub", ["--port", str(options.pubsub_port), "--http-port", str(options.pubsub_http_port), *gauge])
        storage = self._ready("storage")["http"]
        pubsub = self._ready("pubsub")
        run = self._start_run(pubsub["grpc"], storage)
        self._addresses = Addresses(pubsub=pubsub["grpc"], pubsub_http=pubsub["http"], storage=storage, run=run)

    def _start_run(self, pubsub: str, storage: str) -> str:
        """Run hands its own address to its workers, so its port is chosen before it starts; somebody else may be quicker to take it."""
        for left in reversed(range(PORT_TRIES)):
            port = self.options.run_port or free_port(self.options.host)
            hosts = emulators(pubsub=pubsub, storage=storage, run=f"http://{self.options.host}:{port}")
            limits = ["--max-processes", str(self.options.max_processes), "--startup-delay-s", str(self.options.startup_delay_s)]
            child = self._spawn("run", ["--port", str(port), *limits, "--pass-env", *PASSED], hosts)
            try:
                return self._ready("run")["http"]
            except ServiceFailed as error:
                if self.options.run_port or not left or "already in use" not in str(error):
                    raise
                child.stop(STOP_S)
                self.died.clear()
        raise AssertionError("the last try returns or raises")

    def _spawn(self, name: str, options: list[str], more: Mapping[str, str] | None = None) -> Child:
        child = Child(
            name,
            ["--host", self.options.host, *options],
            state_dir=self.state_dir / name,
            log=self.state_dir / f"{name}.log",
            environment={**self._environment, **(more or {})},
            on_death=lambda _name: self.died.set(),
        )
        self._children[name] = child
        return child

    def _ready(self, name: str) -> dict[str, str]:
        return self._children[name].ready(self.options.start_within_s)


def free_port(host: str) -> int:
    """A port that nobody listens on now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def call(service: str, url: str, body: Mapping[str, object] | None = None) -> dict[str, object]:
    """GET, or POST with a body, to a service's HTTP side; its JSON answer. Raises ServiceFailed."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers={"Content-Type": "application/json"})
    try:
        with _direct.open(request, timeout=REQUEST_S) as answer:
            found: dict[str, object] = json.loads(answer.read())
            return found
    except (urllib.error.URLError, OSError, ValueError) as error:
        raise ServiceFailed(f"{service} did not answer {url} as it should: {error}; see its log, or start the local cloud again") from error
