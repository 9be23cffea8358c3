"""The process as a whole: Pub/Sub, Monitoring and the HTTP side, through the real clients."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from google.api.metric_pb2 import MetricDescriptor
from google.api_core import exceptions
from google.cloud.monitoring_v3 import MetricServiceClient
from google.cloud.monitoring_v3.services.metric_service.transports import MetricServiceGrpcTransport
from google.cloud.monitoring_v3.types import ListTimeSeriesRequest
from google.pubsub_v1 import PublisherClient, SubscriberClient
from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport

UNDELIVERED = "pubsub.googleapis.com/subscription/num_undelivered_messages"
OLDEST_AGE = "pubsub.googleapis.com/subscription/oldest_unacked_message_age"
ACKED = "pubsub.googleapis.com/subscription/ack_message_count"
_projects = itertools.count(1)


@dataclass
class Process:
    """A server process and clients of it. `now_s` is the process's own time."""

    channel: Any
    http: httpx.Client

    def now_s(self) -> float:
        return float(self.http.get("/clock").json()["now"])

    def advance(self, seconds: float) -> None:
        self.http.post("/clock/advance", json={"seconds": seconds}).raise_for_status()

    def put(self, **body: Any) -> httpx.Response:
        return self.http.put("/gauges", json=body)

    def series(self, project: str, metric: str = UNDELIVERED, more: str = "", **request: Any) -> list[Any]:
        client = MetricServiceClient(transport=MetricServiceGrpcTransport(channel=self.channel))
        now_s = self.now_s()
        interval = {"start_time": {"seconds": int(now_s) - 300}, "end_time": {"seconds": int(now_s), "nanos": int(now_s % 1 * 1e9)}}
        asked = {"name": f"projects/{project}", "filter": f'metric.type="{metric}"{more}', "interval": interval, **request}
        return list(client.list_time_series(request=asked, timeout=10, retry=None))

    def queue(self, project: str, name: str, count: int) -> None:
        publisher = PublisherClient(transport=PublisherGrpcTransport(channel=self.channel))
        subscriber = SubscriberClient(transport=SubscriberGrpcTransport(channel=self.channel))
        topic = f"projects/{project}/topics/{name}"
        publisher.create_topic(name=topic)
        subscriber.create_subscription(name=f"projects/{project}/subscriptions/{name}", topic=topic)
        publisher.publish(topic=topic, messages=[{"data": b"x"}] * count)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Process]]:
    """Start server processes with options of the command line; they end when their standard input is closed."""
    running: list[tuple[subprocess.Popen[str], Process]] = []

    def run(*options: str) -> Process:
        state: Path = tmp_path_factory.mktemp("state")
        command = [sys.executable, "-W", "error", "-m", "local_cloud.pubsub", "--state-dir", str(state), "--exit-with-stdin", *options]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        assert ready["service"] == "pubsub"
        client = Process(grpc.insecure_channel(ready["grpc"]), httpx.Client(base_url=ready["http"]))
        running.append((process, client))
        return client

    yield run
    for process, client in running:
        client.http.close()
        client.channel.close()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        assert process.wait(60) == 0
        assert process.stdout.read() == ""
        process.stdout.close()


@pytest.fixture(scope="module")
def usual(start: Callable[..., Process]) -> Process:
    """With the periods of the real service."""
    return start()


@pytest.fixture(scope="module")
def quick(start: Callable[..., Process]) -> Process:
    return start("--sample-period-s", "0", "--visibility-lag-s", "0")


@pytest.fixture
def project() -> str:
    return f"project-{next(_projects)}"


def _values(series: Any) -> list[int]:
    return [point.value.int64_value for point in series.points]


def test_a_point_is_seen_a_lag_after_its_sample(usual: Process, project: str) -> None:
    # Half a period away from the next sample, real time cannot add one during the test.
    usual.advance(90 - usual.now_s() % 60)
    usual.queue(project, "tasks", 12)
    usual.advance(60)
    assert usual.series(project) == []
    usual.advance(120)
    (series,) = usual.series(project)
    assert (series.metric.type, series.resource.type) == (UNDELIVERED, "pubsub_subscription")
    assert dict(series.resource.labels) == {"project_id": project, "subscription_id": "tasks"}
    assert (series.metric_kind, series.value_type) == (MetricDescriptor.GAUGE, MetricDescriptor.INT64)
    (point,) = series.points
    assert (point.value.int64_value, point.interval.start_time) == (12, point.interval.end_time)
    assert point.interval.end_time.timestamp() % 60 == 0
    assert 120 <= usual.now_s() - point.interval.end_time.timestamp() < 190
    usual.advance(60)
    (series,) = usual.series(project, OLDEST_AGE)
    newest, older = _values(series)
    assert newest - older == 60
    assert series.points[0].interval.end_time > series.points[1].interval.end_time


def test_without_period_and_lag_a_reader_sees_the_present(quick: Process, project: str) -> None:
    quick.queue(project, "tasks", 3)
    (series,) = quick.series(project)
    assert _values(series)[0] == 3


def test_filters_select_subscriptions_and_refuse_the_rest(quick: Process, project: str) -> None:
    for name in ("aaa", "bbb", "ccc"):
        quick.queue(project, name, 1)
    wanted = ' AND resource.type="pubsub_subscription" AND resource.labels.subscription_id = one_of("aaa","ccc")'
    assert [series.resource.labels["subscription_id"] for series in quick.series(project, more=wanted)] == ["aaa", "ccc"]
    with pytest.raises(exceptions.InvalidArgument, match="group"):
        quick.series(project, more=' AND group.id="x"')
    with pytest.raises(exceptions.InvalidArgument, match="aggregation"):
        quick.series(project, aggregation={"alignment_period": {"seconds": 60}})


def test_pages_of_points(quick: Process, project: str) -> None:
    now_s = quick.now_s()
    for age_s in range(5):
        quick.put(project=project, subscription="elsewhere", num_undelivered_messages=age_s, sampled_at=now_s - age_s)
    collected = [value for series in quick.series(project, page_size=2) for value in _values(series)]
    assert collected == [0, 1, 2, 3, 4]
    with pytest.raises(exceptions.InvalidArgument, match="page_token"):
        quick.series(project, page_token="mine")


def test_the_headers_view_has_no_points(quick: Process, project: str) -> None:
    quick.queue(project, "tasks", 1)
    (series,) = quick.series(project, view=ListTimeSeriesRequest.TimeSeriesView.HEADERS)
    assert not series.points


def test_only_points_within_the_interval(usual: Process, project: str) -> None:
    now_s = usual.now_s()
    for age_s in (10, 299, 310):
        usual.put(project=project, subscription="elsewhere", num_undelivered_messages=age_s, sampled_at=now_s - age_s)
    (series,) = usual.series(project)
    assert _values(series) == [10, 299]
    with pytest.raises(exceptions.InvalidArgument, match="end_time"):
        usual.series(project, interval={})


def test_an_interval_begins_just_after_its_start(usual: Process, project: str) -> None:
    second = int(usual.now_s()) - 100
    usual.put(project=project, subscription="elsewhere", num_undelivered_messages=7, sampled_at=second)

    def found(start: int, end: int) -> list[list[int]]:
        interval = {"start_time": {"seconds": start}, "end_time": {"seconds": end}}
        return [_values(series) for series in usual.series(project, interval=interval)]

    assert found(second, second + 10) == []
    assert found(second - 10, second) == [[7]]
    assert found(second, second) == [[7]]


def test_a_second_point_of_the_same_moment_takes_the_place_of_the_first(usual: Process, project: str) -> None:
    moment_s = usual.now_s() - 100
    for count in (7, 8):
        usual.put(project=project, subscription="elsewhere", num_undelivered_messages=count, sampled_at=moment_s)
    assert [_values(series) for series in usual.series(project)] == [[8]]


def test_a_point_by_hand_is_seen_at_once(usual: Process, project: str) -> None:
    body = {"project": project, "subscription": "elsewhere", "num_undelivered_messages": 7, "oldest_unacked_message_age": 3.5}
    assert usual.put(**body).status_code == 200
    assert [_values(series) for series in usual.series(project)] == [[7]]
    assert [_values(series) for series in usual.series(project, OLDEST_AGE)] == [[3]]


def test_what_was_acknowledged_in_a_minute_is_a_delta(usual: Process, project: str) -> None:
    minute_s = usual.now_s() // 60 * 60 - 120
    for number, count in enumerate((40, 2)):
        body = {"num_undelivered_messages": 7, "ack_message_count": count, "sampled_at": minute_s + 60 * number}
        assert usual.put(project=project, subscription="elsewhere", **body).status_code == 200
    (series,) = usual.series(project, ACKED)
    assert (series.metric_kind, series.value_type) == (MetricDescriptor.DELTA, MetricDescriptor.INT64)
    assert _values(series) == [2, 40]
    assert [point.interval.end_time.timestamp() - point.interval.start_time.timestamp() for point in series.points] == [60, 60]


def test_a_series_vanishes_and_comes_back(usual: Process, project: str) -> None:
    usual.put(project=project, subscription="elsewhere", num_undelivered_messages=7)
    usual.put(project=project, subscription="elsewhere", absent=True)
    assert usual.series(project) == []
    usual.put(project=project, subscription="elsewhere", absent=False)
    assert len(usual.series(project)) == 1


def test_reading_fails_for_a_project_until_it_does_not(usual: Process, project: str) -> None:
    usual.put(project=project, error="UNAVAILABLE")
    with pytest.raises(exceptions.ServiceUnavailable, match=project):
        usual.series(project)
    assert usual.series(f"{project}-other") == []
    usual.put(project=project, error=None)
    assert usual.series(project) == []


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"project": "p", "subscription": "s"},
        {"project": "p", "subscription": "s", "num_undelivered_messages": -1},
        {"project": "p", "subscription": "s", "num_undelivered_messages": 1, "lag": 2},
        {"project": "p", "subscription": "s", "absent": "yes"},
        {"project": "p", "error": "BROKEN"},
        {"project": "p", "subscription": "s", "num_undelivered_messages": 10**20},
        {"project": "p", "subscription": "s", "num_undelivered_messages": 1.5},
        {"project": "p", "subscription": "s", "num_undelivered_messages": True},
        {"project": "p", "subscription": "s", "num_undelivered_messages": float("inf")},
        {"project": "p", "subscription": "s", "num_undelivered_messages": 1, "oldest_unacked_message_age": float("nan")},
        {"project": "p", "subscription": "s", "num_undelivered_messages": 1, "oldest_unacked_message_age": 1e300},
        {"project": "p", "subscription": "s", "num_undelivered_messages": 1, "sampled_at": float("nan")},
        {"project": "p", "subscription": "s", "num_undelivered_messages": 1, "sampled_at": 1e15},
        {"project": "p", "subscription": "s", "num_undelivered_messages": 1, "sampled_at": None},
        ["p"],
        None,
    ],
)
def test_a_bad_gauge_is_refused(usual: Process, body: Any) -> None:
    # Not through httpx's own JSON, which knows no NaN.
    answer = usual.http.put("/gauges", content=json.dumps(body))
    assert answer.status_code == 400
    assert answer.json()["error"].startswith("PUT /gauges: ")


def test_health_shows_backlogs(quick: Process, project: str) -> None:
    quick.queue(project, "tasks", 4)
    seen = quick.http.get("/").json()
    assert seen["status"] == "ok"
    (mine,) = [entry for entry in seen["subscriptions"] if entry["project"] == project]
    assert (mine["subscription"], mine["backlog"], mine["outstanding"]) == ("tasks", 4, 0)
