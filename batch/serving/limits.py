"""What one HTTP connection may cost, before anything is known of its client: bytes and number of headers, the time for headers and body.

Without limits one header of 40 MB keeps the event loop busy for seconds (the parser appends each piece to what it has), and a client that
sends nothing keeps its connection for ever. A refusal is an answer of its own, then the connection ends.
"""

from __future__ import annotations

import resource
from collections import Counter
from dataclasses import dataclass
from enum import Enum
from math import inf
from typing import Any, ClassVar

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from batch.serving.answers import MEDIA_TYPE, encoded, problem

PIECE_BYTES = 64 * 1024
"""What the parser gets at a time, so that limits are looked at in between."""
SPARE_FILES = 100
"""Open files that are not connections."""


@dataclass(frozen=True, slots=True)
class Limits:
    """`body_s` is how long a body may stand still; on the whole it comes with `min_body_rate` bytes a second at least."""

    max_connections: int = 1000
    max_pipelined: int = 64
    max_line_bytes: int = 16 * 1024
    max_header_count: int = 100
    max_header_bytes: int = 64 * 1024
    max_body_bytes: int = 64 * 1024 * 1024
    head_s: float = 10.0
    body_s: float = 10.0
    min_body_rate: float = 8 * 1024
    idle_s: float = 15.0
    answer_s: float = 60.0
    """How long a client may read nothing of its answer."""
    linger_s: float = 2.0
    """How long what a refused client still sends is read and dropped: closed at once, the connection would take the answer with it."""

    @property
    def connections(self) -> int:
        """As many as this process may have files open for."""
        return max(1, min(self.max_connections, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - SPARE_FILES))


class Part(Enum):
    """What a connection is at. HEAD and BODY are the client's turn, ANSWER is ours; after GONE nothing more is read."""

    IDLE = "between requests"
    HEAD = "in the headers"
    BODY = "in the body"
    ANSWER = "waiting for the answer"
    GONE = "refused"


class _Closing:
    """The transport of a connection, for an answer: to close it is to wait first for what its client is sending."""

    def __init__(self, protocol: LimitedProtocol) -> None:
        self.write, self.is_closing, self.close = protocol.transport.write, protocol.transport.is_closing, protocol.close


class _Refusal(Exception):
    """What is refused, out of a callback of the parser."""


class LimitedProtocol(HttpToolsProtocol):
    """One connection. `look` is called a few times a second; subclasses have the limits."""

    limits = Limits()
    most = limits.connections
    cut: ClassVar[Counter[str]] = Counter()
    """Connections that were cut, by reason."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._part = Part.IDLE
        self._due = self.loop.time() + self.limits.head_s
        """When the client must have gone on, by the loop's clock; infinite while it is our turn."""
        self._unread_bytes = 0
        """What came since the parser last found something whole: the head of a message or some of its body."""
        self._header_count = self._header_bytes = self._body_bytes = 0
        self._refusal: tuple[int, str, str] | None = None
        self._running: RequestResponseCycle | None = None
        self._stalled_at = inf

    # --- the transport calls

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._closing: Any = _Closing(self)
        if len(self.connections) > self.most + SPARE_FILES // 2:
            transport.abort()
        elif len(self.connections) > self.most:
            self._refuse(503, "too many connections", f"{self.most} connections are open, as many as may be: try again later")

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        for begin in range(0, len(data), PIECE_BYTES):
            if self._part is Part.GONE:
                return
            self._feed(data if len(data) <= PIECE_BYTES else data[begin : begin + PIECE_BYTES])

    def eof_received(self) -> bool:  # type: ignore[override]
        """A client that has sent its whole request and says so gets its answer all the same."""
        if not self._is_answering():
            return False
        self.cycle.keep_alive = False
        self._part = Part.GONE
        return True

    def pause_writing(self) -> None:
        self._stalled_at = self.loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        self._stalled_at = inf
        super().resume_writing()

    def close(self) -> None:
        """At the end of an answer. A client that is still sending its body would lose the answer with the connection."""
        if self._part is Part.BODY:
            self._part, self._due = Part.GONE, self.loop.time() + self.limits.body_s
            self.transport.write_eof()
        else:
            self._due = self.loop.time() + self.limits.answer_s
            self.transport.close()

    def look(self, now: float) -> None:
        """End the connection if its time is over."""
        if now - self._stalled_at > self.limits.answer_s or (self.transport.is_closing() and self._due < now):
            self.transport.abort()
        elif self._due < now:
            if self.flow.read_paused or (self._part is Part.BODY and self.cycle.waiting_for_100_continue):
                self._due = now + self.limits.body_s  # the application has not read what came: the client may not send more
            elif self._part is Part.HEAD:
                self._refuse(408, "slow headers", f"the headers did not come within {self.limits.head_s:g} s")
            elif self._part is Part.BODY:
                self._refuse(408, "slow body", f"the body came too slowly: {self.limits.min_body_rate:g} bytes a second are the least")
            else:
                self.transport.close()

    # --- the parser calls

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._part, self._due = Part.HEAD, self.loop.time() + self.limits.head_s
        self._unread_bytes = self._header_count = self._header_bytes = self._body_bytes = 0

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        if len(self.url) > self.limits.max_line_bytes:
            self._stop(414, "long request line", f"the request line has more than {self.limits.max_line_bytes} bytes")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._header_count += 1
        self._header_bytes += len(name) + len(value)
        if self._header_count > self.limits.max_header_count:
            self._stop(431, "many headers", f"there are more than {self.limits.max_header_count} headers")
        if self._header_bytes > self.limits.max_header_bytes:
            self._stop_long_headers()
        if self._part is Part.HEAD:  # what follows a body (trailers) is no header: nobody has asked for it
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        version, hosts = self.parser.get_http_version(), sum(name == b"host" for name, _ in self.headers)
        if version not in ("1.1", "1.0"):
            self._stop(505, "other version", "this service speaks HTTP/1.1")
        if hosts > 1 or (not hosts and version == "1.1"):
            self._stop(400, "no single Host", "a request has one header Host")
        if self.parser.should_upgrade() and any(
            name in (b"content-length", b"transfer-encoding") and value != b"0" for name, value in self.headers
        ):
            # The parser skips the body of such a request, and the application would take it for an empty one.
            self._stop(400, "upgrade with a body", "a request with a body may not ask for another protocol: leave out the header Upgrade")
        if len(self.pipeline) >= self.limits.max_pipelined:
            self._stop(400, "many pipelined", "too many requests were sent without waiting for answers")
        super().on_headers_complete()
        self.cycle.transport = self._closing
        self._part, self._due, self._unread_bytes = Part.BODY, self.loop.time() + self.limits.body_s, 0

    def on_body(self, body: bytes) -> None:
        limits = self.limits
        self._unread_bytes = 0
        self._body_bytes += len(body)
        if self._body_bytes > limits.max_body_bytes:
            self._stop(413, "large body", f"the body has more than {limits.max_body_bytes} bytes")
        self._due = min(self._due + len(body) / limits.min_body_rate, self.loop.time() + limits.body_s)
        super().on_body(body)

    def on_message_complete(self) -> None:
        answered = self.cycle.response_complete
        self._part, self._due = (Part.IDLE, self.loop.time() + self.limits.idle_s) if answered else (Part.ANSWER, inf)
        super().on_message_complete()

    # --- the application calls

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self.pipeline and self._part is Part.ANSWER and not self.transport.is_closing():
            self._part, self._due = Part.IDLE, self.loop.time() + self.limits.idle_s

    # --- refusals

    def _feed(self, piece: bytes) -> None:
        self._unread_bytes += len(piece)
        try:
            self.parser.feed_data(piece)
            if self._unread_bytes > self.limits.max_header_bytes:
                self._stop_long_headers()
        except httptools.HttpParserUpgrade:
            # The request is answered as one without the wish for another protocol; what follows it in the connection is not HTTP.
            self.cycle.keep_alive = False
            self._part = Part.GONE
        except (httptools.HttpParserError, _Refusal) as error:
            self._refuse(*(self._refusal or (400, "unreadable", f"this is no HTTP request: {error}")))

    def _is_answering(self) -> bool:
        """Whether a whole request waits for its answer."""
        running = self._running
        if running is None or running.response_complete or running.disconnected:
            return False
        return self._part is not Part.BODY or running is not self.cycle

    def _stop_long_headers(self) -> None:
        self._stop(431, "long headers", f"the headers have more than {self.limits.max_header_bytes} bytes")

    def _stop(self, status: int, reason: str, text: str) -> None:
        """Ends the parser's run, in one of its callbacks."""
        self._refusal = status, reason, text
        raise _Refusal(text)

    def _refuse(self, status: int, reason: str, text: str) -> None:
        """Answer and end the connection. A request before this one gets its own answer instead, whole."""
        self.cut[reason] += 1
        part, running, answering = self._part, self._running, self._is_answering()
        self._part, self._due = Part.GONE, self.loop.time() + self.limits.linger_s
        self.pipeline.clear()
        if running is not None and answering:
            running.keep_alive, self._due = False, inf
        elif part is Part.BODY and self.cycle.response_started:
            self.transport.close()
        else:
            if part is Part.BODY:
                self.cycle.disconnected = True
                self.cycle.message_event.set()
            self._write(status, encoded(problem(status, text)))

    def _write(self, status: int, body: bytes) -> None:
        retry = b"retry-after: 2\r\n" if status == 503 else b""
        head = b"HTTP/1.1 %d %s\r\ncontent-type: %s\r\ncontent-length: %d\r\n%sconnection: close\r\n\r\n"
        title = problem(status, "")["title"].encode()
        self.transport.write(head % (status, title, MEDIA_TYPE.encode(), len(body), retry) + body)
        self.transport.write_eof()
