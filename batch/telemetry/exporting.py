"""The one thread that exports what spans and measures have gathered. Imported only when telemetry is on.

It never holds up work: spans that come faster than they can be exported are dropped and counted, an exporter that fails is logged once a
minute, and the end waits no longer than it is given. The SDK's own processors are not used: they begin threads in the copies of the process
that handlers fork, which would export the same series as the worker does, and their end waits as long as an exporter likes.
"""

from __future__ import annotations

import logging
import threading
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from math import inf
from typing import Any

from opentelemetry.sdk.metrics import export
from opentelemetry.sdk.metrics.export import AggregationTemporality, Metric, MetricExporter, MetricExportResult, MetricsData
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from batch.copies import copies
from batch.events import log
from batch.model.clock import Clock
from batch.model.errors import text_of
from batch.telemetry.measures import DESCRIPTIONS, Measures

SPANS_EVERY_S = 5.0
METRICS_EVERY_S = 30.0
APART_S = 5.0
"""Cloud Monitoring refuses a point of a series that comes sooner after the one before."""
TELL_EVERY_S = 60.0
MAX_WAITING = 4096
"""Spans that wait to be exported; more are dropped."""
AT_ONCE = 512
FAILED_END_S = 1.0
"""How long the end waits for an exporter that has failed before."""
Exporter = tuple[SpanExporter, MetricExporter]


class LastWord(logging.Handler):
    """What an exporter logs is the reason of `telemetry_failed`, not a line of its own for each try."""

    def __init__(self) -> None:
        super().__init__()
        self.text = ""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        self.text = f"{record.getMessage()}: {text_of(error)}" if error is not None else record.getMessage()


class Exports(SpanProcessor):
    """Gathers ended spans and exports them, and the measures, through each of its exporters."""

    def __init__(self, resource: Resource, measures: Measures, makers: Sequence[Callable[[], Exporter]], clock: Clock) -> None:
        """`makers` make the exporters, in the thread that uses them: a client takes long to import, and credentials may be missing."""
        self._resource, self._measures, self._makers, self._clock = resource, measures, makers, clock
        self._copy_count = copies.count
        self._exporters: list[Exporter] = []
        self._spans: deque[ReadableSpan] = deque()
        self._lost_count = 0
        self._wake, self._over = threading.Event(), threading.Event()
        self._began_ns = int(clock.now() * 1e9)
        self._told_s = self._exported_s = -inf
        self._has_exported = self._is_failing = False
        self._until_s = inf
        self._word = LastWord()
        self._thread = threading.Thread(target=self._run, name="telemetry", daemon=True)

    def on_end(self, span: ReadableSpan) -> None:
        """From any thread, and at once. Not in copies of the process: nobody exports there."""
        if not span.context.trace_flags.sampled or copies.count != self._copy_count:
            return
        if len(self._spans) >= MAX_WAITING:
            self._lost_count += 1
            return
        self._spans.append(span)
        if len(self._spans) >= AT_ONCE:
            self._wake.set()

    def start(self) -> None:
        exporters = logging.getLogger("opentelemetry.exporter")
        exporters.propagate, exporters.handlers = False, [self._word]
        self._thread.start()

    def end(self, within_s: float) -> None:
        """Export what is left, and wait for that no longer than this."""
        within_s = min(within_s, FAILED_END_S) if self._is_failing else within_s
        self._until_s = self._clock.monotonic() + within_s
        self._over.set()
        self._wake.set()
        self._thread.join(within_s)
        if self._thread.is_alive():
            log("telemetry_failed", f"telemetry failed: its last export did not end in {within_s:g} s", error=self._word.text)

    # --- the thread

    def _run(self) -> None:
        self._exported_s = self._clock.monotonic()
        while not self._over.is_set():
            self._clock.wait(self._wake, SPANS_EVERY_S)
            if self._over.is_set():
                break
            self._wake.clear()
            self._export_spans()
            if self._clock.monotonic() - self._exported_s >= METRICS_EVERY_S:
                self._export_metrics()
        self._export_spans()
        wait_s = self._exported_s + APART_S - self._clock.monotonic() if self._has_exported else 0.0
        if 0 < wait_s < self._until_s - self._clock.monotonic():
            self._clock.wait(threading.Event(), wait_s)
        self._export_metrics()

    def _made(self) -> Sequence[Exporter]:
        """The exporters, made when there is something to export. None where one cannot be made: the work goes on without them."""
        if not self._exporters and self._makers:
            makers, self._makers = self._makers, ()
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", DeprecationWarning)  # Google's exporters say so when they are made
                    self._exporters = [make() for make in makers]
            except Exception as error:  # noqa: BLE001 - whatever an exporter needs and does not find
                self._tell(f"no exporter could be made: {text_of(error)}", 0)
        return self._exporters

    def _export_spans(self) -> None:
        while self._spans:
            chunk = [self._spans.popleft() for _ in range(min(AT_ONCE, len(self._spans)))]
            failed = [self._failed(spans.export, chunk, SpanExportResult.SUCCESS) for spans, _ in self._made()]
            if any(failed):
                self._tell("spans could not be exported", len(chunk))
        if self._lost_count:
            lost_count, self._lost_count = self._lost_count, 0
            self._tell("more spans came than could be exported", lost_count)

    def _export_metrics(self) -> None:
        data = self._metrics()
        self._exported_s = self._clock.monotonic()
        if data is not None:
            self._has_exported = True
            failed = [self._failed(metrics.export, data, MetricExportResult.SUCCESS) for _, metrics in self._made()]
            if any(failed):
                self._tell("metrics could not be exported; they are cumulative, the next export has them too", 0)

    def _failed(self, call: Callable[[Any], object], what: Any, success: object) -> bool:
        try:
            self._is_failing = call(what) is not success
        except Exception as error:  # noqa: BLE001 - an exporter may raise what it likes
            self._word.text, self._is_failing = text_of(error), True
        return self._is_failing

    def _tell(self, what: str, span_count: int) -> None:
        now_s = self._clock.monotonic()
        if now_s - self._told_s >= TELL_EVERY_S:
            self._told_s = now_s
            why = f": {self._word.text}" if self._word.text else ""
            log("telemetry_failed", f"telemetry failed: {what}{why}", error=self._word.text, span_count=span_count)

    def _metrics(self) -> MetricsData | None:
        """All measures as the SDK's values; None while there are none."""
        counters, histograms = self._measures.values()
        now_ns = int(self._clock.now() * 1e9)
        times: dict[str, Any] = {"start_time_unix_nano": self._began_ns, "time_unix_nano": now_ns}
        sums: dict[str, list[Any]] = {}
        distributions: dict[str, list[Any]] = {}
        for (name, attributes), count in counters.items():
            sums.setdefault(name, []).append(export.NumberDataPoint(attributes=dict(attributes), value=count, **times))
        for (name, attributes), one in histograms.items():
            point = export.HistogramDataPoint(
                attributes=dict(attributes),
                count=one.count,
                sum=one.total,
                bucket_counts=one.counts,
                explicit_bounds=one.bounds,
                min=one.least,
                max=one.most,
                **times,
            )
            distributions.setdefault(name, []).append(point)
        cumulative = AggregationTemporality.CUMULATIVE
        found: list[tuple[str, Any]] = [(name, export.Sum(points, cumulative, is_monotonic=True)) for name, points in sums.items()]
        found += [(name, export.Histogram(points, cumulative)) for name, points in distributions.items()]
        if not found:
            return None
        metrics = [Metric(name, DESCRIPTIONS[name][1], DESCRIPTIONS[name][0], data) for name, data in found]
        scope = export.ScopeMetrics(InstrumentationScope("fanout"), metrics, "")
        return MetricsData([export.ResourceMetrics(self._resource, [scope], "")])
