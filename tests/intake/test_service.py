"""The endpoints over ASGI, with a topic in memory: what is accepted, and how everything else is refused."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from pydantic import BaseModel, Field

from batch.dead.lanes import LaneFacts, write_lanes
from batch.dead.rules import NO_RULES
from batch.handlers.file_processing import FileProcessing
from batch.handling.registry import Registry
from batch.model.errors import DependencyForbidden, DependencyMissing, DependencyUnavailable
from batch.model.message import MAX_MESSAGE_BYTES, keyed_task_id, rolling_shard, shard_in_id
from batch.telemetry.ports import ServiceWatch
from batch.testing import ManualClock, MemoryObjectStore
from intake.bodies import MAX_REQUEST_BYTES
from intake.collector import AsyncTopic
from intake.config import IntakeSettings, intake_settings
from intake.service import create_app
from tests.intake.fake import FakeTopic


class DataPayload(BaseModel):
    transformation: str = "normalize"
    dataset_size: int = Field(default=10, ge=1)
    method: str = "z-score"


def registry() -> Registry:
    known = Registry()
    known.task("file_processing", payload=FileProcessing)(lambda _task, _ctx: None)
    known.task("data_transformation", payload=DataPayload)(lambda _task, _ctx: None)
    known.task("thumbnail")(lambda _task, _ctx: None)
    return known


class Service:
    """A running application and its topics."""

    def __init__(self, client: httpx.AsyncClient, topics: dict[str, FakeTopic], clock: ManualClock) -> None:
        self.client, self.topics, self.clock = client, topics, clock

    async def post(self, path: str, body: object, **options: Any) -> httpx.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await self.client.post(path, content=content, **options)


Scenario = Callable[[Service], Awaitable[None]]


def serve(
    scenario: Scenario,
    *,
    held: bool = False,
    error: Exception | None = None,
    store: MemoryObjectStore | None = None,
    watch: ServiceWatch | None = None,
    **environment: str,
) -> None:
    """Run a scenario against a service of its own, from start to graceful end."""

    async def run() -> None:
        settings = intake_settings({"GOOGLE_CLOUD_PROJECT": "p", "LANES": "default=a,urgent=b", **environment})
        topics = {lane: FakeTopic(name, held=held) for lane, name in settings.topics.items()}
        for topic in topics.values():
            topic.error = error

        @asynccontextmanager
        async def opened(_settings: IntakeSettings) -> AsyncIterator[Mapping[str, AsyncTopic]]:
            yield topics

        clock = ManualClock()
        app = create_app(settings, registry=registry(), topics=opened, clock=clock, rng=random.Random(5), store=store, watch=watch)
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url="http://intake") as client:
            await asyncio.wait_for(scenario(Service(client, topics, clock)), 20)

    asyncio.run(run())


def assert_refused(answer: httpx.Response, status: int, *texts: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    body: dict[str, Any] = answer.json()
    assert "\n" not in answer.text
    for text in texts:
        assert text in body["error"]
    return body


def test_a_submitted_task_is_in_the_topic() -> None:
    async def scenario(service: Service) -> None:
        answer = await service.post("/submit-task", {"task_type": "thumbnail", "size": 3})
        assert answer.status_code == 200
        body = answer.json()
        assert body == {"task_id": body["task_id"], "message_id": "m0", "status": "submitted"}
        (message,) = service.topics["default"].messages
        shard = rolling_shard("default", service.clock.now())
        assert shard_in_id(body["task_id"]) == shard
        named = {"task_id": body["task_id"], "task_type": "thumbnail", "lane": "default", "shard": shard}
        assert message.attributes == {**named, "request_id": answer.headers["x-request-id"]}
        sent = json.loads(message.data)
        assert sent == {"task_id": body["task_id"], "task_type": "thumbnail", "submitted_at": "2026-01-01T00:00:00.000000Z", "size": 3}

    serve(scenario)


def test_the_endpoints_of_one_type_set_it() -> None:
    async def scenario(service: Service) -> None:
        assert (await service.post("/submit-file-task", {"filename": "a.csv", "task_type": "file_processing"})).status_code == 200
        assert (await service.post("/submit-data-task", {"dataset_size": 5})).status_code == 200
        types = [message.attributes["task_type"] for message in service.topics["default"].messages]
        assert types == ["file_processing", "data_transformation"]
        assert_refused(await service.post("/submit-data-task", {"task_type": "thumbnail"}), 422, "/submit-task")

    serve(scenario)


def test_lanes() -> None:
    async def scenario(service: Service) -> None:
        await service.post("/submit-task?lane=urgent", {"task_type": "thumbnail"})
        (message,) = service.topics["urgent"].messages
        assert (message.attributes["lane"], service.topics["default"].messages) == ("urgent", [])
        body = assert_refused(await service.post("/submit-task?lane=urgnt", {"task_type": "thumbnail"}), 422, "did you mean 'urgent'")
        assert body["field"] == "lane"

    serve(scenario)


def test_an_idempotency_key_names_the_task() -> None:
    async def scenario(service: Service) -> None:
        async def submit(key: str, lane: str = "default") -> str:
            path = f"/submit-task?lane={lane}"
            answer = await service.post(path, {"task_type": "thumbnail"}, headers={"Idempotency-Key": key})
            return str(answer.json()["task_id"])

        assert await submit("one") == await submit("one")
        assert len({await submit("one"), await submit("two"), await submit("one", "urgent")}) == 3
        utf_8 = await service.post("/submit-task", {"task_type": "thumbnail"}, headers=[(b"Idempotency-Key", ("é" * 512).encode())])
        assert utf_8.json()["task_id"] == keyed_task_id("default", "é" * 512)
        for key in ("", "x" * 1025):
            answer = await service.post("/submit-task", {"task_type": "thumbnail"}, headers={"Idempotency-Key": key})
            assert_refused(answer, 422, "Idempotency-Key")

    serve(scenario)


DEEP = b"[" * 200_000


@pytest.mark.parametrize(
    "body", [b'{"task_type": "thumbnail", "a": NaN}', b'{"task_type": "thumbnail", "task_type": "other"}', b'{"a": ' + DEEP]
)
def test_what_parsers_read_differently_is_400(body: bytes) -> None:
    async def scenario(service: Service) -> None:
        assert_refused(await service.post("/submit-task", body), 400, "not JSON")

    serve(scenario)


def test_an_empty_body_takes_the_defaults_and_a_missing_type_is_400() -> None:
    async def scenario(service: Service) -> None:
        for body in (b"", b"  "):
            assert (await service.post("/submit-file-task", body)).status_code == 200
            assert (await service.post("/submit-data-task", body)).status_code == 200
            assert_refused(await service.post("/submit-task", body), 400)
        sent = [json.loads(message.data) for message in service.topics["default"].messages[:2]]
        assert [(one["task_type"], one.get("filename"), one.get("transformation")) for one in sent] == [
            ("file_processing", "sample.txt", None),
            ("data_transformation", None, "normalize"),
        ]
        assert assert_refused(await service.post("/submit-task", {}), 400, "task_type is required")["field"] == "task_type"

    serve(scenario)


def test_with_a_bucket_another_task_under_the_same_key_is_refused() -> None:
    store = MemoryObjectStore()

    async def scenario(service: Service) -> None:
        headers = {"Idempotency-Key": "order-7"}
        first = await service.post("/submit-task", {"task_type": "thumbnail", "size": 3}, headers=headers)
        service.clock.advance(7200)
        again = await service.post("/submit-task", {"task_type": "thumbnail", "size": 3}, headers=headers)
        assert first.json()["task_id"] == again.json()["task_id"]
        one, two = service.topics["default"].messages
        named = {"request_id": one.attributes["request_id"]}
        assert (one.data, one.attributes) == (two.data, {**two.attributes, **named}), "with the time and the shard of the first"
        assert_refused(await service.post("/submit-task", {"task_type": "thumbnail", "size": 4}, headers=headers), 422, "was used first at")
        store.fail_next("write", DependencyUnavailable("the bucket is away"))
        assert_refused(
            await service.post("/submit-task", {"task_type": "thumbnail", "size": 3}, headers={"Idempotency-Key": "b"}), 503, "away"
        )
        assert len(service.topics["default"].messages) == 2

    serve(scenario, store=store)


@pytest.mark.parametrize("body", [b"{", b"nonsense", b"\xff\xfe", b"[]", b'"a"', b"1", b"null", DEEP, b'{"n": ' + b"9" * 5000 + b"}"])
@pytest.mark.parametrize("path", ["/submit-task", "/submit-file-task", "/submit-data-task"])
def test_what_is_not_an_object_is_400(path: str, body: bytes) -> None:
    async def scenario(service: Service) -> None:
        assert_refused(await service.post(path, body), 400, "JSON")
        assert service.topics["default"].messages == []

    serve(scenario)


@pytest.mark.parametrize(
    ("path", "body", "field", "text"),
    [
        ("/submit-task", {"task_type": 7}, "task_type", "task_type"),
        ("/submit-task", {"task_type": "thumbnial"}, "task_type", "did you mean 'thumbnail'"),
        ("/submit-task", {"task_type": "thumbnail", "task_id": "mine"}, "task_id", "set when the task is submitted"),
        ("/submit-data-task", {"submitted_at": "now"}, "submitted_at", "set when the task is submitted"),
        ("/submit-data-task", {"idempotency_key": "a"}, "idempotency_key", "header"),
        ("/submit-file-task", {}, "filename", "filename"),
        ("/submit-file-task", {"filename": "../../etc/passwd"}, "filename", "'..'"),
        ("/submit-task", {"task_type": "file_processing", "filename": "/etc/passwd"}, "filename", "slash"),
        ("/submit-data-task", {"dataset_size": 0}, "dataset_size", "greater than or equal to 1"),
    ],
)
def test_wrong_fields_are_422_and_named(path: str, body: dict[str, object], field: str, text: str) -> None:
    async def scenario(service: Service) -> None:
        assert assert_refused(await service.post(path, body), 422, text)["field"] == field
        assert service.topics["default"].messages == []

    serve(scenario)


def test_every_wrong_field_is_named() -> None:
    async def scenario(service: Service) -> None:
        answer = await service.post("/submit-data-task", {"dataset_size": "many", "method": 7, "other": 1})
        assert assert_refused(answer, 422, "dataset_size: ", "method: ")["fields"] == ["dataset_size", "method"]

    serve(scenario)


@pytest.mark.parametrize(
    "body", [b'{"task_type": "thumbnail", "a": 1e999}', b'{"task_type": "thumbnail", "a": "\\ud800"}', b'{"task_type": "\\ud800"}']
)
def test_what_cannot_be_sent_as_json_is_422(body: bytes) -> None:
    async def scenario(service: Service) -> None:
        assert_refused(await service.post("/submit-task", body), 422)
        assert service.topics["default"].messages == []

    serve(scenario)


def test_a_large_task_goes_through_and_a_too_large_one_is_413() -> None:
    async def scenario(service: Service) -> None:
        def sized(size: int) -> bytes:
            frame = b'{"task_type": "thumbnail", "a": ""}'
            return frame[:-2] + b"x" * (size - len(frame)) + frame[-2:]

        assert (await service.post("/submit-task", sized(MAX_MESSAGE_BYTES - 1000))).status_code == 200
        # The body is just small enough; with the envelope it is not.
        assert_refused(await service.post("/submit-task", sized(MAX_MESSAGE_BYTES)), 413)
        assert_refused(await service.post("/submit-task", sized(MAX_MESSAGE_BYTES + 1)), 413, "larger than")
        assert len(service.topics["default"].messages) == 1

    serve(scenario)


def test_of_an_endless_body_little_is_read() -> None:
    async def scenario(service: Service) -> None:
        read = 0

        async def endless() -> AsyncIterator[bytes]:
            nonlocal read
            while True:
                read += 1_000_000
                yield b" " * 1_000_000

        answer = await service.client.post("/submit-task", content=endless())
        assert_refused(answer, 413)
        assert answer.headers["connection"] == "close"
        assert read < MAX_REQUEST_BYTES + 2_000_000

    serve(scenario)


def test_a_declared_length_is_enough_to_refuse() -> None:
    async def scenario(service: Service) -> None:
        reads = 0

        async def counted() -> AsyncIterator[bytes]:
            nonlocal reads
            reads += 1
            yield b" "

        for headers in ({"Content-Length": "99999999999"}, {"Content-Length": "9000001", "Expect": "100-continue"}):
            assert_refused(await service.client.post("/submit-task", content=counted(), headers=headers), 413)
        assert reads == 0

    serve(scenario)


@pytest.mark.parametrize(
    ("error", "status", "retry"),
    [
        (DependencyUnavailable("the broker is away"), 503, True),
        (DependencyMissing("topic projects/p/topics/a does not exist: create it"), 500, False),
        (DependencyForbidden("topic a: grant roles/pubsub.publisher"), 500, False),
    ],
)
def test_a_broker_that_does_not_confirm_is_never_submitted(error: Exception, status: int, retry: bool) -> None:
    async def scenario(service: Service) -> None:
        answer = await service.post("/submit-task", {"task_type": "thumbnail"})
        assert_refused(answer, status, str(error))
        assert ("retry-after" in answer.headers) == retry

    serve(scenario, error=error)


def test_of_two_keys_none_is_chosen() -> None:
    async def scenario(service: Service) -> None:
        headers = [("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
        answer = await service.post("/submit-task", {"task_type": "thumbnail"}, headers=headers)
        assert assert_refused(answer, 422, "there are 2 of them")["errors"][0]["pointer"] == "Idempotency-Key"
        assert not service.topics["default"].messages

    serve(scenario)


def test_a_fault_of_ours_is_a_problem_too() -> None:
    async def scenario(service: Service) -> None:
        answer = await service.post("/submit-task", {"task_type": "thumbnail"})
        body = assert_refused(answer, 500, "a fault in Fanout itself")
        assert (answer.headers["content-type"], body["status"]) == ("application/problem+json", 500)
        assert "division" not in answer.text

    serve(scenario, error=ZeroDivisionError("division by zero"))


def test_a_full_lane_is_503_and_leaves_the_other_alone() -> None:
    async def scenario(service: Service) -> None:
        topic = service.topics["default"]
        waiting = [asyncio.create_task(service.post("/submit-task", {"task_type": "thumbnail"}))]
        await topic.arrived(1)
        waiting.append(asyncio.create_task(service.post("/submit-task", {"task_type": "thumbnail"})))
        while (await service.client.get("/health")).json()["waiting"]["default"] < 1:
            await asyncio.sleep(0)
        answer = await service.post("/submit-task", {"task_type": "thumbnail"})
        assert_refused(answer, 503, "already wait")
        assert int(answer.headers["retry-after"]) > 0
        service.topics["urgent"].open()
        assert (await service.post("/submit-task?lane=urgent", {"task_type": "thumbnail"})).status_code == 200
        topic.open()
        assert [answer.status_code for answer in await asyncio.gather(*waiting)] == [200, 200]

    serve(scenario, held=True, MAX_WAITING="1", MAX_IN_FLIGHT="1")


def test_nothing_is_answered_before_the_broker_confirmed() -> None:
    async def scenario(service: Service) -> None:
        topic = service.topics["default"]
        waiting = asyncio.create_task(service.post("/submit-task", {"task_type": "thumbnail"}))
        await topic.arrived(1)
        assert (await service.client.get("/health")).status_code == 200
        assert not waiting.done()
        topic.open()
        assert (await waiting).status_code == 200

    serve(scenario, held=True)


@pytest.mark.parametrize("path", ["/submit-task", "/submissions"])
def test_a_body_that_is_packed_is_refused_as_such(path: str) -> None:
    async def scenario(service: Service) -> None:
        for headers, status in (({"Content-Encoding": "GZIP"}, 415), ({"Content-Encoding": "utf-8"}, 200)):
            answer = await service.client.post(path, content=b'{"task_type": "thumbnail"}', headers=headers)
            assert answer.status_code == status, answer.text

    serve(scenario, store=MemoryObjectStore())


def test_unknown_paths_and_methods_answer_like_the_rest() -> None:
    async def scenario(service: Service) -> None:
        assert_refused(await service.client.get("/nothing"), 404, "/nothing")
        assert_refused(await service.client.get("/submit-task"), 405, "Method Not Allowed")
        assert_refused(await service.client.post("/submissions/", content=b""), 404, "POST /submissions/: Not Found")
        assert (await service.client.get("/health")).json() == {
            "status": "healthy",
            "service": "intake",
            "waiting": {"default": 0, "urgent": 0},
        }

    serve(scenario)


def test_every_endpoint_is_documented() -> None:
    async def scenario(service: Service) -> None:
        document = (await service.client.get("/openapi.json")).json()
        many = {"/submissions", "/submissions/{submission_id}/tasks", "/submissions/{submission_id}/close"}
        assert {"/health", "/submit-task", "/submit-file-task", "/submit-data-task", *many} <= set(document["paths"])
        for path in many:
            assert {"200", "400", "404", "409", "413", "422", "500", "503"} <= set(document["paths"][path]["post"]["responses"])
        for path in ("/submit-task", "/submit-file-task", "/submit-data-task"):
            operation = document["paths"][path]["post"]
            schema = operation["requestBody"]["content"]["application/json"]["schema"]
            assert schema["type"] == "object"
            assert {"200", "400", "413", "422", "500", "503"} <= set(operation["responses"])
            assert {"lane", "Idempotency-Key"} == {parameter["name"] for parameter in operation["parameters"]}
            assert operation["responses"]["422"]["content"]["application/problem+json"]["schema"]["$ref"].endswith("Problem")

    serve(scenario)


def test_a_lane_that_takes_no_envelope_is_refused_once_the_bucket_has_said_so() -> None:
    store = MemoryObjectStore(clock=ManualClock())
    facts = LaneFacts("uploads", "b-sub", "b", NO_RULES, accept=("raw",), default_type="note")
    write_lanes(store, {"uploads": facts})

    async def scenario(service: Service) -> None:
        body = {"task_type": "thumbnail"}
        while (answer := await service.post("/submit-task?lane=urgent", body)).status_code == 200:
            await asyncio.sleep(0)
        assert_refused(answer, 422, "lane uploads takes raw and no envelope")
        assert answer.json()["errors"][0]["pointer"] == "?lane"
        assert_refused(await service.post("/submissions?lane=urgent", [body]), 422, "lane uploads takes raw")
        assert (await service.post("/submit-task", body)).status_code == 200
        write_lanes(store, {"uploads": facts, "urgent": LaneFacts("urgent", "urgent-sub", "b", NO_RULES)})
        service.clock.advance(60)
        while (await service.post("/submit-task?lane=urgent", body)).status_code == 422:
            await asyncio.sleep(0)

    serve(scenario, store=store)
