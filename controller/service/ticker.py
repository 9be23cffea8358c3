"""Ticks that callers wait for: answered in time whatever a service does, never two of one scope, logged when they end.

A tick that outlasts its caller goes on by itself; what it has decided by then is told.
"""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from batch.model.clock import Clock, iso
from batch.model.errors import DependencyError, SettingsError
from controller.service import logs
from controller.tick.outside import Outside
from controller.tick.results import Round, TickResult, result_json, round_json
from controller.tick.rounds import tick_lanes


@dataclass(frozen=True, slots=True)
class Skipped:
    """Nothing was done: a tick of the same scope runs."""

    holder: Holder


@dataclass(frozen=True, slots=True)
class Late:
    """The tick is not over. `results` are those of the lanes that are done."""

    results: tuple[TickResult, ...]
    holder: Holder


Answer = Round | Skipped | Late


class Ticker:
    """The ticks of one process. Safe from any thread."""

    def __init__(self, outside: Outside, *, deadline_s: float) -> None:
        self._outside = outside
        self._deadline_s = deadline_s
        self._overlap = Overlap(outside.clock)
        self._waiting: set[threading.Event] = set()
        self._stopped = False
        self._lock = threading.Lock()

    @property
    def deadline_s(self) -> float:
        return self._deadline_s

    def tick(self, lane: str, who: str, deadline_s: float | None = None) -> Answer:
        """Tick a lane, or all for `ALL_LANES`; the answer comes within the deadline (seconds). Raises SettingsError for a lane that is
        none, DependencyError where the lanes cannot even be found."""
        taken_by = self._overlap.take(lane, who)
        if taken_by is not None:
            return Skipped(taken_by)
        holder = Holder(lane, who, self._outside.clock.now())
        done: list[TickResult] = []
        with self._answered() as answered:
            run = Started(partial(self._run, lane, done.append), f"tick-{lane or 'all'}", answered.set)
            answered.wait(self._deadline_s if deadline_s is None else deadline_s)
        return run.result() if run.ended else Late(tuple(done), holder)

    def stop_waiting(self) -> None:
        """Whoever waits for a tick is answered now: the process is about to end."""
        with self._lock:
            self._stopped = True
            for answered in self._waiting:
                answered.set()

    @contextmanager
    def _answered(self) -> Iterator[threading.Event]:
        answered = threading.Event()
        with self._lock:
            self._waiting.add(answered)
            if self._stopped:
                answered.set()
        try:
            yield answered
        finally:
            with self._lock:
                self._waiting.discard(answered)

    def running(self) -> tuple[Holder, ...]:
        return self._overlap.running()

    def wait_free(self, lane: str, timeout_s: float) -> bool:
        """Wait until no tick of this scope runs."""
        return self._overlap.wait_free(lane, timeout_s)

    def finish(self, within_s: float) -> tuple[Holder, ...]:
        """Wait for the ticks that run; those that did not end in time."""
        self._overlap.wait_idle(within_s)
        return self.running()

    def _run(self, lane: str, tell: Callable[[TickResult], None]) -> Round:
        with self._overlap.given_back(lane):
            try:
                outcome = tick_lanes(self._outside, [lane] if lane != ALL_LANES else [], on_result=tell)
            except SettingsError:
                raise
            except DependencyError as error:
                logs.write("ERROR", f"no lane was ticked: {error}")
                raise
            except Exception as error:
                text = f"no lane was ticked, a fault in Fanout itself, report its traceback: {type(error).__name__}: {error}"
                logs.write("ERROR", text, traceback=traceback.format_exc())
                raise
            logs.write_round(outcome)
            return outcome


def answer_json(answer: Answer, deadline_s: float) -> Mapping[str, Any]:
    """What the caller of a tick is told. `status` is `done`, `running` or `skipped`."""
    match answer:
        case Round():
            return {"status": "done", **round_json(answer)}
        case Late():
            text = (
                f"it is not over and goes on, answers come within {deadline_s:g} s; until it ends the next is skipped. {answer.holder.text}"
            )
            lanes = [result_json(result) for result in answer.results]
            return {"status": "running", "reason": text, "lanes": lanes, **_holder_json(answer.holder)}
        case Skipped():
            return {"status": "skipped", "reason": answer.holder.text, "lanes": [], **_holder_json(answer.holder)}


def _holder_json(holder: Holder) -> dict[str, Any]:
    return {"running": {"lane": holder.scope or None, "who": holder.who, "since": iso(holder.since)}}


ALL_LANES = ""


@dataclass(frozen=True, slots=True)
class Holder:
    """A running tick: of which lane (`ALL_LANES` for all), for whom, since when (Unix seconds)."""

    scope: str
    who: str
    since: float

    @property
    def text(self) -> str:
        return f"a tick of {f'lane {self.scope}' if self.scope else 'all lanes'}, asked for by {self.who}, runs since {iso(self.since)}"


class Overlap:
    """The ticks that run now. Safe from any thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._holders: dict[str, Holder] = {}
        self._changed = threading.Condition()

    def take(self, scope: str, who: str) -> Holder | None:
        """None: the scope is the caller's, who gives it back. Else who has it."""
        with self._changed:
            if scope in self._holders:
                return self._holders[scope]
            self._holders[scope] = Holder(scope, who, self._clock.now())
            return None

    def give_back(self, scope: str) -> None:
        with self._changed:
            del self._holders[scope]
            self._changed.notify_all()

    def running(self) -> tuple[Holder, ...]:
        with self._changed:
            return tuple(self._holders.values())

    def wait_idle(self, timeout_s: float) -> bool:
        """Wait until nothing runs."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._holders, timeout_s)

    def wait_free(self, scope: str, timeout_s: float) -> bool:
        """Wait until nothing runs in this scope."""
        with self._changed:
            return self._changed.wait_for(lambda: scope not in self._holders, timeout_s)

    @contextmanager
    def given_back(self, scope: str) -> Iterator[None]:
        """Gives the scope back at the end, whatever happens."""
        try:
            yield
        finally:
            self.give_back(scope)


T = TypeVar("T")


class Started(Generic[T]):
    """A call under way. `on_end` is called when it has ended, in its thread."""

    def __init__(self, call: Callable[[], T], name: str, on_end: Callable[[], object] = lambda: None) -> None:
        self._call, self._on_end = call, on_end
        self._result: T | None = None
        self._error: Exception | None = None
        self._ended = threading.Event()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def _run(self) -> None:
        try:
            self._result = self._call()
        except Exception as error:  # noqa: BLE001 - it belongs to whoever waits
            self._error = error
        finally:
            self._ended.set()
            self._on_end()

    @property
    def ended(self) -> bool:
        return self._ended.is_set()

    def wait(self, timeout_s: float) -> bool:
        """Whether it has ended within `timeout_s`."""
        return self._ended.wait(max(0.0, timeout_s))

    def result(self) -> T:
        """What the call returned. Raises what it raised; RuntimeError while it runs."""
        if not self.ended:
            raise RuntimeError("the call has not ended")
        if self._error is not None:
            raise self._error
        return self._result  # type: ignore[return-value]
