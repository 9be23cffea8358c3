"""Writes a worker's progress to its object: at the start, every so often with jitter, and at the end."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from batch.events import log
from batch.model.clock import Clock
from batch.model.errors import DependencyError, FanoutError
from batch.model.names import progress_object
from batch.model.progress import JITTER, Progress, from_metadata, to_metadata
from batch.services.ports import ObjectStore

SHARDS_KEPT = 100


@dataclass(slots=True)
class ProgressWriter:
    """One worker try's progress object. `current` gives the counters when they are written; `heartbeat` is called each round of the
    thread, with the seconds until the next; `beside` when the thread begins, and after each write."""

    store: ObjectStore
    name: str
    current: Callable[[], Progress]
    every_s: float
    clock: Clock
    rng: random.Random
    failed: Callable[[BaseException], None]
    heartbeat: Callable[[float], None] = lambda _again_within_s: None
    beside: Callable[[], None] = lambda: None
    created: bool = field(default=False, init=False)
    _shards: dict[str, None] = field(default_factory=dict, init=False)
    _wake: threading.Event = field(default_factory=threading.Event, init=False)
    _ended: bool = field(default=False, init=False)
    _thread: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)

    def create(self) -> None:
        """The first write. Raises DependencyError: a worker that cannot write here cannot write results either."""
        self.store.write(self.name, b"", content_type="text/plain", metadata=to_metadata(self.current()))
        self.created = True

    def start(self) -> None:
        self._thread.start()

    def writes_to(self, shard: str) -> None:
        """The worker is about to write outcomes to this shard. One that is new is written down soon: a worker that is killed cannot say any
        more where its outcomes lie."""
        if shard not in self._shards and len(self._shards) < SHARDS_KEPT:
            self._shards[shard] = None
            self._wake.set()

    @property
    def shards(self) -> tuple[str, ...]:
        """Those that were told, in their order."""
        return tuple(self._shards.copy())

    def write(self) -> bool:
        """One write; False, and a log line, when it failed."""
        try:
            self.store.patch_metadata(self.name, to_metadata(self.current()))
        except FanoutError as error:
            log("progress_failed", error=str(error))
            return False
        return True

    def stop(self) -> None:
        """No more writes but the caller's own."""
        self._ended = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout=2)

    def _run(self) -> None:
        try:
            longest_s = self.every_s * (1 + JITTER)
            self.heartbeat(longest_s)
            self.beside()
            self.heartbeat(longest_s)
            while not self._ended:
                self.clock.wait(self._wake, self.every_s * (1 + JITTER * (self.rng.random() - 0.5)))
                self._wake.clear()
                if not self._ended:
                    self.write()
                    self.heartbeat(longest_s)
                    self.beside()
                self.heartbeat(longest_s)
        except BaseException as error:  # noqa: BLE001 - carried to the worker, which ends
            self.failed(error)


def earlier_tries(store: ObjectStore, execution: str, index: int, retry: int) -> list[Progress]:
    """The progress of this worker's tries before `retry`, oldest first; a try that wrote none is left out. Raises DependencyError."""
    found = []
    for number in range(retry):
        name = progress_object(execution, index, number)
        info = store.info(name)
        if info is None:
            continue
        try:
            found.append(from_metadata(info.metadata))
        except ValueError as error:
            # How much of the share is done is unknown, which is not nothing.
            raise DependencyError(f"object {name} is {error}: delete it once no worker of its execution runs") from error
    return found
