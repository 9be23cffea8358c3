"""Who is answered: the Host header of each service's HTTP side, the addresses that can be listened on, and the rights of the folder."""

from __future__ import annotations

import http.client
import re
import stat
import subprocess
import sys
from argparse import ArgumentTypeError
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage
from starlette.applications import Starlette

from local_cloud.addresses import is_gcloud_host
from local_cloud.web.guard import is_loopback, origin_refusal, refusal
from local_cloud.web.service import HttpServer, loopback_host
from tests.support import Service, start_service

SERVICES = ("pubsub", "storage", "run")


@pytest.mark.parametrize(
    "host", ["127.0.0.1:8080", "localhost:8080", "LOCALHOST:8080", "[::1]:8080", "127.8.8.8:8080", "localhost", "127.0.0.1"]
)
def test_its_own_names_are_answered(host: str) -> None:
    assert refusal("/storage/v1/b", host, 8080) == ""


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example:8080",
        "evil.example",
        "localhost.evil.example:8080",
        "127.0.0.1.evil.example:8080",
        "127.0.0.1:8081",
        "localhost:8081",
        "run.local:8080",
        "run.local",
        "us-central1-run.local",
        "10.0.0.1:8080",
        "0.0.0.0:8080",
        "[fe80::1]:8080",
        "127.0.0.1:8080@evil.example",
        "localhost:8080:8080",
    ],
)
def test_other_names_are_refused_with_the_reason(host: str) -> None:
    text = refusal("/storage/v1/b", host, 8080)
    assert "DNS rebinding" in text
    assert "127.0.0.1:8080" in text


@pytest.mark.parametrize("host", ["run.local", "us-central1-run.local", "run.local:80", "127.0.0.1:8080", "localhost"])
def test_a_client_that_takes_it_for_its_proxy_may_use_made_up_names(host: str) -> None:
    assert refusal(f"http://{host}/apis", host, 8080, is_gcloud_host) == ""


@pytest.mark.parametrize(
    ("target", "host"),
    [
        ("http://evil.example/apis", "evil.example"),
        ("http://evil.example/apis", "run.local"),
        ("http://run.local/apis", "evil.example"),
        ("http://run.local@evil.example/apis", "run.local"),
        ("http://storage.local/apis", "storage.local"),
        ("http://127.0.0.1:8081/apis", "127.0.0.1:8081"),
        ("/http://run.local/apis", "run.local"),
    ],
)
def test_also_a_proxy_is_for_the_local_cloud_only(target: str, host: str) -> None:
    assert "DNS rebinding" in refusal(target, host, 8080, is_gcloud_host)


def test_a_service_without_made_up_names_knows_none() -> None:
    assert "DNS rebinding" in refusal("http://run.local/apis", "run.local", 8080)


@pytest.mark.parametrize(("name", "is_one"), [("127.0.0.1", True), ("::1", True), ("0.0.0.0", False), ("192.168.0.1", False), ("x", False)])
def test_what_is_loopback(name: str, is_one: bool) -> None:
    assert is_loopback(name) is is_one


@pytest.fixture(params=SERVICES)
def service(request: pytest.FixtureRequest) -> Service:
    found: Service = request.getfixturevalue(f"local_{request.param}")
    return found


def ask(service: Service, target: str, host: str | None) -> tuple[int, str]:
    """Status and text of a GET with this target and Host header."""
    connection = http.client.HTTPConnection(urlsplit(service.http).netloc, timeout=10)
    try:
        connection.putrequest("GET", target, skip_host=True)
        if host is not None:
            connection.putheader("Host", host)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def test_each_service_refuses_a_foreign_host(service: Service) -> None:
    port = urlsplit(service.http).port
    for target in ("/", "/clock", "/faults"):
        status, text = ask(service, target, f"evil.example:{port}")
        assert status == 421
        assert "DNS rebinding" in text
    assert ask(service, "/", f"run.local:{port}")[0] == 421
    assert ask(service, "/", "")[0] in (400, 421)
    assert ask(service, "/", None)[0] in (400, 421)


def test_each_service_answers_its_own_names(service: Service) -> None:
    port = urlsplit(service.http).port
    for host in (f"127.0.0.1:{port}", f"localhost:{port}"):
        status, text = ask(service, "/clock", host)
        assert status == 200, text
        assert "now" in text


def test_only_cloud_run_is_taken_for_a_proxy(local_run: Service, local_storage: Service, local_pubsub: Service) -> None:
    for host in ("run.local", "us-central1-run.local"):
        assert ask(local_run, f"http://{host}/clock", host)[0] == 200
        for other in (local_storage, local_pubsub):
            assert ask(other, f"http://{host}/clock", host)[0] == 421
    assert ask(local_run, "http://evil.example/clock", "evil.example")[0] == 421


@pytest.mark.parametrize("origin", [None, "http://127.0.0.1:8080", "http://localhost:8080", "https://[::1]:8080"])
def test_programs_and_its_own_pages_are_answered(origin: str | None) -> None:
    assert origin_refusal(origin, 8080) == ""


@pytest.mark.parametrize(
    "origin", ["", "null", "http://evil.example", "https://evil.example:8080", "http://localhost", "http://127.0.0.1:8081", "file://", "x"]
)
def test_other_pages_are_refused_with_the_reason(origin: str) -> None:
    assert "does not answer web pages" in origin_refusal(origin, 8080)


def test_each_service_refuses_what_a_page_posts(service: Service) -> None:
    """A browser lets any page post to 127.0.0.1: with Cloud Run that would start programs."""
    before = httpx.get(f"{service.http}/clock").json()["now"]
    answer = httpx.post(
        f"{service.http}/clock/advance",
        content=b'{"seconds": 86400}',
        headers={"origin": "https://evil.example", "content-type": "text/plain"},
    )
    assert (answer.status_code, "does not answer web pages" in answer.text) == (403, True)
    assert httpx.get(f"{service.http}/clock").json()["now"] - before < 86400


@pytest.mark.parametrize("name", SERVICES)
def test_only_loopback_can_be_listened_on(name: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", f"local_cloud.{name}", "--state-dir", str(tmp_path / "state"), "--host", "0.0.0.0"]
    ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2
    assert "'0.0.0.0' is not a loopback address" in ended.stderr
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.1", "::", "example.com"])
def test_what_is_no_loopback_address_is_refused_by_its_name(host: str) -> None:
    with pytest.raises(ArgumentTypeError, match=f"^'{re.escape(host)}' is not a loopback address"):
        loopback_host(host)


def test_the_http_side_itself_refuses_to_listen_elsewhere() -> None:
    with pytest.raises(Exception, match="not a loopback address"):
        HttpServer(Starlette(), "0.0.0.0", 0)


@pytest.fixture(params=SERVICES)
def started(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Service]:
    """A service on a folder that was there before, open to everybody."""
    state_dir = tmp_path / "state"
    state_dir.mkdir(mode=0o755)
    service = start_service(request.param, state_dir)
    yield service
    service.stop()


def test_the_state_folder_is_private(started: Service) -> None:
    assert stat.S_IMODE(started.state_dir.stat().st_mode) == 0o700


def test_files_with_content_are_private(tmp_path: Path) -> None:
    service = start_service("storage", tmp_path / "state")
    client = storage.Client(project="p", credentials=AnonymousCredentials(), client_options={"api_endpoint": service.http})
    client.create_bucket("bucket").blob("folder/name").upload_from_string(b"content")
    client.close()
    service.stop()
    files = [path for path in service.state_dir.rglob("*") if path.is_file()]
    assert any(path.read_bytes() == b"content" for path in files)
    for path in files:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
