"""One trace over process boundaries: a client's request, the front door's publish, the handler's attempt, and what the handler adds to it,
as a collector gets them; without one, work goes on as if telemetry were off."""

from __future__ import annotations

import json
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.e2e.site import ROOT, Site
from tests.e2e.test_first_recipe import front_door
from tests.support import Service, wait_until

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
HANDLERS = """
from opentelemetry import trace
from batch import task

@task("thumbnail")
def thumbnail(task, ctx):
    with trace.get_tracer("mine").start_as_current_span("resize"):
        ctx.log.info("resizes")

@task("alone", isolation="process")
def alone(task, ctx):
    ctx.log.info("runs alone")
    return ctx.traceparent
"""


class Collector:
    """An OTLP receiver: what it got, as the protocol's own messages."""

    def __init__(self) -> None:
        self.spans: list[tuple[dict[str, str], Any]] = []
        self.metrics: list[tuple[dict[str, str], Any]] = []
        collector = self

        class Receiver(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                collector.take(self.path, body)
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def take(self, path: str, body: bytes) -> None:
        if path == "/v1/traces":
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                self.spans += [(plain(resource.resource), span) for scope in resource.scope_spans for span in scope.spans]
        elif path == "/v1/metrics":
            for of in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                self.metrics += [(plain(of.resource), metric) for scope in of.scope_metrics for metric in scope.metrics]

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def plain(resource: Any) -> dict[str, str]:
    return {one.key: one.value.string_value for one in resource.attributes}


@pytest.fixture
def collector() -> Iterator[Collector]:
    with closing(Collector()) as made:
        yield made


@pytest.fixture
def site(project: str, local_storage: Service, local_pubsub: Service) -> Iterator[Site]:
    made = Site(project, local_pubsub.grpc, local_storage.http)
    yield made
    made.close()


def worker(folder: Path, **more: object) -> dict[str, object]:
    (folder / "traced.py").write_text(HANDLERS)
    own = {"HANDLERS": "traced", "PYTHONPATH": f"{folder}:{ROOT}", "DRAIN_AFTER_S": "0.3", "BILLING_FLOOR_S": 0, "PROCESSES": 1}
    return {**own, "TELEMETRY": "otlp", **more}


@pytest.mark.slow
def test_from_a_request_to_its_handler_is_one_trace(site: Site, collector: Collector, tmp_path: Path) -> None:
    given = worker(tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url)
    door = front_door(site, **{name: str(given[name]) for name in ("HANDLERS", "PYTHONPATH", "TELEMETRY", "OTEL_EXPORTER_OTLP_ENDPOINT")})
    url = next(door)
    for kind, flag in (("thumbnail", "01"), ("alone", "01"), ("thumbnail", "00")):
        headers = {"traceparent": f"00-{TRACE}-{PARENT}-{flag}"}
        answer = httpx.post(f"{url}/submit-task", json={"task_type": kind}, headers=headers, timeout=30)
        assert answer.status_code == 200, answer.text
    next(door, None)
    end = site.run(**given)
    assert (end.code, end.summary["succeeded"]) == (0, 3), end.text
    spans = {span.span_id.hex(): span for _, span in collector.spans}
    assert {span.trace_id.hex() for span in spans.values()} == {TRACE}
    roots = [span for span in spans.values() if span.parent_span_id.hex() == PARENT]
    assert [span.name for span in roots] == ["POST /submit-task"] * 2
    ways = []
    for leaf in spans.values():
        way, one = [leaf.name], leaf
        while (parent := spans.get(one.parent_span_id.hex())) is not None:
            way, one = [parent.name, *way], parent
        ways.append(way)
    assert ["POST /submit-task", "send lane", "process thumbnail", "resize"] in ways
    assert ["POST /submit-task", "send lane", "process alone"] in ways
    services = {(resource["service.name"], span.name.split()[0]) for resource, span in collector.spans}
    assert services == {("fanout-intake", "POST"), ("fanout-intake", "send"), ("fanout-worker", "process"), ("fanout-worker", "resize")}
    check_lines(end.lines, spans, site.project)
    check_metrics(collector)


def check_lines(lines: list[dict[str, Any]], spans: dict[str, Any], project: str) -> None:
    """Also of a child: its record names the span that the worker has made."""
    for message, name in (("resizes", "process thumbnail"), ("runs alone", "process alone")):
        said = [line for line in lines if line["message"] == message]
        assert {line["logging.googleapis.com/trace"] for line in said} == {f"projects/{project}/traces/{TRACE}"}
        named = [spans[span_id].name for line in said if (span_id := line.get("logging.googleapis.com/spanId"))]
        assert named == [name]


def check_metrics(collector: Collector) -> None:
    sums = {
        (resource["service.name"], metric.name): sum(point.as_int for point in metric.sum.data_points)
        for resource, metric in collector.metrics
        if metric.HasField("sum")
    }
    assert sums["fanout-intake", "messaging.client.sent.messages"] == 3
    assert sums["fanout-worker", "messaging.client.consumed.messages"] == 3
    (process,) = [metric for _, metric in collector.metrics if metric.name == "messaging.process.duration"]
    counts = {
        next(one.value.string_value for one in point.attributes if one.key == "fanout.task.type"): point.count
        for point in process.histogram.data_points
    }
    assert counts == {"thumbnail": 2, "alone": 1}


@pytest.mark.slow
@pytest.mark.parametrize("hangs", [False, True])
def test_without_a_collector_the_drain_is_as_ever_and_one_line_says_so(site: Site, tmp_path: Path, hangs: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        if not hangs:
            silent.close()
        for number in range(5):
            attributes = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
            site.publish_raw(json.dumps({"task_id": f"t-{number}", "task_type": "thumbnail"}).encode(), **attributes)
        end = site.run(**worker(tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=f"http://{address}"))
    assert (end.code, end.summary["succeeded"], end.summary["exit_reason"]) == (0, 5, "drained"), end.text
    assert len(end.events("telemetry_failed")) == 1


@pytest.mark.slow
def test_a_signal_still_exports(site: Site, collector: Collector, tmp_path: Path) -> None:
    process = site.start(**worker(tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, DRAIN_AFTER_S=60, OTEL_TRACES_SAMPLER="always_on"))
    site.publish_raw(json.dumps({"task_id": "t-1", "task_type": "thumbnail"}).encode())
    final = {"succeeded": 1}
    wait_until(lambda: site.final() == final, 60, "the task's outcome")
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    assert [span.name for _, span in collector.spans] == ["resize", "process thumbnail"]
    assert {metric.name for _, metric in collector.metrics} >= {"messaging.process.duration", "messaging.client.consumed.messages"}


@pytest.mark.slow
def test_what_is_wrong_with_the_settings_is_told_before_anything_is_pulled(site: Site, tmp_path: Path) -> None:
    end = site.run(**worker(tmp_path, TELEMETRY="oltp"))
    assert (end.code, "did you mean otlp?" in end.text) == (2, True)
    end = site.run(**worker(tmp_path, OTEL_TRACES_SAMPLER="parentbased_traceidratoi"))
    assert (end.code, "did you mean parentbased_traceidratio?" in end.text) == (2, True)
