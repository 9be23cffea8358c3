"""What Google's storage client does with errors: a server that answers as it is told, and the local cloud for a bucket that is missing."""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from batch.model.errors import (
    DependencyForbidden,
    DependencyMissing,
    DependencyUnavailable,
    ObjectMissing,
    PreconditionFailed,
    ServiceRefused,
)
from batch.services.objects import GoogleObjectStore
from batch.services.refusals import Refusal, Where, translated
from batch.services.transport import PASSING_TRIES
from batch.testing import ManualClock
from tests.support import Service

BUCKET_404 = "The specified bucket does not exist."
OBJECT_404 = "No such object: b/one"
ONE = {"name": "one", "bucket": "b", "generation": "7", "size": "1", "updated": "2026-01-01T00:00:00.000Z"}


class Server:
    """Answers each request with the next of `answers`, a status, a body and, if it has some, headers; `None` drops the connection without
    one."""

    def __init__(self) -> None:
        self.answers: deque[tuple[int, Any] | tuple[int, Any, Mapping[str, str]] | None] = deque()
        self.requests: list[str] = []
        self.heads: list[Message] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                server.requests.append(f"{self.command} {self.path}")
                server.heads.append(self.headers)
                answer = server.answers.popleft()
                if answer is None:
                    self.close_connection = True
                    return
                status, body, *more = answer
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                for name, value in more[0].items() if more else ():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_CONNECT = answer

            def log_message(self, format: str, *args: object) -> None:
                return None

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def fails(self, *statuses: int, message: str = "scripted") -> None:
        self.answers += [(status, {"error": {"code": status, "message": message}}) for status in statuses]

    def stop(self) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    running = Server()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", running.url)
    yield running
    running.stop()
    assert not running.answers


@pytest.fixture
def store(server: Server) -> Iterator[GoogleObjectStore]:
    made = GoogleObjectStore("b", project="p", timeout_s=20.0, clock=ManualClock())
    yield made
    made.close()


CALLS: dict[str, Callable[[GoogleObjectStore], object]] = {
    "write": lambda store: store.write("one", b"x"),
    "create": lambda store: store.write("one", b"x", if_generation=0),
    "read": lambda store: store.read("one"),
    "read_with_info": lambda store: store.read_with_info("one"),
    "info": lambda store: store.info("one"),
    "list": lambda store: list(store.list("o")),
    "patch_metadata": lambda store: store.patch_metadata("one", {"a": "b"}),
    "delete": lambda store: store.delete("one"),
}
each_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


@each_call
def test_a_refusal_names_role_and_bucket(server: Server, store: GoogleObjectStore, call: Callable[[GoogleObjectStore], object]) -> None:
    server.fails(403)
    with pytest.raises(DependencyForbidden, match=r"bucket b \(project p\).*fanoutObjects .*roles/storage\.objectUser, on gs://b"):
        call(store)


@each_call
def test_a_missing_bucket_is_no_missing_object(
    server: Server, store: GoogleObjectStore, call: Callable[[GoogleObjectStore], object]
) -> None:
    server.fails(404, message=BUCKET_404)
    with pytest.raises(DependencyMissing, match=r"bucket b does not exist in project p: create it with `gcloud storage .* gs://b"):
        call(store)


def test_a_missing_object_takes_one_request(server: Server, store: GoogleObjectStore) -> None:
    server.fails(404, message=OBJECT_404)
    assert store.info("one") is None
    assert len(server.requests) == 1


def test_a_404_that_says_nothing_is_looked_into(server: Server, store: GoogleObjectStore) -> None:
    server.fails(404, message="Not Found")
    server.answers.append((200, {"items": []}))
    with pytest.raises(ObjectMissing):
        store.read("one")
    server.fails(404, 404, message="Not Found")
    with pytest.raises(DependencyMissing):
        store.read("one")


def test_a_precondition_is_told_from_other_refusals(server: Server, store: GoogleObjectStore) -> None:
    server.fails(412, *[412] * (1 + PASSING_TRIES), 400)
    with pytest.raises(PreconditionFailed, match="one exists already"):
        store.write("one", b"x", if_generation=0)
    assert len(server.requests) == 1
    with pytest.raises(DependencyUnavailable, match="answered 412, which this request should not meet"):
        store.write("one", b"x")
    with pytest.raises(ServiceRefused, match="400; repeating it cannot help"):
        store.write("one", b"x")


@pytest.mark.parametrize("status", [409, 410, 412])
@pytest.mark.parametrize("name", ["write", "patch_metadata"])
def test_a_refusal_that_this_request_should_not_meet_is_asked_about_again(
    server: Server, store: GoogleObjectStore, name: str, status: int
) -> None:
    calls = {"write": lambda: store.write("one", b"x"), "patch_metadata": lambda: store.patch_metadata("one", {"a": "b"})}
    server.fails(*[status] * PASSING_TRIES)
    server.answers.append((200, ONE))
    assert calls[name]().generation == 7


@pytest.mark.parametrize("failure", [429, 500, 503, None])
def test_what_may_pass_is_repeated(server: Server, store: GoogleObjectStore, failure: int | None) -> None:
    for answer in ((200, ONE), (200, b"content")):
        if failure is None:
            server.answers.append(None)
        else:
            server.fails(failure)
        server.answers.append(answer)
    assert store.write("one", b"x", if_generation=0).generation == 7
    assert store.read("one") == b"content"


def test_the_time_for_retries_is_bounded(server: Server) -> None:
    clock = ManualClock()
    patient = GoogleObjectStore("b", project="p", clock=clock)
    server.fails(*[503] * 100)
    begun_s = clock.monotonic()
    with pytest.raises(DependencyUnavailable, match=r"cannot write object one in bucket b .*answered 503"):
        patient.write("one", b"x", if_generation=0)
    assert 50.0 < clock.monotonic() - begun_s < 60.0
    assert 10 < len(server.requests) < 40
    server.answers.clear()
    patient.close()


def test_nobody_there_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:1")
    nobody = GoogleObjectStore("b", project="p", clock=ManualClock())
    for call in CALLS.values():
        with pytest.raises(DependencyUnavailable, match="did not answer"):
            call(nobody)
    nobody.close()


def test_a_replacement_between_info_and_content_is_read_again(server: Server, store: GoogleObjectStore) -> None:
    server.answers.append((200, ONE))
    server.fails(404, message=OBJECT_404)
    server.answers += [(200, {**ONE, "generation": "8", "metadata": {"a": "b"}}), (200, b"new")]
    data, info = store.read_with_info("one")
    assert (data, info.generation, info.metadata) == (b"new", 8, {"a": "b"})
    assert ["generation=" + part for part in ("7", "8")] == [
        next(part for part in one.replace("?", "&").split("&") if part.startswith("generation="))
        for one in server.requests
        if "alt=media" in one
    ]


def test_each_call_is_the_fewest_requests(server: Server, store: GoogleObjectStore) -> None:
    """Nothing is asked for on the side: a worker may not read the bucket, and requests cost money."""
    server.answers += [(200, ONE), (200, ONE), (200, b"x"), (204, b""), (200, {"items": [ONE]})]
    store.write("one", b"x")
    store.patch_metadata("one", {"a": "b"})
    store.read("one")
    store.delete("one")
    assert [one.name for one in store.list("")] == ["one"]
    assert [one.split(" ")[0] for one in server.requests] == ["POST", "PATCH", "GET", "DELETE", "GET"]


def test_a_listing_is_lazy(server: Server, store: GoogleObjectStore) -> None:
    found = store.list("o")
    assert server.requests == []
    server.answers.append((200, {"items": [ONE], "nextPageToken": "more"}))
    assert next(found).name == "one"
    server.fails(404, message=BUCKET_404)
    with pytest.raises(DependencyMissing):
        next(found)


def test_without_credentials_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/no/such/file")
    with pytest.raises(DependencyForbidden, match="gcloud auth application-default login"):
        GoogleObjectStore("b", project="p")


def test_more_threads_than_the_pool_would_warn(server: Server) -> None:
    """The pool is as large as asked: with less, urllib3 drops connections and opens new ones."""
    wide = GoogleObjectStore("b", project="p", pool_size=48)
    assert {wide._client._http.get_adapter(url)._pool_maxsize for url in (server.url, "https://storage.googleapis.com")} == {48}
    assert wide._transport._pool.pool.maxsize == 48
    wide.close()


def test_a_missing_bucket_of_the_local_cloud_is_told_from_an_object(
    local_storage: Service, project: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", local_storage.http)
    nowhere = GoogleObjectStore(f"no-bucket-{project}", project=project)
    for call in CALLS.values():
        with pytest.raises(DependencyMissing, match="does not exist in project"):
            call(nowhere)
    nowhere.close()


@pytest.mark.parametrize("body", [b"{}", b"[]", b"<html>log in to this network</html>", b'{"generation": "x"}'])
@pytest.mark.parametrize("name", ["write", "info", "read_with_info", "patch_metadata"])
def test_an_answer_that_is_not_cloud_storages_is_no_fault_of_ours(server: Server, store: GoogleObjectStore, name: str, body: bytes) -> None:
    server.answers.append((200, body))
    with pytest.raises(DependencyUnavailable, match=r"(write|look up|patch the metadata of) object one in bucket b"):
        CALLS[name](store)


def test_texts_stay_on_one_line_and_short() -> None:
    error = translated(Where("read", "b", "p", "one"), Refusal(500, "first\nsecond" + "x" * 5000))
    assert isinstance(error, DependencyUnavailable)
    assert "\n" not in str(error)
    assert len(str(error)) < 800
