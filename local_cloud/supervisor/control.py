"""Requests to the process that runs a local cloud: freeze, thaw, kill or restart a service, move the clocks.

Each request carries a secret from the state folder, so that only a user who can read that folder can send one.
"""

from __future__ import annotations

import hmac
import json
import os
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from local_cloud.supervisor import record
from local_cloud.supervisor.child import ServiceFailed
from local_cloud.supervisor.http_call import call
from local_cloud.supervisor.supervisor import LocalCloud
from local_cloud.web.service import HttpServer

FILE = "control.json"
VERBS = ("freeze", "thaw", "kill", "restart")
WITHIN_S = 60.0


class Control:
    """The server side, in the process that runs the local cloud; a context manager. `changed` is called after each request that succeeded.
    Requests are carried out one at a time."""

    def __init__(self, cloud: LocalCloud, changed: Callable[[], None]) -> None:
        self._cloud = cloud
        self._changed = changed
        self._secret = secrets.token_hex(16)
        self._lock = threading.Lock()
        self._path = cloud.state_dir / FILE
        routes = [Route("/", self._answer, methods=["POST"])]
        self._server = HttpServer(Starlette(routes=routes), cloud.options.host, 0)

    def __enter__(self) -> Control:
        address = self._server.start()
        body = json.dumps({"url": f"http://{address}/", "secret": self._secret})
        self._path.unlink(missing_ok=True)
        with open(self._path, "x", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
            file.write(body)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._path.unlink(missing_ok=True)
        self._server.stop()

    async def _answer(self, request: Request) -> JSONResponse:
        try:
            body = await request.json()
            if not hmac.compare_digest(str(body["secret"]), self._secret):
                return JSONResponse({"error": "the secret is another one"}, 403)
            return JSONResponse(await run_in_threadpool(self._do, body))
        except (ServiceFailed, ValueError, KeyError, TypeError) as error:
            return JSONResponse({"error": str(error)}, 400)

    def _do(self, body: dict[str, object]) -> dict[str, object]:
        verb = body["verb"]
        with self._lock:
            if verb == "states":
                return dict(self._cloud.states)
            if verb == "advance":
                self._cloud.advance(float(str(body["seconds"])))
            elif verb in VERBS:
                getattr(self._cloud, str(verb))(str(body["service"]))
            else:
                raise ValueError(f"{verb!r} is not one of states, advance, {', '.join(VERBS)}")
            self._changed()
        return {}


@dataclass(frozen=True, slots=True)
class Remote:
    """A local cloud that runs in another process. Every method raises ServiceFailed, with the reason, when the request fails."""

    url: str
    secret: str

    def states(self) -> dict[str, str]:
        """By service: "runs", "frozen", "killed" or "died"."""
        return {name: str(state) for name, state in self._ask("states").items()}

    def advance(self, seconds: float) -> None:
        """Move the clocks of all services forward."""
        self._ask("advance", seconds=seconds)

    def change(self, verb: str, service: str) -> None:
        """Do `verb`, one of VERBS, to a service."""
        self._ask(verb, service=service)

    def _ask(self, verb: str, **fields: object) -> dict[str, object]:
        return call("the local cloud", self.url, {"secret": self.secret, "verb": verb, **fields}, within_s=WITHIN_S)


def remote(state_dir: Path) -> Remote:
    """The local cloud that runs in `state_dir`. Raises ServiceFailed when none runs there, or when it takes no requests (as one in a
    test)."""
    try:
        if record.read(state_dir) is None:
            raise ServiceFailed(f"no local cloud runs in {state_dir}: start one with `fanout local up`, or name its --state-dir")
        body = json.loads((state_dir / FILE).read_text())
        return Remote(str(body["url"]), str(body["secret"]))
    except FileNotFoundError:
        text = f"the local cloud in {state_dir} takes no requests: only one that `fanout local up` has started does"
        raise ServiceFailed(text) from None
    except (ValueError, KeyError, TypeError) as error:
        raise ServiceFailed(f"{state_dir / FILE} cannot be read ({error!r}): start the local cloud again") from error
