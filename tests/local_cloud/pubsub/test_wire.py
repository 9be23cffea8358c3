"""What is written by hand has to read back as if Google's types had written it."""

from __future__ import annotations

import itertools

from google.pubsub_v1.types import pubsub
from hypothesis import given
from hypothesis import strategies as st

from local_cloud.pubsub.messages.delivery import Delivery, received
from local_cloud.pubsub.messages.message import Message, bare, stamp
from local_cloud.pubsub.messages.wire import are_only_data, is_only_data, varint

MESSAGE = pubsub.PubsubMessage.pb()
PULL_RESPONSE = pubsub.PullResponse.pb()
STREAM_RESPONSE = pubsub.StreamingPullResponse.pb()

RAW = st.builds(
    MESSAGE,
    data=st.binary(max_size=300),
    attributes=st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3),
    ordering_key=st.text(max_size=5),
    message_id=st.text(max_size=5),
)


@given(st.integers(0, 2**40))
def test_a_number_reads_back(number: int) -> None:
    message = pubsub.ReceivedMessage.pb()
    assert message.FromString(b"\x18" + varint(number % 2**31)).delivery_attempt == number % 2**31
    assert pubsub.StreamingPullRequest.pb().FromString(b"\x38" + varint(number)).max_outstanding_messages == number


@given(RAW, st.booleans())
def test_a_stamped_message_has_its_new_id_and_time_and_is_otherwise_the_same(raw: object, timed: bool) -> None:
    expected = MESSAGE()
    expected.CopyFrom(raw)
    if timed:
        raw.publish_time.FromNanoseconds(1_999_999_999)  # type: ignore[attr-defined]
    expected.message_id = "1700000000000001"
    expected.publish_time.FromNanoseconds(1_700_000_000_250_000_000)
    (message,) = stamp([bare(raw)], itertools.count(1_700_000_000_000_001), 1_700_000_000.25)
    assert MESSAGE.FromString(message.body) == expected
    assert (message.message_id, message.published_s) == (expected.message_id, 1_700_000_000.25)


@given(RAW)
def test_only_data_is_known_by_its_first_bytes(raw: object) -> None:
    rest = MESSAGE()
    rest.CopyFrom(raw)
    rest.ClearField("data")
    only_data = bool(raw.data) and not rest.ByteSize()  # type: ignore[attr-defined]
    body = raw.SerializeToString()  # type: ignore[attr-defined]
    assert is_only_data(body) == are_only_data([body, body]) == only_data
    known = MESSAGE(data=b"x" * len(body)).SerializeToString()
    assert are_only_data([known, body, known]) == (only_data and bool(body))


def test_large_data_and_look_alikes() -> None:
    for size in (1, 127, 128, 16_383):
        assert is_only_data(MESSAGE(data=b"x" * size).SerializeToString())
        assert not is_only_data(MESSAGE(data=b"x" * size, ordering_key="k").SerializeToString())
    # Larger ones are looked at field by field.
    assert not is_only_data(MESSAGE(data=b"x" * 16_384).SerializeToString())
    assert not is_only_data(b"")


@given(
    st.lists(st.tuples(st.binary(max_size=300), st.integers(0, 200), st.text("abc", min_size=1, max_size=200)), max_size=5), st.booleans()
)
def test_received_messages_read_back(contents: list[tuple[bytes, int, str]], counts_attempts: bool) -> None:
    deliveries = []
    for data, failures, ack_id in contents:
        delivery = Delivery(Message("1", 0.0, MESSAGE(data=data, message_id="1").SerializeToString()))
        delivery.ack_id, delivery.failure_count = ack_id, failures
        deliveries.append(delivery)
    written = received(deliveries, counts_attempts=counts_attempts)
    for response in (PULL_RESPONSE, STREAM_RESPONSE):
        found = response.FromString(written).received_messages
        assert [(one.message.data, one.ack_id) for one in found] == [(data, ack_id) for data, _failures, ack_id in contents]
        assert [one.delivery_attempt for one in found] == [failures + 1 if counts_attempts else 0 for _data, failures, _ack_id in contents]
