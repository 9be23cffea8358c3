"""Whatever goes wrong with a request of a command: it ends with a message for a person, within its exit codes, and without a traceback."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import click
import pytest
import requests
import yaml
from click.testing import CliRunner, Result
from urllib3.exceptions import MaxRetryError, NameResolutionError

from controller import wiring
from controller.lanes import resources
from controller.observe import backlog
from fanout import apply, doctor, executions, explain, lanes, launch, pause, tick
from fanout.output import TRACEBACK, explained_errors, unforeseen
from tests.fanout.test_apply import applied, cloud, jobs_file
from tests.local_cloud.fault_orders import Orders
from tests.support import Service

__all__ = ["cloud", "jobs_file"]
COMMANDS: dict[str, tuple[click.Command, list[str]]] = {
    "tick": (tick.tick, []),
    "plan": (tick.plan, ["--json"]),
    "explain": (explain.command, []),
    "lanes": (lanes.command, []),
    "executions": (executions.command, []),
    "pause": (pause.pause, ["default"]),
    "resume": (pause.resume, ["default"]),
    "launch": (launch.command, ["default", "--workers", "1"]),
    "doctor": (doctor.command, ["--fix", "--yes"]),
    "apply": (apply.apply, ["--yes", "--create-missing"]),
}


def refused(status: int, body: bytes) -> Callable[[Any], Any]:
    def answer(request: Any) -> requests.Response:
        response = requests.Response()
        response.status_code, response._content, response.request, response.url = status, body, request, request.url
        response.headers.update({"content-type": "application/json", "content-length": str(len(body))})
        response.raw = io.BytesIO(body)
        return response

    return answer


def unresolved(request: Any) -> Any:
    cause = NameResolutionError("run.googleapis.com", None, OSError(-2, "Name or service not known"))  # type: ignore[arg-type]
    raise requests.exceptions.ConnectionError(MaxRetryError(None, request.url, cause), request=request)  # type: ignore[arg-type]


def timed_out(request: Any) -> Any:
    raise requests.exceptions.ReadTimeout("read timed out", request=request)


FAULTS: dict[str, Callable[[Any], Any]] = {
    "no name": unresolved,
    "timeout": timed_out,
    "forbidden": refused(403, json.dumps({"error": {"code": 403, "message": "caller lacks run.jobs.list"}}).encode()),
    "bad request": refused(400, json.dumps({"error": {"code": 400, "message": "no"}}).encode()),
    "not found": refused(404, b"{}"),
    "a page": refused(200, b"<html>log in to this network</html>"),
    "an empty object": refused(200, b"{}"),
    "a list": refused(200, b"[]"),
    "odd values": refused(200, json.dumps({"jobs": 5, "items": "x", "executions": [7], "name": [], "metadata": 3, "size": "y"}).encode()),
}


class Broken:
    """From the `at`-th request on, each over HTTP meets the fault. `count` is of all requests."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.at, self.count = sys.maxsize, 0
        self.fault: Callable[[Any], Any] = unresolved
        send = requests.adapters.HTTPAdapter.send

        def sent(adapter: Any, request: Any, *arguments: Any, **more: Any) -> Any:
            self.count += 1
            return self.fault(request) if self.count >= self.at else send(adapter, request, *arguments, **more)

        monkeypatch.setattr(requests.adapters.HTTPAdapter, "send", sent)

    def begin(self, at: int, fault: Callable[[Any], Any] = unresolved) -> None:
        self.at, self.fault, self.count = at, fault, 0


@pytest.fixture
def one_lane(cloud: str, jobs_file: Path, local_pubsub: Service, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A lane with an execution and a state, and little patience with services; the jobs file."""
    monkeypatch.setenv("CLOUD_MONITORING_EMULATOR_HOST", local_pubsub.grpc)
    (document,) = [one for one in yaml.safe_load_all(jobs_file.read_text()) if one["metadata"]["name"] == "default"]
    jobs_file.write_text(yaml.safe_dump(document))
    assert applied(str(jobs_file), "--yes", "--create-missing").exit_code == 0
    assert ended("launch", jobs_file).exit_code == 0
    ended("tick", jobs_file)
    monkeypatch.setattr(wiring, "STORE_S", 0.05)
    monkeypatch.setattr(resources, "PATIENCE_S", 0.05)
    monkeypatch.setitem(backlog.GoogleBacklogReader.__init__.__kwdefaults__ or {}, "retry_s", 0.05)
    return jobs_file


def ended(name: str, jobs: Path) -> Result:
    command, arguments = COMMANDS[name]
    if name == "apply":
        # Something to do each time.
        document = yaml.safe_load(jobs.read_text())
        annotations = document["metadata"]["annotations"]
        annotations["fanout/weight"] = str(float(annotations.get("fanout/weight", 1)) + 1)
        jobs.write_text(yaml.safe_dump(document))
        arguments = [str(jobs), *arguments]
    return CliRunner().invoke(command, arguments)


def check(result: Result, what: object) -> None:
    told = f"{what}\n{result.output}"
    assert isinstance(result.exception, SystemExit | None), (told, result.exception)
    assert result.exit_code in (0, 1, 2), told
    assert "Traceback" not in result.output, told
    assert result.output.strip(), told
    if result.exit_code:
        assert "fault in Fanout" not in result.output, told


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_any_request_may_fail_in_any_way(name: str, one_lane: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = Broken(monkeypatch)
    ended(name, one_lane)
    request_count = broken.count
    for at in range(1, request_count + 1):
        for kind, fault in FAULTS.items():
            broken.begin(at, fault)
            check(ended(name, one_lane), (name, at, kind))


def test_any_request_may_fail(one_lane: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one way each: the ways take turns."""
    broken = Broken(monkeypatch)
    turns = cycle(FAULTS.items())
    for name in COMMANDS:
        broken.begin(sys.maxsize)
        ended(name, one_lane)
        request_count = broken.count
        assert request_count, name
        for at in range(1, request_count + 1):
            kind, fault = next(turns)
            broken.begin(at, fault)
            check(ended(name, one_lane), (name, at, kind))


@pytest.fixture
def orders(local_pubsub: Service, cloud: str) -> Iterator[Orders]:
    made = Orders(local_pubsub.http, cloud)
    yield made
    made.clear()


def test_the_gauge_and_the_queue_may_fail(one_lane: Path, orders: Orders) -> None:
    for kind in ("unavailable", "deadline_exceeded", "too_many_requests", "lost_response"):
        for method in ("ListTimeSeries", "GetSubscription", "ListTopicSubscriptions"):
            orders.rate(method, 1.0, 1, kind)
        for name in ("tick", "lanes", "doctor"):
            result = ended(name, one_lane)
            check(result, (name, kind))
            assert (result.exit_code, "backlog" in result.output) == (1, True)
        orders.clear()


def test_what_nobody_foresaw_is_one_line_unless_a_traceback_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command()
    def command() -> None:
        with explained_errors():
            raise ZeroDivisionError("over\nlines")

    result = CliRunner().invoke(command)
    assert (result.exit_code, result.output.count("\n")) == (1, 1)
    assert "a fault in Fanout itself (ZeroDivisionError: over lines): FANOUT_TRACEBACK=1 shows" in result.output
    monkeypatch.setenv(TRACEBACK, "1")
    assert isinstance(CliRunner().invoke(command).exception, ZeroDivisionError)


def test_what_services_and_the_way_to_them_raise_is_not_called_our_fault() -> None:
    assert "a service could not be reached" in unforeseen(ConnectionResetError(104, "reset"))
    assert "a service could not be reached" in unforeseen(requests.exceptions.ConnectionError("refused"))


@pytest.mark.parametrize("error", [click.Abort(), click.exceptions.Exit(0), click.UsageError("no"), BrokenPipeError()])
def test_the_ends_that_click_knows_stay_what_they_are(error: Exception) -> None:
    with pytest.raises(type(error)), explained_errors():
        raise error
