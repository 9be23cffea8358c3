"""A lease is the ack deadline that a worker holds on a message. When it ends without an ack, Pub/Sub delivers the message again."""

from __future__ import annotations

from batch.model.delivery import Outgoing
from batch.testing import ManualClock, MemoryBroker


def test_a_message_comes_back_when_its_lease_ends() -> None:
    clock = ManualClock()
    broker = MemoryBroker(clock)
    subscription = broker.subscription("lane", topic="lane", ack_deadline_s=60)
    broker.topic("lane").publish([Outgoing(b"{}", {})])

    (first,) = subscription.pull(10, timeout_s=0)
    assert subscription.pull(10, timeout_s=0) == []  # leased: nobody else gets it
    clock.advance(61)  # the worker died, nobody extended the lease
    (second,) = subscription.pull(10, timeout_s=0)
    assert second.message_id == first.message_id

    subscription.ack([second.ack_id])
    clock.advance(61)
    assert subscription.backlog == 0
