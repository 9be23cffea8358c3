"""Limits of connections over real sockets: what a client may send before anything is known of it, and how it is refused."""

from __future__ import annotations

import errno
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from functools import partial

import pytest

from batch.serving.limits import Limits
from tests.batch.serving.served import Client, Served, served
from tests.support import wait_until

HOST = b"Host: localhost\r\n"
GET = b"GET /x HTTP/1.1\r\n" + HOST + b"\r\n"
LAST_GET = b"GET /last HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n"
POST = b"POST /x HTTP/1.1\r\n" + HOST
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
MB = 1 << 20


def assert_refused(answer: bytes, status: int, said: str) -> None:
    """One well-formed answer, a problem in one line, and the connection's end."""
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0].startswith(f"HTTP/1.1 {status} "), answer[:300]
    headers = dict(line.lower().split(": ", 1) for line in lines[1:])
    assert (headers["content-type"], headers["connection"]) == ("application/problem+json", "close")
    assert int(headers["content-length"]) == len(body)
    assert b"\n" not in body
    problem = json.loads(body)
    assert (problem["status"], problem["error"]) == (status, problem["detail"])
    assert said in problem["error"]


@pytest.fixture(scope="module")
def shared() -> Iterator[Served]:
    """One server for many bad clients."""
    with served() as one:
        yield one


@pytest.mark.parametrize(
    ("sent", "status", "said"),
    [
        (b"GET / HTTP/1.1\r\n" + HOST + b"A: " + b"x" * (40 * MB) + b"\r\n\r\n", 431, "headers have more than"),
        (b"GET / HTTP/1.1\r\n" + HOST + b"x" * (2 * MB) + b": b\r\n\r\n", 431, "headers have more than"),
        (b"GET / HTTP/1.1\r\n" + HOST + (b"A: " + b"x" * 1000 + b"\r\n") * 70 + b"\r\n", 431, "headers have more than 65536"),
        (b"GET / HTTP/1.1\r\n" + HOST + b"".join(b"A%d: b\r\n" % one for one in range(10_000)) + b"\r\n", 431, "more than 100 headers"),
        (b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", 414, "request line"),
        (b"GET /" + b"x" * MB, 414, "request line"),
        (b"\r\n" * MB, 431, "headers"),
        (CHUNKED + b"1;" + b"x" * MB + b"\r\na\r\n0\r\n\r\n", 431, "more than"),
        (CHUNKED + b"1\r\na\r\n0\r\nA: " + b"x" * MB + b"\r\n\r\n", 431, "headers"),
        (CHUNKED + b"1\r\na\r\n0\r\n" + b"A: b\r\n" * 1000 + b"\r\n", 431, "more than 100 headers"),
        (CHUNKED + b"fffffffffffffffff\r\na", 400, "Chunk size"),
        (CHUNKED + b"g\r\na", 400, "no HTTP request"),
        (POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + GET, 400, "Transfer-Encoding"),
        (POST + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n" + GET, 400, "Content-Length"),
        (POST + b"Transfer-Encoding: chunked, identity\r\n\r\nabc", 400, "Transfer-Encoding"),
        (POST + b"Transfer-Encoding: xchunked\r\n\r\nabc", 400, "Transfer-Encoding"),
        (POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", 400, "Content-Length"),
        (POST + b"Content-Length: +3\r\n\r\nabc", 400, "Content-Length"),
        (POST + b"Content-Length : 3\r\n\r\nabc", 400, "header"),
        (POST + b" folded: b\r\n\r\n", 400, "whitespace"),
        (b"GET / HTTP/1.1\nHost: a\n\n", 400, "CRLF"),
        (b"GET / HTTP/1.1\r\n" + HOST + b"A: b\x00c\r\n\r\n", 400, "header value"),
        (b"GET / HTTP/1.1\r\n\r\n", 400, "Host"),
        (b"GET / HTTP/1.1\r\n" + HOST + b"Host: b\r\n\r\n", 400, "Host"),
        (b"GET / HTTP/2.0\r\n" + HOST + b"\r\n", 505, "HTTP/1.1"),
        (b"GET /\r\n" + HOST + b"\r\n", 505, "HTTP/1.1"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "no HTTP request"),
        (b"CONNECT a:443 HTTP/1.1\r\n" + HOST + b"\r\n", 400, "no HTTP request"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "no HTTP request"),
        (b"GET /\xff HTTP/1.1\r\n" + HOST + b"\r\n", 400, "no HTTP request"),
    ],
    ids=lambda value: value[:60] if isinstance(value, bytes) else None,
)
def test_what_breaks_a_limit_is_refused_with_an_answer(sent: bytes, status: int, said: str, shared: Served) -> None:
    assert_refused(shared.asked(sent), status, said)
    assert shared.asked(LAST_GET).endswith(b"GET /last 0")


def test_headers_of_40_mb_make_nobody_wait() -> None:
    with served() as one:
        other = http.client.HTTPConnection("127.0.0.1", one.port, timeout=30)
        sent = b"GET / HTTP/1.1\r\n" + HOST + b"A: b\r\n" * (7 * MB) + b"\r\n"
        huge = [threading.Thread(target=one.client().send, args=(sent,)) for _ in range(4)]
        for client in huge:
            client.start()
        longest_s, count = 0.0, 0
        while count < 100 or any(client.is_alive() for client in huge):
            count += 1
            began_s = time.monotonic()
            other.request("GET", "/x")
            assert other.getresponse().read() == b"GET /x 0"
            longest_s = max(longest_s, time.monotonic() - began_s)
        other.close()
        assert longest_s < 1


def test_slow_clients_lose_their_connections_and_others_are_served() -> None:
    with served(head_s=0.3, body_s=0.3, linger_s=0.1) as one:
        silent = [one.client() for _ in range(10)]
        slow = [one.client().send(b"GET / HTTP/1.1\r\nA: ") for _ in range(10)]
        assert one.asked(LAST_GET).startswith(b"HTTP/1.1 200 ")
        for client in slow:
            assert_refused(client.all(), 408, "headers did not come within 0.3 s")
        assert [client.all() for client in silent] == [b""] * 10
        wait_until(lambda: one.connection_count == 0)


def test_headers_that_trickle_have_one_deadline() -> None:
    with served(head_s=0.5) as one:
        client = one.client().send(b"GET / HTTP/1.1\r\n")
        _trickle(client, one, b"A")
        assert_refused(client.all(), 408, "headers")


@pytest.mark.parametrize("head", [CHUNKED, POST + b"Content-Length: 1000000\r\n\r\n"])
def test_a_body_that_trickles_is_ended_and_the_application_hears_of_it(head: bytes) -> None:
    with served(body_s=0.5, min_body_rate=1000) as one:
        client = one.client().send(head)
        _trickle(client, one, b"1\r\na\r\n" if head is CHUNKED else b"a")
        assert_refused(client.all(), 408, "1000 bytes a second")
        wait_until(lambda: one.app.left_count == 1)


def _trickle(client: Client, one: Served, data: bytes) -> None:
    """Send `data` again and again until the connection is refused."""
    wait_until(lambda: client.send(data) and one.is_refused, description="the refusal")


def test_a_body_that_comes_fast_enough_may_take_long() -> None:
    with served(body_s=0.6, min_body_rate=10) as one:
        client = one.client().send(POST + b"Content-Length: 8000\r\nConnection: close\r\n\r\n")
        until_s = time.monotonic() + 1.0
        sent = 0
        while time.monotonic() < until_s and sent < 7900:
            client.send(b"x" * 10)
            sent += 10
            wait_until(partial(one.has_body_bytes, sent))
        assert client.send(b"x" * (8000 - sent)).all().endswith(b"POST /x 8000")


def test_blank_lines_do_not_keep_an_idle_connection() -> None:
    with served(idle_s=0.4, head_s=0.4, linger_s=0.1) as one:
        client = one.client().send(GET)
        client.until(b"GET /x 0")
        until_s = time.monotonic() + 30
        while one.connection_count and time.monotonic() < until_s:
            client.send(b"\r\n")
        assert one.connection_count == 0


def test_an_idle_connection_is_closed() -> None:
    with served(idle_s=0.2) as one:
        client = one.client().send(GET)
        assert client.all().endswith(b"GET /x 0")


def test_a_client_that_reads_no_answer_is_cut() -> None:
    with served(answer_s=0.3) as one:
        one.client().send(b"GET /endless HTTP/1.1\r\n" + HOST + b"\r\n")
        wait_until(lambda: one.app.requests)
        wait_until(lambda: one.connection_count == 0)


def test_the_server_ends_in_order_whatever_its_clients_do() -> None:
    with served() as one:
        one.client().send(b"GET /endless HTTP/1.1\r\n" + HOST + b"\r\n")
        one.client().send(POST + b"Content-Length: 10\r\n\r\nabc")
        one.client().send(b"\x00")
        wait_until(lambda: ("/endless", 0) in one.app.requests and one.connection_count == 3)
        one.end()  # with all of them still open; an error of the server's thread fails the test


def test_as_many_connections_as_may_be() -> None:
    with served(max_connections=5, linger_s=0.1) as one:
        open_ones = [one.client().send(GET) for _ in range(5)]
        for client in open_ones:
            client.until(b"GET /x 0")
        answer = one.client().send(GET).all()
        assert_refused(answer, 503, "5 connections")
        assert b"retry-after: 2" in answer
        open_ones.pop().close()
        wait_until(lambda: one.connection_count < 5)
        assert one.asked(LAST_GET).endswith(b"GET /last 0")


def test_clients_that_come_together_are_accepted_together() -> None:
    """While others keep the loop busy, a turn may take tens of milliseconds: one connection a turn would be too few."""
    with served() as one:
        busy = one.client().send(b"GET /busy HTTP/1.1\r\n" + HOST + b"\r\n")
        one.app.began.acquire()
        others = [one.client() for _ in range(100)]
        one.app.release.set()
        busy.until(b"GET /busy")
        assert len(others) == 100
        assert one.app.turn_count < 20


class Full:
    """A listening socket in a process that has no file left for a connection, once."""

    def __init__(self, door: socket.socket) -> None:
        self._door, self.failed_count = door, 0

    def accept(self) -> object:
        if not self.failed_count:
            self.failed_count = 1
            raise OSError(errno.EMFILE, "Too many open files")
        return self._door.accept()

    def fileno(self) -> int:
        return self._door.fileno()


def test_without_a_file_for_a_connection_it_waits_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batch.serving.server.PAUSE_S", 0.05)
    with served() as one:
        full = Full(one.server._door)
        monkeypatch.setattr(one.server, "_door", full)
        assert one.asked(LAST_GET).endswith(b"GET /last 0")
        assert full.failed_count == 1


def test_no_more_connections_than_files() -> None:
    assert Limits(max_connections=10**9).connections < 10**9


def test_pipelined_requests_are_answered_in_order() -> None:
    with served() as one:
        answer = one.asked(GET * 50 + LAST_GET)
        assert answer.count(b"GET /x 0") == 50
        assert answer.endswith(b"GET /last 0")


def test_a_client_that_waits_for_no_answer_is_cut() -> None:
    with served() as one:
        answer = one.asked(GET * 2000)
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert answer.count(b"GET /x 0") < 100


def test_refused_clients_do_not_stay() -> None:
    with served(linger_s=0.1) as one:
        assert_refused(one.asked(b"\x00"), 400, "no HTTP request")  # and keeps its side of the connection open
        wait_until(lambda: one.connection_count == 0)


def test_what_follows_a_whole_request_is_refused_after_its_answer() -> None:
    with served() as one:
        client = one.client().send(b"GET /held HTTP/1.1\r\n" + HOST + b"\r\n\x00garbage")
        one.app.began.acquire()
        wait_until(lambda: one.is_refused)
        one.app.release.set()
        answer = client.all()
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert answer.endswith(b"GET /held 0")


def test_a_client_that_ends_after_garbage_gets_the_answer_before_it() -> None:
    with served() as one:
        client = one.client().send(b"GET /held HTTP/1.1\r\n" + HOST + b"\r\n\x00garbage").end()
        one.app.began.acquire()
        wait_until(lambda: one.is_refused)
        one.app.release.set()
        assert client.all().endswith(b"GET /held 0")


def test_a_wish_for_another_protocol_is_not_granted() -> None:
    wish = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"
    with served() as one:
        assert one.asked(b"GET /x HTTP/1.1\r\n" + HOST + wish + b"\r\n").endswith(b"GET /x 0")
        assert_refused(one.asked(POST + wish + b"Content-Length: 3\r\n\r\nabc"), 400, "leave out the header Upgrade")
        websocket = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n\r\n"
        assert one.asked(b"GET /ws HTTP/1.1\r\n" + HOST + websocket + b"\x81\x05hello").endswith(b"GET /ws 0")


def test_http_1_0() -> None:
    with served() as one:
        assert one.asked(b"GET /old HTTP/1.0\r\n\r\n").endswith(b"GET /old 0")


def test_a_half_closed_connection_gets_its_answer() -> None:
    with served() as one:
        client = one.client().send(b"GET /held HTTP/1.1\r\n" + HOST + b"\r\n")
        one.app.began.acquire()
        client.end()
        one.app.release.set()
        assert client.all().endswith(b"GET /held 0")
        cut = one.client().send(POST + b"Content-Length: 10\r\n\r\nabc")
        one.app.began.acquire()
        assert cut.end().all() == b""
        wait_until(lambda: one.app.left_count == 1)


def test_trailers_are_no_headers() -> None:
    with served() as one:
        client = one.client().send(
            b"POST /held HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nTrail: evil\r\n\r\n"
        )
        one.app.release.set()
        assert client.until(b"POST /held").endswith(b"POST /held 1")


def test_a_body_that_the_application_does_not_read_is_not_its_clients_fault() -> None:
    with served(body_s=0.3) as one:
        client = one.client().send(b"POST /lazy HTTP/1.1\r\n" + HOST + b"Content-Length: 1000000\r\n\r\n" + b"x" * 10)
        assert client.until(b"POST /lazy 0").startswith(b"HTTP/1.1 200 ")
        assert client.all().endswith(b"POST /lazy 0")  # answered once: the connection ends without a second answer


def test_a_client_that_waits_to_be_asked_for_its_body_is_not_slow() -> None:
    with served(body_s=0.2) as one:
        head = b"POST /later HTTP/1.1\r\n" + HOST + b"Expect: 100-continue\r\nConnection: close\r\nContent-Length: 3\r\n\r\n"
        client = one.client().send(head)
        one.app.began.acquire()
        (connection,) = one.connections()
        due = connection._due
        wait_until(lambda: connection._due > due, description="a look after the deadline")
        one.app.release.set()
        client.until(b"100 Continue")
        assert client.send(b"abc").all().endswith(b"POST /later 3")


def test_an_early_answer_reaches_a_client_that_is_still_sending() -> None:
    """Closed at once, the connection would be reset, and the answer lost with it."""
    with served() as one:
        client = one.client().send(b"POST /lazy HTTP/1.1\r\n" + HOST + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % (20 * MB))
        wait_until(lambda: one.app.requests)
        answer = client.send(b"x" * (20 * MB)).all()
        assert not client.was_reset
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert answer.endswith(b"POST /lazy 0")
        client.close()
        wait_until(lambda: one.connection_count == 0)


def test_a_large_body_is_refused_by_either_service() -> None:
    with served(max_body_bytes=100_000) as one:
        assert_refused(one.asked(POST + b"Content-Length: 1000000\r\n\r\n" + b"x" * 1_000_000), 413, "100000 bytes")
