"""Faults as Google's Storage client meets them at the running service."""

from __future__ import annotations

import io
import json
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from google.api_core.exceptions import PreconditionFailed, ServiceUnavailable
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage

from tests.local_cloud.fault_orders import REFUSALS, Orders, slow_answer
from tests.support import Service, wait_until

CHUNK_BYTES = 256 * 1024
# Both are what `requests` makes of a connection that ends too early, by where it ends.
CUT = (requests.exceptions.ConnectionError, requests.exceptions.ChunkedEncodingError)


class Site:
    """A bucket in a project of its own."""

    def __init__(self, service: Service, project: str) -> None:
        self.service = service
        self.orders = Orders(service.http, project)
        self.client = storage.Client(project=project, credentials=AnonymousCredentials(), client_options={"api_endpoint": service.http})
        self.bucket = self.client.create_bucket(f"bucket-{project}")

    def close(self) -> None:
        self.orders.clear()
        self.client.close()

    def write(self, content: bytes = b"content", name: str = "a", **options: Any) -> None:
        self.bucket.blob(name).upload_from_string(content, retry=None, **options)

    def read(self, name: str = "a", **options: Any) -> bytes:
        found: bytes = self.bucket.blob(name).download_as_bytes(**options)
        return found

    def exists(self, name: str = "a") -> bool:
        return bool(self.bucket.blob(name).exists())


@pytest.fixture
def site(local_storage: Service, project: str) -> Iterator[Site]:
    made = Site(local_storage, project)
    yield made
    made.close()


def test_the_methods_are_known_by_their_names_in_the_api(site: Site) -> None:
    for method in ("objects.insert", "objects.get", "objects.compose", "buckets.list"):
        site.orders.add(method, "ok")
    with pytest.raises(AssertionError, match=r"did you mean 'objects\.insert'"):
        site.orders.add("object.insert", "ok")
    with pytest.raises(AssertionError, match="unknown method 'batch'"):
        site.orders.add("batch", "ok")


@pytest.mark.parametrize(
    ("kind", "error"),
    [*REFUSALS, ("precondition_failed", PreconditionFailed)],
)
def test_a_refused_write_writes_nothing(site: Site, kind: str, error: type[Exception]) -> None:
    site.orders.add("objects.insert", kind)
    with pytest.raises(error, match=f"fault {kind}"):
        site.write()
    assert not site.exists()
    site.write()
    assert site.exists()
    assert site.orders.all_met(1)


def test_the_client_tries_again_after_an_unavailable_write(site: Site) -> None:
    site.orders.add("objects.insert", "unavailable")
    site.bucket.blob("a").upload_from_string(b"content", if_generation_match=0)
    assert site.read() == b"content"
    assert site.orders.all_met(1)


def test_a_write_whose_response_is_lost_is_written_and_wins_over_its_repetition(site: Site) -> None:
    site.orders.add("objects.insert", "lost_response")
    with pytest.raises(PreconditionFailed):
        site.bucket.blob("a").upload_from_string(b"content", if_generation_match=0)
    assert site.read() == b"content"


def test_without_repetition_a_lost_response_is_a_reset_connection(site: Site) -> None:
    site.orders.add("objects.insert", "lost_response")
    with pytest.raises(requests.exceptions.ConnectionError, match="reset"):
        site.write()
    assert site.exists()


def test_a_write_takes_effect_after_its_error(site: Site) -> None:
    site.orders.add("objects.insert", {"kind": "effect_after", "seconds": 60}, {"kind": "effect_after", "seconds": 30})
    with pytest.raises(ServiceUnavailable):
        site.write(b"late")
    with pytest.raises(ServiceUnavailable):
        site.write(name="half-way")
    site.service.advance(30)
    wait_until(lambda: site.exists("half-way"), description="the write that is due first")
    assert not site.exists()
    site.service.advance(30)
    wait_until(site.exists, description="the late write")
    assert site.read() == b"late"


def test_a_late_write_that_comes_too_late_loses(site: Site) -> None:
    site.orders.add("objects.insert", *[{"kind": "effect_after", "seconds": 60}] * 2)
    with pytest.raises(ServiceUnavailable):
        site.write(b"late", if_generation_match=0)
    with pytest.raises(ServiceUnavailable):
        site.write(name="even later")
    site.write(b"first", if_generation_match=0)
    site.service.advance(60)
    wait_until(lambda: site.exists("even later"), description="the write after the late one")
    assert site.read() == b"first"


def test_a_delete_whose_response_is_lost_deletes(site: Site) -> None:
    site.write()
    site.orders.add("objects.delete", "lost_response")
    with pytest.raises(requests.exceptions.ConnectionError):
        site.bucket.blob("a").delete(retry=None)
    assert not site.exists()


@pytest.mark.parametrize("after_bytes", [None, 0, 100_000, 10_000_000])
def test_an_upload_that_is_reset_writes_nothing(site: Site, after_bytes: int | None) -> None:
    fault = {"kind": "reset_connection"} if after_bytes is None else {"kind": "reset_connection", "after_bytes": after_bytes}
    site.orders.add("objects.insert", fault)
    with pytest.raises(requests.exceptions.ConnectionError):
        site.write(bytes(3_000_000))
    assert not site.exists()
    site.write(b"again")
    assert site.read() == b"again"


@pytest.mark.slow
def test_a_resumable_upload_goes_on_after_a_reset_in_a_chunk(site: Site) -> None:
    content = random.Random(5).randbytes(36 * CHUNK_BYTES)  # the client sends less than 8 MiB at once
    # The first call opens the upload; the eleventh chunk is cut off after 100,000 bytes.
    site.orders.add("objects.insert", *["ok"] * 11, {"kind": "reset_connection", "after_bytes": 100_000}, "unavailable")
    blob = site.bucket.blob("a", chunk_size=CHUNK_BYTES)
    blob.upload_from_file(io.BytesIO(content), size=len(content), if_generation_match=0)
    assert site.read() == content
    assert site.orders.all_met(13)


def test_a_download_that_is_cut_off_fails_or_is_taken_up_again(site: Site) -> None:
    content = random.Random(6).randbytes(3_000_000)
    site.write(content)
    site.orders.add("objects.get", {"kind": "partial_body", "after_bytes": 1_000_000}, "reset_connection", "partial_body")
    for _ in range(2):
        with pytest.raises(CUT):
            site.read(retry=None)
    assert site.read() == content
    assert site.orders.all_met(3)


def test_a_partial_body_has_the_bytes_that_were_asked_for(site: Site) -> None:
    site.write(bytes(1000))
    site.orders.add("objects.get", {"kind": "partial_body", "after_bytes": 300})
    url = f"{site.service.http}/download/storage/v1/b/{site.bucket.name}/o/a?alt=media"
    with requests.get(url, stream=True, timeout=60) as answer:
        assert answer.headers["content-length"] == "1000"
        assert len(answer.raw.read(1000, decode_content=False)) == 300


def test_a_slow_read_is_answered_when_the_clock_has_moved(site: Site) -> None:
    site.write()
    assert slow_answer(site.service, site.orders, "objects.get", site.read) == b"content"


def delete_in_one_batch(site: Site, *names: str) -> None:
    with site.client.batch():
        for name in names:
            site.bucket.blob(name).delete()


def test_calls_inside_of_a_batch_meet_faults_too(site: Site) -> None:
    site.write(name="a")
    site.write(name="b")
    site.orders.add("objects.delete", "ok", "unavailable")
    with pytest.raises(ServiceUnavailable):
        delete_in_one_batch(site, "a", "b")
    assert [site.exists("a"), site.exists("b")] == [False, True]
    site.orders.add("objects.delete", "lost_response")
    with pytest.raises(ServiceUnavailable):
        delete_in_one_batch(site, "b")
    assert not site.exists("b")


def test_faults_of_one_project_never_touch_another(site: Site, local_storage: Service, project: str) -> None:
    other = Site(local_storage, f"{project}-b")
    try:
        site.orders.rate("objects.insert", 1.0, 1, "unavailable")
        site.orders.rate("buckets.insert", 1.0, 1, "unavailable")
        other.write()
        other.client.create_bucket(f"more-{project}")
        with pytest.raises(ServiceUnavailable):
            site.write()
        with pytest.raises(ServiceUnavailable):
            site.client.create_bucket(f"not-{project}", retry=None)
    finally:
        other.close()


def test_the_service_goes_on_without_a_word_after_all_of_this(tmp_path: Path) -> None:
    """Faults leave nothing on standard error: who reads the log there looks for real ones."""
    log = tmp_path / "errors"
    with log.open("wb") as errors:
        command = [sys.executable, "-m", "local_cloud.storage", "--state-dir", str(tmp_path / "state"), "--exit-with-stdin"]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors)
        assert process.stdout is not None
        assert process.stdin is not None
        service = Service(process, json.loads(process.stdout.readline()), tmp_path)
        site = Site(service, "project")
        site.write(bytes(2_000_000), name="big")
        site.orders.add("objects.insert", "lost_response", "reset_connection", {"kind": "reset_connection", "after_bytes": 10})
        site.orders.add("objects.get", "lost_response", "reset_connection", "partial_body", {"kind": "slow", "seconds": 3600})
        for _ in range(3):
            with pytest.raises(CUT):
                site.write(bytes(2_000_000))
            with pytest.raises(CUT):
                site.read("big", retry=None)
        # Waits when the service ends, which answers it at once then.
        slow = threading.Thread(target=site.read, args=["big"])
        slow.start()
        wait_until(lambda: site.orders.all_met(7), description="the slow read's arrival")
        process.stdin.close()
        assert process.wait(60) == 0
        slow.join(60)
        process.stdout.close()
        site.client.close()
    assert log.read_text() == ""
