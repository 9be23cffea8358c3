"""Pokes: what was accepted is told, together and once; nobody waits for it, and nothing fails with it."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from batch.model.clock import SystemClock
from batch.model.delivery import Outgoing
from batch.model.errors import DependencyUnavailable, SettingsError
from batch.testing import ManualClock
from intake.collector import Collector
from intake.config import intake_settings
from intake.controller_link import ControllerLink
from intake.pokes import COMPLAIN_EVERY_S, LanePoker, PokeFailed
from tests.intake.fake import FakeTopic
from tests.support import wait_until

LIMIT_S = 60.0


class FakeController:
    """Keeps what is posted. While `held`, each post waits for `go_on`; `errors` are met in order."""

    def __init__(self) -> None:
        self.pokes: list[dict[str, Any]] = []
        self.errors: list[Exception] = []
        self.posting = threading.Semaphore(0)
        self.go_on = threading.Semaphore(0)
        self.held = False

    def post(self, body: bytes) -> None:
        self.posting.release()
        if self.held:
            assert self.go_on.acquire(timeout=LIMIT_S)
        if self.errors:
            raise self.errors.pop(0)
        self.pokes += json.loads(body)["pokes"]


@pytest.fixture
def controller() -> FakeController:
    return FakeController()


class WatchedClock(ManualClock):
    """Stands still; `waiting` is set once somebody waits."""

    def __init__(self) -> None:
        super().__init__(waits_move=False)
        self.waiting = threading.Event()

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        self.waiting.set()
        return super().wait(event, timeout_s)


def poker(controller: FakeController, clock: Any = None, gather_s: float = 0.0) -> LanePoker:
    return LanePoker("urgent", "urgent-topic", controller, clock or SystemClock(), random.Random(3), gather_s=gather_s)


def test_what_came_within_a_moment_is_told_together_with_the_time_of_the_first(controller: FakeController) -> None:
    clock = WatchedClock()
    one = poker(controller, clock, gather_s=0.5)
    one.start()
    one.accepted(3, 100.0)
    assert clock.waiting.wait(LIMIT_S)
    one.accepted(4, 101.0)
    assert controller.pokes == []
    wait_until(lambda: clock.advance(0.5) and controller.pokes, LIMIT_S, "a poke")
    (told,) = controller.pokes
    assert {key: told[key] for key in ("lane", "topic", "accepted_count", "at")} == {
        "lane": "urgent",
        "topic": "urgent-topic",
        "accepted_count": 7,
        "at": 100.0,
    }
    assert len(told["id"]) == 24
    one.stop()
    assert one.ended(LIMIT_S)
    assert len(controller.pokes) == 1


def test_while_the_controller_is_slow_pokes_gather_and_nobody_waits(controller: FakeController) -> None:
    controller.held = True
    one = poker(controller)
    one.start()
    one.accepted(1, 100.0)
    assert controller.posting.acquire(timeout=LIMIT_S)
    for second in range(1000):
        one.accepted(2, 101.0 + second)
    controller.go_on.release(10)
    one.stop()
    assert one.ended(LIMIT_S)
    assert [(told["accepted_count"], told["at"]) for told in controller.pokes] == [(1, 100.0), (2000, 101.0)]
    assert len({told["id"] for told in controller.pokes}) == 2


def test_at_the_end_what_is_left_is_told_without_waiting_for_company(controller: FakeController) -> None:
    one = poker(controller, gather_s=3600.0)
    one.start()
    one.accepted(5, 100.0)
    one.stop()
    assert one.ended(LIMIT_S)
    assert [told["accepted_count"] for told in controller.pokes] == [5]


def test_pokes_that_cannot_be_told_are_dropped_counted_and_said_once_a_minute(
    controller: FakeController, caplog: pytest.LogCaptureFixture
) -> None:
    clock = ManualClock()
    one = poker(controller, clock)
    controller.errors = [PokeFailed("the controller is down"), RuntimeError("nobody foresaw this"), PokeFailed("down again")]
    one.start()
    with caplog.at_level(logging.WARNING):
        one.accepted(1, 100.0)
        wait_until(lambda: len(caplog.records) == 1 and not one._dropped_count, LIMIT_S, "it is said")
        one.accepted(2, 100.0)
        wait_until(lambda: one._dropped_count == 2, LIMIT_S, "it is counted")
        clock.advance(COMPLAIN_EVERY_S)
        one.accepted(4, 100.0)
        wait_until(lambda: len(caplog.records) == 2, LIMIT_S, "it is said again")
        one.accepted(8, 100.0)
        one.stop()
        assert one.ended(LIMIT_S)
    said = [record.getMessage() for record in caplog.records]
    assert [("1 tasks" in said[0], "is down" in said[0]), ("6 tasks" in said[1], "down again" in said[1])] == [(True, True)] * 2
    assert [told["accepted_count"] for told in controller.pokes] == [8]


def publish(collector: Collector, count: int) -> None:
    async def run() -> None:
        await asyncio.gather(*(collector.publish(Outgoing(b"{}", {})) for _ in range(count)), return_exceptions=True)

    asyncio.run(run())


def test_the_collector_tells_of_what_the_broker_confirmed_and_of_nothing_else() -> None:
    told: list[tuple[int, float]] = []
    clock = ManualClock()
    topic = FakeTopic()
    publish(Collector(topic, accepted=lambda count, at: told.append((count, at)), clock=clock), 3)
    assert told == [(3, clock.now())]
    topic.error = DependencyUnavailable("the broker is away")
    publish(Collector(topic, accepted=lambda count, at: told.append((count, at)), clock=clock), 3)
    assert len(told) == 1


class Server:
    """Answers POSTs with `status` and `body`; keeps the requests."""

    def __init__(self) -> None:
        self.status, self.body = 200, b'{"lanes": {}, "unknown": []}'
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                data = self.rfile.read(int(self.headers["Content-Length"]))
                outer.requests.append((self.path, {key.lower(): value for key, value in self.headers.items()}, data))
                self.send_response(outer.status)
                self.send_header("Content-Length", str(len(outer.body)))
                self.send_header("Location", "http://127.0.0.1:1/elsewhere")
                self.end_headers()
                self.wfile.write(outer.body)

            def log_message(self, *_arguments: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def server() -> Iterator[Server]:
    one = Server()
    yield one
    one.stop()


def test_over_http_without_a_token_on_loopback_and_without_a_proxy(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    ControllerLink(server.url, server.url).post(b'{"pokes": []}')
    ((path, headers, body),) = server.requests
    assert (path, body, "authorization" in headers) == ("/pokes", b'{"pokes": []}', False)


class Credentials:
    """Stands for those of the metadata server."""

    def __init__(self) -> None:
        self.valid, self.token, self.refresh_count = False, "", 0

    def refresh(self, _request: object) -> None:
        self.refresh_count += 1
        self.valid, self.token = True, f"token-{self.refresh_count}"


def test_over_https_with_a_token_for_the_audience_that_is_kept_while_it_is_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, credentials = [], Credentials()

    def fetch(audience: str, request: object) -> Credentials:
        asked.append(audience)
        return credentials

    monkeypatch.setattr("google.oauth2.id_token.fetch_id_token_credentials", fetch)
    link = ControllerLink("https://controller.example", "the-audience")
    assert [link._authorization() for _ in range(3)] == [{"Authorization": "Bearer token-1"}] * 3
    credentials.valid = False
    assert link._authorization() == {"Authorization": "Bearer token-2"}
    assert asked == ["the-audience"]


def test_without_credentials_it_says_so() -> None:
    from google.auth.exceptions import DefaultCredentialsError

    def fetch(audience: str, request: object) -> object:
        raise DefaultCredentialsError("neither metadata server nor\ncredentials")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("google.oauth2.id_token.fetch_id_token_credentials", fetch)
        with pytest.raises(PokeFailed, match="no OIDC token for the-audience: neither metadata server nor credentials"):
            ControllerLink("https://controller.example", "the-audience").post(b"{}")


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (403, b'{"error": "add it to OIDC_EMAILS"}', "403.*OIDC_EMAILS"),
        (302, b"", "302"),
        (500, b"\xff" * 5000, "500"),
        (200, b'{"unknown": ["urgent-topic"]}', "no lane with the topic urgent-topic"),
    ],
)
def test_what_the_controller_does_not_take_is_an_error_with_its_own_words(server: Server, status: int, body: bytes, said: str) -> None:
    server.status, server.body = status, body
    with pytest.raises(PokeFailed, match=said):
        ControllerLink(server.url, "").post(b"{}")


def test_a_controller_that_is_not_there() -> None:
    with pytest.raises(PokeFailed, match="no answer"):
        ControllerLink("http://127.0.0.1:1", "").post(b"{}")


@pytest.mark.parametrize("url", ["controller", "ftp://c", "http://", "https://c/pokes", "https://c?x=1", "https://u@c"])
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(SettingsError, match="CONTROLLER_URL"):
        intake_settings({"GOOGLE_CLOUD_PROJECT": "p", "TOPIC_NAME": "t", "CONTROLLER_URL": url})


def test_the_address_of_the_controller() -> None:
    base = {"GOOGLE_CLOUD_PROJECT": "p", "TOPIC_NAME": "t"}
    assert intake_settings({**base, "CONTROLLER_URL": "https://c.run.app/"}).controller_url == "https://c.run.app"
    assert intake_settings(base).controller_url == ""
