"""Messages that were delivered before, on their way into a line: what stands in the bucket about them is dealt with ahead of the slots.

Records are read, and starts written, several at a time: no slot waits for the bucket. But never further ahead than what starts soon,
for a start says that its task may have been running should the worker be killed. Quarantine never enter the line: they wait for their
turn, and run, beside it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from queue import SimpleQueue

from batch.model.clock import Clock
from batch.model.delivery import Delivery
from batch.worker.attempt import Attempt
from batch.worker.committing.verdicts import back
from batch.worker.executors.quarantine import TURN_BACK_S, Quarantine
from batch.worker.finished import Finished, Nack
from batch.worker.pulling.flow import wanted_count
from batch.worker.runner import Runner
from batch.worker.starts import LET_GO_S, RECORDS_IN_FLIGHT
from batch.worker.tally import Tally

AHEAD_S = 0.25
"""Starts are written for what begins within this time at the measured rate, and for every free place."""
MAX_SUSPECTS = 32
"""So many wait for their turn at a time; more go back, for a worker that has time for them."""


@dataclass(frozen=True, slots=True)
class Places:
    """How many messages an executor has in hand at most, and how many it has."""

    count: Callable[[], int]
    busy: Callable[[], int]


@dataclass(slots=True)
class Redelivered:
    """Stands before one line. `enter` puts deliveries into it and returns those that it takes no more; thread-safe."""

    runner: Runner
    quarantine: Quarantine
    inbox: SimpleQueue[list[Finished] | None]
    tally: Tally
    clock: Clock
    places: Places = Places(lambda: 0, lambda: 0)
    enter: Callable[[Sequence[Delivery]], Sequence[Delivery]] = lambda deliveries: deliveries
    byte_count: int = 0
    _waiting: deque[Delivery] = field(default_factory=deque)
    _under_way: dict[str, Future[None]] = field(default_factory=dict)
    """By ack id: their records are being read, or their starts written."""
    _prepared: set[str] = field(default_factory=set)
    """Ack ids of those in the line: nobody has begun them."""
    _given_back: set[str] = field(default_factory=set)
    _closed: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __len__(self) -> int:
        return len(self._waiting) + len(self._under_way)

    def keep(self, deliveries: Iterable[Delivery]) -> Sequence[Delivery]:
        """Take those in hand that were delivered before, or may have been; returns the others."""
        deliveries = list(deliveries)
        asks = self.runner.admission.asks
        kept = [one for one in deliveries if asks(one)]
        if not kept:
            return deliveries
        with self._lock:
            self._waiting.extend(kept)
            self.byte_count += sum(len(one.data) for one in kept)
        self._go_on()
        mine = {one.ack_id for one in kept}
        return [one for one in deliveries if one.ack_id not in mine]

    def close(self, left: Sequence[Delivery]) -> list[Delivery]:
        """Nothing starts any more, and `left` were in the line: returns what may go back at once. The others follow by themselves, within
        LET_GO_S, once their starts are taken out: with a start on record nobody else would run them."""
        with self._lock:
            self._closed = True
            unprepared = [one for one in left if one.ack_id not in self._prepared] + list(self._waiting)
            self._waiting.clear()
            under_way = dict(self._under_way)
            begun = [one for one in left if one.ack_id in self._prepared]
        if under_way or begun:
            threading.Thread(target=self._let_go, args=(begun, under_way), name="let-go", daemon=True).start()
        return unprepared

    # --- records

    def _go_on(self) -> None:
        """Begin what may begin now."""
        with self._lock:
            most = self._most_ahead()
            while self._waiting and not self._closed and len(self._under_way) + len(self._prepared) < most:
                delivery = self._waiting.popleft()
                self._under_way[delivery.ack_id] = self.runner.verdicts.starts.pool.submit(self._prepare, delivery)

    def _most_ahead(self) -> int:
        places, busy, mean_s = self.places.count(), self.places.busy(), self.tally.mean_s
        soon = wanted_count(slots=places, busy=places, mean_s=mean_s, prefetch_s=AHEAD_S)
        return max(1, places - busy, min(RECORDS_IN_FLIGHT, soon))

    def _prepare(self, delivery: Delivery) -> None:
        quarantined = not self.runner.admission.prepare(delivery, lambda: self._taken(delivery))
        with self._lock:
            self._under_way.pop(delivery.ack_id, None)
            self.byte_count -= len(delivery.data)
            closed = self._closed
            if not (quarantined or closed):
                self._prepared.add(delivery.ack_id)
        if closed:
            self._release(delivery)
        elif quarantined:
            self._run_alone(delivery)
        else:
            self._enter(delivery)
        self._go_on()

    def _taken(self, delivery: Delivery) -> None:
        with self._lock:
            self._prepared.discard(delivery.ack_id)
        self._go_on()

    def _enter(self, delivery: Delivery) -> None:
        if self.enter([delivery]):
            self._release(delivery)

    # --- the end

    def _let_go(self, begun: Sequence[Delivery], under_way: dict[str, Future[None]]) -> None:
        releases = [self.runner.verdicts.starts.pool.submit(self._release, one) for one in begun]
        wait([*releases, *under_way.values()], timeout=LET_GO_S)
        self._give_back([*(one.ack_id for one in begun), *under_way])

    def _release(self, delivery: Delivery) -> None:
        """It goes back, and its start before it."""
        prepared = self.runner.admission.forget(delivery.ack_id)
        if prepared is not None and prepared.marked:
            self.runner.verdicts.starts.end(prepared, done=False)
        self._give_back([delivery.ack_id])

    def _give_back(self, ack_ids: Iterable[str]) -> None:
        """Each once."""
        with self._lock:
            going = [ack_id for ack_id in ack_ids if ack_id not in self._given_back]
            self._given_back.update(going)
            self._prepared.difference_update(going)
        if going:
            self.inbox.put([Nack(ack_id) for ack_id in going])

    # --- quarantined tasks

    def _run_alone(self, delivery: Delivery) -> None:
        if not self.quarantine.enter(delivery, MAX_SUSPECTS):
            self.inbox.put([back(delivery, TURN_BACK_S)])
            return
        threading.Thread(target=self._alone, args=(delivery,), name="quarantined", daemon=True).start()

    def _alone(self, delivery: Delivery) -> None:
        finished = self.quarantine.in_turn(delivery, self._run_suspect)
        if self.quarantine.leave(delivery) and finished is not None:
            self.inbox.put([finished])

    def _run_suspect(self, delivery: Delivery) -> Finished | None:
        """None when it is none any more: another worker has run it meanwhile. Then it enters the line as any other."""
        began_s = self.clock.monotonic()
        admitted = self.runner.admitted(delivery)
        if not isinstance(admitted, Attempt):
            return admitted
        if admitted.quarantined:
            finished = self.runner.run_quarantined(admitted)
            took_s = self.clock.monotonic() - began_s
            self.tally.ran(1, took_s, took_s)
            return finished
        with self._lock:
            self._prepared.add(delivery.ack_id)
        self.runner.admission.keep(admitted, lambda: self._taken(delivery))
        self._enter(delivery)
        return None
