"""The service: what Cloud Scheduler and a person get for an answer."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest

from batch.errors import DependencyUnavailable
from controller.backlog import Unknown, Value
from controller.service import create_app
from tests.controller.fakes import World, job, world


@pytest.fixture
def here() -> World:
    return world([job(), job("bulk"), job("wrong", max_workers="0")])


class Client:
    """Requests to the service without a socket."""

    def __init__(self, here: World) -> None:
        self._app = create_app(here.outside)

    def get(self, path: str) -> httpx.Response:
        return asyncio.run(self._request("GET", path))

    def post(self, path: str) -> httpx.Response:
        return asyncio.run(self._request("POST", path))

    async def _request(self, method: str, path: str) -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=self._app), base_url="http://controller") as client:
            return await client.request(method, path)


@pytest.fixture
def client(here: World) -> Client:
    return Client(here)


def test_health(client: Client) -> None:
    assert client.get("/health").json() == {"status": "healthy"}


def test_a_tick_of_all_lanes_reads_once_and_answers_with_every_decision(
    here: World, client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    here.backlog.by_name = {"tasks-sub": Value(250, here.clock.now()), "bulk-sub": Unknown("no answer")}
    response = client.post("/tick")
    body = response.json()
    assert response.status_code == 200
    assert [(one["lane"], one["decision"]["kind"]) for one in body["lanes"]] == [("bulk", "hold"), ("default", "launch")]
    assert body["lanes"][1]["launched"] == ["default-00000"]
    assert [one["job"] for one in body["refused"]] == ["wrong"]
    assert here.backlog.calls == [["bulk-sub", "tasks-sub"]]
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["severity"] for line in lines] == ["WARNING", "INFO", "ERROR"]
    assert lines[1]["decision"]["workers"] == 3


def test_one_lane(here: World, client: Client) -> None:
    here.backlog_is(0)
    assert [one["lane"] for one in client.post("/tick?lane=bulk").json()["lanes"]] == ["bulk"]
    response = client.post("/tick?lane=bulks")
    assert response.status_code == 404
    assert "did you mean bulk?" in response.json()["error"]


def test_when_jobs_cannot_be_listed_the_answer_is_503(here: World, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def down() -> None:
        raise DependencyUnavailable("cannot list the jobs")

    monkeypatch.setattr(here.runner, "jobs", down)
    assert client.post("/tick").status_code == 503
