"""The local cloud as a whole: it starts three services as processes, watches them, freezes or kills them on request, and stops them.

Workers end before the services they talk to, and nothing outlives the supervisor, whether it is stopped or killed.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from local_cloud.addresses import PASSED, Addresses, emulators
from local_cloud.clock import LATEST_S, Clock
from local_cloud.run.runner.leftovers import Records
from local_cloud.supervisor.child import Child, ServiceFailed
from local_cloud.supervisor.fault_requests import FaultRequests
from local_cloud.supervisor.folder_lock import FolderLock, InUse
from local_cloud.supervisor.http_call import call
from local_cloud.supervisor.state_folder import SECRETS
from local_cloud.supervisor.watchman import Watchman

STOP_S = 10.0
"""How long a service may take to shut down."""
PORT_TRIES = 3
SERVICES = ("pubsub", "storage", "run")
_PORT_TAKEN = ("already in use", "Failed to bind")


@dataclass(frozen=True, slots=True)
class Options:
    """Ports of 0 are free ones. `sample_period_s` and `visibility_lag_s` make the backlog gauge as late as the real one; 0 and 0 make
    it exact at once. `max_processes`: workers at a time; `startup_delay_s`: between a worker's slot and its process, or the median of
    that when `startup_spread`, the standard deviation of its logarithm, is not 0. `delayed_start_s`: until an execution of a delayed job
    starts. `seed` makes the start-up delays, and the names that Run makes up, repeatable."""

    host: str = "127.0.0.1"
    pubsub_port: int = 0
    pubsub_http_port: int = 0
    storage_port: int = 0
    run_port: int = 0
    sample_period_s: float = 60.0
    visibility_lag_s: float = 120.0
    max_processes: int = 64
    startup_delay_s: float = 0.0
    startup_spread: float = 0.0
    delayed_start_s: float = 3600.0
    seed: int | None = None
    start_within_s: float = 30.0


class LocalCloud:
    """A context manager; `start` and `stop` do the same by hand. `died` is set when a service has exited by itself.

    Safe to use from any thread.
    """

    def __init__(self, state_dir: Path, options: Options | None = None, environment: Mapping[str, str] | None = None) -> None:
        """`state_dir` gets one folder and one log per service. `environment`: of the services; by default this process's own."""
        self.state_dir = state_dir.resolve()
        self.options = options or Options()
        self.died = threading.Event()
        self._environment = dict(os.environ if environment is None else environment)
        self._children: dict[str, Child] = {}
        # How to start a service again on the same ports: its options, and what it has in its environment beside the common variables.
        self._plans: dict[str, tuple[list[str], Mapping[str, str]]] = {}
        self._killed: set[str] = set()
        self._watchman: Watchman | None = None
        self._addresses: Addresses | None = None
        self._advanced_s = 0.0
        self._folder_lock = FolderLock(self.state_dir)
        # Held while services are started, signalled or stopped.
        self._lock = threading.RLock()

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
        """Process ids by service, of those that were not killed."""
        return {name: child.pid for name, child in self._children.items() if name not in self._killed}

    @property
    def states(self) -> dict[str, str]:
        """By service: "runs", "frozen", "killed" (on request) or "died"."""
        return {name: self._state(name, child) for name, child in self._children.items()}

    def _state(self, name: str, child: Child) -> str:
        if name in self._killed:
            return "killed"
        if not child.alive:
            return "died"
        return "frozen" if child.frozen else "runs"

    @property
    def faults(self) -> FaultRequests:
        """Faults on request."""
        return FaultRequests(self.addresses)

    def start(self) -> None:
        """Returns when all services answer. Raises ServiceFailed, with nothing left running."""
        self.state_dir.mkdir(parents=True, exist_ok=True)
        self.state_dir.chmod(0o700)
        with self._lock:
            try:
                self._folder_lock.take()
            except InUse as error:
                raise ServiceFailed(str(error)) from error
            try:
                self._check_ports()
                self._start()
            except BaseException:
                self.stop()
                raise

    def _check_ports(self) -> None:
        """Raises ServiceFailed, with a message that says more than the one of a service that cannot listen."""
        options = self.options
        wanted = {
            "the gRPC port of pubsub": options.pubsub_port,
            "the HTTP port of pubsub": options.pubsub_http_port,
            "the port of storage": options.storage_port,
            "the port of run": options.run_port,
        }
        users: dict[int, str] = {}
        for what, port in wanted.items():
            if not port:
                continue
            if port in users:
                raise ServiceFailed(f"{port} is {users[port]} and {what}: give each its own, or 0 for a free one")
            users[port] = what
            try:
                _listen(options.host, port)
            except (OSError, OverflowError) as error:
                raise ServiceFailed(f"{port} cannot be {what}: {error}; choose another one, or 0 for a free one") from error

    def check(self) -> None:
        """Raises ServiceFailed naming every service that has exited by itself."""
        dead = [child.exit_report() for name, child in self._children.items() if name not in self._killed and not child.alive]
        if dead:
            raise ServiceFailed("\n".join(dead))

    def advance(self, seconds: float) -> None:
        """Move the clocks of all services forward; one that is killed catches up when it is restarted.

        Raises ServiceFailed, before any clock was moved, when a service is frozen; ValueError on a step that is negative or leads beyond
        the year 3000.
        """
        if not 0 <= seconds < float("inf"):
            raise ValueError(f"the clock only moves forward, got {seconds} s")
        with self._lock:
            if Clock().now() + self._advanced_s + seconds > LATEST_S:
                raise ValueError(f"the clock ends with the year 3000, got {seconds} s")
            frozen = [name for name, state in self.states.items() if state == "frozen"]
            if frozen:
                raise ServiceFailed(f"{', '.join(frozen)} is frozen, so its clock cannot be moved: thaw it first")
            self._advanced_s += seconds
            for name, url in self.addresses.http.items():
                if name not in self._killed:
                    call(name, f"{url}/clock/advance", {"seconds": seconds})

    def freeze(self, name: str) -> None:
        """Stop a service where it stands (SIGSTOP), until `thaw`. Workers go on. Raises ServiceFailed when it does not run."""
        with self._lock:
            self._running(name).freeze()

    def thaw(self, name: str) -> None:
        """Continue a frozen service; does nothing to one that is not frozen. Raises ServiceFailed when it does not run."""
        with self._lock:
            self._running(name).thaw()

    def kill(self, name: str) -> None:
        """End a service as a crash would (SIGKILL); `died` is not set. Workers of a killed Run go on until its restart or until `stop`."""
        with self._lock:
            child = self._running(name)
            self._killed.add(name)
            child.kill()

    def restart(self, name: str) -> None:
        """Start a service again, with its state and on its ports; one that still runs is shut down first. Its clock is set to that of the
        others. Raises ServiceFailed."""
        with self._lock:
            child = self._child(name)
            self._killed.add(name)
            child.stop(STOP_S)
            self._respawn(name)
            if self._advanced_s:
                call(name, f"{self.addresses.http[name]}/clock/advance", {"seconds": self._advanced_s})
            if name == "storage":
                self._introduce(self.addresses)
            self._killed.discard(name)

    def _respawn(self, name: str) -> None:
        """Tries again when the port is taken: while nothing listened, the system may have given it to a client's own end of a
        connection."""
        for left in reversed(range(PORT_TRIES)):
            child = self._spawn(name, *self._plans[name])
            try:
                self._ready(name)
                return
            except ServiceFailed as error:
                child.stop(STOP_S)
                if not left or not any(words in str(error) for words in _PORT_TAKEN):
                    raise

    def _on_death(self, name: str) -> None:
        if name not in self._killed:
            self.died.set()

    def _child(self, name: str) -> Child:
        child = self._children.get(name)
        if child is None:
            known = ", ".join(self._children) or "none, as the local cloud is not started"
            raise ServiceFailed(f"there is no service {name!r}; there are: {known}")
        return child

    def _running(self, name: str) -> Child:
        child = self._child(name)
        if name in self._killed or not child.alive:
            raise ServiceFailed(f"{name} does not run: restart it first")
        return child

    def stop(self) -> None:
        """Stop Run first, and with it every worker, then the others. May be called twice, and after a failed start."""
        with self._lock:
            run = self._children.get("run")
            if run is not None:
                run.stop(STOP_S)
                # Run ends its workers when it shuts down; those of a killed Run are still there.
                Records(self.state_dir / "run" / "processes").kill_leftovers()
            others = [child for name, child in self._children.items() if name != "run"]
            for child in others:
                child.ask_to_stop()
            for child in others:
                child.stop(STOP_S)
            self._children = {}
            self._killed = set()
            if self._watchman is not None:
                self._watchman.stop()
                self._watchman = None
            self._folder_lock.release()

    def _start(self) -> None:
        options = self.options
        held = [] if self._folder_lock.file is None else [self._folder_lock.file]
        self._watchman = Watchman(self.state_dir, self._environment, self.state_dir / "watchman.log", held)
        self._spawn("storage", ["--port", str(options.storage_port)], {})
        gauge = ["--sample-period-s", str(options.sample_period_s), "--visibility-lag-s", str(options.visibility_lag_s)]
        self._spawn("pubsub", ["--port", str(options.pubsub_port), "--http-port", str(options.pubsub_http_port), *gauge], {})
        storage = self._ready("storage")["http"]
        pubsub = self._ready("pubsub")
        run = self._start_run(pubsub["grpc"], storage)
        self._addresses = Addresses(pubsub=pubsub["grpc"], pubsub_http=pubsub["http"], storage=storage, run=run)
        self._fix_ports(self._addresses)
        self._introduce(self._addresses)

    def _introduce(self, addresses: Addresses) -> None:
        """Tell Storage where to publish notifications."""
        call("storage", f"{addresses.storage}/pubsub", {"url": addresses.pubsub_http})

    def _fix_ports(self, addresses: Addresses) -> None:
        """Let a restarted service listen where its clients look for it: of two options of a name the last one counts."""
        ports = {name: ["--port", url.rpartition(":")[2]] for name, url in addresses.http.items()}
        ports["pubsub"] = ["--port", addresses.pubsub.rpartition(":")[2], "--http-port", addresses.pubsub_http.rpartition(":")[2]]
        for name, (options, more) in self._plans.items():
            self._plans[name] = ([*options, *ports[name]], more)

    def _start_run(self, pubsub: str, storage: str) -> str:
        """Run passes its own address to its workers, so its port is chosen before it starts. If another process takes it first, choose
        another."""
        for left in reversed(range(PORT_TRIES)):
            port = self.options.run_port or free_port(self.options.host)
            hosts = emulators(pubsub=pubsub, storage=storage, run=f"http://{self.options.host}:{port}")
            child = self._spawn("run", ["--port", str(port), *self._run_options(), "--pass-env", *PASSED], hosts)
            try:
                return self._ready("run")["http"]
            except ServiceFailed as error:
                if self.options.run_port or not left or not any(words in str(error) for words in _PORT_TAKEN):
                    raise
                child.stop(STOP_S)
                self.died.clear()
        raise AssertionError("the last try returns or raises")

    def _run_options(self) -> list[str]:
        options = self.options
        limits = ["--max-processes", str(options.max_processes)]
        delays = ["--startup-delay-s", str(options.startup_delay_s), "--startup-spread", str(options.startup_spread)]
        delayed = ["--delayed-start-s", str(options.delayed_start_s), "--secrets-dir", str(self.state_dir / SECRETS)]
        return [*limits, *delays, *delayed, *([] if options.seed is None else ["--seed", str(options.seed)])]

    def _spawn(self, name: str, options: list[str], more: Mapping[str, str]) -> Child:
        self._plans[name] = (options, more)
        child = Child(
            name,
            ["--host", self.options.host, *options],
            state_dir=self.state_dir / name,
            log=self.state_dir / f"{name}.log",
            environment={**self._environment, **more},
            on_death=self._on_death,
        )
        self._children[name] = child
        if self._watchman is not None:
            self._watchman.note(child.pid)
        return child

    def _ready(self, name: str) -> dict[str, str]:
        return self._children[name].ready(self.options.start_within_s)


def free_port(host: str) -> int:
    """A port that no process listens on now."""
    return _listen(host, 0)


def _listen(host: str, port: int) -> int:
    """Bind a port for a moment; returns which. Raises OSError, OverflowError."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        if port:
            # Connections of an earlier service in TIME_WAIT do not matter.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
        return int(probe.getsockname()[1])
