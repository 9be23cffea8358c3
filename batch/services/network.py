"""The way out at the start of a process: a worker waits for its network, and who is not told its project asks the metadata server.

A worker in a network of one's own (direct VPC) may be there a minute or more before its network is. Nothing has gone wrong then: no retry
of the worker is spent, and no task pays for it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, MutableMapping
from typing import TypeVar

from batch.events import log
from batch.model.clock import Clock
from batch.model.errors import Unreached

PROJECT = "GOOGLE_CLOUD_PROJECT"
SERVER = "GCE_METADATA_HOST"
EMULATORS = ("PUBSUB_EMULATOR_HOST", "STORAGE_EMULATOR_HOST")
TIMEOUT_S = 1.0
TRIES = 3
NETWORK_WITHIN_S = 240.0
TIMEOUT_PART = 1 / 3
"""How much of its timeout a worker may wait for its network: a share is left to work in."""
LOOK_EVERY_S = 2.0
LOOK_S = 3.0
"""How long one look tries: between two, a signal is heard."""

T = TypeVar("T")


class Network:
    """A worker's first calls of its services, until each is reached. Only those who start wait: later a service that cannot be reached is a
    failure like any other. Used by one thread; `stop` by any."""

    def __init__(self, clock: Clock, timeout_s: float, is_stopped: Callable[[], bool] = lambda: False) -> None:
        """`timeout_s` is the worker's own, from now on. `is_stopped`: a signal came while nobody could call `stop`."""
        self.began_s = clock.monotonic()
        self._clock = clock
        self._until_s = self.began_s + min(NETWORK_WITHIN_S, TIMEOUT_PART * timeout_s)
        self._stopping = threading.Event()
        self._is_stopped = is_stopped
        self._waits = False

    @property
    def left_s(self) -> float:
        """For how many seconds more it is waited for."""
        return max(0.0, self._until_s - self._clock.monotonic())

    @property
    def stopped(self) -> bool:
        """Whether somebody sent SIGTERM."""
        return self._stopping.is_set() or self._is_stopped()

    def stop(self) -> None:
        """Wait no more: somebody sent SIGTERM."""
        self._stopping.set()

    def first(self, call: Callable[[], T]) -> T:
        """What `call` returns, which is repeated while the service that it calls is out of reach. Raises what it raises."""
        while True:
            try:
                found = call()
            except Unreached as error:
                if not self.left_s or self.stopped:
                    raise
                self._say(error)
                self._clock.wait(self._stopping, min(LOOK_EVERY_S, self.left_s))
                if self.stopped:
                    raise
            else:
                if self._waits:
                    self._waits = False
                    log("network_reached", waited_s=round(self._clock.monotonic() - self.began_s, 3))
                return found

    def _say(self, error: Unreached) -> None:
        """Once for each service that is waited for."""
        if not self._waits:
            self._waits = True
            log("network_awaited", error=str(error), at_most_s=round(self.left_s, 3))


def name_project(environment: MutableMapping[str, str], network: Network | None = None) -> None:
    """Set GOOGLE_CLOUD_PROJECT where it is absent. With an emulator's address only a server that GCE_METADATA_HOST names is asked.
    `network`: the process is on Google Cloud, where the server will answer."""
    server = environment.get(SERVER, "")
    if environment.get(PROJECT) or (not server and any(environment.get(name) for name in EMULATORS)):
        return

    def ask() -> str:
        try:
            return _project(server or "metadata.google.internal")
        except OSError as error:
            raise Unreached(str(error)) from error

    try:
        environment[PROJECT] = ask() if network is None else network.first(ask)
    except (Unreached, ValueError) as error:
        log("project_not_named", error=f"{PROJECT} is not set, and no metadata server names the project: {error}")


def _project(server: str) -> str:
    """Raises OSError, ValueError for an answer that is not the metadata server's."""
    from http.client import HTTPConnection, HTTPException
    from socket import gaierror

    for tried in range(1, TRIES + 1):
        connection = HTTPConnection(server, timeout=TIMEOUT_S)
        try:
            connection.request("GET", "/computeMetadata/v1/project/project-id", headers={"Metadata-Flavor": "Google"})
            response = connection.getresponse()
            text = response.read(1000).decode("ascii", "replace").strip()
            if response.status == 200 and response.headers["Metadata-Flavor"] == "Google" and text:
                return text
            raise ValueError(f"{server} answered {response.status}, not as a metadata server does")
        except gaierror:
            raise  # there is no such name: not on Google Cloud, or not yet in its network
        except (OSError, HTTPException) as error:
            if tried == TRIES:
                raise OSError(f"{server} did not answer: {error or type(error).__name__}") from error
        finally:
            connection.close()
    raise AssertionError("the last try returns or raises")
