"""Who is answered on loopback: no page of another site, whatever its name points at."""

from __future__ import annotations

import json

import pytest

from batch.serving.guard import refusal
from tests.batch.serving.served import served


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "localhost:8080", "LOCALHOST", "[::1]:8080", "127.8.8.8", "lan:80", "LAN"])
def test_its_own_names_are_answered(host: str) -> None:
    assert refusal(host, None, {"lan"}) == ""
    assert refusal(host, f"http://{host}", {"lan"}) == ""


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example:8080",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "evil.example@127.0.0.1.evil.example",
        "10.0.0.1:8080",
        "0.0.0.0:8080",
        "[fe80::1]",
        "[",
        "lan.evil.example",
        "2130706433.evil",
    ],
)
def test_other_names_are_refused(host: str) -> None:
    assert "set HOST" in refusal(host, None, {"lan"})


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "", "http://localhost:3000", "http://localhost", "https://localhost:8080.evil.example"]
)
def test_pages_of_other_sites_are_refused(origin: str) -> None:
    assert "other sites" in refusal("localhost:8080", origin, ())


def test_a_refusal_over_a_real_connection_reaches_no_application() -> None:
    with served(host="lan") as one:
        for header in (b"Host: evil.example", b"Host: localhost\r\nOrigin: http://evil.example"):
            head, _, body = one.asked(b"GET /x HTTP/1.1\r\n" + header + b"\r\nConnection: close\r\n\r\n").partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 403 ")
            assert json.loads(body)["status"] == 403
        assert one.app.requests == []
    for host in ("", "0.0.0.0"):
        with served(host=host) as one:
            answer = one.asked(b"GET /x HTTP/1.1\r\nHost: " + host.encode() + b"\r\nConnection: close\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 403 ")
    with served(host="lan") as one:
        assert one.asked(b"GET /x HTTP/1.1\r\nHost: lan:8080\r\nConnection: close\r\n\r\n").endswith(b"GET /x 0")
