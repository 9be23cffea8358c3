"""All measurements of the worker, round by round. What cannot be measured is a note, and the others go on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from bench.recording import Measure
from bench.worker import measures as m
from bench.worker.contenders import CLIENT, CONTENDERS, FANOUT, URLLIB3, Contender, Run, Site, run, worker_run
from bench.worker.files import TASKS, files_run
from bench.worker.handlers import WAIT_S, module_of
from bench.worker.lane import delete, fresh_lane, publish
from bench.worker.price import dollars_per_million
from bench.worker.starting import IMPORT, PYTHON, to_first_pull_s, to_word_s
from bench.worker.tail import tail

T = TypeVar("T")

WARM_UP_PART = 0.2
WAIT_SECONDS = 8.0
"""How long the 20 ms handlers go on."""
TAIL_TASKS = 32_000
STARTS_PER_ROUND = 3
LEAST_MESSAGES = 20


@dataclass(slots=True)
class Servers:
    """`pubsubs` are addresses by name; `proxy` gives the address of one that adds a round trip (ms) before an address."""

    pubsubs: Mapping[str, str]
    storage: str
    proxy: Callable[[str, int], str]
    _proxies: dict[tuple[str, int], str] = field(default_factory=dict)

    def site(self, name: str, delay_ms: int = 0) -> Site:
        pubsub = self.pubsubs[name]
        storage = self.storage.removeprefix("http://")
        return Site(pubsub, self.storage, self._before(pubsub, delay_ms), f"http://{self._before(storage, delay_ms)}")

    def _before(self, address: str, delay_ms: int) -> str:
        if (address, delay_ms) not in self._proxies:
            self._proxies[address, delay_ms] = self.proxy(address, delay_ms) if delay_ms else address
        return self._proxies[address, delay_ms]


@dataclass(slots=True)
class Bench:
    """`scale` is the part of a full run's messages; `contenders` are those that are measured."""

    servers: Servers
    scale: float
    contenders: Sequence[Contender] = CONTENDERS
    notes: list[str] = field(default_factory=list)
    _measures: dict[str, Measure] = field(default_factory=dict)

    @property
    def measures(self) -> list[Measure]:
        return list(self._measures.values())

    def all(self, runs: int, delays_ms: Sequence[int]) -> None:
        """Each round has every measurement once."""
        for server in self.servers.pubsubs:
            for contender in self.contenders:
                self._try(f"warming up {contender.name} on {server}", partial(self._run, contender, server, 0, WARM_UP_PART))
        for _ in range(runs):
            for delay_ms in delays_ms:
                for contender in self.contenders:
                    for server in self.servers.pubsubs:
                        self._contender(contender, server, delay_ms)
            for server in self.servers.pubsubs:
                self._waits(server)
                self._memory(server, (m.SMALL, m.LARGE))
                self._tail(server)
                self._files(server)
            self._starts()

    def files(self, runs: int) -> None:
        """What a task costs that reads an object and writes one."""
        for number in range(runs + 1):
            for server in self.servers.pubsubs:
                self._files(server, counts=number > 0)

    def million(self, runs: int) -> None:
        """The memory of a worker, small backlog and a million."""
        for _ in range(runs):
            for server in self.servers.pubsubs:
                self._memory(server, (m.SMALL, m.MILLION))

    def _contender(self, contender: Contender, server: str, delay_ms: int) -> None:
        got = self._try(f"{contender.name} on {server}, +{delay_ms} ms", partial(self._run, contender, server, delay_ms))
        if got is None:
            return
        self._add(m.speed(server, delay_ms), "messages/s", contender.name, got.rate)
        if delay_ms == 0:
            self._add(m.on(m.CPU, server), "µs", contender.name, got.cpu_us)
            self._add(m.on(m.START_CPU, server), "s", contender.name, got.start_cpu_s)
            self._add(m.on(m.MEMORY, server), "MB", contender.name, got.peak_mb)
            self._add(m.on(m.TIME_CENTS, server), "US cents", contender.name, 100 * dollars_per_million(1 / got.rate))
            self._add(m.on(m.CPU_CENTS, server), "US cents", contender.name, 100 * dollars_per_million(got.cpu_us / 1e6))

    def _run(self, contender: Contender, server: str, delay_ms: int, part: float = 1.0) -> Run:
        return run(contender, self.servers.site(server, delay_ms), self._scaled(contender.counts[delay_ms] * part))

    def _worker(self, server: str, task_type: str, count: int, **settings: object) -> Run:
        site = self.servers.site(server)
        lane = fresh_lane(site.pubsub, site.storage)
        try:
            publish(lane, site.pubsub, task_type, count)
            return worker_run(lane, count, module_of(task_type), **settings)
        finally:
            delete(lane, site.pubsub)

    def _waits(self, server: str) -> None:
        for name, task_type, places in ((m.WAIT_THREADS, "wait", m.THREADS), (m.WAIT_ASYNC, "async_wait", m.PLACES)):
            most = places / WAIT_S
            count = self._scaled(most * WAIT_SECONDS)
            got = self._try(f"{name} on {server}", partial(self._worker, server, task_type, count, CONCURRENCY=places))
            if got is not None:
                self._add(name, "% of concurrency ÷ time", server, 100 * got.rate / most)

    def _memory(self, server: str, backlogs: Sequence[int]) -> None:
        for backlog in backlogs:
            got = self._try(f"{m.memory(backlog)} on {server}", partial(self._worker, server, "noop", self._scaled(backlog)))
            if got is not None:
                self._add(m.memory(backlog), "MB", server, got.peak_mb)

    def _tail(self, server: str) -> None:
        got = self._try(f"{m.TAIL} on {server}", partial(tail, self._scaled(TAIL_TASKS), self.servers.site(server)))
        if got is not None:
            self._add(m.DRAIN, "s", server, got.drain_s)
            self._add(m.TAIL, "s", server, got.after_median_s)
            self._add(m.TAIL_PART, "%", server, 100 * got.after_median_s / got.drain_s)

    def _files(self, server: str, *, counts: bool = True) -> None:
        for who in (FANOUT, URLLIB3, CLIENT):
            got = self._try(f"{m.FILES}: {who}, {server}", partial(files_run, who, self.servers.site(server), self._scaled(TASKS)))
            if got is not None and counts:
                self._add(m.on(m.FILES, server), "tasks/s", who, got.rate)
                self._add(m.on(m.FILES_CPU, server), "µs", who, got.cpu_us)

    def _starts(self) -> None:
        pubsub = next(iter(self.servers.pubsubs.values()))
        for _ in range(STARTS_PER_ROUND):
            for who, measured in (
                (m.TO_PULL, partial(to_first_pull_s, pubsub, self.servers.storage, module_of("noop"))),
                (m.TO_PULL_SHIPPED, partial(to_first_pull_s, pubsub, self.servers.storage, "batch.handlers")),
                (m.TO_IMPORT, partial(to_word_s, IMPORT)),
                (m.TO_PYTHON, partial(to_word_s, PYTHON)),
            ):
                seconds = self._try(who, measured)
                if seconds is not None:
                    self._add(m.START, "s", who, seconds)

    def _try(self, what: str, measured: Callable[[], T]) -> T | None:
        print(what, flush=True)
        try:
            return measured()
        except (RuntimeError, OSError) as error:
            self.notes.append(f"Not measured in one round: {what}: {str(error).splitlines()[0].partition(';')[0]}.")
            print(error, flush=True)
            return None

    def _add(self, name: str, unit: str, who: str, value: float) -> None:
        self._measures.setdefault(name, Measure(name, unit, "")).add(who, value)

    def _scaled(self, count: float) -> int:
        return max(LEAST_MESSAGES, int(count * self.scale))
