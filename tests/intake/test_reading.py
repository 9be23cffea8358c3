"""What clients ask about submissions and tasks over HTTP, and what they do to them: answers, and how everything else is refused."""

from __future__ import annotations

import asyncio
import json
import random
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request

from batch.client.reading.progress import SubmissionState
from batch.client.stored_proof import as_object
from batch.dead.lanes import UNKNOWN_LANE, write_lanes
from batch.handling.cancels import from_json
from batch.handling.registry import Registry
from batch.model.clock import iso
from batch.model.errors import DependencyUnavailable
from batch.model.names import cancel_object, manifest_object, outcome_folder, submission_object
from batch.services.ports import ObjectStore
from batch.testing import ManualClock, MemoryBroker
from intake.access import Access, Verb
from intake.collector import AsyncTopic
from intake.config import IntakeSettings, intake_settings
from intake.problems import RequestRefused, answer_refused
from intake.reading import Context, add_reading, looking
from intake.reading import context as context_module
from intake.service import create_app
from tests.batch.dead import log_of_letters
from tests.batch.submitted import Submitted
from tests.batch.traces import ERROR, Bucket
from tests.intake.fake import FakeTopic

Scenario = Callable[[httpx.AsyncClient], Awaitable[None]]


class Noted(Access):
    """Notes what was asked, and refuses these lanes."""

    def __init__(self, refused: set[str] | None = None) -> None:
        self.asked: list[tuple[str, str]] = []
        self._refused = refused or set()

    def check(self, request: Request, verb: Verb, lane: str) -> str:
        self.asked.append((verb.value, lane))
        if lane in self._refused:
            raise RequestRefused(403, f"not in lane {lane}")
        return "ada@example.com"


def context_of(store: ObjectStore | None, clock: ManualClock, broker: MemoryBroker | None = None, access: Access | None = None) -> Context:
    return Context(clock, random.Random(1), access or Access(), store, {"tasks": (broker or MemoryBroker(clock)).topic("tasks")})


def serve(context: Context, scenario: Scenario) -> None:
    app = FastAPI()
    app.add_exception_handler(RequestRefused, answer_refused)
    add_reading(app, context)

    async def run() -> None:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://intake") as client:
            await asyncio.wait_for(scenario(client), 20)

    asyncio.run(run())


def ask(context: Context, path: str, method: str = "GET") -> httpx.Response:
    answers: list[httpx.Response] = []

    async def scenario(client: httpx.AsyncClient) -> None:
        answers.append(await client.request(method, path))

    serve(context, scenario)
    return answers[0]


def refused(answer: httpx.Response, status: int, text: str = "") -> dict[str, Any]:
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), answer.text
    body: dict[str, Any] = answer.json()
    assert body["status"] == status
    assert text in body["error"]
    return body


@pytest.fixture
def one() -> Submitted:
    found = Submitted(150)
    found.write(found.outcome(task_id, "dead") for task_id in found.ids[:2])
    found.write(found.outcome(task_id) for task_id in found.ids[2:])
    write_lanes(found.store, {"default": log_of_letters.LANE})
    return found


def test_progress_then_proof_then_the_end(one: Submitted) -> None:
    context, path = context_of(one.store, one.clock), f"/submissions/{one.submission_id}"
    before = ask(context, path).json()
    assert (before["state"], before["task_count"], before["succeeded_count"], before["dead_count"], before["approximate"]) == (
        SubmissionState.FINISHING.value,
        150,
        148,
        2,
        True,
    )
    proof = ask(context, f"{path}/proof").json()
    assert proof == {**as_object(one.prove()), "as_stored": False, "stored_at": iso(one.clock.now())}
    after = ask(context, path).json()
    assert (after["state"], after["approximate"], after["proved_at"]) == ("failed", False, proof["stored_at"])


def test_a_poller_lists_only_what_is_new(one: Submitted) -> None:
    context, path = context_of(one.store, one.clock), f"/submissions/{one.submission_id}"
    one.clock.advance(1000)
    ask(context, path)
    starts: list[str] = []
    listed = one.store.list

    def noted(prefix: str, start: str = "") -> Any:
        starts.append(start) if prefix == outcome_folder(one.shard) else None
        return listed(prefix, start)

    one.store.list = noted  # type: ignore[method-assign]
    ask(context, path)
    assert starts
    assert all(len(start) > len(outcome_folder(one.shard)) for start in starts)


def lines(answer: httpx.Response) -> list[dict[str, Any]]:
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/x-ndjson"), answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


def test_outcomes_are_lines_as_workers_wrote_them(one: Submitted) -> None:
    context, path = context_of(one.store, one.clock), f"/submissions/{one.submission_id}/outcomes"
    written = b"".join(one.store.read(name) for name in one.store.names(outcome_folder(one.shard)))
    assert ask(context, path).content == written
    assert {line["task_id"] for line in lines(ask(context, f"{path}?outcome=dead"))} == set(one.ids[:2])
    assert len(lines(ask(context, f"{path}?outcome=dead&outcome=succeeded&task_type=work"))) == 150
    assert lines(ask(context, f"{path}?task_type=other")) == []
    last = iso(one.clock.now())
    assert [line["finished_at"] for line in lines(ask(context, f"{path}?since={last}"))] == [last]


def test_of_a_task_with_several_lines_final_gives_the_one_that_counts(one: Submitted) -> None:
    context, path = context_of(one.store, one.clock), f"/submissions/{one.submission_id}/outcomes"
    one.write([one.outcome(one.ids[5])])
    one.write(
        [replace(one.outcome(one.ids[0], "replayed"), replay_number=1), replace(one.outcome(one.ids[1], "replayed"), replay_number=1)]
    )
    one.write([replace(one.outcome(one.ids[1]), replay_number=1)])
    assert len(lines(ask(context, path))) == 154
    final = lines(ask(context, f"{path}?final=true"))
    assert len(final) == len({line["task_id"] for line in final}) == 149, "one is pending again"
    assert lines(ask(context, f"{path}?final=true&outcome=dead")) == []


def test_in_a_shared_shard_only_its_own_lines_are_told() -> None:
    one = Submitted(3)
    one.write([*map(one.outcome, one.ids), one.outcome("0123456789abcdef-of-somebody-else")])
    answer = ask(context_of(one.store, one.clock), f"/submissions/{one.submission_id}/outcomes")
    assert [line["task_id"] for line in lines(answer)] == one.ids


def test_final_holds_no_more_tasks_than_it_may(one: Submitted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batch.client.reading.lines.MAX_TASKS_HELD", 100)
    context, path = context_of(one.store, one.clock), f"/submissions/{one.submission_id}/outcomes"
    assert refused(ask(context, f"{path}?final=true"), 422, "at most 100 tasks")["errors"][0]["pointer"] == "?final"
    assert len(lines(ask(context, path))) == 150
    monkeypatch.setattr("batch.client.reading.lines.MAX_TASKS_HELD", 2)
    small = Submitted(3)
    answer = ask(context_of(small.store, small.clock), f"/submissions/{small.submission_id}/outcomes")
    refused(answer, 422, "in shards that other submissions share")


def test_a_stream_whose_bucket_fails_midway_breaks_and_leaves_nothing_behind(
    one: Submitted, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(looking, "PIECE_BYTES", 1)
    for _ in range(20):
        one.write([one.outcome(one.ids[0])])
    context = context_of(one.store, one.clock)
    read, count = one.store.read, 0

    def failing(name: str) -> bytes:
        nonlocal count
        count += name.startswith("outcomes/")
        if count > 10:
            raise DependencyUnavailable("503")
        return read(name)

    one.store.read = failing  # type: ignore[method-assign]

    got = bytearray()

    async def scenario(client: httpx.AsyncClient) -> None:
        async with client.stream("GET", f"/submissions/{one.submission_id}/outcomes") as answer:
            async for piece in answer.aiter_bytes():
                got.extend(piece)

    with pytest.raises(AssertionError):  # this transport's way of saying that the answer has no end
        serve(context, scenario)
    assert got.count(b"\n") < 170
    assert context.stream_count == 0
    assert "broke off: 503" in caplog.text


def test_a_reader_that_stops_reading_is_left(one: Submitted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looking, "PIECE_BYTES", 1)
    monkeypatch.setattr(looking, "SEND_WITHIN_S", 0.01)
    context, sent, asked = context_of(one.store, one.clock), [], []
    app = FastAPI()
    add_reading(app, context)

    async def send(message: Any) -> None:
        sent.append(message)
        if len(sent) > 2:
            await asyncio.Event().wait()

    async def receive() -> Any:
        asked.append(1)
        if len(asked) > 1:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": b"", "more_body": False}

    path = f"/submissions/{one.submission_id}/outcomes"
    scope = {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": [], "http_version": "1.1"}
    asyncio.run(asyncio.wait_for(app(scope, receive, send), 20))
    assert (len(sent), context.stream_count) == (3, 0)


def test_only_so_many_clients_read_outcomes_at_a_time(one: Submitted) -> None:
    context = context_of(one.store, one.clock)
    context.stream_count = looking.MAX_STREAMS
    answer = ask(context, f"/submissions/{one.submission_id}/outcomes")
    refused(answer, 503, "already read outcomes")
    assert answer.headers["retry-after"] == "5"
    assert context.stream_count == looking.MAX_STREAMS


def test_a_tasks_life_is_what_fanout_task_tells() -> None:
    bucket = Bucket()
    write_lanes(bucket.store, {"default": log_of_letters.LANE})
    context, task_id = context_of(bucket.store, bucket.clock), bucket.new_id()
    bucket.ended(task_id, "succeeded", result={"rows": 3})
    body = ask(context, f"/tasks/{task_id}").json()
    assert (body["state"], body["outcome"]["result"], body["lane"]) == ("succeeded", {"rows": 3}, "default")
    delayed = bucket.new_id()
    bucket.delay(delayed, bucket.clock.now() + 900)
    assert ask(context, f"/tasks/{delayed}").json()["state"] == "delayed"
    refused(ask(context, "/tasks/message-8811223344?lane=default&at=2026-01-01T00:00:00Z"), 404, "nothing is known")
    refused(ask(context, "/tasks/message-8811223344"), 422, "give ?lane= and ?at=")
    refused(ask(context, "/tasks/message-8811223344?lane=default"), 422, "give ?lane and ?at (about when")
    refused(ask(context, f"/tasks/{task_id}?at=yesterday"), 422, "?at must be a time")
    refused(ask(context, "/tasks/message-1?lane=default&shard=../x"), 422, "can be no outcome shard")


def test_a_task_is_checked_in_the_lane_that_its_id_tells_whatever_lane_is_named() -> None:
    bucket, access = Bucket(), Noted({"default"})
    context, task_id = context_of(bucket.store, bucket.clock, access=access), bucket.new_id()
    bucket.ended(task_id, "succeeded")
    refused(ask(context, f"/tasks/{task_id}?lane=bulk"), 403)
    refused(ask(context, f"/tasks/message-1?lane=bulk&shard={bucket.shard}"), 403)
    refused(ask(context, f"/tasks/{task_id}/cancel", "POST"), 403)
    assert access.asked == [("read", "default"), ("read", "default"), ("cancel", "default")]


def test_of_a_task_whose_lane_only_its_reader_names_is_told_to_those_who_may_read_every_lane() -> None:
    bucket, access = Bucket(), Noted({"*"})
    write_lanes(bucket.store, {"default": log_of_letters.LANE})
    context, named = context_of(bucket.store, bucket.clock, access=access), f"lane=default&at={iso(bucket.clock.now())}"
    bucket.attempts("message-17", attempt_count=1, errors=(ERROR,))
    for query in (named, f"shard={bucket.shard}", f"{named}&shard={bucket.shard}"):
        refused(ask(context, f"/tasks/message-17?{query}"), 403)
    assert ask(context, "/tasks/message-17/cancel?lane=default", "POST").status_code == 200
    assert ask(context_of(bucket.store, bucket.clock), f"/tasks/message-17?{named}").json()["state"] == "retrying"


def test_every_endpoint_of_a_submission_asks_who_may(one: Submitted) -> None:
    access = Noted({"default"})
    context, path = context_of(one.store, one.clock, access=access), f"/submissions/{one.submission_id}"
    for tail in ("", "/proof", "/outcomes"):
        refused(ask(context, path + tail), 403)
    for tail in ("/cancel", "/retry"):
        refused(ask(context, path + tail, "POST"), 403)
    assert access.asked == [("read", "default")] * 3 + [("cancel", "default"), ("retry", "default")]
    assert one.store.names("cancel/") == ()


@pytest.mark.parametrize("tail", ["", "/proof", "/outcomes", "/cancel", "/retry"])
def test_what_there_is_not_and_what_is_no_id(tail: str) -> None:
    one = Submitted(0, close=False)
    context, method = context_of(one.store, one.clock), "POST" if tail in ("/cancel", "/retry") else "GET"
    refused(ask(context, f"/submissions/s-none{tail}", method), 404, "no such submission")
    refused(ask(context, f"/submissions/%20{tail}", method), 422, "no id")
    refused(ask(context_of(None, one.clock), f"/submissions/s-1{tail}", method), 503, "set BUCKET_NAME")


@pytest.mark.parametrize("path", ["", "/proof", "/outcomes"])
def test_a_bucket_that_does_not_answer_is_503(one: Submitted, path: str) -> None:
    context = context_of(one.store, one.clock)
    ask(context, f"/submissions/{one.submission_id}")
    one.store.fail_next("list", DependencyUnavailable("it did not answer"))
    answer = ask(context, f"/submissions/{one.submission_id}{path}")
    refused(answer, 503, "it did not answer")
    assert answer.headers["retry-after"] == "5"


DEEP = b"[" * 3000


@pytest.mark.parametrize("summary", [{"task_count": "x"}, {"shards": None}, {"shards": [1]}, {"part_count": True}, {"lane": "\ud800"}])
def test_a_damaged_summary_is_a_conflict_whatever_is_asked(one: Submitted, summary: dict[str, Any]) -> None:
    name = submission_object(one.submission_id)
    one.store.write(name, json.dumps({**json.loads(one.store.read(name)), **summary}).encode())
    context, task_id = context_of(one.store, one.clock), one.ids[0]
    paths = [f"/submissions/{one.submission_id}{tail}" for tail in ("", "/proof", "/outcomes")]
    answers = [ask(context, path) for path in paths] + [ask(context, f"{paths[0]}/retry", "POST"), ask(context, f"/tasks/{task_id}")]
    assert {answer.status_code for answer in answers} <= {200, 409}, [answer.text for answer in answers]
    if summary != {"shards": [1]}:
        assert name in refused(answers[0], 409)["error"]


def test_lines_nested_too_deep_are_damaged_lines(one: Submitted) -> None:
    one.store.write(manifest_object(one.submission_id, 0), DEEP)
    one.store.write(one.store.names(outcome_folder(one.shard))[0], DEEP)
    context, path = context_of(one.store, one.clock), f"/submissions/{one.submission_id}"
    assert len(ask(context, f"{path}/proof").json()["problems"]) == 3
    assert (ask(context, path).status_code, ask(context, f"{path}/outcomes").status_code) == (200, 200)


def test_what_cannot_be_read_is_told(one: Submitted) -> None:
    one.store.write(submission_object(one.submission_id), b"no JSON")
    refused(ask(context_of(one.store, one.clock), f"/submissions/{one.submission_id}"), 409, "does not tell the lane")
    open_one = Submitted(2, close=False)
    open_one.store.write(manifest_object(open_one.submission_id, 0), b"")
    refused(ask(context_of(open_one.store, one.clock), f"/submissions/{open_one.submission_id}"), 409, "is not closed")


def test_parameters_of_a_wrong_kind_are_problems_too(one: Submitted) -> None:
    context, path = context_of(one.store, one.clock), f"/submissions/{one.submission_id}/outcomes"
    assert refused(ask(context, f"{path}?final=maybe"), 422)["errors"][0]["pointer"] == "?final"
    refused(ask(context, f"{path}?outcome=lost"), 422, "?outcome must be one of")
    refused(ask(context, f"{path}?since=0001-01-01"), 422)


def test_requests_that_would_wait_too_long_are_refused(one: Submitted, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slow readers take no thread but those of their own, and of these only so many wait."""
    monkeypatch.setattr(context_module, "MAX_WAITING", 2)
    context, go, read = context_of(one.store, one.clock), threading.Event(), one.store.read

    def slow(name: str) -> bytes:
        assert go.wait(20)
        return read(name)

    one.store.read = slow  # type: ignore[method-assign]

    async def scenario(client: httpx.AsyncClient) -> None:
        path = f"/submissions/{one.submission_id}"
        waiting = [asyncio.create_task(client.get(path)) for _ in range(context_module.THREADS + 2)]
        while context.threads.statistics().tasks_waiting < 2:
            await asyncio.sleep(0)
        assert (await client.get(path)).status_code == 503
        go.set()
        assert {answer.status_code for answer in await asyncio.gather(*waiting)} == {200}

    serve(context, scenario)


def test_what_is_proved_already_waits_for_no_proof_that_is_being_made(one: Submitted) -> None:
    context, path = context_of(one.store, one.clock), f"/submissions/{one.submission_id}/proof"

    async def scenario(client: httpx.AsyncClient) -> None:
        assert (await client.get(path)).status_code == 200
        context.slow.acquire_on_behalf_of_nowait("another proof")
        assert (await client.get(path)).status_code == 200
        one.write([one.outcome(one.ids[0])])
        waiting = [asyncio.create_task(client.get(path)) for _ in range(context_module.MAX_WAITING_LONG)]
        while context.slow.statistics().tasks_waiting < len(waiting):
            await asyncio.sleep(0)
        assert (await client.get(path)).status_code == 503
        context.slow.release_on_behalf_of("another proof")
        assert {answer.status_code for answer in await asyncio.gather(*waiting)} == {200}

    serve(context, scenario)


def test_a_proof_names_so_many_missing_tasks_and_counts_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looking, "MAX_NAMED", 2)
    one = Submitted(150)
    body = ask(context_of(one.store, one.clock), f"/submissions/{one.submission_id}/proof").json()
    assert (body["missing"], body["missing_count"], body["complete"]) == (sorted(one.ids)[:2], 150, False)


def test_cancel_writes_the_lanes_list(one: Submitted) -> None:
    context = context_of(one.store, one.clock, access=Noted())
    answer = ask(context, f"/submissions/{one.submission_id}/cancel?why=wrong%20input", "POST").json()
    assert (answer["lane"], answer["status"], answer["at"]) == ("default", "cancelled", iso(one.clock.now()))
    assert ask(context, f"/tasks/{one.ids[0]}/cancel", "POST").status_code == 200
    entries = from_json(one.store.read(cancel_object("default")))
    assert [(entry.id, entry.who, entry.why) for entry in entries] == [
        (one.submission_id, "ada@example.com", "wrong input"),
        (one.ids[0], "ada@example.com", ""),
    ]
    wrong = refused(ask(context, f"/tasks/{one.ids[0]}/cancel?lane=nowhere", "POST"), 422, "no lane")
    assert [place["pointer"] for place in wrong["errors"]] == ["?lane"]


def with_letters(topic: str = "tasks", lane: str = "default") -> tuple[Submitted, MemoryBroker]:
    one = Submitted(0, close=False)
    letters = [log_of_letters.letter(number, lane=lane) for number in range(3)]
    log_of_letters.write_log(one.store, letters)
    told = [json.dumps({"task_id": letter.task_id, "task_type": "resize", "shard": "s-1"}) + "\n" for letter in letters]
    one.store.write(manifest_object("s-1", 0), "".join(told).encode())
    summary = {"lane": "default", "task_count": 3, "part_count": 1, "shards": ["s-1"], "submitted_at": iso(one.clock.now())}
    one.store.write(submission_object("s-1"), json.dumps(summary).encode())
    write_lanes(one.store, {"default": replace(log_of_letters.LANE, topic=topic)})
    return one, MemoryBroker(one.clock)


def test_retry_publishes_the_dead_ones_again_once() -> None:
    one, broker = with_letters()
    context = context_of(one.store, one.clock, broker)
    receipt = ask(context, "/submissions/s-1/retry?why=fixed", "POST").json()
    assert (receipt["replayed_count"], receipt["complete"], receipt["dead_count"], receipt["not_in_log_count"]) == (3, True, 3, 0)
    assert receipt["replays"][0]["lane"] == "default"
    assert ask(context, "/submissions/s-1/retry", "POST").json()["replayed_count"] == 0
    assert len(log_of_letters.published(broker)) == 3
    state = ask(context, "/submissions/s-1").json()
    assert (state["state"], state["dead_count"], state["pending_count"]) == ("running", 0, 3)


def test_retry_refuses_what_it_cannot_publish() -> None:
    one, broker = with_letters(topic="not-ours")
    refused(ask(context_of(one.store, one.clock, broker), "/submissions/s-1/retry", "POST"), 409, "does not publish to its topic not-ours")
    write_lanes(one.store, {"default": replace(log_of_letters.LANE, accept=("raw",), default_type="note")})
    refused(ask(context_of(one.store, one.clock, broker), "/submissions/s-1/retry", "POST"), 409, "lane default takes raw and no envelope")
    one, broker = with_letters(lane=UNKNOWN_LANE)
    refused(ask(context_of(one.store, one.clock, broker), "/submissions/s-1/retry", "POST"), 409, "are of no lane")
    one.store.delete("controller/lanes.json")
    one, broker = with_letters()
    one.store.delete("controller/lanes.json")
    refused(ask(context_of(one.store, one.clock, broker), "/submissions/s-1/retry", "POST"), 409, "run `fanout tick`")
    assert broker.topic("tasks").published == []


def test_every_status_is_documented(one: Submitted) -> None:
    app = FastAPI()
    add_reading(app, context_of(one.store, one.clock))
    paths = app.openapi()["paths"]
    assert set(paths) == {
        *(f"/submissions/{{submission_id}}{tail}" for tail in ("", "/proof", "/outcomes", "/cancel", "/retry")),
        *(f"/tasks/{{task_id}}{tail}" for tail in ("", "/cancel")),
    }
    for operation in (operation for methods in paths.values() for operation in methods.values()):
        assert set(operation["responses"]) == {"200", "401", "403", "404", "409", "422", "503"}


def test_the_front_door_has_these_endpoints_and_replays_through_its_own_topics() -> None:
    one, _ = with_letters()
    topics = {"default": FakeTopic("tasks")}

    @asynccontextmanager
    async def opened(_settings: IntakeSettings) -> AsyncIterator[Mapping[str, AsyncTopic]]:
        yield topics

    async def run() -> None:
        settings = intake_settings({"GOOGLE_CLOUD_PROJECT": "p", "TOPIC_NAME": "tasks"})
        app = create_app(settings, registry=Registry(), topics=opened, clock=one.clock, rng=random.Random(5), store=one.store)
        transport = httpx.ASGITransport(app)
        async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url="http://intake") as client:
            assert (await client.post("/submissions/s-1/retry")).json()["replayed_count"] == 3
            refused(await client.get("/submissions/s-2"), 404)

    asyncio.run(asyncio.wait_for(run(), 20))
    assert len(topics["default"].messages) == 3
