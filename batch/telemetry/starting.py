"""Turns telemetry on: which exporters, what the process says of itself, which attempts may begin a trace. Imports no library by itself."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import SystemRandom
from typing import TYPE_CHECKING

from batch.model.clock import Clock
from batch.model.errors import SettingsError
from batch.services.ports import Subscription, Topic
from batch.settings import WorkerSettings
from batch.telemetry.measured import AsyncTopic, MeasuredAsyncTopic, MeasuredSubscription, MeasuredTopic
from batch.telemetry.measures import Measures
from batch.telemetry.ports import AttemptWatch, ServiceWatch

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter

    from batch.telemetry.exporting import Exporter, Exports

SAMPLER = "OTEL_TRACES_SAMPLER"
SAMPLERS = (
    "always_on",
    "always_off",
    "parentbased_always_on",
    "parentbased_always_off",
    "traceidratio",
    "parentbased_traceidratio",
)
PROTOCOL, PROTOCOLS = "OTEL_EXPORTER_OTLP_PROTOCOL", ("http/protobuf",)
END_S = 2.0
"""What the last export of a service may take: a signal leaves 10 s for everything."""


@dataclass(frozen=True, slots=True)
class Telemetry:
    """What a process with telemetry has."""

    provider: TracerProvider
    measures: Measures
    exports: Exports

    def end(self, within_s: float = END_S) -> None:
        """The last export, which is waited for no longer than this."""
        self.exports.end(within_s)


@dataclass(frozen=True, slots=True)
class Watched:
    """What a process uses, as it is without telemetry, else measured."""

    telemetry: Telemetry | None
    clock: Clock

    def subscription(self, one: Subscription) -> Subscription:
        return one if self.telemetry is None else MeasuredSubscription(one, self.telemetry.measures, self.clock)

    def topic(self, one: Topic) -> Topic:
        return one if self.telemetry is None else MeasuredTopic(one, self.telemetry.measures, self.clock)

    def async_topic(self, one: AsyncTopic) -> AsyncTopic:
        return one if self.telemetry is None else MeasuredAsyncTopic(one, self.telemetry.measures, self.clock)

    def attempts(self, subscription: Subscription, lane: str, roots: bool) -> AttemptWatch | None:
        """For a worker; `roots` as `begins_traces` says."""
        if self.telemetry is None:
            return None
        from batch.telemetry.spans import AttemptSpans

        return AttemptSpans(
            self.telemetry.provider,
            self.telemetry.measures,
            lane=lane,
            subscription=subscription.name,
            topic=lambda: subscription.info.topic,
            roots=roots,
        )

    def service(self) -> ServiceWatch | None:
        """For a service."""
        if self.telemetry is None:
            return None
        from batch.telemetry.spans import ServiceSpans

        return ServiceSpans(self.telemetry.provider)


@dataclass(frozen=True, slots=True)
class Who:
    """What a process says of itself. `instance` is another one for each process: Cloud Monitoring takes one writer a series. `common`
    attributes stand at each metric, `received` at those of a subscription. `begins_traces`: also where no context came."""

    service: str
    project: str
    instance: str
    resource: Mapping[str, str]
    common: Mapping[str, str]
    received: Mapping[str, str]
    begins_traces: bool = True


def started(kinds: Sequence[str], who: Who, environment: Mapping[str, str], clock: Clock, *, of_handlers: bool = False) -> Telemetry | None:
    """None when it is off (no `kinds`). `of_handlers`: what they make of spans is exported as well. Raises SettingsError."""
    if not kinds:
        return None
    if problems := _problems(environment):
        raise SettingsError(problems)
    from opentelemetry import trace

    telemetry = telemetry_of(who, [_MAKERS[kind](who.project) for kind in kinds], clock)
    # A module of handlers may have set one of its own when it was imported: then that one makes the handlers' spans. A service sets none:
    # FastAPI would make spans of its own for each request.
    if of_handlers and isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        trace.set_tracer_provider(telemetry.provider)
    telemetry.exports.start()
    return telemetry


def telemetry_of(who: Who, makers: Sequence[Callable[[], Exporter]], clock: Clock) -> Telemetry:
    """With these exporters, not yet started. What OTEL_RESOURCE_ATTRIBUTES and OTEL_SERVICE_NAME say of the process wins."""
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.sampling import DEFAULT_OFF

    from batch.telemetry.exporting import Exports
    from batch.telemetry.spans import Ids

    own = {"service.name": who.service, "service.namespace": "fanout", "service.instance.id": who.instance, **who.resource}
    resource = Resource.create({**{name: value for name, value in own.items() if value}, **OTELResourceDetector().detect().attributes})
    measures = Measures(who.common, who.received)
    exports = Exports(resource, measures, makers, clock)
    # Without a sampler the SDK takes that of OTEL_TRACES_SAMPLER.
    sampler = None if who.begins_traces else DEFAULT_OFF
    provider = TracerProvider(sampler=sampler, resource=resource, shutdown_on_exit=False, id_generator=Ids())
    provider.add_span_processor(exports)
    return Telemetry(provider, measures, exports)


def of_worker(settings: WorkerSettings, environment: Mapping[str, str]) -> Who:
    """A worker: one for each try of each index of an execution."""
    on_cloud_run = {
        "cloud.provider": "gcp",
        "cloud.platform": "gcp_cloud_run",
        "faas.name": settings.job,
        "gcp.cloud_run.job.execution": settings.execution,
        "gcp.cloud_run.job.task_index": str(settings.index),
    }
    resource = {"fanout.lane": settings.lane_name} | (on_cloud_run if "CLOUD_RUN_EXECUTION" in environment else {})
    common, received = {"fanout.lane": settings.lane_name}, {"messaging.destination.subscription.name": settings.subscription_name}
    instance = f"{settings.execution}/{settings.index}/{settings.retry}"
    return Who("fanout-worker", settings.project, instance, resource, common, received, begins_traces(environment))


def of_service(service: str, project: str, environment: Mapping[str, str]) -> Who:
    """A service: another one for each process, for several have one name."""
    name, revision = environment.get("K_SERVICE", ""), environment.get("K_REVISION", "")
    on_cloud_run = {"cloud.provider": "gcp", "cloud.platform": "gcp_cloud_run", "faas.name": name, "faas.version": revision}
    instance = f"{revision or service}/{SystemRandom().getrandbits(64):016x}"
    return Who(service, project, instance, on_cloud_run if name else {}, {}, {})


def begins_traces(environment: Mapping[str, str]) -> bool:
    """Whether attempts whose message names no context, and what their handlers do, may begin a trace: only where the sampler is set, or
    each message would."""
    return bool(environment.get(SAMPLER))


def _problems(environment: Mapping[str, str]) -> list[str]:
    """Those of OpenTelemetry's own variables which its SDK would pass over in silence, and sample all or nothing."""
    found = []
    for name, known in ((SAMPLER, SAMPLERS), (PROTOCOL, PROTOCOLS)):
        given = environment.get(name, "")
        if given and given.lower() not in known:
            near = difflib.get_close_matches(given.lower(), known, n=1)
            found.append(f"{name}={given!r}: one of {', '.join(known)}" + (f"; did you mean {near[0]}?" if near else ""))
    return found


def _otlp(_project: str) -> Callable[[], Exporter]:
    def make() -> Exporter:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        return OTLPSpanExporter(), OTLPMetricExporter()

    return make


def _google(project: str) -> Callable[[], Exporter]:
    def make() -> Exporter:
        from opentelemetry.exporter.cloud_monitoring import CloudMonitoringMetricsExporter
        from opentelemetry.exporter.cloud_trace import CloudTraceSpanExporter

        spans: SpanExporter = CloudTraceSpanExporter(project)  # type: ignore[no-untyped-call]
        return spans, CloudMonitoringMetricsExporter(project)

    return make


_MAKERS = {"otlp": _otlp, "google": _google}
