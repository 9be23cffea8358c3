"""`fanout doctor`: workers in a network of the operator's (direct VPC) need an address each."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest
import requests
from click.testing import Result

from batch.model.errors import DependencyError, DependencyForbidden, DependencyMissing, DependencyUnavailable
from controller.config import ControllerSettings
from controller.observe.job_documents import job_info
from fanout import doctor
from fanout.doctor import google_services
from fanout.doctor.google_services import GoogleFacts
from fanout.doctor.services import NotServed
from tests.controller.fakes import World
from tests.fanout.doctor_fakes import FakeFacts
from tests.fanout.test_doctor import facts, not_fine, the_job

__all__ = ["facts"]

Run = Callable[..., Result]
SUBNET = "projects/p/regions/us-central1/subnetworks/workers"


@pytest.mark.parametrize(
    ("interfaces", "subnet"),
    [
        ('[{"network":"n","subnetwork":"workers"}]', SUBNET),
        ('[{"network":"workers"}]', SUBNET),
        ('[{"network":"projects/host/global/networks/workers"}]', SUBNET),
        ('[{"subnetwork":"projects/host/regions/r-1/subnetworks/s"}]', "projects/host/regions/r-1/subnetworks/s"),
        ('[{"subnetwork":"https://c.example.com/compute/v1/projects/h/regions/r/subnetworks/s"}]', "projects/h/regions/r/subnetworks/s"),
        ("", ""),
        ("[]", ""),
        ("{}", ""),
        ("[1]", ""),
        ('[{"subnetwork":"a/../b"}]', ""),
        ('[{"network":{"a":1}}]', ""),
        ("[" * 100_000, ""),
        (17, ""),
    ],
)  # fmt: skip
def test_the_subnet_of_a_job(interfaces: object, subnet: str) -> None:
    annotations = {"run.googleapis.com/network-interfaces": interfaces}
    document = {"metadata": {"name": "default"}, "spec": {"template": {"metadata": {"annotations": annotations}}}}
    assert job_info(document, "projects/p/locations/us-central1").subnet == subnet


@pytest.mark.parametrize(
    ("max_workers", "size", "prefix"),
    [(60, 64, 25), (48, 64, None), (49, 64, 25), (100, 128, None), (112, 128, None), (113, 128, 24), (1, 16, 26), (100, 4, 25)],
)
def test_workers_are_compared_with_addresses(
    facts: FakeFacts, here: World, run: Run, monkeypatch: pytest.MonkeyPatch, max_workers: int, size: int, prefix: int | None
) -> None:
    the_job(here, monkeypatch, annotations={"max_workers": str(max_workers)}, subnet=SUBNET)
    facts.subnets[SUBNET] = size
    result = run(doctor.command, "--json")
    found = not_fine(result)
    assert [one["check"] for one in found] == ([] if prefix is None else ["addresses"])
    assert result.exit_code == (0 if prefix is None else 1)
    for one in found:
        assert (one["about"], one["verdict"]) == ("subnet workers", "wrong")
        assert f"it has {size - 4} addresses" in one["what"]
        assert one["command"].endswith(f"expand-ip-range workers --project=p --region=us-central1 --prefix-length={prefix}")


@pytest.mark.parametrize(
    ("error", "verdict", "code", "said"),
    [
        (DependencyForbidden("cannot read it: HTTP 403: no"), "not_checked", 0, "compute.subnetworks.get is needed"),
        (NotServed("the local cloud has no networks"), "not_checked", 0, "no networks"),
        (DependencyUnavailable("cannot read it: HTTP 503"), "unreadable", 1, "503"),
        (DependencyMissing("HTTP 404"), "wrong", 1, f"{SUBNET} does not exist"),
    ],
)
def test_a_subnet_that_cannot_be_read(
    facts: FakeFacts, here: World, run: Run, monkeypatch: pytest.MonkeyPatch, error: Exception, verdict: str, code: int, said: str
) -> None:
    the_job(here, monkeypatch, subnet=SUBNET)
    facts.errors["addresses"] = error
    result = run(doctor.command, "--json")
    (found,) = not_fine(result)
    assert (found["about"], found["verdict"], result.exit_code) == ("subnet workers", verdict, code)
    assert said in found["what"]


ANSWERS: dict[str, tuple[int, str]] = {
    "good": (200, '{"name": "good", "ipCidrRange": "10.8.0.0/25"}'),
    "off": (403, '{"error": {"message": "Compute Engine API has not been used in project p before or it is disabled"}}'),
    "other": (200, '{"kind": "compute#subnetwork"}'),
    "odd": (200, '{"ipCidrRange": "ten"}'),
    "page": (200, "<html>"),
    "gone": (404, "{}"),
    "down": (503, ""),
}


@pytest.fixture
def compute(monkeypatch: pytest.MonkeyPatch) -> Iterator[GoogleFacts]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = ANSWERS[self.path.removeprefix("/compute/v1/projects/p/regions/r/subnetworks/")]
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *arguments: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setattr(google_services, "_COMPUTE", f"http://127.0.0.1:{server.server_port}/compute/v1")
    monkeypatch.setattr(google_services, "authorized_session", requests.Session)
    facts: Any = object.__new__(GoogleFacts)
    facts._settings = ControllerSettings("p", "b")
    yield facts
    server.shutdown()
    server.server_close()
    thread.join()


def test_the_size_comes_from_compute(compute: GoogleFacts) -> None:
    assert compute.addresses("projects/p/regions/r/subnetworks/good") == 128


@pytest.mark.parametrize(
    ("name", "kind", "said"),
    [
        ("off", DependencyForbidden, "has not been used"),
        ("gone", DependencyMissing, "404"),
        ("down", DependencyUnavailable, "503"),
        ("other", DependencyUnavailable, "not one of this service"),
        ("odd", DependencyUnavailable, "not one of this service"),
        ("page", DependencyUnavailable, "read projects/p"),
    ],
)
def test_an_answer_that_says_no_size(compute: GoogleFacts, name: str, kind: type[DependencyError], said: str) -> None:
    with pytest.raises(kind, match=said):
        compute.addresses(f"projects/p/regions/r/subnetworks/{name}")


def test_the_local_cloud_has_no_networks(compute: Any) -> None:
    compute._settings = ControllerSettings("p", "b", run_emulator="http://127.0.0.1:9")
    with pytest.raises(NotServed, match="no networks"):
        compute.addresses(SUBNET)


def test_lanes_of_one_subnet_count_together(facts: FakeFacts, here: World, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where only one of them is asked about."""
    the_job(here, monkeypatch, annotations={"max_workers": "40"}, subnet=SUBNET)
    (first,) = here.runner.jobs()
    other = replace(first, full_name=f"{first.full_name}-b", labels={**first.labels, "fanout-lane": "bulk"})
    other = replace(other, annotations={**other.annotations, "fanout/subscription": "bulk-sub"})
    monkeypatch.setattr(here.runner, "jobs", lambda: [first, other])
    facts.subnets[SUBNET] = 64
    found = [one for one in json.loads(run(doctor.command, "default", "--json").stdout)["findings"] if one["check"] == "addresses"]
    assert [one["verdict"] for one in found] == ["wrong"]
    assert "up to 80, 16 at a time: max-workers of bulk (40) and default (40)" in found[0]["what"]
