"""Whether the controller can do its work: bucket, jobs and Monitoring, each asked with a short deadline, at most every few seconds."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial

from batch.model.errors import FanoutError
from controller.model.reading import Unknown
from controller.service.ticker import ended_within, start
from controller.tick.outside import Outside

DEADLINE_S = 4.0
KEPT_S = 5.0

_NEEDS = "the controller's service account needs the custom role"
FIXES: Mapping[str, str] = {
    "bucket": f"check BUCKET_NAME; {_NEEDS} fanoutObjects, or roles/storage.objectUser, on the bucket",
    "jobs": f"check GOOGLE_CLOUD_PROJECT and REGION; {_NEEDS} fanoutController, or roles/run.viewer",
    "monitoring": f"enable monitoring.googleapis.com; {_NEEDS} fanoutController, or roles/monitoring.viewer",
}


@dataclass(slots=True)
class Readiness:
    """Checks the services once for all callers at the same time. Safe from any thread."""

    outside: Outside
    deadline_s: float = DEADLINE_S
    _last: Mapping[str, str] | None = None
    _asked_at: float = 0.0
    _under_way: dict[str, Future[str]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def ask(self) -> Mapping[str, str]:
        """The problems that the last check found, at most a few seconds ago, by its name; empty: every service answers. Answers within the
        deadline."""
        with self._lock:
            clock = self.outside.clock
            if self._last is None or clock.monotonic() - self._asked_at > KEPT_S:
                self._last, self._asked_at = self._fresh(), clock.monotonic()
            return self._last

    def _fresh(self) -> Mapping[str, str]:
        until_s = self.outside.clock.monotonic() + self.deadline_s
        for name in FIXES:
            before = self._under_way.get(name)
            if before is None or before.done():  # while a check hangs, no second one is started
                self._under_way[name] = start(partial(self._check, name), f"ready-{name}")
        problems: dict[str, str] = {}
        for name, run in self._under_way.items():
            found = self._found(run, until_s)
            if found:
                problems[name] = f"{found}; {FIXES[name]}"
        return problems

    def _found(self, run: Future[str], until_s: float) -> str:
        if not ended_within(until_s - self.outside.clock.monotonic(), run):
            return f"it did not answer within {self.deadline_s:g} s"
        try:
            return run.result()
        except Exception as error:  # noqa: BLE001 - whatever the error is, the controller is not ready
            return str(error) if isinstance(error, FanoutError) else f"{type(error).__name__}: {error}"

    def _check(self, name: str) -> str:
        """The problem; empty if the service answers."""
        match name:
            case "bucket":
                next(iter(self.outside.store.list("controller/")), None)
            case "jobs":
                self.outside.runner.jobs()
            case "monitoring":
                reading = self.outside.backlog.read(["readiness"])["readiness"]
                return reading.reason if isinstance(reading, Unknown) else ""
        return ""
