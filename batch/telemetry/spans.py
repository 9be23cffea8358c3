"""Spans by OpenTelemetry's conventions for messaging and HTTP. Imported only when telemetry is on.

The span of an attempt is a child of the span that published its message, and links it: as a child it has the trace that the message's log
lines and outcome name, from the request to the last attempt; the link is what the conventions ask for.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, SpanKind, StatusCode, TraceFlags, Tracer

from batch.logs import TRACEPARENT, traceparent_in
from batch.model.delivery import GOOGLE_TRACEPARENT, Delivery
from batch.telemetry.measures import SYSTEM, Measures
from batch.telemetry.ports import AttemptSpan

SCOPE = "fanout"
SAMPLED = frozenset("13579bdf")
"""The last digit of the flags of a context that is sampled."""
FLAGS = slice(54, 55)
KNOWN_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"})
CAME_THROUGH = frozenset({"returned", "superseded", "cancelled", "snoozed"})
"""Answers of a handler that are no error."""


class Ids(IdGenerator):
    """Never the global generator: a handler may seed it, and then all workers would make the same ids."""

    def __init__(self) -> None:
        self._rng = random.SystemRandom()

    def generate_span_id(self) -> int:
        return self._rng.getrandbits(64) or 1

    def generate_trace_id(self) -> int:
        return self._rng.getrandbits(128) or 1

    def is_trace_id_random(self) -> bool:
        return True


def context_of(traceparent: str) -> SpanContext:
    """Of a well-formed one."""
    _, trace_id, span_id, flags = traceparent.split("-")
    return SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16)))


def traceparent_of(span: Span) -> str:
    """A span's context in the W3C's form."""
    own = span.get_span_context()
    return f"00-{own.trace_id:032x}-{own.span_id:016x}-{own.trace_flags:02x}"


def _under(parent: SpanContext) -> contexts.Context:
    return trace.set_span_in_context(NonRecordingSpan(parent), contexts.Context())


class _AttemptSpan:
    def __init__(self, span: Span) -> None:
        self.span = span
        self.traceparent = traceparent_of(span)

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        span = self.span

        def call(*arguments: Any) -> Any:
            contexts.attach(trace.set_span_in_context(span))
            return function(*arguments)

        return call


class AttemptSpans:
    """Implements `batch.telemetry.ports.AttemptWatch`. Where the messages' publishers have sampled nothing no span is made, nor where they
    name no context, unless `roots` says that such attempts may begin a trace: the sampler decides then."""

    def __init__(
        self, provider: TracerProvider, measures: Measures, *, lane: str, subscription: str, topic: Callable[[], str], roots: bool
    ) -> None:
        """`topic` gives the subscription's, empty while it is not known."""
        self._tracer: Tracer = provider.get_tracer(SCOPE)
        self._measures, self._topic, self._roots = measures, topic, roots
        self._attributes = {
            "messaging.system": SYSTEM,
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "messaging.destination.subscription.name": subscription,
            "fanout.lane": lane,
        }

    def begin(self, delivery: Delivery, task_id: str, task_type: str, number: int) -> AttemptSpan | None:
        attributes = delivery.attributes
        google, w3c = attributes.get(GOOGLE_TRACEPARENT), attributes.get(TRACEPARENT)
        if google is None and w3c is None:
            return self._begun("", delivery, task_id, task_type, number) if self._roots else None
        if (google is None or google[FLAGS] not in SAMPLED) and (w3c is None or w3c[FLAGS] not in SAMPLED) and not self._roots:
            return None
        given = traceparent_in(attributes)
        if given[FLAGS] in SAMPLED or (not given and self._roots):
            return self._begun(given, delivery, task_id, task_type, number)
        return None

    def _begun(self, traceparent: str, delivery: Delivery, task_id: str, task_type: str, number: int) -> AttemptSpan | None:
        own: dict[str, Any] = {
            **self._attributes,
            "messaging.destination.name": self._topic().rpartition("/")[2],
            "messaging.message.id": delivery.message_id,
            "messaging.message.body.size": len(delivery.data),
            "fanout.task.id": task_id,
            "fanout.task.type": task_type,
            "fanout.attempt": number,
        }
        if delivery.delivery_attempt:
            own["messaging.gcp_pubsub.message.delivery_attempt"] = delivery.delivery_attempt
        parent = context_of(traceparent) if traceparent else None
        span = self._tracer.start_span(
            f"process {task_type}",
            contexts.Context() if parent is None else _under(parent),
            SpanKind.CONSUMER,
            own,
            None if parent is None else [Link(parent)],
        )
        if not span.is_recording():
            return None
        begun = _AttemptSpan(span)
        if parent is None:  # so that log lines, outcome and dead letter name the trace that begins here
            delivery.attributes = {**delivery.attributes, TRACEPARENT: begun.traceparent}
        return begun

    def link(self, spans: Sequence[AttemptSpan]) -> None:
        first, *others = spans
        for one in others:
            _span(first).add_link(_span(one).get_span_context())

    def ended(
        self, task_type: str, answer: str, seconds: float, span: AttemptSpan | None, error_type: str = "", reason: str = "", stack: str = ""
    ) -> None:
        self._measures.ran(task_type, answer, seconds)
        if span is not None:
            _end(_span(span), answer, error_type, reason, stack)

    def ended_together(self, task_type: str, answer: str, seconds: float, count: int, spans: Sequence[AttemptSpan]) -> None:
        self._measures.ran(task_type, answer, seconds, count)
        for one in spans:
            _end(_span(one), answer)


def _span(one: AttemptSpan) -> Span:
    assert isinstance(one, _AttemptSpan), "made by `begin`"
    return one.span


def _end(span: Span, answer: str, error_type: str = "", reason: str = "", stack: str = "") -> None:
    span.set_attribute("fanout.answer", answer)
    if answer not in CAME_THROUGH:
        kind = error_type or answer
        span.set_attribute("error.type", kind)
        span.set_status(StatusCode.ERROR, reason)
        span.add_event("exception", {"exception.type": kind, "exception.message": reason, "exception.stacktrace": stack})
    span.end()


class _SendSpan:
    def __init__(self, span: Span) -> None:
        self._span = span
        traceparent = traceparent_of(span)
        self.attributes: Mapping[str, str] = {TRACEPARENT: traceparent, GOOGLE_TRACEPARENT: traceparent}

    def sent(self, message_id: str) -> None:
        self._span.set_attribute("messaging.message.id", message_id)


class _RequestSpan:
    def __init__(self, span: Span, method: str) -> None:
        self._span, self._method = span, method
        self.traceparent = traceparent_of(span)

    def end(self, status: int, route: str, error: BaseException | None = None) -> None:
        span = self._span
        if span.is_recording():
            if route:
                span.update_name(f"{self._method} {route}")
                span.set_attribute("http.route", route)
            if status:
                span.set_attribute("http.response.status_code", status)
            if error is not None:
                span.record_exception(error)
            if error is not None or status >= 500:
                span.set_attribute("error.type", type(error).__name__ if error is not None else str(status))
                span.set_status(StatusCode.ERROR)
        span.end()


class ServiceSpans:
    """Implements `batch.telemetry.ports.ServiceWatch`."""

    def __init__(self, provider: TracerProvider) -> None:
        self._tracer: Tracer = provider.get_tracer(SCOPE)

    def request(self, method: str, path: str, scheme: str, traceparent: str) -> _RequestSpan:
        known = method if method in KNOWN_METHODS else "HTTP"
        own = {"http.request.method": method if method in KNOWN_METHODS else "_OTHER", "url.path": path, "url.scheme": scheme}
        parent = _under(context_of(traceparent)) if traceparent else contexts.Context()
        return _RequestSpan(self._tracer.start_span(known, parent, SpanKind.SERVER, own), known)

    @contextmanager
    def sending(self, topic: str, attributes: Mapping[str, str], count: int = 1) -> Iterator[_SendSpan]:
        traceparent = traceparent_in(attributes)
        own: dict[str, Any] = {
            "messaging.system": SYSTEM,
            "messaging.operation.name": "send",
            "messaging.operation.type": "send",
            "messaging.destination.name": topic,
        }
        if count > 1:
            own["messaging.batch.message_count"] = count
        parent = _under(context_of(traceparent)) if traceparent else contexts.Context()
        span = self._tracer.start_span(f"send {topic}", parent, SpanKind.PRODUCER, own)
        try:
            yield _SendSpan(span)
        except BaseException as error:
            span.record_exception(error)
            span.set_attribute("error.type", type(error).__name__)
            span.set_status(StatusCode.ERROR)
            raise
        finally:
            span.end()
