"""Faults on request: what can be asked for, and the script of the faults that each project's next calls meet.

A fault belongs to one project and one method: a call of another project never meets it. The report shows which were not met. Nothing here
knows a transport: `local_cloud/faults/http_faults.py` and `local_cloud/pubsub/rpc/faults.py` carry the faults out.
"""

from __future__ import annotations

import difflib
import random
import threading
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from local_cloud.faults.kinds import KINDS, CannotStart, Kind


class BadFault(ValueError):
    """A request for faults that cannot be carried out; the message says what would be right."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault. `seconds`, `count`, `after_bytes` and `reason` are set where the kind takes them (`local_cloud/faults/kinds.py`)."""

    kind: str
    seconds: float | None = None
    count: int | None = None
    after_bytes: int | None = None
    reason: str | None = None

    def to_json(self) -> dict[str, object]:
        values = {"seconds": self.seconds, "count": self.count, "after_bytes": self.after_bytes, "reason": self.reason}
        return {"kind": self.kind, **{name: value for name, value in values.items() if value is not None}}


def read_fault(body: object) -> Fault:
    """A fault from `"unavailable"` or `{"kind": "slow", "seconds": 2}`. Raises BadFault."""
    given = {"kind": body} if isinstance(body, str) else body
    if not isinstance(given, Mapping):
        raise BadFault(f'a fault is a name or an object like {{"kind": "slow", "seconds": 2}}, got {body!r}')
    kind = KINDS[one_of("kind of fault", given.get("kind"), KINDS)]
    unknown = sorted(set(given) - {"kind", *kind.takes})
    if unknown:
        takes = f"only {' and '.join(kind.takes)}" if kind.takes else "nothing"
        raise BadFault(f"{kind.name} takes {takes} beside its kind, got {', '.join(map(repr, unknown))}")
    for name in kind.needs:
        if name not in given:
            raise BadFault(f"{kind.name} needs {name}")
    seconds, count, after_bytes = (given.get(name) for name in ("seconds", "count", "after_bytes"))
    if seconds is not None and (isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < float("inf")):
        raise BadFault(f"seconds is a number, 0 or more, got {seconds!r}")
    reason = one_of("reason", given["reason"], [one.value for one in CannotStart]) if "reason" in given else None
    delay_s = None if seconds is None else float(seconds)
    return Fault(kind.name, delay_s, _whole("count", count, 1), _whole("after_bytes", after_bytes, 0), reason)


def _whole(name: str, value: object, least: int) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise BadFault(f"{name} is a whole number, {least} or more, got {value!r}")
    return value


def one_of(what: str, given: object, known: Collection[str]) -> str:
    """`given` if it is one of `known`; raises BadFault with a did-you-mean otherwise."""
    if isinstance(given, str) and given in known:
        return given
    by_lower_case = {name.lower(): name for name in known}
    near = difflib.get_close_matches(str(given).lower(), by_lower_case, n=1, cutoff=0.5)
    hint = f"did you mean {by_lower_case[near[0]]!r}?" if near else f"known are: {', '.join(sorted(known))}"
    raise BadFault(f"unknown {what} {given!r}; {hint}")


@dataclass
class _Entry:
    """What the calls of one method in one project meet, and how often they have met it."""

    id: str
    project: str
    method: str
    pending: deque[Fault]
    met: Counter[Fault] = field(init=False, default_factory=Counter)

    def _meet(self, fault: Fault) -> Fault:
        self.met[fault] += 1
        return fault

    def to_json(self, **more: object) -> dict[str, object]:
        pending = [fault.to_json() for fault in self.pending]
        met = [{**fault.to_json(), "count": count} for fault, count in self.met.items()]
        return {"id": self.id, "project": self.project, "method": self.method, **more, "pending": pending, "met": met}


class _List(_Entry):
    """Faults for the next calls, one each."""

    def next(self) -> Fault | None:
        """The fault that the call meets; None when the list is used up."""
        return self._meet(self.pending.popleft()) if self.pending else None


@dataclass
class _Rate(_Entry):
    """One fault that each call meets with a probability; the seed decides which calls. Nothing is ever `pending`."""

    rate: float
    seed: int
    fault: Fault
    rng: random.Random
    call_count: int = 0

    def next(self) -> Fault | None:
        self.call_count += 1
        return self._meet(self.fault) if self.rng.random() < self.rate else None

    def to_json(self, **more: object) -> dict[str, object]:
        return super().to_json(rate=self.rate, seed=self.seed, fault=self.fault.to_json(), calls=self.call_count, **more)


class Script:
    """Which calls meet which faults. Safe to use from any thread.

    A call takes the first fault of the oldest list for its project and method that has one left; without such a list, the rates
    decide, oldest first. It is kept in memory only: a restarted service has an empty script.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kinds: dict[str, tuple[Kind, ...]] = {}
        self._entries: dict[tuple[str, str], list[_List | _Rate]] = {}
        self._count = 0
        self._on_clear: list[Callable[[str], None]] = []
        self.is_empty = True
        """Read on every call before anything else, so that a service without faults is as quick as one that cannot have any."""

    def allow(self, method: str, kinds: Iterable[Kind]) -> None:
        """To be called by the service for each method that it has, before it serves."""
        self._kinds[method] = tuple(kinds)

    def on_clear(self, forget: Callable[[str], None]) -> None:
        """Call `forget(project)` when the project's faults are cleared."""
        self._on_clear.append(forget)

    @property
    def methods(self) -> Mapping[str, tuple[Kind, ...]]:
        """The kinds that each method can meet."""
        return self._kinds

    def add_list(self, project: str, method: str, faults: Sequence[Fault]) -> str:
        """The next calls meet `faults`, in this order. Returns the id of the list; raises BadFault."""
        if not faults:
            raise BadFault("faults is a list of one or more faults")
        self._check(project, method, faults)
        with self._lock:
            entry = _List(self._new_id(), project, method, deque(faults))
            self._keep(entry)
        return entry.id

    def add_rate(self, project: str, method: str, rate: float, seed: int, fault: Fault) -> str:
        """Each call meets `fault` with probability `rate` (0 to 1). Returns an id; raises BadFault."""
        if not 0 <= rate <= 1:
            raise BadFault(f"rate is a number from 0 to 1, got {rate!r}")
        self._check(project, method, [fault])
        with self._lock:
            entry = _Rate(self._new_id(), project, method, deque(), rate, seed, fault, random.Random(seed))
            self._keep(entry)
        return entry.id

    def _check(self, project: str, method: str, faults: Sequence[Fault]) -> None:
        if not project:
            raise BadFault("project is the id of the project whose calls are to fail")
        possible = [kind.name for kind in self._kinds[one_of("method", method, self._kinds)]]
        for fault in faults:
            if fault.kind not in possible:
                raise BadFault(f"{method} cannot meet {fault.kind}; it can meet: {', '.join(possible)}")

    def _new_id(self) -> str:
        self._count += 1
        return str(self._count)

    def _keep(self, entry: _List | _Rate) -> None:
        self._entries.setdefault((entry.project, entry.method), []).append(entry)
        self.is_empty = False

    def next(self, project: str, method: str) -> Fault | None:
        """The fault that this call meets, which counts as met from now on; None for a call that goes well."""
        if self.is_empty:
            return None
        with self._lock:
            entries = self._entries.get((project, method), ())
            lists = [entry for entry in entries if entry.pending]
            for entry in lists[:1] or entries:
                fault = entry.next()
                if fault is not None:
                    return None if fault.kind == "ok" else fault
        return None

    def report(self, project: str | None = None) -> dict[str, object]:
        """`{"faults": [...], "pending": n, "met": n}` of one project, or of all; one entry for each list and rate, oldest first."""
        with self._lock:
            entries = [entry for entries in self._entries.values() for entry in entries if project in (None, entry.project)]
            entries.sort(key=lambda entry: int(entry.id))
            pending = sum(len(entry.pending) for entry in entries)
            met = sum(entry.met.total() for entry in entries)
            return {"faults": [entry.to_json() for entry in entries], "pending": pending, "met": met}

    def clear(self, project: str) -> dict[str, object]:
        """Forget the project's faults; returns the last report of them. Effects that are due later still happen."""
        report = self.report(project)
        with self._lock:
            self._entries = {key: entries for key, entries in self._entries.items() if key[0] != project}
            self.is_empty = not self._entries
        for forget in self._on_clear:
            forget(project)
        return report
