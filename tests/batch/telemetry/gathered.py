"""Telemetry whose exporters keep what they get."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult, MetricsData, NumberDataPoint
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import format_span_id, format_trace_id

from batch.model.clock import Clock, SystemClock
from batch.telemetry.exporting import Exporter
from batch.telemetry.spans import AttemptSpans, ServiceSpans
from batch.telemetry.starting import Telemetry, Who, telemetry_of

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
SAMPLED, UNSAMPLED = f"00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-00"
WHO = Who("fanout-worker", "p", "lane-x/0/0", {"fanout.lane": "lane"}, {"fanout.lane": "lane"}, {})


class Metrics(MetricExporter):
    def __init__(self) -> None:
        super().__init__()
        self.got: list[MetricsData] = []

    def export(self, metrics_data: MetricsData, timeout_millis: float = 0, **_: Any) -> MetricExportResult:
        self.got.append(metrics_data)
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis: float = 0) -> bool:
        return True

    def shutdown(self, timeout_millis: float = 0, **_: Any) -> None:
        return

    def values(self) -> dict[str, list[tuple[dict[str, Any], Any]]]:
        """Of the last export: attributes and value (of a histogram the count) by name."""
        (resource,) = self.got[-1].resource_metrics
        return {
            metric.name: [
                (dict(point.attributes or {}), point.value if isinstance(point, NumberDataPoint) else point.count)
                for point in metric.data.data_points
            ]
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }


class Failing(SpanExporter):
    """A collector that is down, or that answers nothing until `free` is set."""

    def __init__(self, free: threading.Event | None = None) -> None:
        self._free = free
        self.calls = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.calls += 1
        if self._free is not None:
            self._free.wait(60)
        raise ConnectionRefusedError("nobody listens")


class Gathered:
    def __init__(self, clock: Clock | None = None, spans: SpanExporter | None = None) -> None:
        self.clock = clock or SystemClock()
        self.memory, self.metrics = InMemorySpanExporter(), Metrics()
        exporter: Exporter = (spans or self.memory, self.metrics)
        self.telemetry: Telemetry = telemetry_of(WHO, [lambda: exporter], self.clock)

    def attempts(self, *, roots: bool = False) -> AttemptSpans:
        topic = "projects/p/topics/lane"
        own = {"lane": "lane", "subscription": "lane", "topic": lambda: topic, "roots": roots}
        return AttemptSpans(self.telemetry.provider, self.telemetry.measures, **own)  # type: ignore[arg-type]

    def service(self) -> ServiceSpans:
        return ServiceSpans(self.telemetry.provider)

    def spans(self) -> list[ReadableSpan]:
        """All that have ended, in that order."""
        self.telemetry.exports.start()
        self.telemetry.end()
        return list(self.memory.get_finished_spans())


def ids(span: ReadableSpan) -> tuple[str, str, str]:
    """Trace, span and parent."""
    return (
        format_trace_id(span.context.trace_id),
        format_span_id(span.context.span_id),
        format_span_id(span.parent.span_id) if span.parent else "",
    )
