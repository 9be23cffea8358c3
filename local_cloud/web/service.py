"""What every service process of the local cloud has in common: its options, its HTTP side, its ready line and its exit.

A service prints exactly one line on standard output, a JSON object with its addresses, once it can be used; everything else goes to
standard error. It exits on SIGTERM, on SIGINT, and, with `--exit-with-stdin`, when its standard input is closed: so it never outlives the
process that started it, even if that one was killed. It listens on loopback only, and what it keeps on disk is for its own user only.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import uvicorn
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from local_cloud.clock import Clock
from local_cloud.web.connection import Protocol
from local_cloud.web.guard import Guard, is_loopback, no_alias
from local_cloud.web.json_text import strict_json
from local_cloud.web.refused_start import bound, port_number


def parser(service: str) -> argparse.ArgumentParser:
    """The options that all services share; the service adds its own."""
    options = argparse.ArgumentParser(prog=f"python -m local_cloud.{service}")
    options.add_argument("--host", default="127.0.0.1", type=loopback_host, help="loopback address to bind")
    options.add_argument("--port", type=port_number, default=0, help="port of the protocol; 0 takes a free one")
    options.add_argument("--state-dir", type=Path, required=True, help="folder that this service may write to")
    options.add_argument("--exit-with-stdin", action="store_true", help="end when standard input is closed")
    return options


def loopback_host(host: str) -> str:
    """`host` itself. Raises ArgumentTypeError, which argparse shows, when other machines could reach it."""
    if ":" in host or not is_loopback(host):
        raise argparse.ArgumentTypeError(
            f"{host!r} is not a loopback address like 127.0.0.1: the local cloud has no authentication, so other machines must not reach it"
        )
    return host


def make_private(state_dir: Path, *, files_too: bool = True) -> None:
    """Create the state folder, or take an existing one, and close it to other users.

    With `files_too`, files that this process makes from now on are for their owner only, wherever they are: not for a service whose child
    processes write files of their own.
    """
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    state_dir.chmod(0o700)
    if files_too:
        os.umask(0o077)


class HttpServer:
    """A uvicorn server in a thread of its own, on a socket that is bound before it starts (so port 0 is known at once).

    Requests for other hosts than loopback ones are refused, see `local_cloud/web/guard.py`; `is_alias` knows the other names by which
    clients may call the service that take it for their proxy.
    """

    def __init__(self, app: ASGIApp, host: str, port: int, is_alias: Callable[[str], bool] = no_alias) -> None:
        loopback_host(host)
        self._socket = bound(host, port)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        bound_host, bound_port = self._socket.getsockname()
        self.address = f"{bound_host}:{bound_port}"
        config = uvicorn.Config(
            Guard(app, bound_port, is_alias),
            http=Protocol,
            log_level="warning",
            access_log=False,
            lifespan="off",
            backlog=2048,
            timeout_graceful_shutdown=2,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), name="http", daemon=True)

    def start(self) -> str:
        """Serve; returns `host:port` once requests are answered."""
        self._thread.start()
        while not self._server.started:
            self._thread.join(0.005)
            if not self._thread.is_alive():
                raise RuntimeError(f"the HTTP server on {self.address} ended while it started")
        return self.address

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(timeout=5)
        self._socket.close()


def clock_routes(clock: Clock) -> list[Route]:
    """`GET /clock` and `POST /clock/advance` with `{"seconds": 60}`; both answer `{"now": <unix seconds>}`."""

    async def read(request: Request) -> JSONResponse:
        return JSONResponse({"now": clock.now()})

    async def advance(request: Request) -> JSONResponse:
        try:
            now = clock.advance(float(strict_json(await request.body())["seconds"]))
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            return JSONResponse({"error": f'send {{"seconds": <a number, 0 or more>}}: {error}'}, status_code=400)
        return JSONResponse({"now": now})

    return [Route("/clock", read, methods=["GET"]), Route("/clock/advance", advance, methods=["POST"])]


def serve_until_end(*, exit_with_stdin: bool, stop: Callable[[], None], **addresses: str) -> None:
    """Print the ready line, block the main thread until the service is told to end, then call `stop`. A second signal ends the process at
    once."""
    told, tell = os.pipe()
    os.set_blocking(tell, False)
    is_ending = False

    def on_signal(number: int, frame: object) -> None:
        nonlocal is_ending
        if is_ending:
            os._exit(128 + number)
        is_ending = True

    # Python writes to the pipe at once, in whichever thread a signal hits. A handler runs in this thread, and only once that wakes: it
    # might never, nor get a lock (that of an Event) which this thread has just taken.
    signal.set_wakeup_fd(tell, warn_on_full_buffer=False)
    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    print(json.dumps(addresses), flush=True)
    if exit_with_stdin:

        def watch() -> None:
            while os.read(sys.stdin.fileno(), 65536):  # not sys.stdin: its lock, held by this thread, would abort the interpreter's end
                pass
            os.write(tell, b"\0")

        threading.Thread(target=watch, name="stdin", daemon=True).start()
    os.read(told, 1)
    is_ending = True
    stop()
