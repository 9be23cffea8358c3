"""The guard before every HTTP side: it refuses requests that a web page of somebody else could have sent.

Two ways lead from a page to this machine. Its own name may be made to point here (DNS rebinding): then the Host header carries
that name. Or it just posts to 127.0.0.1, which the browser lets it do without seeing the answer: then the Origin header carries its
name. Clients of the cloud send no Origin.

The rule: a request in the usual form is answered only when its Host is a loopback name with the port that is listened on.
A page whose own name was made to point to 127.0.0.1 sends that name, and is refused. Requests whose target is a whole URL come
only from clients that use this server as their proxy, which no page can make a browser do: there a service may also answer to aliases,
as Cloud Run does for gcloud, which puts a region before the host.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from urllib.parse import urlsplit

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from local_cloud.web.connection import target_of

MISDIRECTED = 421
FORBIDDEN = 403


def is_loopback(name: str) -> bool:
    """Whether a host name or address, without port and brackets, means this machine."""
    if name.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def no_alias(_host: str) -> bool:
    """For services without aliases."""
    return False


def refusal(target: str, host: str, port: int, is_alias: Callable[[str], bool] = no_alias) -> str:
    """Why a request with this target and this Host header is refused; empty when it is answered.

    `is_alias(host)`, with the port where one is given, knows the other names that clients may use which take the service for their proxy.
    """
    is_whole = target.startswith(("http://", "https://"))
    for authority in (urlsplit(target).netloc, host) if is_whole else (host,):
        if not _is_own(authority, port) and not (is_whole and is_alias(authority)):
            return (
                f"The local cloud does not answer requests for the host {authority!r} here, but for 127.0.0.1:{port} and "
                f"localhost:{port}. Otherwise a web page whose name was made to point to this machine (DNS rebinding) could use it. "
                "Use the address that the service printed when it started.\n"
            )
    return ""


def origin_refusal(origin: str | None, port: int) -> str:
    """Why a request with this Origin header (None: without one) is refused; empty when it is answered."""
    if origin is None or (origin.startswith(("http://", "https://")) and _is_own(urlsplit(origin).netloc, port, default_port=False)):
        return ""
    return f"The local cloud does not answer web pages, and this request comes from one of {origin!r}. Call it from a program.\n"


def _is_own(authority: str, port: int, *, default_port: bool = True) -> bool:
    name, given_port = _parts(authority)
    return is_loopback(name) and (given_port == str(port) or (default_port and not given_port))


def _parts(authority: str) -> tuple[str, str]:
    """Name and port (empty when there is none); an address of version 6 without its brackets."""
    name, _, port = authority.rpartition(":")
    if not name or not port.isdecimal():
        name, port = authority, ""
    return name.removeprefix("[").removesuffix("]"), port


class Guard:
    """Answers what `refusal` or `origin_refusal` refuses with 421 or 403 and the reason; passes the rest to `app`."""

    def __init__(self, app: ASGIApp, port: int, is_alias: Callable[[str], bool]) -> None:
        self._app = app
        self._port = port
        self._is_alias = is_alias

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = {key: value.decode("latin-1") for key, value in reversed(scope["headers"]) if key in (b"host", b"origin")}
            host = headers.get(b"host", "")
            misdirected = refusal(target_of(scope), host, self._port, self._is_alias)
            reason = misdirected or origin_refusal(headers.get(b"origin"), self._port)
            if reason:
                await PlainTextResponse(reason, MISDIRECTED if misdirected else FORBIDDEN)(scope, receive, send)
                return
        await self._app(scope, receive, send)
