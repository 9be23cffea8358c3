"""Ticks that callers wait for: answered in time whatever a service does, never two of one scope, logged when they end.

A tick that outlasts its caller goes on by itself; the answer then has what it has decided so far. Correctness does not depend on this (of
two controllers only one can save its intent): it keeps a slow service from piling up ticks.
"""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from batch.events import log
from batch.model.clock import iso
from batch.model.errors import DependencyError, SettingsError
from controller.model.wording import counted
from controller.tick.health import day_usd, health_json
from controller.tick.outside import Outside
from controller.tick.results import Round, TickResult, endings_json, ends_lines, result_json, round_json
from controller.tick.rounds import tick_lanes

T = TypeVar("T")

ALL_LANES = ""


@dataclass(frozen=True, slots=True)
class Holder:
    """A running tick: of which lane (`ALL_LANES` for all), for whom, since when (Unix seconds)."""

    scope: str
    who: str
    since: float

    @property
    def text(self) -> str:
        """For the caller of another tick."""
        return f"a tick of {f'lane {self.scope}' if self.scope else 'all lanes'}, asked for by {self.who}, runs since {iso(self.since)}"


def start(call: Callable[[], T], name: str) -> Future[T]:
    """Call it in a daemon thread of its own: a call to a service cannot be stopped from outside, so one that hangs must delay no other, nor
    the end of the process."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # noqa: BLE001 - it belongs to the caller of `result`
            future.set_exception(error)

    threading.Thread(target=run, name=name, daemon=True).start()
    return future


def ended_within(timeout_s: float, future: Future[T]) -> bool:
    """Wait for it; whether it has ended within `timeout_s`."""
    return bool(wait([future], max(0.0, timeout_s)).done)


@dataclass(frozen=True, slots=True)
class Skipped:
    """Nothing was done, because a tick of the same scope runs."""

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
        self.deadline_s = deadline_s
        self._running: dict[str, Holder] = {}
        self._waiting: set[threading.Event] = set()
        self._stopped = False
        self._changed = threading.Condition()

    def tick(self, lane: str, who: str, deadline_s: float | None = None, *, wait: bool = True) -> Answer:
        """Tick a lane, or all for `ALL_LANES`; without `wait` they launch now what could wait. The answer comes within the deadline
        (seconds). Raises SettingsError if there is no such lane, DependencyError if the lanes cannot even be found."""
        with self._changed:
            if lane in self._running:
                return Skipped(self._running[lane])
            holder = self._running[lane] = Holder(lane, who, self._outside.clock.now())
        done: list[TickResult] = []
        with self._answered() as answered:
            run = start(partial(self._run, lane, done.append, wait=wait), f"tick-{lane or 'all'}")
            run.add_done_callback(lambda _: answered.set())
            answered.wait(self.deadline_s if deadline_s is None else deadline_s)
        return run.result() if run.done() else Late(tuple(done), holder)

    def stop_waiting(self) -> None:
        """Answer all callers that wait for a tick now: the process is about to end."""
        with self._changed:
            self._stopped = True
            for answered in self._waiting:
                answered.set()

    @contextmanager
    def _answered(self) -> Iterator[threading.Event]:
        answered = threading.Event()
        with self._changed:
            self._waiting.add(answered)
            if self._stopped:
                answered.set()
        try:
            yield answered
        finally:
            with self._changed:
                self._waiting.discard(answered)

    def running(self) -> tuple[Holder, ...]:
        """The ticks that run now."""
        with self._changed:
            return tuple(self._running.values())

    def wait_free(self, lane: str, timeout_s: float) -> bool:
        """Wait until no tick of this scope runs; False if one still does after `timeout_s`."""
        with self._changed:
            return self._changed.wait_for(lambda: lane not in self._running, timeout_s)

    def finish(self, within_s: float) -> tuple[Holder, ...]:
        """Wait until no tick runs, at most `within_s`; returns those that still do."""
        with self._changed:
            self._changed.wait_for(lambda: not self._running, within_s)
            return tuple(self._running.values())

    def _run(self, lane: str, on_result: Callable[[TickResult], None], *, wait: bool) -> Round:
        try:
            outcome = tick_lanes(self._outside, [lane] if lane != ALL_LANES else [], wait=wait, on_result=on_result)
        except SettingsError:
            raise
        except DependencyError as error:
            log("tick_failed", f"no lane was ticked: {error}", error=str(error))
            raise
        except Exception as error:
            text = f"no lane was ticked, a fault in Fanout itself, report its traceback: {type(error).__name__}: {error}"
            log("tick_failed", text, exception=traceback.format_exc())
            raise
        else:
            log_round(outcome, of_all=lane == ALL_LANES)
            return outcome
        finally:
            with self._changed:
                del self._running[lane]
                self._changed.notify_all()


def log_round(outcome: Round, *, of_all: bool = False) -> None:
    """One line for each lane, for each job that could not be one, for the ends of submissions where there is something to tell, and for a
    tick `of_all` lanes."""
    healths = [result.health for result in outcome.results if result.health is not None]
    for result in outcome.results:
        troubled = result.decision.troubled or result.failures or result.delayed.problems
        said = f"lane {result.decision.lane}: {result.decision.kind}: {result.decision.reason}"
        health = {"health": health_json(result.health)} if result.health is not None else {}
        log("lane_troubled" if troubled else "lane_ticked", said, **result_json(result), **health)
    for one in outcome.refused:
        log("job_refused", f"job {one.job} is not ticked: {'; '.join(one.problems)}", job=one.job, problems=list(one.problems))
    ends = outcome.endings
    if ends.sent or ends.problems:
        log("ends_troubled" if ends.problems else "ends_looked_at", "; ".join(ends_lines(ends)), **endings_json(ends))
    if of_all:
        counts = {"lane_count": len(outcome.results), "refused_count": len(outcome.refused)}
        log("round_ticked", f"all lanes were ticked: {counted(len(outcome.results), 'lane')}", **counts, day_usd=day_usd(healths))


def answer_json(answer: Answer, deadline_s: float) -> Mapping[str, Any]:
    """The answer as JSON. `status` is `done`, `running` or `skipped`."""
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
