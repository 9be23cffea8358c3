"""The client of the front door: what it sends, what it sends again, and what it makes of the answers; both clients by the same tests."""

from __future__ import annotations

import asyncio
import json
import random
import re
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch.client.http import AsyncClient, Client, DoorRefused
from batch.client.http.operations import Parts
from batch.model.errors import DependencyUnavailable, MessageRefused
from batch.testing import ManualClock
from tests.support import clean_environment

Failure = tuple[int, dict[str, str]] | Exception


@dataclass
class Door:
    """A front door in memory. `failures` come before the effect of the next requests, `lost` ones after it."""

    failures: list[Failure] = field(default_factory=list)
    lost: list[Exception] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    headers: list[httpx.Headers] = field(default_factory=list)
    receipts: dict[str, tuple[bytes, dict[str, Any]]] = field(default_factory=dict)
    tasks: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    states: list[str] = field(default_factory=lambda: ["running"])
    max_tasks: int = 4

    def __call__(self, request: httpx.Request) -> httpx.Response:
        query = request.url.query.decode()
        self.asked.append(f"{request.method} {request.url.path}" + (f"?{query}" if query else ""))
        self.headers.append(request.headers)
        if self.failures:
            failure = self.failures.pop(0)
            if isinstance(failure, Exception):
                raise failure
            status, headers = failure
            return httpx.Response(status, headers=headers, json={"status": status, "error": "not now"})
        answer = self.answer(request)
        if self.lost:
            raise self.lost.pop(0)
        return answer

    def answer(self, request: httpx.Request) -> httpx.Response:
        path, body = request.url.path, request.read()
        if path == "/submit-task":
            key = request.headers["idempotency-key"]
            self.tasks.setdefault(key, [json.loads(body)])
            return httpx.Response(200, json={"task_id": f"id-of-{key}", "message_id": "1", "status": "submitted"})
        if path == "/submissions" or path.endswith("/tasks"):
            return self.taken(path, body, request.headers["idempotency-key"], dict(request.url.params))
        if path.endswith("/outcomes"):
            lines = b"".join(json.dumps({"task_id": f"{number}"}).encode() + b"\n" for number in range(3))
            return httpx.Response(200, content=lines, headers={"content-type": "application/x-ndjson"})
        if path.endswith("/proof"):
            self.states = ["complete"]
            return httpx.Response(200, json={"complete": True})
        if request.method == "GET":
            return httpx.Response(200, json={"state": self.states.pop(0) if len(self.states) > 1 else self.states[0]})
        return httpx.Response(200, json={"done": path})

    def taken(self, path: str, body: bytes, key: str, query: Mapping[str, str]) -> httpx.Response:
        tasks = [json.loads(line) for line in body.splitlines()]
        assert len(tasks) <= self.max_tasks
        name = f"{path} {key}"
        if name in self.receipts:
            first, receipt = self.receipts[name]
            assert first == body
            return httpx.Response(200, json=receipt, headers={"Idempotent-Replayed": "true"})
        wrong = [number for number, task in enumerate(tasks) if task["task_type"] == "wrong"]
        errors = [{"pointer": f"#/{number}/task_type", "detail": "it is wrong"} for number in wrong]
        if wrong and query.get("accept") != "good":
            return httpx.Response(422, json={"status": 422, "error": "1 of 4 tasks is wrong", "errors": errors})
        submission = "k-1" if path == "/submissions" else path.split("/")[2]
        self.tasks.setdefault(submission, []).extend(task for task in tasks if task["task_type"] != "wrong")
        receipt = {
            "submission_id": submission,
            "lane": query.get("lane", "default"),
            "accepted_count": len(tasks) - len(wrong),
            "refused_count": len(wrong),
            "errors": errors,
            "closed": "open" not in query,
            "status": "submitted",
        }
        self.receipts[name] = (body, receipt)
        return httpx.Response(200, json=receipt)


class Both:
    """A client of either kind, whose calls return what they come to."""

    def __init__(self, kind: type[Client] | type[AsyncClient], door: Callable[[httpx.Request], httpx.Response], **options: Any) -> None:
        self.clock = ManualClock()
        transport = httpx.MockTransport(door)
        make = partial(kind, "http://door", transport=transport, clock=self.clock, rng=random.Random(3), **options)
        self._make: Callable[[], Any] = make
        self.kind = kind

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **more: Any) -> Any:
            if self.kind is Client:
                with self._make() as client:
                    found = getattr(client, name)(*arguments, **more)
                    return list(found) if isinstance(found, Iterator) else found
            return asyncio.run(self._awaited(name, *arguments, **more))

        return call

    async def _awaited(self, name: str, *arguments: Any, **more: Any) -> Any:
        async with self._make() as client:
            found = getattr(client, name)(*arguments, **more)
            return [one async for one in found] if isinstance(found, AsyncIterator) else await found


@pytest.fixture(autouse=True)
def clocks_of_loops(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """An asynchronous client sleeps by the test's clock; what it slept."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr("batch.client.http.clients.asyncio.sleep", sleep)
    return slept


@pytest.fixture(params=[Client, AsyncClient])
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def door() -> Door:
    return Door()


@pytest.fixture
def small_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batch.client.http.clients.Parts", partial(Parts, 4))


def tasks(count: int) -> list[dict[str, Any]]:
    return [{"task_type": "a", "number": number} for number in range(count)]


def test_one_task(kind: Any, door: Door) -> None:
    client = Both(kind, door)
    assert client.submit("thumbnail", {"filename": "a.png"}, lane="urgent", key="mine") == "id-of-mine"
    assert door.tasks == {"mine": [{"filename": "a.png", "task_type": "thumbnail"}]}
    assert door.asked == ["POST /submit-task?lane=urgent"]


def test_any_line_of_text_is_a_key(kind: Any, door: Door) -> None:
    client = Both(kind, door)
    client.submit("thumbnail", key="Größe 中")
    assert dict(door.headers[0].raw)[b"Idempotency-Key"] == "Größe 中".encode()
    for key in ("two\nlines", " around "):
        with pytest.raises(MessageRefused, match="a key is a line of text"):
            client.submit("thumbnail", key=key)
    assert len(door.asked) == 1


def test_a_request_without_a_key_gets_one_and_keeps_it_when_it_is_sent_again(kind: Any, door: Door) -> None:
    door.lost = [httpx.ReadError("reset"), httpx.ConnectTimeout("slow")]
    task_id = Both(kind, door).submit("thumbnail")
    assert len(door.asked) == 3
    (key,) = {one["idempotency-key"] for one in door.headers}
    assert task_id == f"id-of-{key}"
    assert Both(kind, door).submit("thumbnail") != task_id


def test_few_tasks_are_one_request(kind: Any, door: Door, small_requests: None) -> None:
    receipt = Both(kind, door).submit_many(iter(tasks(4)), lane="bulk", on_complete={"task_type": "done"}, tolerate={"count": 1})
    assert (receipt.submission_id, receipt.accepted_count, receipt.closed, receipt.replayed) == ("k-1", 4, True, False)
    (asked,) = door.asked
    assert asked.startswith("POST /submissions?")
    assert "on_complete=%7B%22task_type%22%3A+%22done%22%7D" in asked
    assert "open" not in asked


def test_more_tasks_are_parts_of_one_open_submission(kind: Any, door: Door, small_requests: None) -> None:
    receipt = Both(kind, door).submit_many(tasks(10), lane="bulk")
    assert (receipt.accepted_count, receipt.closed, receipt.lane) == (10, True, "bulk")
    assert door.tasks["k-1"] == tasks(10)
    path = "POST /submissions/k-1"
    assert door.asked == ["POST /submissions?lane=bulk&open=true", f"{path}/tasks", f"{path}/tasks", f"{path}/close"]


def test_an_asynchronous_source(door: Door, small_requests: None) -> None:
    async def source() -> AsyncIterator[dict[str, Any]]:
        for task in tasks(9):
            yield task

    assert Both(AsyncClient, door).submit_many(source()).accepted_count == 9
    assert door.tasks["k-1"] == tasks(9)


def test_whatever_is_lost_on_the_way_the_same_call_completes_the_submission(kind: Any, small_requests: None) -> None:
    for lost_at in range(4):
        door = Door()
        client = Both(kind, door, retry_for_s=0)
        count = [0]

        def losing(request: httpx.Request, door: Door = door, lost_at: int = lost_at, count: list[int] = count) -> httpx.Response:
            answer = door(request)
            count[0] += 1
            if count[0] == lost_at + 1:
                raise httpx.ReadError("reset")
            return answer

        client = Both(kind, losing, retry_for_s=0)
        with pytest.raises(DependencyUnavailable, match=r"did not answer POST /submissions.*: reset"):
            client.submit_many(tasks(10), key="mine")
        receipt = client.submit_many(tasks(10), key="mine")
        assert (receipt.accepted_count, receipt.closed) == (10, True)
        assert Counter(task["number"] for task in door.tasks["k-1"]) == Counter(range(10))


def test_errors_point_at_the_task_among_all(kind: Any, door: Door, small_requests: None) -> None:
    given = [*tasks(5), {"task_type": "wrong"}, *tasks(1)]
    receipt = Both(kind, door).submit_many(given, accept="good")
    assert (receipt.accepted_count, receipt.refused_count) == (6, 1)
    assert receipt.errors == ({"pointer": "#/5/task_type", "detail": "it is wrong"},)


def test_a_refused_part_names_the_submission_that_is_open(kind: Any, door: Door, small_requests: None) -> None:
    with pytest.raises(DoorRefused, match="422: 1 of 4 tasks is wrong") as caught:
        Both(kind, door).submit_many([*tasks(5), {"task_type": "wrong"}])
    assert caught.value.status == 422
    assert caught.value.problem["submission_id"] == "k-1"
    assert caught.value.problem["errors"][0]["detail"] == "it is wrong"


@pytest.mark.parametrize(
    "failure", [(429, {"Retry-After": "7"}), (503, {"Retry-After": "7"}), (409, {"Retry-After": "7"}), (502, {}), httpx.ConnectError("no")]
)
def test_what_may_pass_is_tried_again_after_the_time_that_is_named(
    kind: Any, door: Door, failure: Failure, clocks_of_loops: list[float]
) -> None:
    door.failures = [failure, failure]
    client = Both(kind, door)
    begun = client.clock.monotonic()
    assert client.submit("a", key="k") == "id-of-k"
    waited = client.clock.monotonic() - begun + sum(clocks_of_loops)
    least = 14.0 if isinstance(failure, tuple) and failure[1] else 0.0
    assert least < waited < least + 1.5


def test_a_date_is_a_time_too(kind: Any, door: Door, clocks_of_loops: list[float]) -> None:
    door.failures = [(503, {"Retry-After": "Thu, 01 Jan 2026 00:00:30 GMT"}), (503, {"Retry-After": "soon"})]
    client = Both(kind, door)
    begun = client.clock.monotonic()
    client.submit("a")
    assert 30 < client.clock.monotonic() - begun + sum(clocks_of_loops) < 32


@pytest.mark.parametrize(
    "failure", [(422, {}), (409, {}), (404, {"Retry-After": "1"}), (503, {"Content-Type": "application/problem+json"}), (500, {})]
)
def test_what_cannot_pass_is_raised_at_once(kind: Any, door: Door, failure: tuple[int, dict[str, str]]) -> None:
    door.failures = [failure]
    with pytest.raises(DoorRefused, match=f"{failure[0]}: not now"):
        Both(kind, door).submit("a")
    assert len(door.asked) == 1


def test_it_gives_up_in_time_and_raises_what_came_last(door: Door) -> None:
    door.failures = [(503, {"Retry-After": "20"})] * 9
    client = Both(Client, door, retry_for_s=50)
    with pytest.raises(DoorRefused, match="503: not now"):
        client.submit("a")
    assert len(door.asked) == 3


def test_an_error_of_something_on_the_way_is_told_as_it_is(kind: Any) -> None:
    def proxy(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(403, content=b"<h1>Forbidden</h1>")

    with pytest.raises(DoorRefused, match="403: <h1>Forbidden</h1>"):
        Both(kind, proxy).status("s-1")


@pytest.mark.parametrize("ask", [lambda client: client.status("s-1"), lambda client: client.outcomes("s-1")])
def test_an_answer_that_leads_elsewhere_is_no_answer(kind: Any, ask: Callable[[Any], Any]) -> None:
    def proxy(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(302, headers={"location": "https://door/"})

    with pytest.raises(DoorRefused, match="302: the front door is not here, but perhaps at https://door/"):
        ask(Both(kind, proxy))


@pytest.mark.parametrize("url", ["door:8080", "localhost", ""])
def test_an_address_without_a_scheme_is_refused_at_once(kind: Any, url: str) -> None:
    with pytest.raises(ValueError, match="must begin with https://"):
        kind(url)


def test_what_is_asked(kind: Any, door: Door) -> None:
    client = Both(kind, door, token="secret\n")  # as it is read from a file
    assert client.status("s/1") == {"state": "running"}
    assert client.task("t-1") == {"state": "running"}
    assert client.task("t-1", lane="bulk") == {"state": "running"}
    assert door.asked[-1] == "GET /tasks/t-1?lane=bulk"
    assert client.cancel("s-1", why="wrong") == {"done": "/submissions/s-1/cancel"}
    assert client.retry("s-1") == {"done": "/submissions/s-1/retry"}
    assert client.cancel_task("t-1") == {"done": "/tasks/t-1/cancel"}
    assert [one["task_id"] for one in client.outcomes("s-1", outcome="dead")] == ["0", "1", "2"]
    assert door.asked[-1] == "GET /submissions/s-1/outcomes?outcome=dead"
    assert {one["authorization"] for one in door.headers} == {"Bearer secret"}


def test_outcomes_that_break_off_are_an_error_not_an_end(kind: Any) -> None:
    class Broken(httpx.SyncByteStream, httpx.AsyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            yield b'{"task_id": "0"}\n'
            raise httpx.RemoteProtocolError("incomplete")

        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield b'{"task_id": "0"}\n'
            raise httpx.RemoteProtocolError("incomplete")

    with pytest.raises(DependencyUnavailable, match="failed: incomplete"):
        Both(kind, lambda _request: httpx.Response(200, stream=Broken())).outcomes("s-1")


def test_a_token_is_asked_for_before_each_request(kind: Any, door: Door) -> None:
    tokens = iter(["first", "second"])
    client = Both(kind, door, token=lambda: next(tokens))
    client.status("s-1")
    client.status("s-1")
    assert [one["authorization"] for one in door.headers] == ["Bearer first", "Bearer second"]


def test_waiting_proves_what_seems_to_have_ended(kind: Any, door: Door) -> None:
    door.states = ["running", "running", "finishing"]
    assert Both(kind, door).wait("s-1")["state"] == "complete"
    assert [asked.split(" ")[1] for asked in door.asked] == ["/submissions/s-1"] * 3 + ["/submissions/s-1/proof", "/submissions/s-1"]


def test_waiting_ends_in_time(door: Door) -> None:
    client = Both(Client, door)
    with pytest.raises(TimeoutError, match="submission s-1 is running after 60 s"):
        client.wait("s-1", timeout_s=60)
    assert len(door.asked) < 20


@given(st.lists(st.integers(0, 40), max_size=60), st.integers(1, 7), st.integers(30, 120))
def test_parts_hold_every_task_in_order_and_keep_their_bounds(sizes: list[int], max_tasks: int, max_bytes: int) -> None:
    given_tasks = [{"task_type": "a", "n": number, "text": "x" * size} for number, size in enumerate(sizes)]
    parts = Parts(max_tasks, max_bytes)
    found = [part for task in given_tasks if (part := parts.add(task)) is not None] + [parts.last()]
    assert [json.loads(line) for part in found for line in part.body.splitlines()] == given_tasks
    assert [part.is_last for part in found] == [False] * (len(found) - 1) + [True]
    assert all(part.task_count == part.body.count(b"\n") <= max_tasks for part in found)
    assert all(len(part.body) <= max_bytes or part.task_count == 1 for part in found)


def test_it_loads_httpx_only_when_a_client_is_made_and_says_what_to_install() -> None:
    import subprocess

    program = (
        "import sys; sys.modules['httpx'] = None\n"
        "from batch.client.http import Client\n"
        "try: Client('http://x')\n"
        "except ModuleNotFoundError as error: print(error)"
    )
    ended = subprocess.run([sys.executable, "-c", program], env=clean_environment(), capture_output=True, text=True, check=True, timeout=60)
    assert re.search(r"needs httpx: install 'fanout-batch\[client\]'", ended.stdout)
