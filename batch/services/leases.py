"""Leases: which messages this worker holds and until when, and the thread that keeps that true.

A lease is extended at about half of its deadline, so that one failed call, or a stalled interpreter, loses nothing.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from math import ceil

from batch.events import log
from batch.model.clock import Clock
from batch.model.delivery import MAX_EXTENSION_S
from batch.model.errors import FanoutError
from batch.services.ports import Subscription

EXTEND_AT = 0.5
"""The part of the deadline that may pass before a lease is extended."""
JITTER = 0.1
LEAST_EXTENSION_S = 10.0
"""Of a message whose work should be over by now: what follows it, an outcome and an acknowledgement, takes a while."""

assert EXTEND_AT + JITTER < 0.9


@dataclass(slots=True)
class LeaseKeeper:
    """Extends what it holds until it is told that a message is done. Its thread runs no user code. `failed` is told when the thread itself
    breaks: without it every lease would run out in silence. `heartbeat` is called each round of the thread, with the seconds until the
    next."""

    subscription: Subscription
    clock: Clock
    rng: random.Random
    failed: Callable[[BaseException], None]
    heartbeat: Callable[[float], None] = lambda _again_within_s: None
    byte_count: int = field(default=0, init=False)
    """Data of the outstanding messages: waiting, running, or waiting for their acknowledgement."""
    _deadline_s: float = field(init=False)
    _ends_s: dict[str, float] = field(default_factory=dict, init=False)
    """By ack id, when its lease ends (monotonic)."""
    _sizes: dict[str, int] = field(default_factory=dict, init=False)
    _needed_s: dict[str, float] = field(default_factory=dict, init=False)
    _extending: list[set[str]] = field(default_factory=list, init=False)
    _nacked: dict[str, float] = field(default_factory=dict, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)
    _ended: threading.Event = field(default_factory=threading.Event, init=False)
    _thread: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        self._deadline_s = min(self.subscription.info.ack_deadline_s, MAX_EXTENSION_S)
        self._thread = threading.Thread(target=self._run, name="leases", daemon=True)

    def start(self) -> None:
        """Begin to extend."""
        self._thread.start()

    def hold(self, ack_ids: Sequence[str], since_s: float, sizes: Sequence[int] = ()) -> None:
        """Keep these messages. `since_s`: when the pull that brought them began to return (monotonic); `sizes`: bytes of their data."""
        with self._lock:
            self._ends_s.update(dict.fromkeys(ack_ids, since_s + self._deadline_s))
            self._sizes.update(zip(ack_ids, sizes, strict=False))
            self.byte_count += sum(sizes)

    def bound(self, ack_id: str, until_s: float) -> None:
        """The work on this message ends by `until_s` (monotonic), come what may: its lease needs to last no longer. Takes no lock:
        called for every message whose handler has a time limit."""
        if ack_id in self._ends_s:
            self._needed_s[ack_id] = until_s

    def release(self, ack_ids: Iterable[str]) -> None:
        """Messages that are acknowledged."""
        with self._lock:
            self._remove(ack_ids)

    def forget(self, ack_ids: Sequence[str], after_s: float) -> None:
        """Messages that are about to be nacked. One whose lease is being extended at this moment is nacked again after that."""
        with self._lock:
            self._remove(ack_ids)
            self._nacked.update({one: after_s for one in ack_ids if any(one in ids for ids in self._extending)})

    def _remove(self, ack_ids: Iterable[str]) -> None:
        for ack_id in ack_ids:
            self._ends_s.pop(ack_id, None)
            self.byte_count -= self._sizes.pop(ack_id, 0)
            if self._needed_s:
                self._needed_s.pop(ack_id, None)

    def ack_ids(self) -> list[str]:
        """What is held."""
        with self._lock:
            return list(self._ends_s)

    def extend_due(self) -> int:
        """One round: extend what is due; returns how many. Public so that a test can step it."""
        with self._lock:
            now_s = self.clock.monotonic()
            limit_s = now_s + self._deadline_s * (1 - EXTEND_AT + JITTER * self.rng.random())
            due = [ack_id for ack_id, end_s in self._ends_s.items() if end_s <= limit_s]
        return self._extend(due, self._deadline_s, now_s) if due else 0

    def _extend(self, ack_ids: list[str], deadline_s: float, now_s: float) -> int:
        own = set(ack_ids)
        with self._lock:
            self._extending.append(own)
            by_seconds = self._extensions(ack_ids, now_s, deadline_s)
        extended_count = sum(self._extend_by(seconds, ids, now_s) for seconds, ids in by_seconds.items())
        with self._lock:
            self._extending.remove(own)
            nacked = {one: after_s for one, after_s in self._nacked.items() if one in own}
            self._nacked = {one: after_s for one, after_s in self._nacked.items() if any(one in ids for ids in self._extending)}
        self._put_right(nacked)
        return extended_count

    def _extensions(self, ack_ids: Iterable[str], now_s: float, deadline_s: float) -> dict[float, list[str]]:
        """Which of them to extend for how many seconds: for `deadline_s`, or, in whole seconds, only until their work is over."""
        by_seconds: dict[float, list[str]] = {}
        for ack_id in ack_ids:
            needed_s = self._needed_s.get(ack_id)
            seconds = deadline_s if needed_s is None else min(deadline_s, max(LEAST_EXTENSION_S, float(ceil(needed_s - now_s))))
            by_seconds.setdefault(seconds, []).append(ack_id)
        return by_seconds

    def _extend_by(self, seconds: float, ack_ids: list[str], now_s: float) -> int:
        """One call to the service; returns how many leases are longer now."""
        try:
            lost = set(self.subscription.extend(ack_ids, seconds))
        except FanoutError as error:
            log("lease_extension_failed", error=str(error), message_count=len(ack_ids))
            return 0
        with self._lock:
            self._ends_s.update(dict.fromkeys([one for one in ack_ids if one in self._ends_s and one not in lost], now_s + seconds))
            self._remove(lost)
        if lost:
            log("leases_lost", message_count=len(lost))
        return len(ack_ids) - len(lost)

    def _put_right(self, nacked: dict[str, float]) -> None:
        """Nack once more what an extension has just leased again."""
        try:
            for after_s in set(nacked.values()):
                self.subscription.nack([one for one, wait_s in nacked.items() if wait_s == after_s], after_s)
        except FanoutError as error:
            log("nack_failed", message_count=len(nacked), error=str(error))

    def extend_all(self) -> None:
        """Extend every lease by the longest the service allows: before a pause of the machine."""
        ack_ids = self.ack_ids()
        if ack_ids:
            self._extend(ack_ids, float(MAX_EXTENSION_S), self.clock.monotonic())

    def _run(self) -> None:
        try:
            every_s = self._deadline_s / 10
            self.heartbeat(every_s)
            while not self.clock.wait(self._ended, every_s):
                self.extend_due()
                self.heartbeat(every_s)
        except BaseException as error:  # noqa: BLE001 - carried to the worker, which ends
            self.failed(error)

    def end(self) -> None:
        """Extend nothing more, without waiting for the thread."""
        self._ended.set()

    def stop(self) -> None:
        """Extend nothing more, once the thread has ended."""
        self.end()
        if self._thread.is_alive():
            self._thread.join(timeout=5)
