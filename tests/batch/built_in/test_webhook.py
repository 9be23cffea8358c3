"""Webhooks against a real server: what arrives, who has signed it, and where they never go."""

from __future__ import annotations

import base64
import json
import socketserver
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest

from batch.built_in.addresses import destination, is_public
from batch.built_in.webhook import Webhook
from batch.model.errors import Permanent, Retry
from batch.model.message import Task
from tests.batch.built_in.receiver import Receiver, is_from

NOW = 1_800_000_000.0
TOLD = {"submission_id": "s-1", "round": 0, "end": "on_complete", "counts": {"succeeded": 3}}


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.server.shutdown()
    made.server.server_close()


def task(url: object) -> Task:
    return Task("id-1", "fanout.webhook", "now", {"webhook": url, "submission": TOLD, "team": "müller"})


LOCAL = Webhook(("whsec_" + base64.b64encode(b"first").decode(), "second"), allow_private=True)


def test_the_facts_arrive_under_the_id_of_the_task_and_each_secret_has_signed(receiver: Receiver) -> None:
    assert LOCAL.send(task(receiver.url), NOW) == {"status": 200}
    ((path, headers, body),) = receiver.came
    assert (path, json.loads(body)) == ("/hook?token=secret", {"submission": TOLD, "team": "müller"})
    assert (headers["webhook-id"], headers["webhook-timestamp"]) == ("id-1", "1800000000")
    assert headers["host"] == f"127.0.0.1:{receiver.port}"
    assert is_from(b"first", headers, body)
    assert is_from(b"second", headers, body)
    assert not is_from(b"third", headers, body)
    assert not is_from(b"first", headers, body + b" ")


def test_the_ten_lines_of_the_docs_know_a_signature(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "ends.md").read_text(encoding="utf-8")
    room: dict[str, Any] = {}
    exec(page.split("```python\n")[1].split("```")[0], room)
    LOCAL.send(task(receiver.url), NOW)
    ((_, headers, body),) = receiver.came
    monkeypatch.setattr("time.time", lambda: NOW + 299)
    assert [room["is_signed"](secret, headers, body) for secret in (b"first", b"second", b"third")] == [True, True, False]
    monkeypatch.setattr("time.time", lambda: NOW + 301)
    assert not room["is_signed"](b"first", headers, body)


def test_without_secrets_nothing_is_signed(receiver: Receiver) -> None:
    Webhook(allow_private=True).send(task(receiver.url), NOW)
    assert "webhook-signature" not in receiver.came[0][1]


@pytest.mark.parametrize("secret", ["whsec_hush hush", "whsec_", "whsec_h\u00fcsh"])
def test_a_secret_that_cannot_be_used_is_told_without_itself(receiver: Receiver, secret: str) -> None:
    with pytest.raises(Retry, match="secret 2 of WEBHOOK_SECRETS begins with whsec_") as caught:
        Webhook(("fine", secret), allow_private=True).send(task(receiver.url), NOW)
    assert "hush" not in str(caught.value)
    assert receiver.came == []


@pytest.mark.parametrize(("status", "kind"), [(410, Permanent), (302, Retry), (307, Retry), (404, Retry), (429, Retry), (500, Retry)])
def test_other_answers_are_told_and_no_redirect_is_followed(receiver: Receiver, status: int, kind: type[Exception]) -> None:
    receiver.status, receiver.headers = status, {"Location": f"http://127.0.0.1:{receiver.port}/other"}
    with pytest.raises(kind, match=str(status)) as caught:
        LOCAL.send(task(receiver.url), NOW)
    assert len(receiver.came) == 1
    assert "secret" not in str(caught.value)


def test_an_endless_answer_is_not_read(receiver: Receiver) -> None:
    receiver.body = b"x" * 1_000_000
    assert LOCAL.send(task(receiver.url), NOW) == {"status": 200}


def test_a_receiver_that_is_down_is_asked_again_and_the_query_is_not_shown(receiver: Receiver) -> None:
    receiver.server.server_close()
    with pytest.raises(Retry, match=r"127\.0\.0\.1 could not be told") as caught:
        LOCAL.send(task(receiver.url), NOW)
    assert "secret" not in repr(caught.value)
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1", "240.0.0.1",
        "255.255.255.255", "192.0.2.1", "192.88.99.1", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fec0::1", "ff02::1",
        "::ffff:127.0.0.1", "::ffff:8.8.8.8", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::808:808", "2002:7f00:1::1", "2001::1",
        "2001:db8::1", "nonsense",
    ],
)  # fmt: skip
def test_an_address_that_is_not_public_is_refused(address: str) -> None:
    assert not is_public(address)
    with pytest.raises(Permanent, match=r"example\.com has an address that is not public"):
        destination("https://example.com/x", allow_private=False, resolve=lambda *_: ["8.8.8.8", address])


@pytest.mark.parametrize("address", ["8.8.8.8", "142.250.1.1", "2607:f8b0::1", "2a00:1450::1"])
def test_a_public_address_is_taken(address: str) -> None:
    found = destination("https://example.com:8443/a?b=c#d", allow_private=False, resolve=lambda *_: [address])
    assert (found.address, found.host, found.port, found.target) == (address, "example.com", 8443, "/a?b=c")
    assert found.authority == "example.com:8443"


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com", "ftp://example.com", "example.com", "https://", "https://user:pass@example.com", "https://a b", "//x",
        "https://[fe80::1%25eth0]/", "file:///etc/passwd", "gopher://example.com", "https://exa\nmple.com", "",
    ],
)  # fmt: skip
def test_what_is_no_https_address_is_refused(url: str) -> None:
    with pytest.raises((Permanent, Retry)) as caught:
        destination(url, allow_private=False, resolve=lambda *_: [])
    assert isinstance(caught.value, Permanent), caught.value


@pytest.mark.parametrize("url", ["https://127.0.0.1/", "https://2130706433/", "https://0x7f.1/", "https://localhost/", "https://[::1]/"])
def test_this_machine_under_another_spelling_is_refused(url: str) -> None:
    with pytest.raises(Permanent, match="not public"):
        destination(url, allow_private=False)


def test_a_local_address_without_tls_only_where_it_is_allowed() -> None:
    assert destination("http://here/", allow_private=True, resolve=lambda *_: ["127.0.0.1"]).authority == "here"
    with pytest.raises(Permanent, match="use https"):
        destination("http://here/", allow_private=True, resolve=lambda *_: ["10.0.0.1"])
    assert destination("https://here/", allow_private=True, resolve=lambda *_: ["10.0.0.1"]).address == "10.0.0.1"


def test_a_name_that_cannot_be_resolved_is_asked_again() -> None:
    def resolve(*_: object) -> list[str]:
        raise OSError("no such name, token=secret")

    with pytest.raises(Retry, match=r"example\.com cannot be resolved$"):
        destination("https://example.com/?token=secret", allow_private=False, resolve=resolve)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `cert.pem` and `key.pem` for hooks.example."""
    folder = tmp_path_factory.mktemp("certificates")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    names = ["-subj", "/CN=here", "-addext", "subjectAltName=DNS:hooks.example", "-keyout", str(folder / "key.pem")]
    subprocess.run([*command, *names, "-out", str(folder / "cert.pem")], check=True, capture_output=True)
    return folder


def test_the_connection_goes_to_the_address_that_was_checked(receiver: Receiver, certificates: Path) -> None:
    """A name that answers with another address the second time is asked once; the certificate is that of the name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "cert.pem", certificates / "key.pem")
    served: list[str | None] = []
    context.sni_callback = lambda _socket, name, _context: served.append(name)
    receiver.server.socket = context.wrap_socket(receiver.server.socket, server_side=True)
    asked: list[str] = []

    def resolve(host: str, _port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["169.254.169.254"]

    webhook = Webhook((), allow_private=True, resolve=resolve, ca_certs=str(certificates / "cert.pem"))
    assert webhook.send(task(f"https://hooks.example:{receiver.port}/x"), NOW) == {"status": 200}
    assert (asked, served, receiver.came[0][1]["host"]) == (["hooks.example"], ["hooks.example"], f"hooks.example:{receiver.port}")
    asked.clear()
    with pytest.raises(Retry, match=r"other\.example could not be told"):
        webhook.send(task(f"https://other.example:{receiver.port}/x"), NOW)
    asked.clear()
    with pytest.raises(Retry, match=r"hooks\.example could not be told"):
        Webhook((), allow_private=True, resolve=resolve).send(task(f"https://hooks.example:{receiver.port}/x"), NOW)
    assert len(receiver.came) == 1


@pytest.mark.parametrize("url", [None, 7])
def test_a_webhook_without_an_address_is_dead(url: object) -> None:
    with pytest.raises(Permanent, match="names its address"):
        LOCAL.send(task(url), NOW)


class Odd(socketserver.BaseRequestHandler):
    """Answers a request with the server's `first` bytes, and then with its `again` bytes until the connection is gone, or at once."""

    def handle(self) -> None:
        self.request.recv(65536)
        first, again = self.server.odd  # type: ignore[attr-defined]
        self.request.settimeout(1)  # of a connection that was cut the system itself gives up only minutes later
        with suppress(OSError):
            self.request.sendall(first)
            while again:
                self.request.sendall(again)


@pytest.mark.parametrize(
    ("odd", "told"),
    [
        ((b"", b"HTTP/1.1 100 Continue\r\n\r\n"), "could not be told"),
        ((b"HTTP/1.1 200 OK\r\n", b""), None),
        ((b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nZZZ\r\n", b""), None),
        ((b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx", b""), None),
    ],
)
def test_the_status_tells_and_what_never_ends_is_cut_off(odd: tuple[bytes, bytes], told: str | None) -> None:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Odd) as server:
        server.odd = odd  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        webhook = Webhook(allow_private=True, most_s=0.2)
        try:
            with pytest.raises(Retry, match=told) if told else nullcontext():
                assert webhook.send(task(f"http://127.0.0.1:{server.server_address[1]}/"), NOW) == {"status": 200}
        finally:
            server.shutdown()
