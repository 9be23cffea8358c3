"""Writes a worker's progress to its object: at the start, every so often with jitter, and at the end."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable

from batch.events import log
from batch.model.clock import Clock
from batch.model.errors import FanoutError
from batch.model.names import progress_object
from batch.model.progress import JITTER, Progress, from_metadata, to_metadata
from batch.services.ports import ObjectStore


class ProgressWriter:
    """One worker try's progress object. `current` gives the counters when they are written."""

    def __init__(
        self,
        store: ObjectStore,
        name: str,
        current: Callable[[], Progress],
        every_s: float,
        clock: Clock,
        rng: random.Random,
        failed: Callable[[BaseException], None],
        heartbeat: Callable[[float], None] = lambda _again_within_s: None,
    ) -> None:
        """`heartbeat` is called each round of the thread, with the seconds until the next."""
        self._failed = failed
        self._heartbeat = heartbeat
        self._store = store
        self._name = name
        self._current = current
        self._every_s = every_s
        self._clock = clock
        self._rng = rng
        self.created = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)

    def create(self) -> None:
        """The first write. Raises DependencyError: a worker that cannot write here cannot write results either."""
        self._store.write(self._name, b"", content_type="text/plain", metadata=to_metadata(self._current()))
        self.created = True

    def start(self) -> None:
        self._thread.start()

    def write(self) -> bool:
        """One write; False, and a log line, when it failed."""
        try:
            self._store.patch_metadata(self._name, to_metadata(self._current()))
        except FanoutError as error:
            log("progress_failed", error=str(error))
            return False
        return True

    def stop(self) -> None:
        """No more writes but the caller's own."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(timeout=2)

    def _run(self) -> None:
        try:
            longest_s = self._every_s * (1 + JITTER)
            self._heartbeat(longest_s)
            while not self._clock.wait(self._ended, self._every_s * (1 + JITTER * (self._rng.random() - 0.5))):
                self.write()
                self._heartbeat(longest_s)
        except BaseException as error:  # noqa: BLE001 - carried to the worker, which ends
            self._failed(error)


def earlier_tries(store: ObjectStore, execution: str, index: int, retry: int) -> list[Progress]:
    """The progress of this worker's tries before `retry`, oldest first; a try that wrote none is left out. Raises DependencyError."""
    found = []
    for number in range(retry):
        info = store.info(progress_object(execution, index, number))
        if info is not None:
            found.append(from_metadata(info.metadata))
    return found
