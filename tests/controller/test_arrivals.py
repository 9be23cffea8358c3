"""What came into a subscription, minute by minute, from what Cloud Monitoring keeps of it."""

from __future__ import annotations

from contextlib import closing

import pytest
import requests
from google.cloud.pubsub_v1 import PublisherClient, SubscriberClient
from hypothesis import given
from hypothesis import strategies as st

from batch.model.clock import SystemClock
from batch.model.errors import DependencyForbidden, DependencyUnavailable
from controller.observe.arrivals import GoogleArrivalsReader, came_in
from tests.support import Service


def test_what_came_is_what_the_backlog_grew_by_and_what_was_acknowledged() -> None:
    backlog = [(60.0, 5), (120.0, 2), (180.0, 0), (240.0, 7)]
    acked = [(120.0, 10), (180.0, 2), (240.0, 0)]
    assert came_in(backlog, acked) == [(60.0, 5), (120.0, 7), (180.0, 0), (240.0, 7)]


def test_a_gauge_that_was_read_before_its_acknowledgements_brings_no_messages_of_its_own() -> None:
    """The gauge fell in one minute, and the acknowledgements stand in the next."""
    assert came_in([(60.0, 5), (120.0, 0), (180.0, 0)], [(180.0, 5)]) == [(60.0, 5), (120.0, 0), (180.0, 0)]


def test_a_gap_of_the_gauge_counts_at_its_end_and_deltas_of_several_kinds_of_delivery_add_up() -> None:
    assert came_in([(60.0, 0), (300.0, 3)], [(120.0, 4), (120.0, 1), (360.0, 2)]) == [(60.0, 0), (300.0, 8), (360.0, 2)]
    assert came_in([], []) == []


@given(steps=st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=30))
def test_nothing_is_lost_and_nothing_comes_twice(steps: list[tuple[int, int]]) -> None:
    backlog, acked, left = [(0.0, 0)], [], 0
    for number, (came, done) in enumerate(steps, start=1):
        left += came
        done = min(done, left)
        left -= done
        backlog.append((60.0 * number, left))
        acked.append((60.0 * number, done))
    assert [count for _, count in came_in(backlog, acked)] == [0, *(came for came, _ in steps)]


def test_the_real_client_reads_both_series_of_the_local_cloud(local_pubsub: Service, project: str) -> None:
    now = requests.get(f"{local_pubsub.http}/clock", timeout=60).json()["now"]
    first = now // 60 * 60 - 3 * 86_400
    for name, shift in (("tasks-sub", 0), ("other", 1000)):
        for number, (count, acked) in enumerate(((5, 0), (2, 10), (0, 2))):
            body = {"num_undelivered_messages": count + shift, "ack_message_count": acked, "sampled_at": first + 60 * number}
            answer = requests.put(f"{local_pubsub.http}/gauges", json={"project": project, "subscription": name, **body}, timeout=60)
            answer.raise_for_status()
    with closing(GoogleArrivalsReader(project, emulator_host=local_pubsub.grpc)) as reader:
        found = reader.read("tasks-sub", first - 60, now)
        assert reader.read("tasks-sub", first + 600, now) == []
    assert found == [(first, 5), (first + 60, 7), (first + 120, 0)]


def test_what_is_published_and_acknowledged_there_is_what_came(
    local_pubsub: Service, project: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", local_pubsub.grpc)
    topic, name = f"projects/{project}/topics/tasks", f"projects/{project}/subscriptions/tasks-sub"
    with (
        PublisherClient() as publisher,
        SubscriberClient() as subscriber,
        closing(GoogleArrivalsReader(project, emulator_host=local_pubsub.grpc)) as reader,
    ):
        publisher.create_topic(name=topic)
        subscriber.create_subscription(name=name, topic=topic)
        for number in range(9):
            publisher.publish(topic, b"x").result(60)
            if number == 6:
                assert sum(count for _, count in read_all(reader)) == 7
                pulled = subscriber.pull(subscription=name, max_messages=5).received_messages
                subscriber.acknowledge(subscription=name, ack_ids=[one.ack_id for one in pulled])
        assert sum(count for _, count in read_all(reader)) == 9


def read_all(reader: GoogleArrivalsReader) -> list[tuple[float, int]]:
    return reader.read("tasks-sub", 0.0, SystemClock().now())


@pytest.mark.parametrize(("fault", "error"), [("permission_denied", DependencyForbidden), ("unavailable", DependencyUnavailable)])
def test_a_refusal_names_what_is_missing(local_pubsub: Service, project: str, fault: str, error: type[Exception]) -> None:
    order = {"project": project, "method": "ListTimeSeries", "faults": [fault]}
    requests.post(f"{local_pubsub.http}/faults", json=order, timeout=60).raise_for_status()
    role = r".*roles/monitoring\.viewer is needed" if error is DependencyForbidden else ""
    with (
        closing(GoogleArrivalsReader(project, emulator_host=local_pubsub.grpc, retry_s=0.01)) as reader,
        pytest.raises(error, match=f"of project {project}{role}"),
    ):
        reader.read("s", 0.0, 60.0)
