"""Requests and publishes of the front door as spans, and the context that goes with the messages."""

from __future__ import annotations

import json

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind, StatusCode

from batch.model.errors import DependencyUnavailable
from batch.testing import MemoryObjectStore
from tests.batch.telemetry.gathered import PARENT, SAMPLED, TRACE, UNSAMPLED, Gathered, ids
from tests.intake.test_service import Service, serve

TASK = {"task_type": "thumbnail"}


def by_kind(gathered: Gathered) -> dict[SpanKind, ReadableSpan]:
    return {span.kind: span for span in gathered.spans()}


def test_a_request_its_publish_and_its_message_are_one_trace() -> None:
    gathered = Gathered()

    async def scenario(service: Service) -> None:
        await service.post("/submit-task?lane=urgent", TASK, headers={"traceparent": SAMPLED})
        (message,) = service.topics["urgent"].messages
        found = by_kind(gathered)
        request, send = found[SpanKind.SERVER], found[SpanKind.PRODUCER]
        assert ids(request)[::2] == (TRACE, PARENT)
        assert ids(send)[::2] == (TRACE, ids(request)[1])
        assert (request.name, send.name) == ("POST /submit-task", "send b")
        assert (request.attributes or {})["http.response.status_code"] == 200
        assert (send.attributes or {})["messaging.message.id"]
        traceparent = f"00-{TRACE}-{ids(send)[1]}-01"
        assert {name: message.attributes[name] for name in ("traceparent", "googclient_traceparent")} == {
            "traceparent": traceparent,
            "googclient_traceparent": traceparent,
        }

    serve(scenario, watch=gathered.service())


def test_what_the_client_has_not_sampled_is_no_span_and_stays_so() -> None:
    gathered = Gathered()

    async def scenario(service: Service) -> None:
        await service.post("/submit-task", TASK, headers={"traceparent": UNSAMPLED})
        (message,) = service.topics["default"].messages
        assert message.attributes["traceparent"][:36] == f"00-{TRACE}-"
        assert int(message.attributes["traceparent"][-2:], 16) % 2 == 0

    serve(scenario, watch=gathered.service())
    assert gathered.spans() == []


def test_a_request_that_is_refused_is_a_span_and_only_a_fault_of_ours_an_error() -> None:
    for error, status in ((None, 422), (DependencyUnavailable("503"), 503)):
        gathered = Gathered()

        async def scenario(service: Service) -> None:
            body = {"task_type": "nobody's"} if status == 422 else TASK  # noqa: B023 - called in this round
            assert (await service.post("/submit-task", body)).status_code == status  # noqa: B023

        serve(scenario, watch=gathered.service(), error=error)
        request = by_kind(gathered)[SpanKind.SERVER]
        assert (request.attributes or {})["http.response.status_code"] == status
        assert (request.status.status_code is StatusCode.ERROR) == (status >= 500)


def test_many_tasks_of_one_request_have_its_context_and_one_publish() -> None:
    gathered, store = Gathered(), MemoryObjectStore()

    async def scenario(service: Service) -> None:
        lines = b"\n".join(json.dumps(TASK).encode() for _ in range(3))
        answer = await service.post("/submissions", lines, headers={"traceparent": SAMPLED, "Content-Type": "application/x-ndjson"})
        assert answer.status_code == 200, answer.text
        found = by_kind(gathered)
        request, send = found[SpanKind.SERVER], found[SpanKind.PRODUCER]
        contexts = {message.attributes["traceparent"] for message in service.topics["default"].messages}
        assert contexts == {f"00-{TRACE}-{ids(request)[1]}-01"}
        assert (ids(send)[::2], (send.attributes or {})["messaging.batch.message_count"]) == ((TRACE, ids(request)[1]), 3)
        assert request.name == "POST /submissions"

    serve(scenario, watch=gathered.service(), store=store)
