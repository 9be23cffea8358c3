"""Every answer names its request; a request's id and trace go with its tasks, and with what the front door logs meanwhile."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch.logs import JsonLines, own
from batch.model.errors import DependencyForbidden
from intake.request_ids import RequestIds
from tests.intake.test_service import Service, serve

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"
TASK = {"task_type": "thumbnail"}


def test_the_id_and_the_trace_of_a_request_go_with_its_task_and_come_back() -> None:
    async def scenario(service: Service) -> None:
        answer = await service.post("/submit-task", TASK, headers={"X-Request-Id": "r/1", "traceparent": PARENT})
        assert answer.headers["x-request-id"] == "r/1"
        (message,) = service.topics["default"].messages
        assert (message.attributes["request_id"], message.attributes["traceparent"]) == ("r/1", PARENT)

    serve(scenario)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-Request-Id": "a b", "traceparent": PARENT.upper()},
        {"X-Request-Id": "x" * 129, "traceparent": "00" + PARENT[2:] + "-more"},
        {"X-Request-Id": "\xe4", "traceparent": f"ff{PARENT[2:]}"},
        {"X-Request-Id": "", "traceparent": f"00-{'0' * 32}-b7ad6b7169203331-01"},
    ],
)
def test_what_is_not_well_formed_is_left_out_and_an_id_is_made(headers: dict[str, str]) -> None:
    async def scenario(service: Service) -> None:
        given_headers = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        answers = [await service.post("/submit-task", TASK, headers=given_headers) for _ in range(2)]
        ids = [answer.headers["x-request-id"] for answer in answers]
        assert len(set(ids)) == 2
        assert [message.attributes["request_id"] for message in service.topics["default"].messages] == ids
        assert not any("traceparent" in message.attributes for message in service.topics["default"].messages)

    serve(scenario)


def test_errors_name_their_request_too() -> None:
    async def scenario(service: Service) -> None:
        for answer in (
            await service.post("/submit-task", {}),
            await service.post("/nowhere", {}),
            await service.client.get("/submit-task"),
        ):
            assert answer.status_code >= 400
            assert len(answer.headers["x-request-id"]) == 32

    serve(scenario)


def test_what_is_logged_meanwhile_says_which_request_it_was(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own, "project", "p")
    lines: list[dict[str, Any]] = []
    monkeypatch.setattr(caplog.handler, "emit", lambda record: lines.append(json.loads(JsonLines().format(record))))

    async def scenario(service: Service) -> None:
        await service.post("/submit-task", TASK, headers={"X-Request-Id": "r-1", "traceparent": PARENT})

    serve(scenario, error=DependencyForbidden("403"))
    (line,) = [one for one in lines if one.get("event") == "task_not_submitted"]
    assert (line["request_id"], line["logging.googleapis.com/trace"]) == ("r-1", f"projects/p/traces/{TRACE}")


@given(st.lists(st.tuples(st.sampled_from([b"x-request-id", b"traceparent"]), st.binary(max_size=200))))
def test_no_header_can_break_it(headers: list[tuple[bytes, bytes]]) -> None:
    import asyncio
    import random

    sent: list[Any] = []

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(RequestIds(app, random.Random(1))({"type": "http", "headers": headers}, None, send))
    ((name, value),) = sent[0]["headers"]
    assert name == b"x-request-id"
    assert value.decode("ascii").isprintable()
