"""Pub/Sub's REST form over plain HTTP: the same topics, messages and refusals as over gRPC."""

from __future__ import annotations

import base64
import socket
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from google.cloud import pubsub_v1

from local_cloud.pubsub.rest import _CALLS, find
from local_cloud.pubsub.rpc.context import Aborted
from tests.local_cloud.fault_orders import Orders
from tests.support import Service, wait_until


class Rest:
    """Requests below `/v1/projects/<project>/`."""

    def __init__(self, service: Service, project: str) -> None:
        self.service = service
        self.project = project

    def ask(self, method: str, path: str, body: Any = None, **query: str) -> requests.Response:
        url = f"{self.service.http}/v1/projects/{self.project}/{path}"
        return requests.request(method, url, json=body, params=query, timeout=30)

    def __call__(self, method: str, path: str, body: Any = None, **query: str) -> Any:
        answer = self.ask(method, path, body, **query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def name(self, path: str) -> str:
        return f"projects/{self.project}/{path}"


@pytest.fixture
def rest(local_pubsub: Service, project: str) -> Rest:
    """With a topic and a subscription."""
    made = Rest(local_pubsub, project)
    made("PUT", "topics/tasks", {})
    made("PUT", "subscriptions/worker", {"topic": made.name("topics/tasks"), "ackDeadlineSeconds": 20})
    return made


def encoded(text: bytes) -> str:
    return base64.b64encode(text).decode()


def error_of(answer: requests.Response) -> tuple[int, int, str]:
    error = answer.json()["error"]
    return answer.status_code, error["code"], error["status"]


def test_topics_are_created_shown_listed_and_deleted(rest: Rest) -> None:
    made = rest("PUT", "topics/other", {"labels": {"a": "b"}})
    assert made == {"name": rest.name("topics/other"), "labels": {"a": "b"}}
    assert rest("GET", "topics/other") == made
    assert [topic["name"] for topic in rest("GET", "topics")["topics"]] == [rest.name("topics/other"), rest.name("topics/tasks")]
    first = rest("GET", "topics", pageSize="1", alt="json", prettyPrint="false")
    assert [topic["name"] for topic in first["topics"]] == [rest.name("topics/other")]
    assert [t["name"] for t in rest("GET", "topics", pageToken=first["nextPageToken"])["topics"]] == [rest.name("topics/tasks")]
    assert rest("GET", "topics/tasks/subscriptions") == {"subscriptions": [rest.name("subscriptions/worker")]}
    assert rest("DELETE", "topics/other") == {}
    assert error_of(rest.ask("GET", "topics/other")) == (404, 404, "NOT_FOUND")


def test_subscriptions_are_shown_updated_listed_and_deleted(rest: Rest) -> None:
    shown = rest("GET", "subscriptions/worker")
    assert (shown["ackDeadlineSeconds"], shown["messageRetentionDuration"], shown["state"]) == (20, "604800s", "ACTIVE")
    patch = {"subscription": {"ackDeadlineSeconds": 30}, "updateMask": "ackDeadlineSeconds"}
    assert rest("PATCH", "subscriptions/worker", patch)["ackDeadlineSeconds"] == 30
    assert [one["ackDeadlineSeconds"] for one in rest("GET", "subscriptions")["subscriptions"]] == [30]
    assert rest("DELETE", "subscriptions/worker") == {}
    assert rest("GET", "subscriptions") == {}


def test_messages_are_published_pulled_extended_and_acknowledged(rest: Rest) -> None:
    messages = [{"data": encoded(b"hello"), "attributes": {"a": "b"}}, {"data": encoded(b"again")}]
    ids = rest("POST", "topics/tasks:publish", {"messages": messages})["messageIds"]
    received = rest("POST", "subscriptions/worker:pull", {"maxMessages": 10})["receivedMessages"]
    assert [one["message"]["messageId"] for one in received] == ids
    assert received[0]["message"]["attributes"] == {"a": "b"}
    assert base64.b64decode(received[0]["message"]["data"]) == b"hello"
    assert received[0]["message"]["publishTime"].endswith("Z")
    ack_ids = [one["ackId"] for one in received]
    assert rest("POST", "subscriptions/worker:acknowledge", {"ackIds": ack_ids[:1]}) == {}
    assert rest("POST", "subscriptions/worker:modifyAckDeadline", {"ackIds": ack_ids[1:], "ackDeadlineSeconds": 0}) == {}
    again = rest("POST", "subscriptions/worker:pull", {"maxMessages": 10, "returnImmediately": True})["receivedMessages"]
    assert [one["message"]["messageId"] for one in again] == ids[1:]
    assert rest("POST", "subscriptions/worker:pull", {"maxMessages": 10, "returnImmediately": True}) == {}


def test_what_is_published_over_rest_is_pulled_over_grpc(rest: Rest, monkeypatch: pytest.MonkeyPatch) -> None:
    rest("POST", "topics/tasks:publish", {"messages": [{"data": encoded(b"hello")}]})
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", rest.service.grpc)
    with pubsub_v1.SubscriberClient() as client:
        response = client.pull(subscription=rest.name("subscriptions/worker"), max_messages=1, timeout=10)
    assert [one.message.data for one in response.received_messages] == [b"hello"]


def test_a_subscription_is_sought_back_to_a_snapshot(rest: Rest) -> None:
    rest("PUT", "snapshots/before", {"subscription": rest.name("subscriptions/worker")})
    rest("POST", "topics/tasks:publish", {"messages": [{"data": encoded(b"hello")}]})
    received = rest("POST", "subscriptions/worker:pull", {"maxMessages": 10})["receivedMessages"]
    rest("POST", "subscriptions/worker:acknowledge", {"ackIds": [one["ackId"] for one in received]})
    assert rest("GET", "snapshots")["snapshots"][0]["name"] == rest.name("snapshots/before")
    assert rest("POST", "subscriptions/worker:seek", {"snapshot": rest.name("snapshots/before")}) == {}
    again = rest("POST", "subscriptions/worker:pull", {"maxMessages": 10, "returnImmediately": True})["receivedMessages"]
    assert [base64.b64decode(one["message"]["data"]) for one in again] == [b"hello"]
    assert rest("DELETE", "snapshots/before") == {}


@pytest.mark.parametrize(
    ("method", "path", "body", "error"),
    [
        ("PUT", "topics/tasks", {}, (409, 409, "ALREADY_EXISTS")),
        ("PUT", "topics/x", {}, (400, 400, "INVALID_ARGUMENT")),
        ("PUT", "topics/other", {"colour": "red"}, (400, 400, "INVALID_ARGUMENT")),
        ("POST", "topics/tasks:publish", {"messages": [{"data": "%"}]}, (400, 400, "INVALID_ARGUMENT")),
        ("POST", "topics/nobody:publish", {"messages": [{"data": "YQ=="}]}, (404, 404, "NOT_FOUND")),
        ("POST", "subscriptions/worker:pull", {"maxMessages": 0}, (400, 400, "INVALID_ARGUMENT")),
        ("GET", "topics?pageSize=x", None, (400, 400, "INVALID_ARGUMENT")),
        ("GET", "topics?colour=red", None, (400, 400, "INVALID_ARGUMENT")),
        # Not the 501 of the real interfaces, on which gcloud would try again for minutes.
        ("POST", "topics/tasks:explode", {}, (400, 400, "UNIMPLEMENTED")),
        ("GET", "schemas", None, (400, 400, "UNIMPLEMENTED")),
    ],
)
def test_refusals_look_like_those_of_google(rest: Rest, method: str, path: str, body: Any, error: tuple[int, int, str]) -> None:
    assert error_of(rest.ask(method, path, body)) == error


def test_a_refusal_with_details_shows_them(rest: Rest) -> None:
    rest("PUT", "subscriptions/exact", {"topic": rest.name("topics/tasks"), "enableExactlyOnceDelivery": True})
    rest("POST", "topics/tasks:publish", {"messages": [{"data": encoded(b"hello")}]})
    (received,) = rest("POST", "subscriptions/exact:pull", {"maxMessages": 1})["receivedMessages"]
    rest("POST", "subscriptions/exact:acknowledge", {"ackIds": [received["ackId"]]})
    refused = rest.ask("POST", "subscriptions/exact:acknowledge", {"ackIds": ["stale"]})
    (detail,) = refused.json()["error"]["details"]
    assert (detail["@type"], detail["reason"]) == ("type.googleapis.com/google.rpc.ErrorInfo", "EXACTLY_ONCE_ACKID_FAILURE")
    assert list(detail["metadata"]) == ["stale"]


def test_what_is_no_json_is_refused(rest: Rest) -> None:
    url = f"{rest.service.http}/v1/{rest.name('topics/tasks')}:publish"
    for body in (b"{", b"\xff", b"[]"):
        assert error_of(requests.post(url, data=body, timeout=60)) == (400, 400, "INVALID_ARGUMENT")


@pytest.mark.parametrize("body", ["[]", "[[]]", "1", "null"])
def test_json_that_is_no_object_is_refused(rest: Rest, body: str) -> None:
    answer = requests.put(f"{rest.service.http}/v1/projects/{rest.project}/topics/other", data=body, timeout=30)
    assert error_of(answer) == (400, 400, "INVALID_ARGUMENT")


def test_an_unknown_path_is_refused_by_name() -> None:
    with pytest.raises(Aborted, match="no GET /v1/projects/p/schemas"):
        find("GET", "projects/p/schemas")


def test_each_method_in_the_table_is_served(rest: Rest) -> None:
    for (http_method, form), (method, _, _) in _CALLS.items():
        answer = rest.ask(http_method, form.format("nobody"), None if http_method == "GET" else {})
        refused = answer.json().get("error", {"status": "OK"})["status"]
        assert refused in ("OK", "NOT_FOUND", "INVALID_ARGUMENT"), f"{method}: {answer.text}"


def test_a_pull_whose_client_went_away_takes_no_message_along(rest: Rest) -> None:
    address = urlsplit(rest.service.http)
    body = b'{"maxMessages": 10}'
    request = (
        f"POST /v1/{rest.name('subscriptions/worker')}:pull HTTP/1.1\r\nHost: {address.netloc}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body
    orders = Orders(rest.service.http, rest.project)
    orders.add("Pull", "ok")
    with socket.create_connection((address.hostname, address.port), timeout=10) as connection:
        connection.sendall(request)
        wait_until(lambda: orders.all_met(1), description="the pull's arrival")
    rest("POST", "topics/tasks:publish", {"messages": [{"data": encoded(b"hello")}]})
    received = rest("POST", "subscriptions/worker:pull", {"maxMessages": 10})["receivedMessages"]
    assert [base64.b64decode(one["message"]["data"]) for one in received] == [b"hello"]
    orders.clear()


@pytest.mark.slow
def test_a_pull_from_an_empty_subscription_waits_and_ends(rest: Rest) -> None:
    assert rest("POST", "subscriptions/worker:pull", {"maxMessages": 10}) == {}


def test_calls_over_rest_meet_faults(rest: Rest) -> None:
    orders = Orders(rest.service.http, rest.project)
    orders.add("Publish", "unavailable", "too_many_requests")
    body = {"messages": [{"data": encoded(b"hello")}]}
    assert error_of(rest.ask("POST", "topics/tasks:publish", body)) == (503, 503, "UNAVAILABLE")
    assert error_of(rest.ask("POST", "topics/tasks:publish", body)) == (429, 429, "RESOURCE_EXHAUSTED")
    assert rest("POST", "topics/tasks:publish", body)["messageIds"]
    orders.clear()
