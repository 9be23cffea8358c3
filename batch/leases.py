"""Leases: which messages this worker holds and until when; a table without I/O, and the thread that keeps it true.

A lease is extended at about half of its deadline, so that one failed call, or a stalled interpreter, loses nothing.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterable, Sequence

from batch.clock import Clock
from batch.errors import FanoutError
from batch.events import log
from batch.subscription import MAX_EXTENSION_S, Subscription

EXTEND_AT = 0.5
"""The part of the deadline that may pass before a lease is extended."""
JITTER = 0.1

assert EXTEND_AT + JITTER < 0.9


class LeaseTable:
    """Ack ids and when each lease ends, in monotonic seconds. Not thread-safe: the keeper guards it."""

    def __init__(self, deadline_s: float) -> None:
        self.deadline_s = deadline_s
        self._ends_s: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._ends_s)

    def add(self, ack_ids: Iterable[str], now_s: float, deadline_s: float | None = None) -> None:
        self._ends_s.update(dict.fromkeys(ack_ids, now_s + (self.deadline_s if deadline_s is None else deadline_s)))

    def __contains__(self, ack_id: object) -> bool:
        return ack_id in self._ends_s

    def remove(self, ack_ids: Iterable[str]) -> None:
        for ack_id in ack_ids:
            self._ends_s.pop(ack_id, None)

    def due(self, now_s: float, part: float) -> list[str]:
        """The leases of which `part` of the deadline has passed."""
        limit = now_s + self.deadline_s * (1 - part)
        return [ack_id for ack_id, end_s in self._ends_s.items() if end_s <= limit]

    def next_due_s(self, part: float) -> float | None:
        """When the first lease will be due, None without leases."""
        return min(self._ends_s.values()) - self.deadline_s * (1 - part) if self._ends_s else None

    def all(self) -> list[str]:
        return list(self._ends_s)


class LeaseKeeper:
    """Extends what the table holds until it is told that a message is done. Its thread runs no user code."""

    def __init__(self, subscription: Subscription, clock: Clock, chance: random.Random, failed: Callable[[BaseException], None]) -> None:
        """`failed` is told when the thread itself breaks: without it every lease would run out in silence."""
        self._failed = failed
        self._extending: set[str] = set()
        self._given_back: dict[str, float] = {}
        self._subscription = subscription
        self._clock = clock
        self._chance = chance
        self._table = LeaseTable(min(subscription.ack_deadline_s, MAX_EXTENSION_S))
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="leases", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def hold(self, ack_ids: Sequence[str], since_s: float) -> None:
        """Keep these messages. `since_s`: when the pull that brought them began to return (monotonic)."""
        with self._lock:
            self._table.add(ack_ids, since_s)

    def release(self, ack_ids: Iterable[str]) -> None:
        with self._lock:
            self._table.remove(ack_ids)

    def give_back(self, ack_ids: Sequence[str], after_s: float) -> None:
        """Forget messages that are about to be handed back. An extension that is under way is put right when it has ended."""
        with self._lock:
            self._table.remove(ack_ids)
            self._given_back.update({ack_id: after_s for ack_id in ack_ids if ack_id in self._extending})

    def held(self) -> list[str]:
        with self._lock:
            return self._table.all()

    def extend_due(self) -> int:
        """One round: extend what is due; returns how many. Public so that a test can step it."""
        with self._lock:
            now_s = self._clock.monotonic()
            due = self._table.due(now_s, EXTEND_AT - JITTER * self._chance.random())
        return self._extend(due, self._table.deadline_s, now_s) if due else 0

    def _extend(self, ack_ids: list[str], deadline_s: float, now_s: float) -> int:
        with self._lock:
            self._extending.update(ack_ids)
        lost: list[str] = []
        failed = False
        try:
            lost = self._subscription.extend(ack_ids, deadline_s)
        except FanoutError as error:
            failed = True
            log("lease_extension_failed", error=str(error), message_count=len(ack_ids))
        with self._lock:
            lost_ids = set(lost)
            if not failed:
                self._table.add((one for one in ack_ids if one in self._table and one not in lost_ids), now_s, deadline_s)
                self._table.remove(lost_ids)
            self._extending.clear()
            given_back, self._given_back = self._given_back, {}
        self._put_right(given_back)
        if lost:
            log("leases_lost", message_count=len(lost))
        return 0 if failed else len(ack_ids) - len(lost)

    def _put_right(self, given_back: dict[str, float]) -> None:
        """Hand back once more what an extension has just taken again."""
        try:
            for after_s in set(given_back.values()):
                self._subscription.hand_back([one for one, wait_s in given_back.items() if wait_s == after_s], after_s)
        except FanoutError as error:
            log("hand_back_failed", message_count=len(given_back), error=str(error))

    def extend_all(self) -> None:
        """Extend every lease by the longest the service allows: before a pause of the machine."""
        held = self.held()
        if held:
            self._extend(held, float(MAX_EXTENSION_S), self._clock.monotonic())

    def _run(self) -> None:
        try:
            while not self._clock.wait(self._ended, self._table.deadline_s / 10):
                self.extend_due()
        except BaseException as error:  # noqa: BLE001 - carried to the worker, which ends
            self._failed(error)

    def stop(self) -> None:
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)
