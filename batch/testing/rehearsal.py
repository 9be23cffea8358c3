"""A rehearsal: what can happen to one task in production, made to happen to it in memory, step by step or all of it at once.

Messages come twice, workers die between two requests, leases run out while a handler goes on, the bucket fails, a newer task wants the
same output. Whatever happens, once a run came to its end the bucket must hold what one undisturbed run leaves.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from batch.handling.registry import Function, Registry, default_registry
from batch.model.clock import iso
from batch.model.delivery import Outgoing
from batch.model.errors import DependencyUnavailable, Permanent, Superseded
from batch.testing.clock import ManualClock
from batch.testing.handlers import TASK_ID, HandlerRun, put, run_handler
from batch.testing.objects import MemoryObjectStore
from batch.testing.watched import Moment, WatchedStore, moment

NEWER_ID = "00000000-0000-4000-8000-000000000002"
NEWER_BY_S = 60.0
Alike = Callable[[str, bytes, bytes], bool]


class Rehearsal:
    """One task of a handler, and the bucket it works on. Each method runs the handler once, on what the runs before it have left.

    `store` and `clock` are the in-memory twins, for `store.fail_next(...)` and `clock.advance(...)`; `written` counts how often each object
    was written, by all runs together.
    """

    def __init__(
        self,
        handler: Function | str,
        fields: Mapping[str, Any] | Outgoing,
        *,
        objects: Mapping[str, bytes] | None = None,
        registry: Registry = default_registry,
        task_id: str = TASK_ID,
    ) -> None:
        """`fields`, or a message, as for `run_handler`. `objects` are in the bucket from the beginning."""
        self.clock = ManualClock()
        self.store = MemoryObjectStore(clock=self.clock)
        self.written: Counter[str] = Counter()
        self._handler = handler
        self._fields = fields if isinstance(fields, Outgoing) else dict(fields)
        self._objects = dict(objects or {})
        self._registry = registry
        self._task_id = task_id
        self._submitted_s = self.clock.now()
        put(self.store, objects)

    @property
    def outputs(self) -> dict[str, bytes]:
        """The objects of the bucket that are new, or other than at the beginning."""
        found = {name: self.store.read(name) for name in self.store.names()}
        return {name: data for name, data in found.items() if self._objects.get(name) != data}

    def newer(self, task_id: str = NEWER_ID) -> Rehearsal:
        """Another task with the same fields on the same bucket, submitted a minute later."""
        other = Rehearsal(self._handler, self._fields, registry=self._registry, task_id=task_id)
        other.clock, other.store, other.written = self.clock, self.store, self.written
        other._objects = self._objects
        other._submitted_s = self._submitted_s + NEWER_BY_S
        return other

    def run(self, *, attempt: int = 1) -> HandlerRun:
        """To its end; again and again for a task that is delivered again and again. Raises what the handler raises."""
        return self._run(WatchedStore(self.store), attempt)

    def crash(self, *, after: str = "", before: str = "", attempt: int = 1) -> None:
        """The process dies at one request to the bucket (`"write"`, `"write 2"`, `"read"`, `"request 3"`): before it took effect, or after
        it; or, with `after="handler"`, when the handler has returned and its outcome is not written. Raises AssertionError when the handler
        never comes so far, and what it raises before."""
        if after == "handler":
            self.run(attempt=attempt)
            return
        if bool(after) == bool(before):
            raise ValueError("say either after or before which request the process dies")

        view = WatchedStore(self.store, moment(after or before))
        die = partial(_die, self, view)
        view.after, view.before = (die, view.before) if after else (view.after, die)
        try:
            self._run(view, attempt)
        except BaseException:
            if not view.dead:
                raise
        self._demand_met(view, after or before)

    def run_while(self, happens: Callable[[], object], *, at: str = "write", attempt: int = 1) -> HandlerRun:
        """To its end; just before the request `at` takes effect, `happens()` is called. With the `run` of the same rehearsal, the lease has
        run out and another worker has the task as well; with that of `newer()`, the two race for an output. Raises as `crash` does."""
        view = WatchedStore(self.store, moment(at))
        view.before = happens
        run = self._run(view, attempt)
        self._demand_met(view, at)
        return run

    def check(self, alike: Alike = lambda _name, one, other: one == other) -> list[str]:
        """Everything at once, at every request that an undisturbed run makes, each time on a fresh bucket; returns what was tried.

        A run that failed is followed by another. Raises AssertionError with each trial after which the bucket was not as an undisturbed
        run leaves it, judged by `alike(name, data of the undisturbed run, data now)`, or an output was not the newer task's.
        """
        first = self._fresh()
        view = WatchedStore(first.store)
        first._run(view, 1)
        expected, shared = first.outputs, self._shared(set(first.outputs))
        tried, wrong = ["delivered again"], []
        again = self._fresh()
        again.run()
        wrong += [f"delivered again: {problem}" for problem in (again._ended_badly(), *again._differences(expected, alike)) if problem]
        for number, request in enumerate(view.requests, 1):
            for trial in _TRIALS:
                fresh = self._fresh()
                said = f"{trial.said} request {number} ({request})"
                tried.append(said)
                problems = fresh._disturbed(trial, Moment("", number))
                problems += fresh._not_newer(shared) if trial.newer else fresh._differences(expected, alike)
                wrong += [f"{said}: {problem}" for problem in problems]
        if wrong:
            raise AssertionError(f"{len(wrong)} problems in {len(tried)} trials:\n  " + "\n  ".join(wrong))
        return tried

    def _fresh(self) -> Rehearsal:
        return Rehearsal(self._handler, self._fields, objects=self._objects, registry=self._registry, task_id=self._task_id)

    def _shared(self, names: set[str]) -> set[str]:
        """Those that a newer task with the same fields would write, too."""
        other = self._fresh().newer()
        other.run()
        return names & set(other.outputs)

    def _run(self, view: WatchedStore, attempt: int) -> HandlerRun:
        try:
            return run_handler(
                self._handler,
                self._fields,
                store=view,
                clock=self.clock,
                attempt=attempt,
                task_id=self._task_id,
                submitted_at=iso(self._submitted_s),
                registry=self._registry,
            )
        finally:
            self.written.update(view.written)

    def _demand_met(self, view: WatchedStore, at: str) -> None:
        if not view.met:
            raise AssertionError(f"the handler never came to {at!r}; its requests were: {', '.join(view.requests) or 'none'}")

    def _disturbed(self, trial: _Trial, at: Moment) -> list[str]:
        """Run with the trial; when that was no end, run again. Returns what was wrong with the ends."""
        view = WatchedStore(self.store, at)
        happens = partial(trial.happens, self, view)
        if trial.after:
            view.after = happens
        else:
            view.before = happens
        try:
            self._run(view, 1)
            if not view.dead:
                return []
        except Permanent as error:
            return [f"the handler raised Permanent ({error}): the task would be dead, and nothing is wrong with it"]
        except Superseded:
            return []
        except BaseException as error:
            if not (view.dead or isinstance(error, Exception)):
                raise
        return [problem for problem in [self._ended_badly()] if problem]

    def _ended_badly(self) -> str:
        """Run without disturbance; returns what it raised."""
        try:
            self.run()
        except Superseded:
            return ""
        except Exception as error:  # noqa: BLE001 - a handler may raise anything
            return f"run once more it raised {type(error).__name__}: {error}"
        return ""

    def _differences(self, expected: Mapping[str, bytes], alike: Alike) -> list[str]:
        found = self.outputs
        problems = [f"{name} is missing" for name in expected if name not in found]
        problems += [f"{name} should not be there" for name in found if name not in expected]
        differ = [name for name in expected if name in found and not alike(name, expected[name], found[name])]
        return problems + [f"{name} holds {_short(found[name])} instead of {_short(expected[name])}" for name in differ]

    def _not_newer(self, shared: Iterable[str]) -> list[str]:
        infos = {name: self.store.info(name) for name in sorted(shared)}
        owners = {name: info.metadata.get("task_id", "") if info else "nobody" for name, info in infos.items()}
        return [f"{name} is not the newer task's in the end" for name, owner in owners.items() if owner != NEWER_ID]


@dataclass(frozen=True, slots=True)
class _Trial:
    """What happens at a request of a run, before it takes effect or after it."""

    said: str
    happens: Callable[[Rehearsal, WatchedStore], object]
    after: bool = False
    newer: bool = False


def _die(_: Rehearsal, view: WatchedStore) -> None:
    view.dead = True


def _fail(_: Rehearsal, __: WatchedStore) -> None:
    raise DependencyUnavailable("the bucket does not answer: a trial of the rehearsal")


_TRIALS = (
    _Trial("the process died after", _die, after=True),
    _Trial("the bucket failed at", _fail),
    _Trial("the answer was lost of", _fail, after=True),
    _Trial("another worker ran it at", lambda rehearsal, _: rehearsal.run()),
    _Trial("a newer task ran at", lambda rehearsal, _: rehearsal.newer().run(), newer=True),
)


def _short(data: bytes) -> str:
    return repr(data if len(data) <= 60 else data[:60] + "…".encode())
