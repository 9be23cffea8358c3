"""What every topic and subscription must do: in memory, on the local cloud, and on Google's own emulator."""

from __future__ import annotations

import threading

import pytest

from batch.model.delivery import Outgoing
from tests.seams.conftest import ACK_DEADLINE_S, MAX_DELIVERY_ATTEMPTS, Lane


def outgoing(count: int, size: int = 0) -> list[Outgoing]:
    return [Outgoing(b"%d" % number + b"x" * size, {"number": str(number)}) for number in range(count)]


def test_a_message_arrives_as_it_was_published(lane: Lane) -> None:
    attributes = {"task_id": "1", "ü": "日本"}
    [message_id] = lane.topic.publish([Outgoing(b"\x00\xff{}", attributes)])
    [delivery] = lane.pull(1)
    assert (delivery.message_id, delivery.data, dict(delivery.attributes)) == (message_id, b"\x00\xff{}", attributes)
    assert delivery.published_s > 1_600_000_000
    assert delivery.delivery_attempt == 0
    assert delivery.ack_id


def test_an_empty_data_travels_with_attributes(lane: Lane) -> None:
    lane.topic.publish([Outgoing(b"", {"only": "attributes"})])
    [delivery] = lane.pull(1)
    assert (delivery.data, dict(delivery.attributes)) == (b"", {"only": "attributes"})


def test_ids_come_in_the_order_of_messages_over_several_requests(lane: Lane) -> None:
    ids = lane.topic.publish(outgoing(2500))
    found = {one.message_id: one.data for one in lane.pull(2500)}
    assert [found[message_id] for message_id in ids] == [one.data for one in outgoing(2500)]


def test_publishing_nothing_is_nothing(lane: Lane) -> None:
    assert lane.topic.publish([]) == []
    assert lane.subscription.ack([]) == lane.subscription.extend([], 60) == lane.subscription.nack([]) == []


def test_more_than_one_request_can_carry_is_split_by_bytes(lane: Lane) -> None:
    lane.topic.publish(outgoing(5, size=3_000_000))
    assert len(lane.pull(5)) == 5


def test_an_empty_subscription_gives_an_empty_list(lane: Lane) -> None:
    assert lane.subscription.pull(10, 1.5) == []


def test_a_pull_takes_no_more_than_it_asked_for(lane: Lane) -> None:
    lane.topic.publish(outgoing(10))
    assert 1 <= len(lane.subscription.pull(3, 5.0)) <= 3


def test_what_is_acknowledged_never_comes_back(lane: Lane) -> None:
    lane.topic.publish(outgoing(3))
    assert lane.subscription.ack([one.ack_id for one in lane.pull(3)]) == []
    assert lane.is_empty()
    if lane.pass_time is not None:
        lane.advance(ACK_DEADLINE_S + 1)
        assert lane.is_empty()


def test_a_leased_message_is_nobody_elses(lane: Lane) -> None:
    lane.topic.publish(outgoing(1))
    lane.pull(1)
    assert lane.is_empty()


def test_an_expired_lease_brings_the_message_back(lane: Lane) -> None:
    lane.topic.publish(outgoing(1))
    [first] = lane.pull(1)
    lane.advance(ACK_DEADLINE_S + 1)
    [second] = lane.pull(1)
    assert second.message_id == first.message_id
    assert second.ack_id != first.ack_id


def test_an_extended_lease_holds(lane: Lane) -> None:
    lane.topic.publish(outgoing(2))
    deliveries = lane.pull(2)
    assert lane.subscription.extend([deliveries[0].ack_id], 60.0) == []
    lane.advance(ACK_DEADLINE_S + 1)
    [back] = lane.pull(2, 1.5)
    assert back.message_id == deliveries[1].message_id


def test_a_message_handed_back_comes_at_once(lane: Lane) -> None:
    lane.topic.publish(outgoing(1))
    [first] = lane.pull(1)
    assert lane.subscription.nack([first.ack_id]) == []
    [second] = lane.pull(1)
    assert second.message_id == first.message_id


def test_a_message_handed_back_with_a_delay_comes_after_it(lane: Lane) -> None:
    lane.topic.publish(outgoing(1))
    [first] = lane.pull(1)
    assert lane.subscription.nack([first.ack_id], 120.0) == []
    lane.advance(100.0)
    assert lane.is_empty()
    lane.advance(25.0)
    [second] = lane.pull(1)
    assert second.message_id == first.message_id


@pytest.mark.parametrize("after_s", [-1.0, 601.0])
def test_a_delay_that_the_service_cannot_do_is_an_error(lane: Lane, after_s: float) -> None:
    with pytest.raises(ValueError, match="0 to 600 s"):
        lane.subscription.nack(["any"], after_s)


def test_one_bad_id_does_not_lose_the_others(lane: Lane) -> None:
    lane.topic.publish(outgoing(50))
    ids = [one.ack_id for one in lane.pull(50)]
    extended = lane.subscription.extend([*ids[:7], "never-given-out", *ids[7:]], 60.0)
    acked = lane.subscription.ack([*ids[:20], "never-given-out", *ids[20:], "nor-this"])
    assert lane.is_empty()
    if lane.pass_time is not None:
        lane.advance(61.0)
        assert lane.is_empty()
    if lane.names_unknown_ids:
        assert (extended, acked) == (["never-given-out"], ["never-given-out", "nor-this"])
        assert lane.subscription.nack(["never-given-out"]) == ["never-given-out"]


def test_an_id_overtaken_by_a_redelivery_has_no_effect(lane: Lane) -> None:
    lane.topic.publish(outgoing(1))
    [first] = lane.pull(1)
    lane.subscription.nack([first.ack_id])
    [second] = lane.pull(1)
    assert lane.subscription.ack([first.ack_id]) == []
    assert lane.subscription.nack([second.ack_id]) == []
    [third] = lane.pull(1)
    assert lane.subscription.ack([third.ack_id]) == []
    assert lane.is_empty()


def test_a_late_acknowledgement_counts_while_nobody_else_has_it(lane: Lane) -> None:
    lane.topic.publish(outgoing(1))
    [first] = lane.pull(1)
    lane.advance(ACK_DEADLINE_S + 1)
    assert lane.subscription.ack([first.ack_id]) == []
    assert lane.is_empty()


def test_acknowledging_twice_is_harmless(lane: Lane) -> None:
    lane.topic.publish(outgoing(1))
    [first] = lane.pull(1)
    assert lane.subscription.ack([first.ack_id, first.ack_id]) == []
    assert lane.subscription.ack([first.ack_id]) == []


def test_thousands_are_acknowledged_in_one_call(lane: Lane) -> None:
    lane.topic.publish(outgoing(2300))
    ids = [one.ack_id for one in lane.pull(2300)]
    assert len(set(ids)) == 2300
    assert lane.subscription.extend(ids, 60.0) == []
    assert lane.subscription.ack(ids) == []
    assert lane.is_empty()


def test_a_subscription_says_what_it_is(lane: Lane) -> None:
    info = lane.subscription.info
    assert (info.ack_deadline_s, info.topic.rpartition("/")[2]) == (ACK_DEADLINE_S, "tasks")
    assert (info.max_delivery_attempts, info.is_ordered, info.message_filter) == (0, False, "")


def test_a_subscription_says_what_its_dead_letter_policy_allows(counted_lane: Lane) -> None:
    assert counted_lane.subscription.info.max_delivery_attempts == MAX_DELIVERY_ATTEMPTS


def test_two_pullers_share_and_never_get_the_same(lane: Lane) -> None:
    lane.topic.publish(outgoing(400))
    found: list[str] = []

    def drain() -> None:
        while deliveries := lane.subscription.pull(40, 1.5):
            found.extend(one.message_id for one in deliveries)
            lane.subscription.ack([one.ack_id for one in deliveries])

    pullers = [threading.Thread(target=drain) for _ in range(2)]
    for one in pullers:
        one.start()
    for one in pullers:
        one.join()
    assert sorted(found, key=int) == sorted(set(found), key=int)
    assert len(found) == 400


def test_deliveries_are_counted_with_a_dead_letter_policy(counted_lane: Lane) -> None:
    counted_lane.topic.publish(outgoing(1))
    attempts = []
    for _ in range(3):
        [delivery] = counted_lane.pull(1)
        attempts.append(delivery.delivery_attempt)
        counted_lane.subscription.nack([delivery.ack_id])
    assert attempts == [1, 2, 3]


def test_what_was_delivered_too_often_leaves_the_subscription(counted_lane: Lane) -> None:
    counted_lane.topic.publish(outgoing(1))
    for _ in range(MAX_DELIVERY_ATTEMPTS):
        [delivery] = counted_lane.pull(1)
        counted_lane.subscription.nack([delivery.ack_id])
    assert counted_lane.is_empty()
