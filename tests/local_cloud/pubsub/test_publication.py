"""What one publish call brought: read without looking inside, opened late, and then the same for everybody."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.api_core.exceptions import InvalidArgument
from google.protobuf.timestamp_pb2 import Timestamp
from google.pubsub_v1.types import pubsub
from hypothesis import given
from hypothesis import strategies as st

from local_cloud.pubsub.messages.backlog import Backlog
from local_cloud.pubsub.messages.delivery import AckIds
from local_cloud.pubsub.messages.policy import Policy
from local_cloud.pubsub.messages.publication import Publication
from local_cloud.pubsub.model import settings
from local_cloud.pubsub.model.pubsub import PubSub
from local_cloud.pubsub.model.refusal import Refusal
from local_cloud.pubsub.rpc import limits
from local_cloud.pubsub.rpc.envelope import PublishEnvelope, enveloped
from local_cloud.pubsub.store import keep_state
from tests.local_cloud.manual_clock import ManualClock

MESSAGE = pubsub.PubsubMessage.pb()
REQUEST = pubsub.PublishRequest.pb()
TOPIC = "projects/p/topics/tasks"

RAW = st.builds(
    MESSAGE,
    data=st.binary(min_size=1, max_size=300),
    attributes=st.dictionaries(st.text("abc", min_size=1), st.text(max_size=5), max_size=2),
    ordering_key=st.text(max_size=5),
    message_id=st.sampled_from(["", "7"]),
    publish_time=st.sampled_from([None, Timestamp(seconds=7)]),
)


def _backlog(*counts: int, published_s: float = 0.0) -> Backlog:
    """With one publication of each count."""
    backlog = Backlog(Policy(), AckIds(random.Random(1)))
    first_id = 0
    for count in counts:
        backlog.publish(Publication([b""] * count, first_id, published_s))
        first_id += count
    return backlog


@given(st.text(max_size=10), st.lists(RAW, min_size=1, max_size=4), st.booleans())
def test_an_envelope_is_the_request_and_what_leaves_the_limits_is_bare(topic: str, messages: list[Any], parsed: bool) -> None:
    request = REQUEST(topic=topic, messages=messages)
    envelope = enveloped(request if parsed else PublishEnvelope.FromString(request.SerializeToString()))
    assert (envelope.topic, envelope.SerializeToString()) == (topic, request.SerializeToString())
    bodies = [MESSAGE.FromString(body) for body in limits.checked_bodies(envelope)]
    assert bodies == [MESSAGE(data=one.data, attributes=one.attributes, ordering_key=one.ordering_key) for one in messages]


def test_the_limit_of_bytes_is_that_of_the_whole_request() -> None:
    # Small messages are the worst case: each has a tag and a length around it.
    for size, others in ((limits.PUBLISH_MAX_BYTES - 200, 1), (limits.PUBLISH_MAX_BYTES // 1_000, 999)):
        request = REQUEST(topic=TOPIC, messages=[MESSAGE(data=b"x" * (size - 20))] * others)
        request.messages.add(data=b"x")
        request.messages[-1].data = b"x" * (limits.PUBLISH_MAX_BYTES - request.ByteSize() - 10)
        request.messages[-1].data += b"x" * (limits.PUBLISH_MAX_BYTES - request.ByteSize())
        assert request.ByteSize() == limits.PUBLISH_MAX_BYTES
        assert len(limits.checked_bodies(enveloped(request))) == others + 1
        request.messages[-1].data += b"x"
        with pytest.raises(Refusal, match="payload size exceeds"):
            limits.checked_bodies(enveloped(request))


def test_messages_get_ids_in_a_row_and_are_the_same_for_everybody() -> None:
    publication = Publication([MESSAGE(data=body).SerializeToString() for body in (b"a", b"b")], 999, 5.0)
    messages = publication.messages()
    assert [(one.message_id, one.published_s, one.opened().data) for one in messages] == [("999", 5.0, b"a"), ("1000", 5.0, b"b")]
    assert [one.opened().message_id for one in messages] == ["999", "1000"]
    assert publication.messages() is messages
    assert publication.bodies == []


def test_the_ids_of_two_publications_have_nothing_in_common() -> None:
    model = PubSub(ManualClock(), random.Random(1))
    model.create_topic(TOPIC, b"")
    first, second = (model.publish(TOPIC, [MESSAGE(data=b"x")] * 3).ids for _ in range(2))
    assert second == range(first.stop, first.stop + 3)


def test_a_part_of_a_publication_can_be_taken_and_all_of_it_counts() -> None:
    backlog = _backlog(3, 2)
    assert (backlog.undelivered_count, backlog.oldest_published_s(), backlog.has_ready) == (5, 0.0, True)
    taken = [[one.message.message_id for one in backlog.take(0.0, count, 10_000)] for count in (2, 2, 9)]
    assert taken == [["0", "1"], ["2", "3"], ["4"]]
    assert (backlog.undelivered_count, backlog.outstanding_count) == (5, 5)


def test_what_nobody_took_is_known_to_a_seek_and_is_dropped_in_time() -> None:
    backlog = _backlog(3, 2)
    backlog.take(0.0, 1, 10_000)
    assert [one.message_id for one in backlog.unacknowledged()] == ["0", "1", "2", "3", "4"]
    backlog.seek(lambda message: message.message_id in "13", [], 0.0)
    assert [one.message.message_id for one in backlog.take(0.0, 9, 10_000)] == ["0", "2", "4"]
    backlog = _backlog(3, 2)
    assert backlog.settle(8 * 86_400.0) == []
    assert (backlog.undelivered_count, backlog.has_ready) == (0, False)


def test_a_message_is_the_same_to_the_byte_after_restarts(tmp_path: Path) -> None:
    found = []
    name = "projects/p/subscriptions/workers"
    for life in range(3):
        model = PubSub(ManualClock(), random.Random(1))
        store = keep_state(model, ManualClock(), tmp_path)
        if not life:
            model.create_topic(TOPIC, b"")
            model.create_subscription(name, TOPIC, *settings.completed(pubsub.Subscription.pb()(name=name, topic=TOPIC)))
            model.publish(TOPIC, [MESSAGE(data=b"x" * size, attributes={"a": "b"}) for size in (1, 200)])
        found.append([(one.message_id, one.published_s, one.body) for one in model.subscription(name).unacknowledged()])
        store.close()
    assert found[0] == found[1] == found[2]
    assert [MESSAGE.FromString(body).message_id for _id, _time, body in found[0]] == [message_id for message_id, _time, _body in found[0]]


def test_a_message_that_is_no_message_is_refused_with_all_of_its_request(cloud: Any, local_server: Any) -> None:
    topic = cloud.topic()
    subscription = cloud.subscription(topic)
    request = PublishEnvelope(topic=topic, messages=[MESSAGE(data=b"good").SerializeToString(), b"\x0a\x7fshort"])
    with grpc.insecure_channel(local_server.address) as channel:
        call = channel.unary_unary("/google.pubsub.v1.Publisher/Publish", request_serializer=None, response_deserializer=None)
        with pytest.raises(grpc.RpcError, match="cannot be read") as refused:
            call(request.SerializeToString(), timeout=10)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert local_server.model.subscription(subscription).counts()[0] == 0
    with pytest.raises(InvalidArgument, match="empty"):
        cloud.publisher.publish(topic=topic, messages=[{"data": b"good"}, {}], retry=None)
    assert local_server.model.subscription(subscription).counts()[0] == 0
