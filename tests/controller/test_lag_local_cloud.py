"""The lag once more, with Google's clients and the gauge of the local cloud: sampled every minute, seen two minutes later."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from batch.model.delivery import Outgoing
from batch.services.pubsub import GoogleSubscription
from batch.services.topic import GoogleTopic
from controller.model.reading import Value
from controller.observe.backlog import GoogleBacklogReader
from tests.controller.fakes import lane, tick, world
from tests.controller.test_lag import BACKLOG, Drain
from tests.support import Service, start_service

STEP_S = 15


@pytest.fixture
def lagging(tmp_path: Path) -> Iterator[Service]:
    """One of its own: its clock is moved."""
    service = start_service("pubsub", tmp_path, "--sample-period-s", "60", "--visibility-lag-s", "120")
    yield service
    service.stop()


class Queue:
    """A subscription, filled and emptied in bulk."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, service: Service) -> None:
        from google.cloud import pubsub_v1

        monkeypatch.setenv("PUBSUB_EMULATOR_HOST", service.grpc)
        self.project = f"t-{uuid.uuid4().hex[:12]}"
        publisher: Any = pubsub_v1.PublisherClient()
        topic = f"projects/{self.project}/topics/tasks"
        publisher.create_topic(request={"name": topic})
        publisher.transport.close()
        path = f"projects/{self.project}/subscriptions/tasks-sub"
        with closing(pubsub_v1.SubscriberClient()) as subscriber:
            subscriber.create_subscription(request={"name": path, "topic": topic, "ack_deadline_seconds": 60})
        with closing(GoogleTopic(self.project, "tasks")) as tasks:
            tasks.publish([Outgoing(b"{}", {})] * BACKLOG)
        self._subscription = GoogleSubscription(self.project, "tasks-sub")

    def take(self, count: int) -> None:
        """Pull so many messages and acknowledge them."""
        while count > 0:
            ids = [one.ack_id for one in self._subscription.pull(min(count, 1000), 10.0)]
            self._subscription.ack(ids)
            count -= len(ids)

    def close(self) -> None:
        self._subscription.close()


@pytest.mark.slow
def test_a_lagging_gauge_of_the_local_cloud_costs_no_extra_worker(monkeypatch: pytest.MonkeyPatch, lagging: Service) -> None:
    here = world()
    drain, acked_count, readings = Drain(here), 0, []
    with (
        closing(Queue(monkeypatch, lagging)) as queue,
        closing(GoogleBacklogReader(queue.project, here.clock, emulator_host=lagging.grpc)) as reader,
    ):
        outside = replace(here.outside, backlog=reader)
        for step in range(4 * 14):
            moved = httpx.post(f"{lagging.http}/clock/advance", json={"seconds": STEP_S}).json()["now"]
            here.clock.advance(moved - here.clock.now())
            now = here.clock.now()
            due_count = BACKLOG - drain.undelivered(now) - acked_count
            queue.take(due_count)
            acked_count += due_count
            drain.write_progress(now)
            if step % 4 == 3:
                readings.append(tick(lane(), outside).decision.reading)
                drain.adopt()
    assert drain.undelivered(here.clock.now()) == 0
    assert sum(request.task_count for _, request in here.runner.requests) == 100
    lagged = [one for one in readings if isinstance(one, Value)]
    assert lagged[0].undelivered_count == BACKLOG
    assert lagged[-1].undelivered_count == 0
