"""The project comes from the metadata server where nothing else names it, and a start that has it asks nobody."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from batch.services import network
from batch.services.network import name_project

PATH = "/computeMetadata/v1/project/project-id"


class Server(ThreadingHTTPServer):
    """As Google Cloud's: it answers what carries its header. `failures` requests are cut off first."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.asked: list[tuple[str, str | None]] = []
        self.failures = 0
        self.answer = "of-the-server"
        self.flavor = "Google"

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"


class Answers(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers["Metadata-Flavor"]))
        if self.server.failures:
            self.server.failures -= 1
            return
        self.send_response(200)
        self.send_header("Metadata-Flavor", self.server.flavor)
        self.end_headers()
        self.wfile.write(self.server.answer.encode())

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    yield from serving()


def serving() -> Iterator[Server]:
    with Server() as made:
        thread = threading.Thread(target=made.serve_forever, args=(0.01,))
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def test_the_server_names_the_project(server: Server) -> None:
    environment = {"GCE_METADATA_HOST": server.address, "GOOGLE_CLOUD_PROJECT": ""}
    name_project(environment)
    assert environment["GOOGLE_CLOUD_PROJECT"] == "of-the-server"
    assert server.asked == [(PATH, "Google")]


@pytest.mark.parametrize("name", ["GOOGLE_CLOUD_PROJECT", "PUBSUB_EMULATOR_HOST", "STORAGE_EMULATOR_HOST"])
def test_nobody_is_asked_where_the_project_is_set_or_an_emulator_stands_in(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "_project", lambda server: pytest.fail(f"{server} was asked"))
    environment = {name: "given"}
    name_project(environment)
    assert environment == {name: "given"}


def test_a_server_that_is_named_is_asked_beside_an_emulator(server: Server) -> None:
    environment = {"GCE_METADATA_HOST": server.address, "PUBSUB_EMULATOR_HOST": "127.0.0.1:1"}
    name_project(environment)
    assert environment["GOOGLE_CLOUD_PROJECT"] == "of-the-server"


def test_it_is_asked_again_when_it_does_not_answer_at_once(server: Server) -> None:
    server.failures = network.TRIES - 1
    environment = {"GCE_METADATA_HOST": server.address}
    name_project(environment)
    assert environment["GOOGLE_CLOUD_PROJECT"] == "of-the-server"


@pytest.mark.parametrize("wrong", ["cut off", "empty", "not Google's", "nobody listens", "no such name"])
def test_without_an_answer_a_line_names_both_ways(server: Server, wrong: str, capsys: pytest.CaptureFixture[str], caplog: Any) -> None:
    server.failures = network.TRIES if wrong == "cut off" else 0
    server.answer = "" if wrong == "empty" else "x"
    server.flavor = "Other" if wrong == "not Google's" else "Google"
    environment = {"GCE_METADATA_HOST": {"nobody listens": "127.0.0.1:1", "no such name": "metadata.invalid"}.get(wrong, server.address)}
    name_project(environment)
    assert "GOOGLE_CLOUD_PROJECT" not in environment
    (line,) = [record.getMessage() for record in caplog.records]
    assert "GOOGLE_CLOUD_PROJECT is not set, and no metadata server names the project" in line
    assert environment["GCE_METADATA_HOST"] in line or wrong == "no such name"
