"""A fresh lane for each run: a topic, a subscription with tasks that wait, and a bucket; nothing of an earlier run is in the way."""

from __future__ import annotations

import itertools
import json
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from google.pubsub_v1 import types

from batch.model.message import Task, encode
from bench.pubsub_load import PER_CALL, raw_method

PROJECT = "bench"
DATA_BYTES = 200
TASK_ID = "TASK_ID"
SUBMITTED_AT = "2026-01-02T03:04:05.678901Z"
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Lane:
    """`pubsub` (host:port) and `storage` (URL) are where its clients go: the servers, or proxies before them."""

    name: str
    pubsub: str
    storage: str

    @property
    def topic(self) -> str:
        return f"projects/{PROJECT}/topics/{self.name}"

    @property
    def subscription(self) -> str:
        return f"projects/{PROJECT}/subscriptions/{self.name}"

    @property
    def bucket(self) -> str:
        return f"bench-{self.name}"

    def environment(self) -> dict[str, str]:
        """What sends Google's clients to this lane's servers."""
        return {"PUBSUB_EMULATOR_HOST": self.pubsub, "STORAGE_EMULATOR_HOST": self.storage, "GOOGLE_CLOUD_PROJECT": PROJECT}


def fresh_lane(pubsub: str, storage: str) -> Lane:
    """A lane with the settings that lanes have: 60 s to acknowledge, a dead-letter policy, which is also what makes the service count
    deliveries. `pubsub` and `storage` are the servers themselves."""
    lane = Lane(f"lane-{next(_numbers)}", pubsub, storage)
    dead = f"{lane.topic}-dead"
    for topic in (lane.topic, dead):
        raw_method(pubsub, "Publisher/CreateTopic")(types.Topic.pb()(name=topic).SerializeToString())
    subscription = types.Subscription.pb()(
        name=lane.subscription,
        topic=lane.topic,
        ack_deadline_seconds=60,
        dead_letter_policy=types.DeadLetterPolicy.pb()(dead_letter_topic=dead, max_delivery_attempts=100),
    )
    raw_method(pubsub, "Subscriber/CreateSubscription")(subscription.SerializeToString())
    body = json.dumps({"name": lane.bucket}).encode()
    request = urllib.request.Request(f"{storage}/storage/v1/b?project={PROJECT}", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as response:
        response.read()
    return lane


def publish(
    lane: Lane, pubsub: str, task_type: str, count: int, more: Callable[[int], Mapping[str, str]] = lambda _number: {}, **fields: str
) -> None:
    """`count` tasks of one submission, as the front door sends them; `more` gives further attributes by number. In `fields`, `TASK_ID`
    stands for the task's own id."""
    send, request_of = raw_method(pubsub, "Publisher/Publish"), types.PublishRequest.pb()
    for messages in _chunks(_messages(task_type, count, fields, more)):
        send(request_of(topic=lane.topic, messages=messages).SerializeToString())


def _messages(
    task_type: str, count: int, fields: Mapping[str, str], more: Callable[[int], Mapping[str, str]] = lambda _number: {}
) -> Iterator[types.PubsubMessage]:
    """Made from one: what they are made of is not measured, and there are millions in a run."""
    message_of = types.PubsubMessage.pb()
    first = task_id(0)
    data, attributes = task_message(task_type, first, **{name: value.replace(TASK_ID, first) for name, value in fields.items()})
    for number in range(count):
        own = task_id(number)
        yield message_of(data=data.replace(first.encode(), own.encode()), attributes={**attributes, "task_id": own, **more(number)})


def task_id(number: int) -> str:
    """A UUID, as all task ids are."""
    return f"{number:08x}-0000-4000-8000-000000000000"


def task_message(task_type: str, own_id: str, **fields: str) -> tuple[bytes, dict[str, str]]:
    """Data of DATA_BYTES, filled up with a field, and attributes."""
    task = Task(own_id, task_type, SUBMITTED_AT, {**fields, "filler": ""}, "bench", "bench", "bench")
    data, _ = encode(task)
    return encode(replace(task, fields={**fields, "filler": "x" * (DATA_BYTES - len(data))}))


def _chunks(messages: Iterator[types.PubsubMessage]) -> Iterator[list[types.PubsubMessage]]:
    while chunk := list(itertools.islice(messages, PER_CALL)):
        yield chunk


def delete(lane: Lane, pubsub: str) -> None:
    """Take topic and subscription away, so that a server does not carry what earlier runs have left."""
    deletion = types.DeleteSubscriptionRequest.pb()(subscription=lane.subscription)
    raw_method(pubsub, "Subscriber/DeleteSubscription")(deletion.SerializeToString())
    for topic in (lane.topic, f"{lane.topic}-dead"):
        raw_method(pubsub, "Publisher/DeleteTopic")(types.DeleteTopicRequest.pb()(topic=topic).SerializeToString())
