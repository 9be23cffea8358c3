"""Uploads in flight: as many threads as a worker has for handlers, so many objects are being written at the same moment."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from batch.__main__ import build
from batch.handling.registry import Registry
from batch.model.exit import ExitReason
from batch.settings import worker_settings
from tests.batch.worker.plant import Plant, write

SLOTS = 32
LIMIT_S = 60.0


class Gate:
    """Lets nobody through before so many stand in it at once. `most` stood in it at a time."""

    def __init__(self, count: int) -> None:
        self.most = 0
        self._count = count
        self._inside = 0
        self._lock = threading.Lock()
        self._open = threading.Event()

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            self.most = max(self.most, self._inside)
            if self._inside >= self._count:
                self._open.set()
        self._open.wait(LIMIT_S)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1


@pytest.mark.parametrize("slots", [1, SLOTS])
def test_every_slot_writes_at_the_same_moment(slots: int) -> None:
    plant = Plant()
    plant.registry.task("write")(write)
    gate = Gate(slots)
    original = plant.store.write

    def gated(name: str, data: bytes, **options: Any) -> Any:
        if not name.startswith("out/"):
            return original(name, data, **options)
        with gate:
            return original(name, data, **options)

    plant.store.write = gated  # type: ignore[method-assign]
    count = 4 * slots
    plant.submit(count)
    assert plant.worker(BACKLOG=count, CONCURRENCY=slots, WATCHDOG_S=10 * LIMIT_S).run() is ExitReason.SHARE_DONE
    assert gate.most == slots
    assert len(plant.final()) == count


class Bucket(ThreadingHTTPServer):
    """Takes uploads, one after the other on each connection, and counts both."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Upload)
        self.gate = Gate(SLOTS)
        self.connection_count = 0
        self.upload_count = 0
        self.lock = threading.Lock()


class Upload(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: Bucket

    def setup(self) -> None:
        super().setup()
        with self.server.lock:
            self.server.connection_count += 1

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        name = parse_qs(urlsplit(self.path).query).get("name", ["?"])[0]
        with self.server.gate, self.server.lock:
            self.server.upload_count += 1
        body = json.dumps({"name": name, "generation": "1", "size": "1"}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def bucket() -> Iterator[Bucket]:
    server = Bucket()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_client_has_a_connection_for_every_slot_and_keeps_it(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pool of the client that a worker is built with; its default of 10 would open a connection for most requests."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{bucket.server_address[1]}")
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", "127.0.0.1:1")
    names = {"GOOGLE_CLOUD_PROJECT": "p", "SUBSCRIPTION_NAME": "lane", "BUCKET_NAME": "bucket", "CONCURRENCY": str(SLOTS)}
    store = build(worker_settings(names), Registry(), random.Random(1)).store
    with ThreadPoolExecutor(SLOTS) as slots:
        for _ in slots.map(lambda number: store.write(f"out/{number}", b"x"), range(SLOTS * 5)):
            pass
    store.close()  # type: ignore[attr-defined]
    assert bucket.gate.most == SLOTS
    assert bucket.upload_count == SLOTS * 5
    assert bucket.connection_count <= SLOTS
