"""The local cloud's record of who made which call on what."""

from __future__ import annotations

import json
import tomllib
import urllib.error
import urllib.request
from contextlib import closing
from pathlib import Path
from typing import Any

import grpc
import pytest
from google import pubsub_v1
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport

from batch.model.delivery import Outgoing
from batch.model.errors import ObjectMissing
from batch.services import calls
from batch.services.objects import GoogleObjectStore
from batch.services.topic import GoogleTopic
from controller.observe.backlog import monitoring_client, timestamp
from controller.observe.google_jobs import GoogleJobRunner
from tests.support import Service


def calls_at(service: Service, project: str, method: str = "GET") -> set[tuple[str, str, str]]:
    request = urllib.request.Request(f"{service.http}/calls?project={project}", method=method)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return {(one["role"], one["method"], one["resource"]) for one in json.load(answer)["calls"]}


@pytest.fixture
def as_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls.role, "name", "worker")


def test_a_call_of_pubsub_is_recorded_with_who_made_it(
    project: str, local_pubsub: Service, monkeypatch: pytest.MonkeyPatch, as_worker: None
) -> None:
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", local_pubsub.grpc)
    channel = grpc.insecure_channel(local_pubsub.grpc)
    path = f"projects/{project}/topics/tasks"
    publisher = pubsub_v1.PublisherClient(
        transport=pubsub_v1.services.publisher.transports.PublisherGrpcTransport(channel=channel, client_info=calls.client_info())
    )
    publisher.create_topic(name=path)
    with closing(GoogleTopic(project, "tasks")) as topic:
        topic.publish([Outgoing(b"x", {})] * 3)
        topic.publish([Outgoing(b"x", {})])
    assert calls_at(local_pubsub, project) == {("worker", "pubsub.CreateTopic", "topic:tasks"), ("worker", "pubsub.Publish", "topic:tasks")}
    others: Any = pubsub_v1.SubscriberClient(transport=SubscriberGrpcTransport(channel=channel))
    list(others.list_subscriptions(project=f"projects/{project}"))
    assert len(calls_at(local_pubsub, project)) == 2
    channel.close()


def test_a_call_of_monitoring_and_run_is_recorded(project: str, local_pubsub: Service, local_run: Service, as_worker: None) -> None:
    client = monitoring_client(local_pubsub.grpc)
    wanted = 'metric.type="pubsub.googleapis.com/subscription/num_undelivered_messages"'
    interval = {"start_time": timestamp(1.0), "end_time": timestamp(2.0)}
    list(client.list_time_series(request={"name": f"projects/{project}", "filter": wanted, "interval": interval}))
    client.transport.close()
    assert calls_at(local_pubsub, project) == {("worker", "monitoring.ListTimeSeries", "project")}
    with closing(GoogleJobRunner(project, "us-central1", emulator_url=local_run.http)) as runner:
        runner.jobs()
        runner.execution(f"projects/{project}/locations/us-central1/jobs/j/executions/e")
    assert calls_at(local_run, project) == {("worker", "run.jobs.list", "project"), ("worker", "run.executions.get", "job:j")}


def test_calls_of_the_storage_that_need_more_are_told_apart(
    project: str, local_storage: Service, monkeypatch: pytest.MonkeyPatch, as_worker: None
) -> None:
    bucket = f"b-{project}"
    body = json.dumps({"name": bucket}).encode()
    urllib.request.urlopen(f"{local_storage.http}/storage/v1/b?project={project}", body, timeout=60).close()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", local_storage.http)
    with closing(GoogleObjectStore(bucket, project=project)) as store:
        store.write("o", b"1", if_generation=0)
        store.write("o", b"2")
        store.read("o")
        with pytest.raises(ObjectMissing):
            store.read("other")
    methods = {"objects.insert new", "objects.insert", "objects.get", "objects.get missing"}
    expected = {("worker", f"storage.{method}", f"bucket:{bucket}") for method in methods}
    assert calls_at(local_storage, project) == expected
    assert calls_at(local_storage, project, "DELETE") == expected
    assert calls_at(local_storage, project) == set()


def test_whose_calls_is_to_be_said(local_run: Service) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"{local_run.http}/calls", timeout=60)
    with caught.value as refused:
        assert (refused.code, "/calls?project=P" in refused.read().decode()) == (400, True)


def test_the_version_is_the_distributions() -> None:
    found = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))
    assert found["project"]["version"] == calls.VERSION
