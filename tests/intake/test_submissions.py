"""`POST /submissions` over ASGI, with bucket and topic in memory: receipts, refusals, and what is told when something fails on the way."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest

from batch.client.closing import read_summary
from batch.client.proof import prove
from batch.client.receipts import HOLD_S, RENEW_AFTER_S, Held
from batch.model.delivery import Outgoing
from batch.model.errors import DependencyForbidden, DependencyUnavailable
from batch.model.message import ROLLING_BELOW
from batch.testing import MemoryObjectStore
from intake import asking
from intake.access import Access, Verb
from intake.service import AT_ONCE_BYTES
from intake.submissions import bulk
from tests.intake.test_service import Service, assert_refused, serve
from tests.support import slow_but

KEY = {"Idempotency-Key": "nightly"}


def lines(count: int, first: int = 0) -> bytes:
    return b"".join(b'{"task_type": "thumbnail", "number": %d}\n' % number for number in range(first, first + count))


def array(count: int) -> bytes:
    return json.dumps([{"task_type": "thumbnail", "number": number} for number in range(count)]).encode()


def messages(service: Service, lane: str = "default") -> list[Outgoing]:
    return service.topics[lane].messages


def numbers(service: Service) -> list[int]:
    return sorted(json.loads(message.data)["number"] for message in messages(service))


def manifest(store: MemoryObjectStore, submission_id: str) -> list[str]:
    names = store.names(f"submissions/{submission_id}/manifest-")
    return [json.loads(line)["task_id"] for name in names for line in store.read(name).splitlines()]


def receipt(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


@pytest.fixture
def store() -> MemoryObjectStore:
    return MemoryObjectStore("bucket")


@pytest.mark.parametrize("count", [0, 1, ROLLING_BELOW, 5001])
@pytest.mark.parametrize("body", [lines, array], ids=["ndjson", "array"])
def test_a_receipt_means_that_broker_and_bucket_have_everything(store: MemoryObjectStore, body: Any, count: int) -> None:
    async def scenario(service: Service) -> None:
        got = receipt(await service.post("/submissions?lane=urgent", body(count)))
        assert got == {
            "submission_id": got["submission_id"],
            "lane": "urgent",
            "accepted_count": count,
            "refused_count": 0,
            "errors": [],
            "closed": True,
            "status": "submitted",
        }
        sent = messages(service, "urgent")
        assert [json.loads(message.data)["number"] for message in sent] == list(range(count))
        assert [message.attributes["task_id"] for message in sent] == manifest(store, got["submission_id"])
        assert {message.attributes["submission_id"] for message in sent} <= {got["submission_id"]}
        assert prove(store, got["submission_id"]).submitted_count == count

    serve(scenario, store=store)


def test_all_problems_are_told_at_once_and_nothing_is_published(store: MemoryObjectStore) -> None:
    body = [
        {"task_type": "thumbnail"},
        {"task_type": "file_processing", "filename": "../x"},
        7,
        {"task_type": "thumbnial"},
        {"task_type": "data_transformation", "dataset_size": 0, "method": 7},
        {"task_type": "fanout.finish"},
    ]
    ndjson = b"\n".join(json.dumps(one).encode() for one in body) + b'\n{"task_type": "thumbnail", "a": 1, "a": 2}\n{"a": NaN}\nnonsense\n'

    async def scenario(service: Service) -> None:
        told = assert_refused(await service.post("/submissions", body), 422, "5 of 6 tasks are wrong", "item 2: ")
        assert [one["pointer"] for one in told["errors"]] == [
            "#/1/filename",
            "#/2",
            "#/3/task_type",
            "#/4/dataset_size",
            "#/4/method",
            "#/5/task_type",
        ]
        assert (told["accepted_count"], told["refused_count"]) == (0, 5)
        told = assert_refused(await service.post("/submissions", ndjson), 422, "8 of 9 tasks are wrong", "line 2: ")
        assert [one["pointer"] for one in told["errors"]][-3:] == ["#/6", "#/7", "#/8"]
        assert "stands twice" in told["errors"][-3]["detail"]
        assert messages(service) == []
        assert store.names() == ()
        got = receipt(await service.post("/submissions?accept=good", ndjson))
        assert (got["accepted_count"], got["refused_count"], len(got["errors"])) == (1, 8, 9)
        assert len(messages(service)) == 1

    serve(scenario, store=store)


def test_of_many_problems_the_first_thousand_are_told(store: MemoryObjectStore) -> None:
    async def scenario(service: Service) -> None:
        told = assert_refused(await service.post("/submissions", b'{"task_type": "other"}\n' * 3000), 422, "3000 of 3000")
        assert len(told["errors"]) == 1000
        assert told["refused_count"] == 3000

    serve(scenario, store=store)


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        (b'[{"task_type": "thumbnail"}', 400, "breaks at item 2"),
        (b'[{"task_type": "thumbnail"},]', 400, "breaks at item 2"),
        (b'[{"task_type": "thumbnail"} {"task_type": "thumbnail"}]', 400, "expecting ','"),
        (b'[{"task_type": "thumbnail"}] x', 400, "more after the array"),
        (b'[{"task_type": "thumb', 400, "breaks at item 1"),
        (b"[" * 200_000, 400, "nested too deep"),
        (b'[{"task_type": "thumbnail", "a": "\xff"}]', 400, "utf-8"),
        (b'[{"task_type": "thumbnail", "a": ' + b"9" * 5000 + b"}]", 400, "breaks at item 1"),
        (b'[{"task_type": "thumbnail", "a": "' + b"x" * 11_000_000 + b'"}]', 422, "item 1: the task has 110"),
        (b'[{"task_type": "thumbnail", "a": "' + b"x" * 25_000_000 + b'"}]', 413, "item 1 is larger than"),
        (b'{"task_type": "thumbnail", "a": "' + b"x" * 11_000_000 + b'"}', 422, "the line is larger than"),
        (b'[{"task_type": "thumbnail", "a": ' + b"[" * 101 + b"]" * 101 + b"}]", 422, "nested more than 100 deep"),
        (b"\xff\xfe{\x00", 422, "not JSON"),
        (b" " * 33_554_433, 413, "larger than"),
    ],
    ids=lambda value: str(value[:20] if isinstance(value, bytes) else value)[:20],
)
@pytest.mark.parametrize("accept", slow_but(["all"], ["all", "good"]))
def test_a_broken_body_publishes_nothing(store: MemoryObjectStore, accept: str, body: bytes, status: int, text: str) -> None:
    async def scenario(service: Service) -> None:
        answer = await service.post(f"/submissions?accept={accept}", body)
        if accept == "good" and status == 422:
            assert receipt(answer)["accepted_count"] == 0
        else:
            assert_refused(answer, status, text)
        assert messages(service) == []

    serve(scenario, store=store)


def test_too_many_tasks_are_refused(store: MemoryObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "MAX_TASKS", 10)

    async def scenario(service: Service) -> None:
        assert_refused(await service.post("/submissions", lines(11)), 413, "more than 10 tasks", "open=true")
        assert receipt(await service.post("/submissions", lines(10)))["accepted_count"] == 10

    serve(scenario, store=store)


@pytest.mark.parametrize(
    ("query", "pointers"),
    [
        ("accept=some", ["?accept"]),
        ("accept=all&accept=good", ["?accept"]),
        ("on_compete={}", ["?on_compete"]),
        ("open=yes&accept=x", ["?accept", "?open"]),
        ("on_complete={", ["?on_complete"]),
        ('on_complete={"task_type":"thumbnial"}', ["?on_complete/task_type"]),
        ('on_complete={"task_type":"thumbnail","lane":"nowhere"}', ["?on_complete/lane"]),
        ('on_failure={"task_type":"file_processing","filename":"../x"}', ["?on_failure/filename"]),
        ('on_failure={"task_type":"fanout.webhook"}', ["?on_failure/task_type"]),
        ('tolerate={"count":-1}', ["?tolerate/count"]),
        ("source=gs://other/input/x", ["?source"]),
        ("source=gs://bucket/controller/lanes.json", ["?source"]),
        ("source=gs://bucket/input/../controller/lanes.json", ["?source"]),
        ("source=gs://bucket/input/missing", ["?source"]),
    ],
)
def test_wrong_options_are_named(store: MemoryObjectStore, query: str, pointers: list[str]) -> None:
    async def scenario(service: Service) -> None:
        told = assert_refused(await service.post(f"/submissions?{query}", b""), 422)
        assert [one["pointer"] for one in told["errors"]] == pointers
        assert store.names() == ()

    serve(scenario, store=store)


def test_ends_are_written_down_before_the_first_manifest(store: MemoryObjectStore) -> None:
    written: list[str] = []
    write = store.write

    def noted(name: str, *arguments: Any, **options: Any) -> Any:
        written.append(name)
        return write(name, *arguments, **options)

    store.write = noted  # type: ignore[method-assign]
    query = 'on_complete={"task_type":"thumbnail","lane":"urgent"}&tolerate={"percent":5}'

    async def scenario(service: Service) -> None:
        for count in (0, 3):
            written.clear()
            submission_id = receipt(await service.post(f"/submissions?{query}", lines(count)))["submission_id"]
            assert written[0] == f"open/default/{submission_id}"
            summary = read_summary(store, submission_id) or {}
            assert summary["ends"] == {"on_complete": {"task_type": "thumbnail", "lane": "urgent"}, "tolerate": {"percent": 5}}

    serve(scenario, store=store)


def test_a_named_object_is_submitted(store: MemoryObjectStore) -> None:
    store.write("input/big.ndjson", lines(300))

    async def scenario(service: Service) -> None:
        assert receipt(await service.post("/submissions?source=gs://bucket/input/big.ndjson", b""))["accepted_count"] == 300
        assert_refused(await service.post("/submissions?source=gs://bucket/input/big.ndjson", lines(1)), 422, "no body")
        assert numbers(service) == list(range(300))

    serve(scenario, store=store)


def test_who_may_submit_is_asked_for_every_lane_that_gets_tasks(store: MemoryObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []

    def check(_self: Access, _request: object, verb: Verb, lane: str) -> str:
        asked.append((verb.value, lane))
        return ""

    monkeypatch.setattr(Access, "check", check)

    async def scenario(service: Service) -> None:
        query = 'open=true&on_failure={"task_type":"thumbnail","lane":"urgent"}'
        path = f"/submissions/{receipt(await service.post(f'/submissions?{query}', b''))['submission_id']}"
        assert asked == [("submit", "default"), ("submit", "urgent")]
        for what in (f"{path}/tasks", f"{path}/close", "/submit-task?lane=urgent"):
            asked.clear()
            await service.post(what, b'{"task_type": "thumbnail"}')
            assert asked == [("submit", "urgent" if "urgent" in what else "default")]
        closed = receipt(await service.post("/submissions?lane=urgent", b""))["submission_id"]
        asked.clear()
        assert_refused(await service.post(f"/submissions/{closed}/tasks", b""), 409, "closed")
        assert asked == [("submit", "urgent")]

    serve(scenario, store=store)


def test_without_a_bucket_it_says_what_to_set() -> None:
    async def scenario(service: Service) -> None:
        for path in ("/submissions", "/submissions/s-1/tasks", "/submissions/s-1/close"):
            assert_refused(await service.post(path, lines(1)), 503, "set BUCKET_NAME")

    serve(scenario)


def test_a_repeat_under_its_key_answers_the_receipt_and_publishes_nothing(store: MemoryObjectStore) -> None:
    async def scenario(service: Service) -> None:
        first = await service.post("/submissions", lines(200), headers=KEY)
        again = await service.post("/submissions", lines(200), headers=KEY)
        assert receipt(first) == receipt(again)
        assert ("idempotent-replayed" in first.headers, again.headers["idempotent-replayed"]) == (False, "true")
        assert receipt(first)["submission_id"].startswith("k-")
        assert len(messages(service)) == 200
        assert_refused(await service.post("/submissions", lines(201), headers=KEY), 422, "another body")
        assert_refused(await service.post("/submissions?accept=good", lines(200), headers=KEY), 422, "other options")
        assert receipt(await service.post("/submissions?lane=urgent", lines(201), headers=KEY))["accepted_count"] == 201
        assert len(messages(service)) == 200
        assert_refused(await service.post("/submissions", lines(1), headers={"Idempotency-Key": " "}), 422, "Idempotency-Key: ")

    serve(scenario, store=store)


def test_a_wrong_body_does_not_use_up_its_key(store: MemoryObjectStore) -> None:
    async def scenario(service: Service) -> None:
        assert_refused(await service.post("/submissions", b'{"task_type": "other"}', headers=KEY), 422)
        assert receipt(await service.post("/submissions", lines(3), headers=KEY))["accepted_count"] == 3

    serve(scenario, store=store)


def test_of_two_at_once_one_is_told_to_come_again(store: MemoryObjectStore) -> None:
    async def scenario(service: Service) -> None:
        topic = service.topics["default"]
        first = asyncio.create_task(service.post("/submissions", lines(50), headers=KEY))
        await topic.arrived(1)
        told = await service.post("/submissions", lines(50), headers=KEY)
        assert_refused(told, 409, "is under way")
        assert told.headers["retry-after"] == str(round(HOLD_S))
        topic.open()
        assert receipt(await first) == receipt(await service.post("/submissions", lines(50), headers=KEY))
        assert len(messages(service)) == 50

    serve(scenario, held=True, store=store)


def test_what_a_client_left_goes_on_to_its_end(store: MemoryObjectStore) -> None:
    async def scenario(service: Service) -> None:
        topic = service.topics["default"]
        first = asyncio.create_task(service.post("/submissions", lines(50), headers=KEY))
        await topic.arrived(1)
        first.cancel()
        topic.open()
        while (again := await service.post("/submissions", lines(50), headers=KEY)).status_code == 409:
            await asyncio.sleep(0)
        assert receipt(again)["accepted_count"] == 50
        assert again.headers["idempotent-replayed"] == "true"
        assert len(messages(service)) == 50

    serve(scenario, held=True, store=store)


@pytest.mark.parametrize(
    ("error", "status"), [(DependencyUnavailable("the broker is away"), 503), (DependencyForbidden("grant roles/pubsub.publisher"), 500)]
)
@pytest.mark.parametrize("key", [None, "nightly"])
def test_a_broker_that_fails_in_the_middle_is_told_exactly(
    store: MemoryObjectStore, monkeypatch: pytest.MonkeyPatch, key: str | None, error: Exception, status: int
) -> None:
    monkeypatch.setattr(bulk, "TASKS_PER_PART", 100)

    async def scenario(service: Service) -> None:
        topic, publish = service.topics["default"], service.topics["default"].publish

        async def failing(batch: Any) -> list[str]:
            topic.error = error if len(topic.requests) == 2 else None
            return await publish(batch)

        topic.publish = failing  # type: ignore[method-assign,assignment]
        headers = {} if key is None else {"Idempotency-Key": key}
        answer = await service.post("/submissions", lines(450), headers=headers)
        told = assert_refused(answer, status, "200 tasks are published", "positions 201 to 300", str(error))
        assert ("retry-after" in answer.headers) == (status == 503)
        assert (told["accepted_count"], told["uncertain_count"], told["uncertain"]) == (200, 100, [201, 300])
        if key is None:
            assert "run again" in told["error"]
            return
        assert "same Idempotency-Key" in told["error"]
        got = receipt(await service.post("/submissions", lines(450), headers=headers))
        assert (got["submission_id"], got["accepted_count"]) == (told["submission_id"], 450)
        assert_once(service, store, got["submission_id"], 450)
        assert len(messages(service)) == 450 + 100, "only what was uncertain is published again"

    serve(scenario, store=store)


def assert_once(service: Service, store: MemoryObjectStore, submission_id: str, count: int) -> None:
    """Every task is in the manifest once, with the message that it has; what was published twice is the same message."""
    ids = manifest(store, submission_id)
    assert len(ids) == len(set(ids)) == count
    by_id: dict[str, set[bytes]] = {}
    for message in messages(service):
        by_id.setdefault(message.attributes["task_id"], set()).add(message.data)
    assert by_id.keys() == set(ids)
    assert Counter(map(len, by_id.values())) == {1: count}
    assert prove(store, submission_id).problems == ()


@pytest.mark.parametrize("after_effect", slow_but([True], [False, True]))
@pytest.mark.parametrize("query", slow_but([""], ["", '?on_complete={"task_type":"thumbnail"}', "?open=true"]))
def test_a_bucket_that_fails_at_any_request_is_told_and_a_repeat_completes_it(
    store: MemoryObjectStore, monkeypatch: pytest.MonkeyPatch, query: str, after_effect: bool
) -> None:
    monkeypatch.setattr(bulk, "TASKS_PER_PART", 100)
    counts: list[int] = []

    def run(method: str, number: int) -> bool:
        """Whether the number-th request of this kind was met by the fault."""
        bucket = MemoryObjectStore("bucket")
        calls = 0
        real = getattr(bucket, method)

        def failing(*arguments: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls != number:
                return real(*arguments, **options)
            if after_effect:
                real(*arguments, **options)
            raise DependencyUnavailable("the bucket is away")

        monkeypatch.setattr(bucket, method, failing)

        async def scenario(service: Service) -> None:
            answer = await service.post(f"/submissions{query}", lines(250), headers=KEY)
            if calls < number:
                receipt(answer)
                return
            told = assert_refused(answer, 503, "the bucket is away")
            counts.append(told.get("accepted_count", 0))
            service.clock.advance(HOLD_S)
            got = receipt(await service.post(f"/submissions{query}", lines(250), headers=KEY))
            assert got["accepted_count"] == 250
            assert len(messages(service)) <= 250 + 100
            assert_once(service, bucket, got["submission_id"], 250)
            assert numbers(service)[0] == 0

        serve(scenario, store=bucket)
        return calls >= number

    for method in ("write",) if after_effect else ("write", "read_with_info", "info"):
        number = 1
        while run(method, number):
            number += 1
    assert {0, 100, 200, 250} <= set(counts), "somewhere in the middle, and after everything"


def test_a_killed_request_is_taken_over_after_a_minute(store: MemoryObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "TASKS_PER_PART", 100)

    class Killed(BaseException):
        """The process is gone: nothing is cleaned up."""

    async def scenario(service: Service) -> None:
        writes = 0
        write = store.write

        def dying(name: str, *arguments: Any, **options: Any) -> Any:
            nonlocal writes
            writes += 1
            if writes == 3:
                raise Killed
            return write(name, *arguments, **options)

        store.write = dying  # type: ignore[method-assign]
        with pytest.raises(Killed):
            await service.post("/submissions", lines(300), headers=KEY)
        assert len(messages(service)) == 100
        service.clock.advance(HOLD_S - 1)
        assert (await service.post("/submissions", lines(300), headers=KEY)).headers["retry-after"] == "1"
        service.clock.advance(1)
        got = receipt(await service.post("/submissions", lines(300), headers=KEY))
        assert got["accepted_count"] == 300
        assert_once(service, store, got["submission_id"], 300)

    serve(scenario, store=store)


def test_who_was_taken_over_stops_before_it_publishes_more(store: MemoryObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "TASKS_PER_PART", 100)

    async def scenario(service: Service) -> None:
        topic = service.topics["default"]
        slow = asyncio.create_task(service.post("/submissions", lines(300), headers=KEY))
        await topic.arrived(1)
        service.clock.advance(HOLD_S)
        other = asyncio.create_task(service.post("/submissions", lines(300), headers=KEY))
        await topic.arrived(2)
        topic.release()
        assert_refused(await slow, 503, "has taken over")
        topic.open()
        assert receipt(await other)["accepted_count"] == 300
        assert [len(request) for request in topic.requests] == [100, 100, 100, 100]

    serve(scenario, held=True, store=store)


def test_while_keys_of_tasks_are_looked_at_the_mark_is_kept(store: MemoryObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    keyed = b"".join(b'{"task_type": "thumbnail", "idempotency_key": "k%d"}\n' % number for number in range(1000))
    write, silent = store.write, list[float]()

    async def scenario(service: Service) -> None:
        written = 0

        def slow(name: str, data: bytes, **options: Any) -> Any:
            nonlocal written
            info = write(name, data, **options)
            if name.startswith("keys/") and "/k-" not in name:
                written += 1
                service.clock.advance(0.1)
            return info

        monkeypatch.setattr(store, "write", slow)
        held = [service.clock.now()]
        real = Held.renew

        def renewed(self: Held) -> None:
            now = service.clock.now()
            silent.append(now - held[0])
            held[0] = now
            real(self)

        monkeypatch.setattr(Held, "renew", renewed)
        assert receipt(await service.post("/submissions?accept=good", keyed, headers=KEY))["accepted_count"] == 1000
        assert written == 1000
        assert max(silent) < HOLD_S - RENEW_AFTER_S

    serve(scenario, store=store)


def test_when_too_many_are_under_way_the_next_is_told_to_come_again(store: MemoryObjectStore) -> None:
    async def scenario(service: Service) -> None:
        topic = service.topics["default"]
        first = asyncio.create_task(service.post("/submissions", lines(5)))
        await topic.arrived(1)
        answer = await service.post("/submissions", lines(5))
        assert_refused(answer, 503, "under way")
        assert int(answer.headers["retry-after"]) > 0
        topic.open()
        receipt(await first)
        receipt(await service.post("/submissions", lines(5)))

    serve(scenario, held=True, store=store, MAX_SUBMISSIONS="1")


def test_lines_with_keys_that_another_task_has_keep_all_from_being_submitted(store: MemoryObjectStore) -> None:
    async def scenario(service: Service) -> None:
        receipt(await service.post("/submissions", b'{"task_type": "thumbnail", "number": 1, "idempotency_key": "a"}'))
        body = lines(2) + b'{"task_type": "thumbnail", "number": 2, "idempotency_key": "a"}'
        told = assert_refused(await service.post("/submissions", body), 422, "1 of 3 tasks", "line 3: ", "was used first at")
        assert told["errors"][0]["pointer"] == "#/2/idempotency_key"
        assert len(messages(service)) == 1
        assert receipt(await service.post("/submissions?accept=good", body))["accepted_count"] == 2

    serve(scenario, store=store)


@pytest.mark.parametrize("path", ["/submissions", "/submit-task"])
def test_whom_the_end_of_the_service_cuts_off_is_told_to_repeat(store: MemoryObjectStore, path: str) -> None:
    async def scenario(service: Service) -> None:
        cut = asyncio.create_task(service.post(path, lines(1), headers=KEY))
        await service.topics["default"].arrived(1)
        cut.cancel()  # as the server does when its time after a signal is over
        answer = await cut
        assert_refused(answer, 503, "the service ended", "same Idempotency-Key")
        assert answer.headers.keys() >= {"retry-after", "x-request-id"}
        service.topics["default"].open()

    serve(scenario, held=True, store=store)


def test_a_full_temporary_folder_is_told(store: MemoryObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.write("input/x", lines(1))

    def full(*_arguments: Any, **_options: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    async def scenario(service: Service) -> None:
        monkeypatch.setattr(store, "download", full)
        assert_refused(await service.post("/submissions?source=gs://bucket/input/x", b""), 503, "No space left", "more memory")
        monkeypatch.setattr(Path, "open", full)
        assert_refused(await service.post("/submissions", lines(1)), 503, "No space left", "more memory")
        monkeypatch.setattr(os, "mkdir", full)
        assert_refused(await service.post("/submissions", lines(1)), 503, "No space left", "more memory")

    serve(scenario, store=store)


def test_a_chunked_body_may_come_slowly(store: MemoryObjectStore) -> None:
    async def scenario(service: Service) -> None:
        async def slow() -> Any:
            for at in range(0, len(body), 7):
                await asyncio.sleep(0)
                yield body[at : at + 7]

        body = array(100)
        assert receipt(await service.client.post("/submissions", content=slow()))["accepted_count"] == 100

    serve(scenario, store=store)


def test_who_does_not_need_the_bucket_waits_for_nobody_who_does(store: MemoryObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "WAIT_S", 0.05)
    answers = threading.Event()
    asked = threading.Semaphore(0)
    write = store.write

    def slow(*arguments: Any, **options: Any) -> Any:
        asked.release()
        assert answers.wait(20)
        return write(*arguments, **options)

    monkeypatch.setattr(store, "write", slow)

    async def scenario(service: Service) -> None:
        def single(number: int) -> asyncio.Task[httpx.Response]:
            headers = {"Idempotency-Key": f"k{number}"}
            return asyncio.create_task(service.post("/submit-task", {"task_type": "thumbnail"}, headers=headers))

        singles = [single(number) for number in range(asking.THREADS)]
        for _ in singles:
            assert await asyncio.to_thread(asked.acquire, timeout=20)
        large = {"task_type": "thumbnail", "text": "x" * AT_ONCE_BYTES}
        assert (await service.post("/submit-task", large)).status_code == 200
        assert_refused(await service.post("/submissions?accept=some", b"{}"), 422, "accept")
        told = await single(asking.THREADS)
        assert_refused(told, 503, f"{asking.THREADS} requests wait for the bucket")
        assert "retry-after" in told.headers
        answers.set()
        assert {(await one).status_code for one in singles} == {200}

    serve(scenario, store=store)
