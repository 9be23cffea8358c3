"""Attempts of handlers as spans and values: whose messages are sampled, what a span says, what a handler finds."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import StatusCode

from batch.handling.registry import Kind
from batch.logs import JsonLines, own
from batch.model.errors import Permanent, Retry
from batch.telemetry.measures import PROCESS, Measures
from tests.batch.telemetry.gathered import PARENT, SAMPLED, TRACE, UNSAMPLED, Gathered, ids
from tests.batch.worker.plant import Plant

KINDS = ("plain", "async", "group", "async group")


def register(plant: Plant, kind: str, seen: list[Any]) -> None:
    """A handler that notes the span that it finds, and its context's."""

    def note(ctx: Any) -> bool:
        seen.append((trace.get_current_span().get_span_context().span_id, ctx.traceparent))
        return True

    if kind == "plain":
        plant.registry.task("notes")(lambda _task, ctx: note(ctx))
    elif kind == "group":
        plant.registry.task("notes", group=10)(lambda _tasks, ctxs: [note(ctx) for ctx in ctxs])
    elif kind == "async":

        @plant.registry.task("notes")
        async def notes(_task: Any, ctx: Any) -> None:
            await ctx.sleep(0)
            note(ctx)
    else:

        @plant.registry.task("notes", group=10)
        async def notes_of(_tasks: Any, ctxs: Any) -> list[bool]:
            return [note(ctx) for ctx in ctxs]


def drained(plant: Plant, gathered: Gathered, roots: bool = False, /, **attributes: str) -> list[ReadableSpan]:
    plant.watch = gathered.attempts(roots=roots)
    plant.publish(json.dumps({"task_id": "one", "task_type": "notes"}).encode(), **attributes)
    plant.worker(BACKLOG=1).run()
    return gathered.spans()


@pytest.mark.parametrize("kind", KINDS)
def test_an_attempt_of_a_sampled_message_is_a_span_under_its_publish(kind: str) -> None:
    plant, gathered, seen = Plant(), Gathered(), []  # type: ignore[var-annotated]
    register(plant, kind, seen)
    (span,) = drained(plant, gathered, traceparent=SAMPLED)
    trace_id, span_id, parent_id = ids(span)
    assert (span.name, span.kind.name, trace_id, parent_id) == ("process notes", "CONSUMER", TRACE, PARENT)
    assert [format(link.context.span_id, "016x") for link in span.links] == [PARENT]
    assert seen == [(span.context.span_id, f"00-{TRACE}-{span_id}-01")]
    said = dict(span.attributes or {})
    assert said.pop("messaging.message.id")
    assert said.pop("messaging.message.body.size")
    assert said == {
        "messaging.system": "gcp_pubsub",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "lane",
        "messaging.destination.subscription.name": "lane",
        "messaging.gcp_pubsub.message.delivery_attempt": 1,
        "fanout.lane": "lane",
        "fanout.task.id": "one",
        "fanout.task.type": "notes",
        "fanout.attempt": 1,
        "fanout.answer": "returned",
    }
    assert span.status.status_code is StatusCode.UNSET
    assert not trace.get_current_span().get_span_context().is_valid


@pytest.mark.parametrize(
    ("attributes", "is_span"),
    [
        ({}, False),
        ({"traceparent": UNSAMPLED}, False),
        ({"googclient_traceparent": SAMPLED}, True),
        ({"googclient_traceparent": UNSAMPLED, "traceparent": SAMPLED}, False),
        ({"googclient_traceparent": "nonsense", "traceparent": SAMPLED}, True),
        ({"traceparent": SAMPLED[:-1] + "3"}, True),
        ({"traceparent": f"cc{SAMPLED[2:]}-what-comes-later"}, True),
        ({"traceparent": f"{SAMPLED}-more"}, False),
        ({"traceparent": f"ff{SAMPLED[2:]}"}, False),
        ({"traceparent": SAMPLED.upper()}, False),
        ({"traceparent": f"00-{'0' * 32}-{PARENT}-01"}, False),
        ({"traceparent": f"00-{TRACE}-{'0' * 16}-01"}, False),
        ({"traceparent": "1" * 300}, False),
    ],
)
def test_the_publishers_decision_is_followed(attributes: dict[str, str], is_span: bool) -> None:
    plant, gathered, seen = Plant(), Gathered(), []  # type: ignore[var-annotated]
    register(plant, "plain", seen)
    assert len(drained(plant, gathered, **attributes)) == is_span
    assert plant.final() == {"one": "succeeded"}


def test_a_message_without_a_context_begins_a_trace_only_where_the_sampler_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_on")
    plant, gathered, seen = Plant(), Gathered(), []  # type: ignore[var-annotated]
    register(plant, "plain", seen)
    (span,) = drained(plant, gathered, True)
    assert (ids(span)[2], list(span.links)) == ("", [])
    assert [one.trace_id for one in plant.outcomes()] == [ids(span)[0]]


def test_a_malformed_context_is_none_for_the_sampler_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_always_on")
    plant, gathered, seen = Plant(), Gathered(), []  # type: ignore[var-annotated]
    register(plant, "plain", seen)
    (span,) = drained(plant, gathered, True, traceparent="nonsense")
    assert ids(span)[2] == ""


@pytest.mark.parametrize(
    ("error", "answer", "kind"),
    [
        (KeyError("gone"), "failed", "KeyError"),
        (Permanent("no such row"), "permanent", "permanent"),
        (Retry("again", after_s=0.0), "failed", "Retry"),
    ],
)
def test_a_failure_is_said_with_its_error(error: Exception, answer: str, kind: str) -> None:
    plant, gathered = Plant(), Gathered()

    @plant.registry.task("notes", retries=0)
    def notes(_task: Any, _ctx: Any) -> None:
        raise error

    (span,) = drained(plant, gathered, traceparent=SAMPLED)
    assert span.status.status_code is StatusCode.ERROR
    attributes = span.attributes or {}
    assert (attributes["fanout.answer"], attributes["error.type"]) == (answer, kind)
    (event,) = span.events
    assert (event.attributes or {})["exception.type"] == kind
    assert gathered.metrics.values()[PROCESS][0][0]["fanout.answer"] == answer


def test_a_result_that_is_refused_is_one_failed_attempt() -> None:
    plant, gathered = Plant(), Gathered()
    plant.registry.task("notes", retries=0)(lambda _task, _ctx: object())
    (span,) = drained(plant, gathered, traceparent=SAMPLED)
    assert (span.attributes or {})["fanout.answer"] == "failed"
    assert [count for _, count in gathered.metrics.values()[PROCESS]] == [1]


def test_each_attempt_of_a_task_is_a_span_of_one_trace() -> None:
    plant, gathered = Plant(), Gathered()

    @plant.registry.task("notes", retries=1)
    def notes(_task: Any, ctx: Any) -> None:
        if ctx.attempt == 1:
            raise Retry("once more", after_s=0.0)

    plant.watch = gathered.attempts()
    plant.publish(json.dumps({"task_id": "one", "task_type": "notes"}).encode(), traceparent=SAMPLED)
    plant.worker(BACKLOG=2).run()
    found = [((span.attributes or {})["fanout.attempt"], *ids(span)[::2]) for span in gathered.spans()]
    assert found == [(1, TRACE, PARENT), (2, TRACE, PARENT)]


def test_a_group_is_found_in_the_first_tasks_span_which_links_the_others() -> None:
    plant, gathered, seen = Plant(), Gathered(), []  # type: ignore[var-annotated]
    register(plant, "group", seen)
    plant.watch = gathered.attempts()
    for number, flag in enumerate(("00", "01", "01")):
        body = {"task_id": f"t-{number}", "task_type": "notes"}
        plant.publish(json.dumps(body).encode(), traceparent=f"00-{TRACE}-{number + 1:016x}-{flag}")
    plant.worker(BACKLOG=3).run()
    first, second = gathered.spans()
    assert {span_id for span_id, _ in seen} == {first.context.span_id}
    assert [link.context.span_id for link in first.links] == [2, second.context.span_id]
    assert [(attributes["fanout.answer"], count) for attributes, count in gathered.metrics.values()[PROCESS]] == [("returned", 3)]


def test_an_isolated_handler_has_the_context_of_the_span_that_its_worker_made() -> None:
    plant, gathered = Plant(), Gathered()
    plant.watch = gathered.attempts()
    plant.registry.task("trace", isolation="process")(lambda _task, _ctx: None)
    assert plant.registry["trace"].kind is Kind.PROCESS
    plant.publish(json.dumps({"task_id": "one", "task_type": "trace"}).encode(), traceparent=SAMPLED)
    plant.worker(BACKLOG=1, HANDLERS="tests.batch.telemetry.handlers").run()
    (span,) = gathered.spans()
    (outcome,) = plant.outcomes()
    assert outcome.result == f"00-{TRACE}-{ids(span)[1]}-01"


def test_log_lines_name_the_attempts_trace_and_span(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own, "project", "p")
    plant, gathered = Plant(), Gathered()
    lines: list[dict[str, Any]] = []

    @plant.registry.task("notes")
    def notes(_task: Any, _ctx: Any) -> None:
        lines.append(json.loads(JsonLines().format(logging.makeLogRecord({"msg": "said", "levelno": 20}))))

    (span,) = drained(plant, gathered, traceparent=SAMPLED)
    named = {"logging.googleapis.com/trace": f"projects/p/traces/{TRACE}", "logging.googleapis.com/spanId": ids(span)[1]}
    assert named.items() <= lines[0].items()


def test_off_nothing_is_called_and_a_handler_still_has_its_messages_context() -> None:
    plant, seen = Plant(), []  # type: ignore[var-annotated]
    register(plant, "plain", seen)
    plant.publish(json.dumps({"task_id": "one", "task_type": "notes"}).encode(), traceparent=SAMPLED)
    plant.worker(BACKLOG=1).run()
    assert seen == [(0, SAMPLED)]


def test_attempts_are_added_up_by_type_and_answer() -> None:
    measures = Measures({"fanout.lane": "lane"})
    for seconds in (0.003, 0.004, 700.0, 9000.0):
        measures.ran("a", "returned", seconds)
    measures.ran("a", "failed", 0.2, count=3)
    _, histograms = measures.values()
    found = {dict(attributes)["fanout.answer"]: one for (_, attributes), one in histograms.items()}
    assert (found["returned"].count, found["returned"].counts[0], found["returned"].counts[-3:]) == (4, 2, [1, 0, 1])
    assert (found["failed"].count, round(found["failed"].total, 6), found["failed"].most) == (3, 0.6, 0.2)
