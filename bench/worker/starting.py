"""From the start of a worker's process to its first pull, as the service sees it, beside a bare import of the Pub/Sub client."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
from google.pubsub_v1 import types

from bench.page import ROOT
from bench.worker.contenders import START_LIMIT_S, worker
from bench.worker.lane import Lane, fresh_lane

IMPORT = "import os\nfrom google.cloud import pubsub_v1\nos.write(1, b'imported')"
PYTHON = "import os\nos.write(1, b'up')"


class Stopwatch(grpc.GenericRpcHandler):  # type: ignore[misc]
    """A service that knows when a first pull came, and has no message for anybody."""

    def __init__(self) -> None:
        self.pulled_s = 0.0
        self.pulled = threading.Event()

    def service(self, details: Any) -> Any:
        answer = {"Pull": self._pull, "GetSubscription": self._subscription}.get(details.method.rpartition("/")[2], _nothing)
        return grpc.unary_unary_rpc_method_handler(answer)

    def _pull(self, _request: bytes, _context: Any) -> bytes:
        if not self.pulled.is_set():
            self.pulled_s = time.monotonic()
            self.pulled.set()
        return b""

    def _subscription(self, _request: bytes, _context: Any) -> bytes:
        return bytes(types.Subscription.pb()(ack_deadline_seconds=60).SerializeToString())


def _nothing(_request: bytes, _context: Any) -> bytes:
    return b""


@contextmanager
def serving(stopwatch: Stopwatch) -> Iterator[str]:
    """The address of a server with this service."""
    server = grpc.server(ThreadPoolExecutor(8), handlers=[stopwatch])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


def to_first_pull_s(pubsub: str, storage: str, handlers: str) -> float:
    """Seconds of a worker with real Storage and a Pub/Sub that only watches; `pubsub` is a server where its lane can be made."""
    made, stopwatch = fresh_lane(pubsub, storage), Stopwatch()
    with serving(stopwatch) as address:
        program = worker(Lane(made.name, address, storage), 10, handlers)
        try:
            if not stopwatch.pulled.wait(START_LIMIT_S):
                raise RuntimeError(f"the worker did not pull; the end of its log:\n{program.tail()}")
        finally:
            program.process.kill()
            program.end()
    return stopwatch.pulled_s - program.began_s


def to_word_s(code: str) -> float:
    """Seconds from the start of a fresh interpreter until `code` writes its first bytes."""
    began_s = time.monotonic()
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        if not process.stdout.read(1):
            raise RuntimeError(f"a fresh interpreter could not run: {code}")
        seconds = time.monotonic() - began_s
        process.stdout.read()
    return seconds
