"""What Google's Pub/Sub client does with errors: a server that answers as it is told shows every one of them."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from google import pubsub_v1
from google.protobuf import any_pb2, empty_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2

from batch.model.delivery import MAX_ACK_REQUEST_BYTES, Outgoing
from batch.model.errors import DependencyForbidden, DependencyMissing, DependencyUnavailable, ServiceRefused
from batch.services.calls import Resource, translated
from batch.services.ports import SubscriptionInfo
from batch.services.pubsub import ACKS_IN_FLIGHT, GoogleSubscription, id_batches
from batch.services.topic import GoogleTopic, message_batches

TOPIC, DEAD = "projects/p/topics/tasks", "projects/p/topics/dead-letters"
REQUESTS = {
    "Pull": pubsub_v1.PullRequest,
    "Acknowledge": pubsub_v1.AcknowledgeRequest,
    "ModifyAckDeadline": pubsub_v1.ModifyAckDeadlineRequest,
    "GetSubscription": pubsub_v1.GetSubscriptionRequest,
    "Publish": pubsub_v1.PublishRequest,
}


class Server:
    """Answers each call with the next of `answers`: a status code, a status with details, or a message; else with `bad_ids` in mind."""

    def __init__(self) -> None:
        self.answers: deque[Any] = deque()
        self.bad_ids: set[str] = set()
        self.calls: list[tuple[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self._threads = ThreadPoolExecutor(8)
        self._server = grpc.server(self._threads)
        self._server.add_generic_rpc_handlers((Handlers(self),))
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def stop(self) -> None:
        self._server.stop(None).wait()
        self._threads.shutdown()

    def answer(self, method: str, request: Any, context: Any) -> Any:
        self.calls.append((method, request))
        self.headers.append(dict(context.invocation_metadata()))
        answer = self.answers.popleft() if self.answers else self.usual(method, request)
        if isinstance(answer, grpc.StatusCode):
            context.abort(answer, "scripted")
        if isinstance(answer, status_pb2.Status):
            context.set_trailing_metadata((("grpc-status-details-bin", answer.SerializeToString()),))
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, answer.message)
        return answer

    def usual(self, method: str, request: Any) -> Any:
        if method == "Publish":
            return pubsub_v1.PublishResponse.pb()(message_ids=[str(one.data) for one in request.messages])
        if method == "Pull":
            return pubsub_v1.PullResponse.pb()()
        if self.bad_ids & set(request.ack_ids):
            return grpc.StatusCode.INVALID_ARGUMENT
        return empty_pb2.Empty()


class Handlers(grpc.GenericRpcHandler):  # type: ignore[misc]
    def __init__(self, server: Server) -> None:
        self._server = server

    def service(self, details: Any) -> Any:
        method = details.method.rsplit("/", 1)[1]
        return grpc.unary_unary_rpc_method_handler(
            lambda request, context: self._server.answer(method, request, context),
            request_deserializer=REQUESTS[method].pb().FromString,
            response_serializer=lambda message: message.SerializeToString(),
        )


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    running = Server()
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", running.address)
    yield running
    running.stop()
    assert not running.answers


@pytest.fixture
def subscription(server: Server) -> Iterator[GoogleSubscription]:
    made = GoogleSubscription("p", "worker", retry_within_s=20.0, rng=random.Random(1))
    yield made
    made.close()


@pytest.fixture
def topic(server: Server) -> Iterator[GoogleTopic]:
    made = GoogleTopic("p", "tasks", retry_within_s=20.0, rng=random.Random(1))
    yield made
    made.close()


def sent_ids(server: Server) -> list[list[str]]:
    return [list(request.ack_ids) for _, request in server.calls]


def test_each_call_names_its_subscription_and_its_client_in_the_headers(server: Server, subscription: GoogleSubscription) -> None:
    subscription.pull(1, 5)
    subscription.ack(["a"])
    subscription.extend(["a"], 10)
    assert [method for method, _ in server.calls] == ["Pull", "Acknowledge", "ModifyAckDeadline"]
    assert {headers["x-goog-request-params"] for headers in server.headers} == {"subscription=projects/p/subscriptions/worker"}
    assert all("grpc/" in headers["x-goog-api-client"] for headers in server.headers)


def test_a_deadline_exceeded_by_a_pull_is_an_empty_pull(server: Server, subscription: GoogleSubscription) -> None:
    server.answers.append(grpc.StatusCode.DEADLINE_EXCEEDED)
    assert subscription.pull(10, 5.0) == []
    assert [request.max_messages for _, request in server.calls] == [10]


def test_a_pull_is_repeated_while_its_time_lasts(server: Server, subscription: GoogleSubscription) -> None:
    answer = pubsub_v1.PullResponse.pb()()
    answer.received_messages.add(ack_id="a", delivery_attempt=3).message.data = b"x"
    server.answers += [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL, answer]
    [delivery] = subscription.pull(10, 10.0)
    assert (delivery.ack_id, delivery.data, delivery.delivery_attempt) == ("a", b"x", 3)


def test_a_pull_that_stays_unavailable_says_so_within_its_time(server: Server, subscription: GoogleSubscription) -> None:
    server.answers += [grpc.StatusCode.UNAVAILABLE] * 50
    begun = time.monotonic()
    with pytest.raises(DependencyUnavailable, match=r"projects/p/subscriptions/worker.*UNAVAILABLE"):
        subscription.pull(10, 0.4)
    assert time.monotonic() - begun < 30.0
    server.answers.clear()


@pytest.mark.parametrize(
    ("code", "error", "text"),
    [
        (
            grpc.StatusCode.NOT_FOUND,
            DependencyMissing,
            "subscription projects/p/subscriptions/worker does not exist: create it.*SUBSCRIPTION_NAME",
        ),
        (grpc.StatusCode.PERMISSION_DENIED, DependencyForbidden, "roles/pubsub.subscriber"),
        (grpc.StatusCode.UNAUTHENTICATED, DependencyForbidden, "another identity"),
        (grpc.StatusCode.FAILED_PRECONDITION, DependencyForbidden, "as it is set up; look at `gcloud pubsub subscriptions describe worker"),
        (grpc.StatusCode.UNIMPLEMENTED, ServiceRefused, "repeating it cannot help"),
    ],
)
def test_every_call_translates_its_errors(
    server: Server, subscription: GoogleSubscription, code: grpc.StatusCode, error: type[Exception], text: str
) -> None:
    calls = (
        lambda: subscription.pull(1, 5.0),
        lambda: subscription.ack(["a"]),
        lambda: subscription.extend(["a"], 60),
        lambda: subscription.nack(["a"]),
    )
    for call in calls:
        server.answers.append(code)
        with pytest.raises(error, match=text) as raised:
            call()
        assert type(raised.value) is error


def test_a_missing_topic_is_named_with_the_fix(server: Server, topic: GoogleTopic) -> None:
    server.answers.append(grpc.StatusCode.NOT_FOUND)
    with pytest.raises(DependencyMissing, match=r"gcloud pubsub topics create tasks --project=p`, or fix TOPIC_NAME"):
        topic.publish([Outgoing(b"x", {})])


def test_an_acknowledgement_is_repeated_after_transient_errors(server: Server, subscription: GoogleSubscription) -> None:
    server.answers += [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.ABORTED]
    assert subscription.ack(["a", "b"]) == []
    assert sent_ids(server) == [["a", "b"]] * 3


def test_one_failing_request_does_not_keep_the_others_back(server: Server, subscription: GoogleSubscription) -> None:
    ids = [str(number) for number in range(2500)]
    server.answers += [grpc.StatusCode.PERMISSION_DENIED]
    with pytest.raises(DependencyForbidden):
        subscription.ack(ids)
    assert sorted(len(one) for one in sent_ids(server)) == [500, 1000, 1000]


def test_the_requests_of_one_call_travel_together(
    server: Server, subscription: GoogleSubscription, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = threading.Barrier(ACKS_IN_FLIGHT)
    usual = server.usual

    def waiting(method: str, request: Any) -> Any:
        together.wait(60)
        return usual(method, request)

    monkeypatch.setattr(server, "usual", waiting)
    assert subscription.nack([str(number) for number in range(1000 * ACKS_IN_FLIGHT)]) == []
    assert not together.broken


def test_a_bad_id_in_one_of_many_requests_loses_no_other(server: Server, subscription: GoogleSubscription) -> None:
    ids = [f"id-{number}" for number in range(4000)]
    server.bad_ids = {"id-3", "id-3999"}
    assert subscription.ack(ids) == ["id-3", "id-3999"]
    accepted = [ack_id for one in sent_ids(server) if not server.bad_ids & set(one) for ack_id in one]
    assert sorted(accepted) == sorted(set(ids) - server.bad_ids)


def test_bad_ids_are_found_by_halving(server: Server, subscription: GoogleSubscription) -> None:
    ids = [f"id-{number}" for number in range(1000)]
    server.bad_ids = {"id-3", "id-700"}
    assert subscription.ack(ids) == ["id-3", "id-700"]
    assert len(server.calls) < 50
    accepted = [ack_id for one in sent_ids(server) if not server.bad_ids & set(one) for ack_id in one]
    assert sorted(accepted) == sorted(set(ids) - server.bad_ids)


def exactly_once(**told: str) -> status_pb2.Status:
    info = any_pb2.Any()
    info.Pack(error_details_pb2.ErrorInfo(reason="EXACTLY_ONCE_ACKID_FAILURE", domain="pubsub.googleapis.com", metadata=told))
    return status_pb2.Status(code=code_pb2.FAILED_PRECONDITION, message="some failed", details=[info])


def test_ids_that_the_error_names_are_believed(server: Server, subscription: GoogleSubscription) -> None:
    server.answers += [exactly_once(b="PERMANENT_FAILURE_INVALID_ACK_ID", c="TRANSIENT_FAILURE_UNORDERED_ACK_ID")]
    assert subscription.ack(["a", "b", "c"]) == ["b"]
    assert sent_ids(server) == [["a", "b", "c"], ["c"]]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, SubscriptionInfo(42.0, TOPIC)),
        ({"dead_letter_policy": {"dead_letter_topic": DEAD, "max_delivery_attempts": 100}}, SubscriptionInfo(42.0, TOPIC, 100)),
        ({"dead_letter_policy": {"dead_letter_topic": DEAD}}, SubscriptionInfo(42.0, TOPIC, 5)),
        ({"enable_message_ordering": True}, SubscriptionInfo(42.0, TOPIC, is_ordered=True)),
        ({"filter": "attributes:x"}, SubscriptionInfo(42.0, TOPIC, message_filter="attributes:x")),
        ({"topic": "_deleted-topic_"}, SubscriptionInfo(42.0)),
        ({"detached": True}, SubscriptionInfo(42.0)),
    ],
)
def test_the_subscription_is_read_once(
    server: Server, subscription: GoogleSubscription, fields: dict[str, Any], expected: SubscriptionInfo
) -> None:
    server.answers.append(pubsub_v1.Subscription.pb()(**{"ack_deadline_seconds": 42, "topic": TOPIC, **fields}))
    assert subscription.info == subscription.info == expected
    assert len(server.calls) == 1


@pytest.mark.parametrize("topic", ["", "tasks"])
def test_what_may_not_be_read_is_guessed_with_care(server: Server, topic: str, caplog: pytest.LogCaptureFixture) -> None:
    server.answers.append(grpc.StatusCode.PERMISSION_DENIED)
    subscription = GoogleSubscription("p", "worker", fallback_topic=topic)
    with caplog.at_level(logging.WARNING):
        assert subscription.info == SubscriptionInfo(60.0, topic, 5, is_guessed=True)
    assert "60 s, a dead-letter policy of 5 deliveries" in caplog.text
    assert "TOPIC_NAME" in caplog.text
    subscription.close()


def test_seconds_are_rounded_up_and_bounded(server: Server, subscription: GoogleSubscription) -> None:
    subscription.extend(["a"], 0.2)
    subscription.extend(["a"], 10_000)
    subscription.nack(["a"], 1.5)
    subscription.nack(["a"])
    assert [request.ack_deadline_seconds for _, request in server.calls] == [1, 600, 2, 0]


def test_publishing_is_repeated_and_keeps_the_order(server: Server, topic: GoogleTopic) -> None:
    server.answers += [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL, grpc.StatusCode.RESOURCE_EXHAUSTED]
    messages = [Outgoing(b"%d" % number, {}) for number in range(3500)]
    assert topic.publish(messages) == [str(one.data) for one in messages]


def test_a_publish_that_fails_for_good_is_an_error_whatever_the_other_batches_did(server: Server, topic: GoogleTopic) -> None:
    server.answers += [grpc.StatusCode.INVALID_ARGUMENT]
    with pytest.raises(ServiceRefused, match="INVALID_ARGUMENT"):
        topic.publish([Outgoing(b"x", {})] * 2500)


def test_batches_keep_to_both_limits() -> None:
    assert [len(one) for one in id_batches(["x"] * 2001)] == [1000, 1000, 1]
    by_bytes = list(id_batches(["x" * 2000] * 600))
    assert all(sum(len(ack_id) + 3 for ack_id in one) < MAX_ACK_REQUEST_BYTES for one in by_bytes)
    assert sum(map(len, by_bytes)) == 600
    assert [len(one) for one in message_batches([Outgoing(b"x" * 4_000_000, {})] * 5)] == [2, 2, 1]
    assert [len(one) for one in message_batches([Outgoing(b"x" * 9_900_000, {}), Outgoing(b"", {})])] == [1, 1]
    assert list(message_batches([])) == []
    assert list(id_batches([])) == []


def test_without_credentials_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/no/such/file")
    with pytest.raises(DependencyForbidden, match="gcloud auth application-default login"):
        GoogleSubscription("p", "worker")


def test_texts_name_kind_and_path() -> None:
    error = translated("publish to", Resource("topic", "p", "tasks"), "UNAVAILABLE", "line\none")
    assert str(error).startswith("cannot publish to topic projects/p/topics/tasks: Pub/Sub answered UNAVAILABLE")
    assert "line one" in str(error)
