"""What a recording of the worker says: each number that was to be reached beside what was, and the tables behind it. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from bench.page import cell, conditions, grid, rows, taken
from bench.recording import Measure, Recording
from bench.worker import measures as m
from bench.worker.contenders import BARE, CELERY, CLIENT, FANOUT, GROUPED, NAIVE, SUBSCRIBE, URLLIB3

COLUMNS = (FANOUT, GROUPED, SUBSCRIBE, CELERY, NAIVE, BARE)
FILE_COLUMNS = (FANOUT, URLLIB3, CLIENT)


@dataclass(frozen=True, slots=True)
class Goal:
    """`values` are by server; the median of each has to be `least` or more, or `most` or less."""

    name: str
    values: dict[str, list[float]]
    unit: str
    least: float | None = None
    most: float | None = None

    @property
    def wanted(self) -> str:
        return f"≥ {self.least:g}{self.unit}" if self.least is not None else f"≤ {self.most:g}{self.unit}"

    def met(self, values: Sequence[float]) -> bool:
        middle = median(values)
        return (self.least is None or middle >= self.least) and (self.most is None or middle <= self.most)

    def said(self, server: str) -> str:
        """What was reached, and whether that is enough."""
        values = self.values.get(server, [])
        return f"{cell(values, self.unit)} {'✓' if self.met(values) else '✗'}" if values else "–"


def text(recording: Recording) -> str:
    """The block of docs/benchmarks.md."""
    known = {measure.name: measure for measure in recording.measures}
    speeds = [known[name] for delay_ms in m.DELAYS_MS for server in m.SERVERS if (name := m.speed(server, delay_ms)) in known]
    kinds = (m.CPU, m.START_CPU, m.MEMORY, m.TIME_CENTS, m.CPU_CENTS)
    costs = [known[name] for kind in kinds for server in m.SERVERS if (name := m.on(kind, server)) in known]
    files = [known[name] for kind in (m.FILES, m.FILES_CPU) for server in m.SERVERS if (name := m.on(kind, server)) in known]
    # What is left has the servers as its columns, but for the start, which has no server.
    own = [one for one in recording.measures if one not in speeds + costs + files and one.name != m.START]
    parts = [[taken(recording)], [_goals(recording)]]
    if speeds:
        parts.append(["Messages a second, from the first pull to the last acknowledgement:", "", *rows(speeds, COLUMNS, aim=False)])
    if costs:
        parts.append(["What they cost:", "", *rows(costs, COLUMNS, aim=False)])
    if files:
        parts.append(["A read and a write for each task:", "", *rows(files, FILE_COLUMNS, aim=False)])
    if own:
        parts.append(["The worker by itself:", "", *rows(own, m.SERVERS, aim=False)])
    if m.START in known:
        parts.append(["Seconds from the start of a process:", "", *rows([known[m.START]], m.STARTS, aim=False)])
    parts.append(conditions(recording))
    return "\n\n".join("\n".join(part) for part in parts)


def _goals(recording: Recording) -> str:
    body = [[goal.name, goal.wanted, *(goal.said(server) for server in m.SERVERS)] for goal in goals(recording)]
    return "\n".join(grid(["to reach", "wanted", *m.SERVERS], body))


def goals(recording: Recording) -> list[Goal]:
    """Those that the recording can tell of."""
    known = {measure.name: measure for measure in recording.measures}
    ratios = [
        ("N1 worker ÷ `subscribe()`", FANOUT, SUBSCRIBE, 10.0, " ×"),
        ("N1 worker ÷ Celery", FANOUT, CELERY, 10.0, " ×"),
        ("N1 worker ÷ bare loop", FANOUT, BARE, 30.0, " %"),
        ("N2 grouped ÷ bare loop", GROUPED, BARE, 60.0, " %"),
    ]
    found = [
        Goal(name, {server: _share(_of(known, m.speed(server, 0)), over, under, unit) for server in m.SERVERS}, unit, least=least)
        for name, over, under, least, unit in ratios
    ]
    found += [
        Goal("N3 32 threads, of concurrency ÷ time", dict(_of(known, m.WAIT_THREADS).runs), " %", least=95),
        Goal("N3 200 async places, of concurrency ÷ time", dict(_of(known, m.WAIT_ASYNC).runs), " %", least=85),
        Goal("N4 first pull ÷ import of the client", dict.fromkeys(m.SERVERS, _starts(known)), " ×", most=1.5),
    ]
    for large in (m.LARGE, m.MILLION):
        most = _of(known, m.memory(large))
        growth = {server: _divided(most.runs.get(server, []), _of(known, m.memory(m.SMALL)).runs.get(server, [])) for server in m.SERVERS}
        found += [
            Goal(f"N5 memory, {large:,} ÷ {m.SMALL:,} messages", growth, " ×", most=1.1),
            Goal(f"N5 memory, {large:,} messages", dict(most.runs), " MB", most=130),
        ]
    found += [
        Goal("N6 last of 8 workers after the median, of the drain …", dict(_of(known, m.TAIL_PART).runs), " %", most=10),
        Goal("… or", dict(_of(known, m.TAIL).runs), " s", most=2),
    ]
    costs, rates = ({one: _of(known, m.on(kind, one)).runs.get(FANOUT, []) for one in m.SERVERS} for kind in (m.FILES_CPU, m.FILES))
    found += [
        Goal("N15 a task that reads and writes, processor time", costs, " µs", most=1200),
        Goal("… and", rates, " tasks/s", least=700),
    ]
    return [goal for goal in found if any(goal.values.values())]


def _of(known: dict[str, Measure], name: str) -> Measure:
    return known.get(name) or Measure(name, "", "")


def _share(measure: Measure, over: str, under: str, unit: str) -> list[float]:
    """Ratios, or per cent, of two who ran in the same rounds."""
    divided = _divided(measure.runs.get(over, []), measure.runs.get(under, []))
    return [value * 100 for value in divided] if unit == " %" else divided


def _starts(known: dict[str, Measure]) -> list[float]:
    runs = _of(known, m.START).runs
    return _divided(runs.get(m.TO_PULL, []), runs.get(m.TO_IMPORT, []))


def _divided(over: Sequence[float], under: Sequence[float]) -> list[float]:
    """Round by round: what disturbs a round disturbs both. By the medians when a run is missing."""
    if len(over) == len(under):
        return [one / other for one, other in zip(over, under, strict=True) if other]
    return [median(over) / median(under)] if over and under else []
