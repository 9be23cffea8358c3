"""The messages of one subscription that nobody has acknowledged yet: ready, delayed or leased; and those it retains for a seek.

The rule: a message leaves only by acknowledgement, retention, seek or as a dead letter, and is never leased twice at the
same time. Pure state: times come in as arguments; no lock, no clock, no wire.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from itertools import chain

from local_cloud.pubsub.delays import Delays
from local_cloud.pubsub.delivery import DONE, LEASED, WAITING, AckIds, Delivery, count_in, is_past, size_of
from local_cloud.pubsub.flow import Flow
from local_cloud.pubsub.lane import Lane, lanes_of
from local_cloud.pubsub.leases import Leases
from local_cloud.pubsub.line import Line, fresh, oldest_fresh_s
from local_cloud.pubsub.message import Message
from local_cloud.pubsub.policy import Policy
from local_cloud.pubsub.publication import Publication
from local_cloud.pubsub.verdict import in_order, judge
from local_cloud.pubsub.witness import Fate


class Backlog:
    """Not thread-safe; the subscription that owns it holds a lock around every call. All times are unix seconds."""

    def __init__(self, policy: Policy, ack_ids: AckIds) -> None:
        self.policy = policy
        self.fate = Fate()
        # What the topic promises, whatever the policy says; in seconds.
        self.least_retention_s = 0.0
        self._oldest_s = 0.0
        self._ack_ids = ack_ids
        self._ready = Line()
        self._fresh_count = 0
        self._delays = Delays()
        self._leases = Leases()
        # Every delivery that is not done, under its newest ack id; older ids are unknown by then, hence without effect.
        self._by_ack_id: dict[str, Delivery] = {}
        # Attempts of an earlier process, by message id, until the message's next delivery.
        self._earlier_failures: dict[str, int] = {}
        # Only with message ordering: the messages that have an ordering key stand in a lane each, not in `_ready`.
        self._lanes: dict[str, Lane] = {}
        # What was acknowledged and may come back by a seek, in the order of acknowledgement.
        self._retained: deque[Message] = deque()

    @property
    def undelivered_count(self) -> int:
        """Messages without an acknowledgement, leased ones included: what `num_undelivered_messages` means."""
        return self._fresh_count + len(self._by_ack_id)

    @property
    def outstanding_count(self) -> int:
        return len(self._leases)

    @property
    def has_ready(self) -> bool:
        """False only if a take at this moment would surely find nothing."""
        return bool(self._ready)

    def _horizon_s(self, now_s: float) -> float:
        """What was published before that is not delivered any more; it never goes back."""
        return max(self._oldest_s, now_s - max(self.policy.retention_s, self.least_retention_s))

    def let_go(self, now_s: float) -> None:
        """What is too old at this moment stays gone, also if the retention becomes longer after it."""
        self._oldest_s = self._horizon_s(now_s)

    def oldest_published_s(self) -> float | None:
        """Publish time of the oldest message without an acknowledgement; looks at every delivery, so not for the hot path."""
        times = [delivery.message.published_s for delivery in self._by_ack_id.values()]
        # Messages that were never delivered stand in the order of publishing: the first of each line is its oldest.
        for line in self._lines():
            times += oldest_fresh_s(line)
        return min(times, default=None)

    def next_due_s(self) -> float | None:
        """When `settle` has something to do next: a lease ends or a delay is over."""
        times_s = (self._leases.next_deadline_s(), self._delays.next_s())
        return min((time_s for time_s in times_s if time_s is not None), default=None)

    def publish(self, publication: Publication) -> None:
        """Add what was just published behind everything that is ready."""
        if self.policy.is_ordered:
            self.offer(publication.messages())
        else:
            self._fresh_count += publication.count
            self._ready.append(publication)

    def offer(self, messages: list[Message]) -> None:
        """The same for messages one by one."""
        self._fresh_count += len(messages)
        if not self.policy.is_ordered:
            self._ready.extend(messages)
            return
        for message in messages:
            key = message.opened().ordering_key
            if key:
                self._offer_in_lane(key, message)
            else:
                self._ready.append(message)

    def _offer_in_lane(self, key: str, message: Message) -> None:
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = Lane(key)
        lane.pending.append(message)
        if not lane.is_queued and not lane.out:
            lane.is_queued = True
            self._ready.append(lane)

    def restore(self, messages: list[Message], retained: list[Message], failure_counts: Mapping[str, int]) -> None:
        """Add what an earlier process held, in its order; attempts by message id."""
        self._retained.extend(retained)
        self._earlier_failures.update(failure_counts)
        self.offer(messages)

    def take(
        self, now_s: float, max_count: int, max_bytes: int, *, deadline_s: float | None = None, flow: Flow | None = None
    ) -> list[Delivery]:
        """Lease up to `max_count` ready messages, and at least one if there is any, as long as they stay below `max_bytes`.

        Leases end at `deadline_s`, or when the policy says. `flow` counts them until they end.
        """
        horizon_s = self._horizon_s(now_s)
        ready = self._ready
        taken: list[Delivery] = []
        size = 0
        while ready and len(taken) < max_count:
            item = ready[0]
            if isinstance(item, Publication):
                item = ready.front()
            if isinstance(item, Lane):
                run = self._take_run(item, horizon_s, max_count - len(taken), max_bytes - size if taken else max_bytes, is_first=not taken)
                if not run and item.pending:
                    break
                ready.popleft()
                item.is_queued = False
                self._drop_if_empty(item)
                taken += run
                size += sum(size_of(delivery) for delivery in run)
                continue
            if is_past(item, horizon_s):
                self._forget(ready.popleft())
                continue
            size += size_of(item)
            if size > max_bytes and taken:
                break
            ready.popleft()
            taken.append(self._identified(item))
        if taken:
            self._leases.hold(taken, now_s + self.policy.ack_deadline_s if deadline_s is None else deadline_s)
            count_in(taken, flow)
        return taken

    def _take_run(self, lane: Lane, horizon_s: float, max_count: int, max_bytes: int, *, is_first: bool) -> list[Delivery]:
        pending = lane.pending
        run: list[Delivery] = []
        size = 0
        while pending and len(run) < max_count:
            item = pending[0]
            if is_past(item, horizon_s):
                self._forget(pending.popleft())
                continue
            size += size_of(item)
            if size > max_bytes and (run or not is_first):
                break
            pending.popleft()
            delivery = self._identified(item)
            delivery.lane = lane
            run.append(delivery)
        if run:
            lane.out.extend(run)
            lane.available_s = 0.0
        return run

    def _forget(self, item: object) -> None:
        """Of an item that is past and was taken out of what is ready."""
        if isinstance(item, Message):
            self._fresh_count -= 1
        elif isinstance(item, Delivery) and item.state == WAITING:
            del self._by_ack_id[item.ack_id]
            item.state = DONE

    def _identified(self, item: Message | Delivery) -> Delivery:
        if isinstance(item, Delivery):
            del self._by_ack_id[item.ack_id]
            delivery = item
        else:
            self._fresh_count -= 1
            delivery = Delivery(item)
            if self._earlier_failures:
                delivery.failure_count = self._earlier_failures.pop(item.message_id, 0)
        delivery.ack_id = self._ack_ids.make()
        self._by_ack_id[delivery.ack_id] = delivery
        return delivery

    def _end_lease(self, delivery: Delivery) -> None:
        self._leases.release(delivery)
        if delivery.flow is not None:
            delivery.flow.end(delivery.message)

    def give_back(self, deliveries: list[Delivery]) -> None:
        """Undo a take whose receiver is gone: the messages are ready again, in front, and no attempt is counted."""
        leased = [delivery for delivery in deliveries if delivery.state == LEASED]
        for delivery in reversed(leased):
            self._end_lease(delivery)
            delivery.state = WAITING
            if delivery.lane is None:
                self._ready.appendleft(delivery)
        for lane in lanes_of(leased):
            self._call_back(lane, set(leased))
            self._queue(lane, 0.0)

    def acknowledge(self, ack_ids: Iterable[str]) -> list[str]:
        """Remove messages; returns the ids without effect (stale or never given). An expired lease may still be acknowledged."""
        without_effect = []
        done: list[Message] = []
        for ack_id in ack_ids:
            delivery = self._by_ack_id.get(ack_id)
            if delivery is None:
                without_effect.append(ack_id)
                continue
            if delivery.lane is not None:
                done += self._acknowledge_in_lane(delivery, delivery.lane)
                continue
            if delivery.state == LEASED:
                self._end_lease(delivery)
            done.append(self._finish(delivery))
        if done:
            self.fate.acknowledged(done)
            if self.policy.retains_acked:
                self._retained.extend(done)
        return without_effect

    def _finish(self, delivery: Delivery) -> Message:
        del self._by_ack_id[delivery.ack_id]
        delivery.state = DONE
        return delivery.message

    def _acknowledge_in_lane(self, delivery: Delivery, lane: Lane) -> list[Message]:
        finished: list[Delivery] = []
        if delivery.state == LEASED:
            self._end_lease(delivery)
            finished = lane.acknowledge(delivery, at_once=self.policy.is_exactly_once)
        elif delivery.state == WAITING and lane.acknowledge_waiting(delivery):
            finished = [delivery]
        self._queue(lane, 0.0)
        return [self._finish(one) for one in finished]

    def invalid(self, ack_ids: Sequence[str]) -> list[str]:
        """Those ids that do not name a lease: what exactly-once delivery refuses. Call it after `settle`."""
        leased = {delivery.ack_id for delivery in self._leased(ack_ids)}
        return [ack_id for ack_id in ack_ids if ack_id not in leased]

    def _leased(self, ack_ids: Iterable[str]) -> list[Delivery]:
        found = map(self._by_ack_id.get, ack_ids)
        return list(dict.fromkeys(delivery for delivery in found if delivery is not None and delivery.state == LEASED))

    def extend(self, ack_ids: Iterable[str], deadline_s: float) -> None:
        """Give leases a new deadline, later or earlier; ids that are not leased have no effect."""
        deliveries = self._leased(ack_ids)
        for delivery in deliveries:
            self._leases.release(delivery)
        if deliveries:
            self._leases.hold(deliveries, deadline_s)

    def reject(self, ack_ids: Iterable[str], now_s: float) -> list[Delivery]:
        """End leases without success (nack); returns those whose attempts are used up, no longer part of the backlog."""
        deliveries = self._leased(ack_ids)
        for delivery in deliveries:
            self._end_lease(delivery)
            delivery.deadline_s = now_s
        return self._failed(deliveries, now_s)

    def settle(self, now_s: float) -> list[Delivery]:
        """Apply what time has brought: expired leases, ended delays, retention. Returns what `reject` returns."""
        dead: list[Delivery] = []
        expired = self._leases.expire(now_s)
        if expired:
            for delivery in expired:
                if delivery.flow is not None:
                    delivery.flow.end(delivery.message)
            dead = self._failed(expired, now_s)
        self._ready.extend(self._delays.ended(now_s))
        self._drop_outdated(now_s)
        return dead

    def _failed(self, deliveries: list[Delivery], now_s: float) -> list[Delivery]:
        """Of deliveries whose leases have just ended, each at its `deadline_s`."""
        dead = []
        for delivery in deliveries:
            delivery.state = WAITING
            delivery.failure_count += 1
            if self.policy.gives_up(delivery.failure_count):
                self._finish(delivery)
                dead.append(delivery)
            elif delivery.lane is None:
                self._wait(delivery, delivery.deadline_s + self.policy.backoff_s(delivery.failure_count), now_s)
        for lane in lanes_of(deliveries):
            self._call_back(lane, set(deliveries))
            front = lane.pending[0] if lane.pending else None
            if isinstance(front, Delivery) and front.failure_count:
                lane.available_s = front.deadline_s + self.policy.backoff_s(front.failure_count)
            self._queue(lane, now_s)
        if deliveries and self.policy.max_attempt_count:
            self.fate.failed(deliveries)
        return dead

    def _call_back(self, lane: Lane, failed: Set[Delivery]) -> None:
        """Everything of the key that is out from the first of `failed` on has to be delivered again: their leases end too."""
        for delivery in lane.call_back(failed):
            if delivery.state == LEASED:
                self._end_lease(delivery)
            delivery.state = WAITING

    def _queue(self, lane: Lane, now_s: float) -> None:
        """Let the lane's next run wait for its receiver, unless a run is out, or there is nothing."""
        if lane.is_queued or lane.out:
            return
        if not lane.pending:
            self._drop_if_empty(lane)
            return
        lane.is_queued = True
        self._wait(lane, lane.available_s, now_s)

    def _drop_if_empty(self, lane: Lane) -> None:
        if not lane.out and not lane.pending and not lane.is_queued:
            self._lanes.pop(lane.key, None)

    def _wait(self, item: Delivery | Lane, available_s: float, now_s: float) -> None:
        if available_s <= now_s:
            self._ready.append(item)
        else:
            self._delays.add(item, available_s)

    def put_back(self, dead: list[Delivery], now_s: float) -> None:
        """Take dead letters back that could not be forwarded: they are delivered again."""
        for delivery in dead:
            self._by_ack_id[delivery.ack_id] = delivery
            delivery.state = WAITING
            # Out of its order by now, if it had one: what came behind it may be out already.
            delivery.lane = None
            self._wait(delivery, now_s + self.policy.backoff_s(delivery.failure_count), now_s)

    def _drop_outdated(self, now_s: float) -> None:
        horizon_s = self._horizon_s(now_s)
        while self._ready:
            item = self._ready.front()
            if isinstance(item, Lane):
                while item.pending and is_past(item.pending[0], horizon_s):
                    self._forget(item.pending.popleft())
                if item.pending:
                    break
                item.is_queued = False
                self._ready.popleft()
                self._drop_if_empty(item)
            elif is_past(item, horizon_s):
                self._forget(self._ready.popleft())
            else:
                break
        while self._retained and self._retained[0].published_s < horizon_s:
            self._retained.popleft()

    def unacknowledged(self) -> list[Message]:
        """All of them, leased ones included, in the order of publishing."""
        leased = [delivery.message for delivery in self._by_ack_id.values()]
        return in_order(chain(leased, *map(fresh, self._lines())))

    def _lines(self) -> list[Iterable[object]]:
        return [self._ready, *(lane.pending for lane in self._lanes.values())]

    def seek(self, is_acknowledged: Callable[[Message], bool], others: Iterable[Message], now_s: float) -> None:
        """Decide anew of every message, and of `others` that may come back too, whether it is acknowledged. All leases and delays end."""
        self._drop_outdated(now_s)
        horizon_s = self._horizon_s(now_s)
        kept = [message for message in (*others, *self._retained) if message.published_s >= horizon_s]
        verdict = judge(self.unacknowledged(), kept, is_acknowledged)
        self.fate.acknowledged(verdict.purged)
        self.fate.returned(verdict.returned)
        self._clear()
        self._retained = deque(verdict.acknowledged if self.policy.retains_acked else ())
        self.fate.retained(self._retained)
        self.offer(verdict.wanted)

    def _clear(self) -> None:
        for delivery in self._leased(list(self._by_ack_id)):
            self._end_lease(delivery)
        for delivery in self._by_ack_id.values():
            delivery.state = DONE
        self._ready.clear()
        self._delays.clear()
        self._lanes.clear()
        self._by_ack_id.clear()
        self._fresh_count = 0
