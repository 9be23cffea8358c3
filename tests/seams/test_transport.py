"""The way to Cloud Storage: credentials, proxies, certificates, connections, and what comes over them."""

from __future__ import annotations

import datetime
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import google.auth
import pytest
from google.auth import exceptions as auth_errors
from google.auth.credentials import Credentials
from google.cloud import storage
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from batch.model.errors import DependencyForbidden, DependencyUnavailable, FanoutError, PreconditionFailed, ServiceRefused
from batch.services import json_api, objects
from batch.services.json_api import Answer, damage_of, refusal_in
from batch.services.objects import GoogleObjectStore
from batch.services.refusals import Refusal
from batch.services.transport import ENDPOINT, MTLS_ENDPOINT, endpoint
from batch.testing import ManualClock
from tests.seams.conftest import create_bucket
from tests.seams.test_google_objects import ONE, Server, server
from tests.support import Service, clean_environment

__all__ = ["server"]


@pytest.fixture(autouse=True)
def _no_settings_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    bundles = {"requests_ca_bundle", "curl_ca_bundle", "ssl_cert_file", "ssl_cert_dir"}
    for name in [one for one in os.environ if one.lower().endswith("_proxy") or one.lower() in bundles]:
        monkeypatch.delenv(name)


def store_of(**settings: Any) -> GoogleObjectStore:
    return GoogleObjectStore("b", project="p", **{"clock": ManualClock(), **settings})


# Credentials


class Tokens(Credentials):  # type: ignore[misc]
    """Gives `token-1`, `token-2` … for an hour each; raises `failures` first."""

    def __init__(self, *failures: Exception) -> None:
        super().__init__()
        self.count = 0
        self.token: str | None = None
        self.failures = list(failures)

    def refresh(self, request: object) -> None:
        if self.failures:
            raise self.failures.pop(0)
        self.count += 1
        self.token = f"token-{self.count}"
        self.expire(3600.0)

    def expire(self, in_s: float) -> None:
        self.expiry = datetime.datetime.now(datetime.UTC).replace(tzinfo=None) + datetime.timedelta(seconds=in_s)


@pytest.fixture
def tokens(server: Server, monkeypatch: pytest.MonkeyPatch) -> Tokens:
    """The credentials of every store, which all go to the server."""
    made = Tokens()
    monkeypatch.delenv("STORAGE_EMULATOR_HOST")
    monkeypatch.setenv("API_ENDPOINT_OVERRIDE", server.url)
    monkeypatch.setattr(google.auth, "default", lambda **_: (made, "p"))
    return made


def shown(server: Server) -> list[str | None]:
    return [one["Authorization"] for one in server.heads]


def test_a_token_is_renewed_before_a_request(server: Server, tokens: Tokens) -> None:
    store = store_of()
    server.answers += [(200, b"1")] * 3
    store.read("one")
    store.read("one")
    tokens.expire(-1.0)
    store.read("one")
    assert shown(server) == ["Bearer token-1", "Bearer token-1", "Bearer token-2"]
    store.close()


def test_a_refused_token_is_renewed_once(server: Server, tokens: Tokens) -> None:
    store = store_of()
    server.fails(401)
    server.answers.append((200, b"1"))
    assert store.read("one") == b"1"
    server.fails(401, 401)
    with pytest.raises(DependencyForbidden, match=r"refused with 401: grant this identity"):
        store.read("one")
    assert shown(server) == [f"Bearer token-{number}" for number in (1, 2, 2, 3)]
    store._transport._refresh("Bearer token-2")
    assert tokens.count == 3, "another thread was refused with the same token, and is renewed by now"
    store.close()


def test_one_token_serves_all_threads(server: Server, tokens: Tokens) -> None:
    store = store_of()
    count = 8
    server.answers += [(200, b"1")] * count
    together, two, refresh = threading.Barrier(count), threading.Barrier(2), tokens.refresh

    def refresh_and_meet(request: object) -> None:
        with suppress(threading.BrokenBarrierError):
            two.wait(0.2)  # if there is another
        refresh(request)

    def read(_: int) -> bytes:
        together.wait(30)
        return store.read("one")

    tokens.refresh = refresh_and_meet  # type: ignore[method-assign]
    with ThreadPoolExecutor(count) as pool:
        assert list(pool.map(read, range(count))) == [b"1"] * count
    assert (tokens.count, set(shown(server))) == (1, {"Bearer token-1"})
    store.close()


def test_without_a_token_nothing_is_sent(server: Server, tokens: Tokens) -> None:
    store = store_of()
    tokens.failures = [auth_errors.RefreshError("invalid_grant: Bad Request")]
    with pytest.raises(DependencyForbidden, match=r"cannot read object one in bucket b .*no usable Google credentials.*invalid_grant"):
        store.read("one")
    assert server.requests == []
    store.close()


@pytest.mark.parametrize(
    "failure", [auth_errors.TransportError("the metadata server is away"), auth_errors.RefreshError("503", retryable=True)]
)
def test_a_token_that_may_come_later_is_waited_for(server: Server, tokens: Tokens, failure: Exception) -> None:
    store = store_of()
    tokens.failures = [failure] * 3
    server.answers.append((200, b"1"))
    assert store.read("one") == b"1"
    tokens.token, tokens.failures = None, [failure] * 1000
    with pytest.raises(DependencyUnavailable, match=r"did not answer until the time for retries was over.*(metadata server|503)"):
        store.read("one")
    store.close()


def test_a_token_that_never_comes_is_not_waited_for_by_one_after_the_other(server: Server, tokens: Tokens) -> None:
    store = store_of(timeout_s=0.0, request_timeout_s=0.05)
    asked, over = threading.Event(), threading.Event()

    def hang(_: object) -> None:
        asked.set()
        over.wait(30)
        raise auth_errors.TransportError("the metadata server is away")

    tokens.refresh = hang  # type: ignore[method-assign,assignment]
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(store.read, "one")
        assert asked.wait(30)
        with pytest.raises(DependencyUnavailable, match=r"another thread has got no token in 0\.05 s"):
            store.read("two")
        assert not first.done()
        over.set()
        assert isinstance(first.exception(30), DependencyUnavailable)
    assert server.requests == []
    store.close()


def test_an_emulator_is_shown_no_token(server: Server) -> None:
    store = store_of()
    server.fails(401)
    with pytest.raises(DependencyForbidden, match="refused with 401"):
        store.read("one")
    assert shown(server) == [None]
    store.close()


def test_another_universe_is_refused_at_the_start(tokens: Tokens) -> None:
    tokens._universe_domain = "example.cloud"
    with pytest.raises(DependencyForbidden, match=r"bucket b .*universe example\.cloud.*googleapis\.com"):
        store_of()


# Endpoints and proxies


@pytest.mark.parametrize(
    ("environment", "is_mtls", "expected"),
    [
        ({}, False, ENDPOINT),
        ({}, True, MTLS_ENDPOINT),
        ({"GOOGLE_API_USE_MTLS_ENDPOINT": "always"}, False, MTLS_ENDPOINT),
        ({"GOOGLE_API_USE_MTLS_ENDPOINT": "never"}, True, ENDPOINT),
        ({"API_ENDPOINT_OVERRIDE": "https://own"}, True, "https://own"),
        ({"STORAGE_EMULATOR_HOST": "http://here", "API_ENDPOINT_OVERRIDE": "https://own"}, False, "http://here"),
    ],
)
def test_requests_go_where_googles_client_sends_them(
    tokens: Tokens, monkeypatch: pytest.MonkeyPatch, environment: Mapping[str, str], is_mtls: bool, expected: str
) -> None:
    assert endpoint(environment, is_mtls=is_mtls) == expected
    monkeypatch.delenv("API_ENDPOINT_OVERRIDE")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    client = storage.Client(project="p", credentials=tokens)
    client._http._is_mtls = is_mtls
    assert client._connection.get_api_base_url_for_mtls() == expected
    client.close()


def test_a_proxy_is_used_and_looked_for_once(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://storage.invalid:81")
    monkeypatch.setenv("HTTP_PROXY", server.url.replace("//", "//user:secret@"))
    store = store_of()
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "*")
    server.answers += [(200, b"1"), (200, ONE), (200, {"items": [ONE]})]
    assert store.read("a/b?c") == b"1"
    assert store.write("one", b"x").generation == 7
    assert [one.name for one in store.list("o")] == ["one"]
    assert server.requests[0] == "GET http://storage.invalid:81/download/storage/v1/b/b/o/a%2Fb%3Fc?alt=media"
    assert all(" http://storage.invalid:81/" in one for one in server.requests)
    assert {one["Proxy-Authorization"] for one in server.heads} == {"Basic dXNlcjpzZWNyZXQ="}
    assert {one["Host"] for one in server.heads} == {"storage.invalid:81"}
    store.close()


def test_no_password_of_a_proxy_is_told(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    assert server.requests == []
    monkeypatch.setenv("HTTP_PROXY", "http://user:sec/ret@127.0.0.1:1")
    with pytest.raises(DependencyForbidden, match=r"HTTP_PROXY.*password write / as %2F") as caught:
        store_of()
    assert "user:sec" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("no_proxy", ["127.0.0.1", "127.0.0.0/8", "*"])
def test_no_proxy_is_heeded(server: Server, monkeypatch: pytest.MonkeyPatch, no_proxy: str) -> None:
    for name in ("HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", no_proxy)
    store = store_of()
    server.answers.append((200, b"1"))
    assert store.read("one") == b"1"
    store.close()


def test_a_proxy_tunnels_what_is_encrypted(server: Server, tokens: Tokens, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("API_ENDPOINT_OVERRIDE")
    monkeypatch.setenv("HTTPS_PROXY", server.url)
    store = store_of(timeout_s=0.0)
    server.answers.append((502, b""))
    with pytest.raises(DependencyUnavailable, match=r"ProxyError.*502"):
        store.read("one")
    assert server.requests == ["CONNECT storage.googleapis.com:443"]
    assert shown(server) == [None], "the token is for Cloud Storage alone"
    store.close()
    assert tokens.count == 1


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("REQUESTS_CA_BUNDLE", "/no/such/file.pem", r"REQUESTS_CA_BUNDLE.*/no/such/file\.pem"),
        ("CURL_CA_BUNDLE", "/no/such/file.pem", r"CURL_CA_BUNDLE.*/no/such/file\.pem"),
        ("REQUESTS_CA_BUNDLE", __file__, r"REQUESTS_CA_BUNDLE.*no certificate"),
        ("STORAGE_EMULATOR_HOST", "localhost:9000", r"STORAGE_EMULATOR_HOST.*localhost"),
        ("STORAGE_EMULATOR_HOST", "storage", r"STORAGE_EMULATOR_HOST.*storage"),
        ("HTTPS_PROXY", "http://", r"HTTPS_PROXY.*proxy"),
    ],
)
def test_wrong_settings_of_the_way_are_named_at_the_start(
    tokens: Tokens, monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    monkeypatch.delenv("API_ENDPOINT_OVERRIDE")
    monkeypatch.setenv(name, value)
    with pytest.raises(DependencyForbidden, match=rf"cannot reach bucket b \(project p\): .*{said}"):
        store_of()
    assert tokens.count == 0


# Certificates


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `cert.pem` and `key.pem` for 127.0.0.1, which sign themselves: good for a server and for its client."""
    folder = tmp_path_factory.mktemp("certificates")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    names = ["-subj", "/CN=here", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(folder / "key.pem")]
    subprocess.run([*command, *names, "-out", str(folder / "cert.pem")], check=True, capture_output=True)
    return folder


def encrypted(server: Server, certificates: Path, *, asks_back: bool = False) -> str:
    """The server's address once it speaks TLS, and, if told so, only with who shows the same certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "cert.pem", certificates / "key.pem")
    if asks_back:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(certificates / "cert.pem")
    server._http.socket = context.wrap_socket(server._http.socket, server_side=True)
    return server.url.replace("http:", "https:")


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_own_authorities_are_trusted(
    server: Server, tokens: Tokens, monkeypatch: pytest.MonkeyPatch, certificates: Path, name: str
) -> None:
    monkeypatch.setenv("API_ENDPOINT_OVERRIDE", encrypted(server, certificates))
    stranger = store_of(timeout_s=0.0)
    with pytest.raises(DependencyUnavailable, match=r"did not answer.*CERTIFICATE_VERIFY_FAILED"):
        stranger.read("one")
    monkeypatch.setenv(name, str(certificates / "cert.pem"))
    store = store_of()
    monkeypatch.setattr(ssl.SSLContext, "load_verify_locations", None)  # it is done
    for _ in range(3):
        server.answers.append((200, b"1", {"Connection": "close"}))
        assert store.read("one") == b"1"
    for one in (stranger, store):
        one.close()
    assert shown(server) == [f"Bearer token-{tokens.count}"] * 3, "nothing is told to a stranger"


def mutual(monkeypatch: pytest.MonkeyPatch, folder: Path, key: str = "key.pem") -> None:
    """Tell google-auth of a certificate of this machine's own."""
    own = {"cert_path": str(folder / "cert.pem"), "key_path": str(folder / key)}
    (folder / "config.json").write_text(json.dumps({"cert_configs": {"workload": own}}))
    monkeypatch.setenv("GOOGLE_API_CERTIFICATE_CONFIG", str(folder / "config.json"))
    monkeypatch.setenv("GOOGLE_API_USE_CLIENT_CERTIFICATE", "true")


def test_a_client_certificate_is_shown(server: Server, tokens: Tokens, monkeypatch: pytest.MonkeyPatch, certificates: Path) -> None:
    mutual(monkeypatch, certificates)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificates / "cert.pem"))
    monkeypatch.setenv("API_ENDPOINT_OVERRIDE", encrypted(server, certificates, asks_back=True))
    store = store_of()
    pool = store._transport._pool
    server.fails(401)
    server.answers.append((200, b"1"))
    assert store.read("one") == b"1"
    assert tokens.count == 2
    assert store._transport._pool is not pool, "a certificate that was replaced is refused with 401, too"
    store.close()
    monkeypatch.delenv("API_ENDPOINT_OVERRIDE")
    store = store_of()
    assert store._transport._endpoint == MTLS_ENDPOINT
    store.close()


@pytest.mark.parametrize("is_mutual", [False, True])
def test_a_certificate_for_another_host_is_refused(
    server: Server, tokens: Tokens, monkeypatch: pytest.MonkeyPatch, certificates: Path, is_mutual: bool
) -> None:
    if is_mutual:
        mutual(monkeypatch, certificates)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificates / "cert.pem"))
    monkeypatch.setenv("API_ENDPOINT_OVERRIDE", encrypted(server, certificates).replace("127.0.0.1", "localhost"))
    store = store_of(timeout_s=0.0)
    with pytest.raises(DependencyUnavailable, match=r"did not answer.*(Hostname mismatch|doesn't match)"):
        store.read("one")
    assert (server.requests, tokens.count) == ([], 1)
    store.close()


def test_a_client_certificate_that_cannot_be_read_is_named(tokens: Tokens, monkeypatch: pytest.MonkeyPatch, certificates: Path) -> None:
    mutual(monkeypatch, certificates, "no-such.pem")
    with pytest.raises(DependencyForbidden, match=r"client certificate \(mTLS\) cannot be used.*GOOGLE_API_USE_CLIENT_CERTIFICATE=false"):
        store_of()
    assert tokens.count == 0


# Connections


class NoPauses(ManualClock):
    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        raise AssertionError(f"a pause of {timeout_s} s")


def test_a_connection_that_was_closed_meanwhile_costs_no_pause(server: Server) -> None:
    store = store_of(clock=NoPauses())
    for _ in range(5):
        server.answers += [(200, b"1", {"X-Then": "close"}), None, (200, b"2")]  # told to nobody; or as it is taken
        assert (store.read("one"), store.read("one")) == (b"1", b"2")
    store.close()


def test_many_threads_share_a_store(local_storage: Service, project: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", local_storage.http)
    create_bucket(local_storage, project, f"bucket-{project}")
    store = GoogleObjectStore(f"bucket-{project}", project=project, pool_size=8)

    def use(number: int) -> bool:
        written = store.write(f"o/{number}", str(number).encode() * 100, metadata={"n": str(number)}, if_generation=0)
        data, info = store.read_with_info(f"o/{number}")
        return (data, info) == (str(number).encode() * 100, written) and written.metadata["n"] == str(number)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(use, range(80)))
    store.close()


def slowly(parts: Iterator[bytes]) -> tuple[str, threading.Thread]:
    """The URL of a server that answers one request with these bytes, a packet each, and then waits."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with listening, listening.accept()[0] as peer:
            peer.recv(65536)
            peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
            with suppress(ConnectionError):  # a client that gives up what it has not read resets the connection
                for part in parts:
                    peer.sendall(part)
                peer.recv(65536)  # until it is closed

    thread = threading.Thread(target=serve)
    thread.start()
    return f"http://127.0.0.1:{listening.getsockname()[1]}", thread


def verbatim(*answers: bytes) -> tuple[str, threading.Thread]:
    """The URL of a server that answers one request after the other, each on its connection, and closes it."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with listening:
            for answer in answers:
                with listening.accept()[0] as peer:
                    peer.recv(65536)
                    peer.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    return f"http://127.0.0.1:{listening.getsockname()[1]}", thread


@pytest.mark.parametrize(
    "cut",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n01234",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n01234\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzzz\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1",
        b"SSH-2.0-here\r\n",
        b"",
    ],
)
def test_an_answer_that_is_cut_is_asked_for_again(monkeypatch: pytest.MonkeyPatch, cut: bytes) -> None:
    whole = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n01234\r\n5\r\n56789\r\n0\r\n\r\n"
    url, thread = verbatim(cut, cut, whole)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", url)
    store = store_of()
    assert store.read("one") == b"0123456789"
    thread.join(30)
    assert not thread.is_alive()
    store.close()


@pytest.mark.parametrize("cut", [b"HTTP/1.1 200 OK\r\nContent-Le", b"HTTP/1.1 200 OK\r\nContent-Type: text/csv\r\n\r\na,b\r\n1,"])
def test_content_without_an_end_is_not_taken_for_the_whole(monkeypatch: pytest.MonkeyPatch, cut: bytes) -> None:
    url, thread = verbatim(cut)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", url)
    store = store_of()
    with pytest.raises(DependencyUnavailable, match=r"does not come from Cloud Storage.*neither a length nor a checksum"):
        store.read("one")
    thread.join(30)
    assert not thread.is_alive()
    store.close()


def test_what_follows_an_interim_answer_is_nobody_elses(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may come when the next request is under way on the same connection."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        for _ in range(4):
            with listening.accept()[0] as peer:
                peer.recv(65536)
                peer.sendall(b"HTTP/1.1 103 Early Hints\r\n\r\n")
                if peer.recv(65536):
                    peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none")

    thread = threading.Thread(target=serve)
    thread.start()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{listening.getsockname()[1]}")
    store = store_of(timeout_s=1e-9)
    for name in ("one", "two"):
        with pytest.raises(DependencyUnavailable, match="103 is no answer yet"):
            store.read(name)
    store.close()
    listening.close()
    thread.join(30)
    assert not thread.is_alive()


class Ticking(ManualClock):
    """100 s later at each look."""

    def monotonic(self) -> float:
        self.advance(100.0)
        return super().monotonic()


def test_a_server_that_trickles_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    url, thread = slowly(iter([b"x"] * 3))
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", url)
    store = store_of(clock=Ticking())
    with pytest.raises(DependencyUnavailable, match=r"did not answer until .*only [123] bytes of the answer came in 100 s"):
        store.read("one")
    thread.join(30)
    assert not thread.is_alive()
    store.close()


class Line:
    """An answer of 40 MiB that comes a MiB at a time, each after so many seconds of a clock."""

    def __init__(self, clock: ManualClock, seconds: float) -> None:
        self.clock, self.seconds = clock, seconds
        self.length_remaining = 40 << 20
        self.is_closed = False

    def read1(self, amount: int) -> bytes:
        self.clock.advance(self.seconds)
        self.length_remaining -= amount
        return bytes(amount)

    def close(self) -> None:
        self.is_closed = True

    def release_conn(self) -> None:
        return None


def test_a_large_answer_may_take_longer_than_a_call(server: Server) -> None:
    """A minute, and a second for each 256 KiB."""
    assert server.requests == []
    clock = ManualClock()
    store = store_of(clock=clock)
    assert len(store._transport._body(Line(clock, 4.5), clock.monotonic()) or b"") == 40 << 20
    stuck = Line(clock, 6.0)
    with pytest.raises(TimeoutError, match=r"^only 32505856 bytes of the answer came in 186 s$"):
        store._transport._body(stuck, clock.monotonic())
    assert stuck.is_closed
    store.close()


def test_a_closed_store_has_no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    url, thread = slowly(iter([b"x" * 1_000_000]))
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", url)
    store = store_of()
    assert store.read("one") == b"x" * 1_000_000
    assert thread.is_alive()
    store.close()
    thread.join(30)
    assert not thread.is_alive()


def test_a_redirect_is_followed_without_the_token(server: Server, tokens: Tokens) -> None:
    other = Server()
    server.answers.append((302, b"", {"Location": f"{other.url.replace('127.0.0.1', 'localhost')}/elsewhere"}))
    server.answers.append(server.answers[0])
    other.answers.append((200, b"there"))
    store = store_of()
    assert store.read("one") == b"there"
    assert (other.requests, shown(other)) == (["GET /elsewhere"], [None])
    assert shown(server) == ["Bearer token-1"] * 2
    store.close()
    other.stop()
    assert tokens.count == 1


# What travels


NAMES = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=40).filter(lambda one: one not in (".", ".."))


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=NAMES)
@example(name="a/../b/./c//")
@example(name="%2F?alt=json#x&y=1+2;=")
@example(name="e\u0301 \u2028\U0001f600 ~!@$'()*")
def test_any_name_is_its_own(named_store: GoogleObjectStore, name: str) -> None:
    if name.startswith(".well-known/acme-challenge/"):
        return
    written = named_store.write(name, name.encode(), content_type="text/plain; charset=utf-8", metadata={"näme": name})
    assert (written.name, written.metadata, written.content_type) == (name, {"näme": name}, "text/plain; charset=utf-8")
    assert named_store.read_with_info(name) == (name.encode(), written)
    assert list(named_store.list(name)) == [written]
    assert named_store.patch_metadata(name, {"b": "1"}).metadata == {"näme": name, "b": "1"}
    assert named_store.delete(name, if_generation=written.generation)


@pytest.fixture
def named_store(local_storage: Service, project: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[GoogleObjectStore]:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", local_storage.http)
    create_bucket(local_storage, project, f"bucket-{project}")
    made = GoogleObjectStore(f"bucket-{project}", project=project)
    yield made
    made.close()


def test_content_that_changed_on_its_way_is_no_content(
    server: Server, named_store: GoogleObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
    store = store_of()
    server.answers.append((200, b"hellO", {"x-goog-hash": "crc32c=mnG7TA==, md5=XUFAKrxLKna5cZ2REBfFkg=="}))
    with pytest.raises(DependencyUnavailable, match=r"cannot read object one .*what arrived is not what is stored, by its checksum"):
        store.read("one")
    server.answers.append((200, b"hello", {"x-goog-hash": "md5=XUFAKrxLKna5cZ2REBfFkg==,crc32c=mnG7TA=="}))
    assert store.read("one") == b"hello"
    store.close()
    monkeypatch.setattr(json_api, "crc32c", lambda _: "AAAAAA==")
    with pytest.raises(ServiceRefused, match="CRC32C"):
        named_store.write("one", b"hello")


def test_no_checksum_is_no_damage() -> None:
    assert damage_of(Answer(200, {}, b"x")) == damage_of(Answer(200, {"x-goog-hash": "md5=abc"}, b"x")) == ""


@pytest.mark.parametrize("is_zipped", [False, True])
@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"error": {"message": "no", "errors": [{"reason": "why"}]}}', Refusal(403, "no", "why")),
        (b'{"error": {"message": "no"}}', Refusal(403, "no")),
        (b"No such object: b/one", Refusal(403, "No such object: b/one")),
        (b'{"error": "a text"}', Refusal(403, '{"error": "a text"}')),
        (b"", Refusal(403)),
    ],
)
def test_a_refusal_is_read_from_json_or_text(body: bytes, expected: Refusal, is_zipped: bool) -> None:
    import gzip

    head = {"content-encoding": "gzip"} if is_zipped else {}
    assert refusal_in(Answer(403, head, gzip.compress(body) if is_zipped else body)) == expected


def test_large_content_goes_by_googles_client(named_store: GoogleObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "MAX_REQUEST_BYTES", 10)
    ways: list[bool] = []
    small = named_store.write("small", b"x" * 10)
    ways.append(named_store._made_client is None)
    large = named_store.write("large", b"x" * 11, content_type="text/plain", metadata={"a": "b"}, if_generation=0)
    ways.append(named_store._made_client is None)
    assert ways == [True, False]
    assert named_store.read_with_info("large") == (b"x" * 11, large)
    assert (large.name, large.size, large.metadata, large.content_type) == ("large", 11, {"a": "b"}, "text/plain")
    with pytest.raises(PreconditionFailed, match="large exists already"):
        named_store.write("large", b"y" * 11, if_generation=0)
    assert named_store.write("small", b"y" * 11, if_generation=small.generation).generation > large.generation


def test_a_store_is_used_without_googles_client(local_storage: Service, project: str) -> None:
    """Its import is a tenth of a worker's start."""
    create_bucket(local_storage, project, f"bucket-{project}")
    code = (
        "import sys; from batch.services.objects import GoogleObjectStore\n"
        f"store = GoogleObjectStore('bucket-{project}', project='p')\n"
        "store.write('a', b'1'); store.patch_metadata('a', {'b': 'c'}); store.read_with_info('a')\n"
        "list(store.list('')); store.delete('a'); store.info('a')\n"
        "print([one for one in ('google.cloud.storage', 'google.api_core', 'grpc') if one in sys.modules])"
    )
    environment = {**clean_environment(), "STORAGE_EMULATOR_HOST": local_storage.http}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_errors_of_both_ways_are_the_same(named_store: GoogleObjectStore) -> None:
    def said(action: Callable[[], object]) -> tuple[type[Exception], str]:
        with pytest.raises(FanoutError) as raised:
            action()
        return type(raised.value), str(raised.value)

    def client() -> None:
        with named_store._errors("read", "none"):
            named_store._bucket.blob("none").download_as_bytes(**named_store._options)

    assert said(client) == said(lambda: named_store.read("none"))
