"""One lane's cloud for several controllers at once: a bucket, a job that launches in every way a launch can go wrong, workers that fence as
the real ones do, and a gauge that lags. Its clock moves with the number of ticks, so that nothing waits and every run ends.
"""

from __future__ import annotations

import itertools
import os
import random
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from batch.model.errors import ObjectMissing, PreconditionFailed
from batch.model.names import progress_object
from batch.model.progress import Progress, to_metadata
from batch.model.shares import share
from batch.services.claims import claim
from batch.services.ports import ObjectInfo
from batch.testing import ManualClock, MemoryObjectStore
from controller.act.intents import PartState
from controller.act.state import load
from controller.model.execution import ExecutionInfo, WorkerInfo
from controller.model.reading import Reading, Value
from controller.observe.jobs import JobInfo, LaunchRefused, LaunchThrottled, LaunchUnclear, RunRequest
from tests.controller.fakes import JOB, job

STEP_S = 20.0
LAG_S = 60.0
LATE_S = {"effect_later": 30.0, "effect_too_late": 240.0}
"""The second is longer than a launch is waited for: it has been given up by then."""
WORK_S = 15.0
FAULTS = ("unavailable", "lost_response", "deadline_exceeded", "effect_later", "effect_too_late", "throttled", "refused")


@dataclass
class Cloud:
    """`published` messages in all; more come in the first `arrival_steps` steps. With `fault_rate` a launch meets one of FAULTS. The list
    does not show what is newer than `listing_lag_s`. `worked` are the executions that did the work of a decision part, by its id."""

    seed: int = 1
    fault_rate: float = 0.0
    only_fault: str = ""
    listing_lag_s: float = 0.0
    ticks_a_step: int = 1
    arrival_steps: int = 0
    published: int = 0
    clock: ManualClock = field(default_factory=ManualClock)
    worked: dict[str, list[str]] = field(default_factory=dict)
    fenced_count: int = 0
    acked: int = 0
    run_count: int = 0
    met: dict[str, int] = field(default_factory=dict)
    parts: dict[str, tuple[PartState, str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.lock = threading.RLock()
        self.faults = itertools.cycle(self.rng.sample(FAULTS, len(FAULTS)))
        self.store = MemoryObjectStore(clock=self.clock)
        self.job = job(max_messages="10", strategy="share", max_workers="1000")
        self.all: dict[str, ExecutionInfo] = {}
        self.late: list[tuple[float, RunRequest]] = []
        self.samples: list[tuple[float, int]] = [(self.clock.now(), 0)]
        self.tick_count = 0

    # --- what the seams ask

    def now(self) -> float:
        return self.clock.now()

    def reading(self) -> Reading:
        """Of LAG_S ago."""
        with self.lock:
            seen = [one for one in self.samples if one[0] <= self.clock.now() - LAG_S]
            at, count = (seen or self.samples)[-1 if seen else 0]
            return Value(count, at, 30.0 if count else None)

    def jobs(self) -> list[JobInfo]:
        with self.lock:
            latest = max(self.all.values(), key=lambda one: (one.created_at, one.name), default=None)
            return [replace(self.job, execution_count=len(self.all), latest_execution=latest.name if latest else "")]

    def listed(self) -> list[ExecutionInfo]:
        with self.lock:
            edge = self.clock.now() - self.listing_lag_s
            found = [one for one in self.all.values() if one.created_at <= edge]
            return sorted(found, key=lambda one: (one.created_at, one.name), reverse=True)

    def execution(self, full_name: str) -> ExecutionInfo | None:
        with self.lock:
            return self.all.get(full_name.rsplit("/", 1)[-1])

    def run(self, request: RunRequest) -> ExecutionInfo:
        with self.lock:
            self.run_count += 1
            fault = (self.only_fault or next(self.faults)) if self.rng.random() < self.fault_rate else ""
            self.met[fault] = self.met.get(fault, 0) + 1
            if fault == "refused":
                raise LaunchRefused("400: no")
            if fault == "throttled":
                raise LaunchThrottled("429: too many")
            if fault in LATE_S:
                self.late.append((self.clock.now() + LATE_S[fault], request))
            if fault in ("unavailable", "deadline_exceeded", *LATE_S):
                raise LaunchUnclear(f"503: {fault}")
            info = self._create(request)
            if fault == "lost_response":
                raise LaunchUnclear("connection reset")
            return info

    # --- what happens by itself

    def publish(self, count: int) -> None:
        with self.lock:
            self.published += count
            self._sample()

    def ticked(self) -> None:
        """A tick is over; every `ticks_a_step` of them the clock moves and workers work."""
        with self.lock:
            self.tick_count += 1
            if not self.tick_count % self.ticks_a_step:
                self.step()

    def step(self, seconds: float = STEP_S) -> None:
        with self.lock:
            self._note_parts()
            if self.arrival_steps:
                self.arrival_steps -= 1
                self.published += self.rng.choice([0, 0, 7, 35, 120])
            self.clock.advance(seconds)
            now = self.clock.now()
            for at, request in [one for one in self.late if one[0] <= now]:
                self.late.remove((at, request))
                self._create(request)
            for name, info in list(self.all.items()):
                if info.live and now >= info.created_at + WORK_S:
                    self._work(name, info)
            self._sample()

    def _sample(self) -> None:
        self.samples.append((self.clock.now(), self.published - self.acked))

    def _create(self, request: RunRequest) -> ExecutionInfo:
        name = f"default-{len(self.all):05d}"
        # Two executions of one moment still come one after the other.
        at = self.clock.now() + len(self.all) * 1e-4
        info = ExecutionInfo(f"{JOB}/executions/{name}", request.task_count, at, running_count=request.task_count, env=dict(request.env))
        self.all[name] = info
        return info

    def _work(self, name: str, info: ExecutionInfo) -> None:
        """Fence first, as every worker does; then the whole share."""
        now = self.clock.now()
        holder = claim(self.store, info.decision_id, name)
        backlog = int(info.env["BACKLOG"])
        for index in range(info.task_count):
            own = share(backlog, info.task_count, index) if holder == name else 0
            done = Progress(own, now - 5, now, taken=own, acked=own, exit_reason="share_done" if own else "not_claimed")
            self.store.write(progress_object(name, index, 0), b"", metadata=to_metadata(done))
        if holder == name:
            self.worked.setdefault(info.decision_id, []).append(name)
            self.acked += backlog
        else:
            self.fenced_count += 1
        self.all[name] = replace(info, completed_at=now, running_count=0, succeeded_count=info.task_count)

    def _note_parts(self) -> None:
        for intent in load(self.store, "default").state.intents:
            for part in intent.parts:
                self.parts[part.decision_id] = (part.state, part.execution, part.reason)

    # --- what has to be true in the end

    def check(self) -> None:
        """Nothing was worked twice, nothing assigned twice, nothing forgotten, and every decision has its execution or its reason."""
        self._note_parts()
        assert all(len(names) == 1 for names in self.worked.values()), self.worked
        assigned = sum(int(info.env["BACKLOG"]) for name, info in self.all.items() if [name] == self.worked.get(info.decision_id))
        assert (assigned, self.acked) == (self.published, self.published)
        launched = {info.decision_id for info in self.all.values()}
        assert launched <= set(self.parts), "an execution without a decision"
        for decision_id, (state, execution, reason) in self.parts.items():
            assert state is not PartState.PENDING, decision_id
            if state is PartState.LAUNCHED:
                assert self.all[execution].decision_id == decision_id
            else:
                assert reason, decision_id
                assert decision_id not in self.worked


class Store:
    """The bucket as one controller sees it; `Cloud` may be in another process, so lists come as a whole."""

    bucket_name = "memory"

    def __init__(self, cloud: StoreCalls) -> None:
        self._cloud = cloud

    def check(self) -> None:
        """There is nothing to check."""

    def write(
        self,
        name: str,
        data: bytes,
        *,
        content_type: str = "application/octet-stream",
        metadata: Mapping[str, str] | None = None,
        if_generation: int | None = None,
    ) -> ObjectInfo:
        found = self._cloud.write(name, data, dict(metadata or {}), if_generation)
        if found is None:
            raise PreconditionFailed(name, if_generation or 0)
        return found

    def read(self, name: str) -> bytes:
        return self.read_with_info(name)[0]

    def read_stored(self, name: str, max_bytes: int | None = None) -> tuple[bytes, bytes | None]:
        return self.read(name), None

    def read_with_info(self, name: str) -> tuple[bytes, ObjectInfo]:
        found = self._cloud.read(name)
        if found is None:
            raise ObjectMissing(name)
        return found

    def download(self, name: str, path: str | os.PathLike[str], *, max_bytes: int | None = None) -> ObjectInfo:
        raise NotImplementedError

    def upload(self, name: str, path: str | os.PathLike[str], **options: Any) -> ObjectInfo:
        raise NotImplementedError

    def info(self, name: str) -> ObjectInfo | None:
        found = self._cloud.read(name)
        return None if found is None else found[1]

    def list(self, prefix: str, start: str = "") -> Iterator[ObjectInfo]:
        return iter([one for one in self._cloud.objects(prefix) if one.name >= start])

    def patch_metadata(self, name: str, metadata: Mapping[str, str]) -> ObjectInfo:
        raise NotImplementedError

    def delete(self, name: str, *, if_generation: int | None = None) -> bool:
        raise NotImplementedError


class StoreCalls:
    """The bucket's calls, with answers that may travel between processes."""

    def __init__(self, cloud: Cloud) -> None:
        self._store = cloud.store

    def write(self, name: str, data: bytes, metadata: dict[str, str], if_generation: int | None) -> ObjectInfo | None:
        try:
            return self._store.write(name, data, metadata=metadata, if_generation=if_generation)
        except PreconditionFailed:
            return None

    def read(self, name: str) -> tuple[bytes, ObjectInfo] | None:
        try:
            return self._store.read_with_info(name)
        except ObjectMissing:
            return None

    def objects(self, prefix: str) -> list[ObjectInfo]:
        return list(self._store.list(prefix))


class Runner:
    """Cloud Run as one controller sees it."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    def jobs(self) -> list[JobInfo]:
        return self._cloud.jobs()

    def executions(self, job: str) -> Iterator[ExecutionInfo]:
        return iter(self._cloud.listed())

    def execution(self, full_name: str) -> ExecutionInfo | None:
        return self._cloud.execution(full_name)

    def workers(self, execution: str) -> Sequence[WorkerInfo]:
        return ()

    def run(self, job: str, request: RunRequest) -> ExecutionInfo:
        return self._cloud.run(request)

    def set_annotation(self, job: str, key: str, value: str) -> None:
        raise NotImplementedError


class Backlog:
    """The lagging gauge."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    def read(self, subscriptions: Sequence[str]) -> dict[str, Reading]:
        return dict.fromkeys(subscriptions, self._cloud.reading())


class Clock:
    """The cloud's clock."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    def now(self) -> float:
        return self._cloud.now()

    def monotonic(self) -> float:
        return self._cloud.now()

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        return event.is_set()
