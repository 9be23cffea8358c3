"""The service: what Cloud Scheduler and a person get for an answer."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import pytest

import controller.service.ticker
import controller.tick.rounds
from batch.model.errors import DependencyUnavailable
from batch.serving.oidc import Certificates, Rules, Verifier
from batch.testing import ManualClock
from controller.act.history import write_history
from controller.act.state import load, save
from controller.decide.decision import from_json
from controller.model.reading import Reading, Unknown, Value
from controller.service.service import Callers, create_app
from controller.service.ticker import Ticker
from controller.tick.outside import Outside
from controller.tick.results import Round, TickResult
from tests.controller.fakes import JOB, World, history, job, world
from tests.controller.http_client import Client
from tests.controller.issuer import AUDIENCE, EMAIL, key

LIMIT_S = 60.0
DOOR = "door@p.iam.gserviceaccount.com"


@pytest.fixture
def here() -> World:
    return world([job(), job("bulk"), job("wrong", max_workers="0")])


@pytest.fixture
def client(here: World) -> Client:
    return Client(create_app(here.outside))


def test_health_asks_nobody(here: World, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(here.runner, "jobs", down)
    for path in ("/health", "/healthz"):
        response = client.get(path)
        assert (response.status_code, response.json()) == (200, {"status": "healthy"})


def test_a_tick_of_all_lanes_reads_once_and_answers_with_every_decision(
    here: World, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "fanout")
    here.backlog.by_name = {"tasks-sub": Value(250, here.clock.now()), "bulk-sub": Unknown("no answer")}
    response = client.post("/tick")
    body = response.json()
    assert (response.status_code, body["status"]) == (200, "done")
    assert [(one["lane"], one["decision"]["kind"]) for one in body["lanes"]] == [("bulk", "hold"), ("default", "launch")]
    assert body["lanes"][1]["launched"] == ["default-00000"]
    assert [one["job"] for one in body["refused"]] == ["wrong"]
    assert here.backlog.calls == [["bulk-sub", "tasks-sub"]]
    lines = [vars(record) for record in caplog.records if record.name == "fanout"]
    assert [line["event"] for line in lines] == ["lane_troubled", "lane_ticked", "job_refused", "round_ticked"]
    assert [line["health"]["condition"] for line in lines[:2]] == ["unknown", "ok"]
    assert lines[1]["decision"]["workers"] == 3


@pytest.mark.parametrize("path", ["/tick?lane={}", "/tick/{}"])
def test_one_lane(here: World, client: Client, path: str) -> None:
    here.backlog_is(0)
    assert [one["lane"] for one in client.post(path.format("bulk")).json()["lanes"]] == ["bulk"]
    response = client.post(path.format("bulks"))
    assert response.status_code == 404
    assert "did you mean bulk?" in response.json()["error"]


@pytest.mark.parametrize("path", ["/tick?now=1", "/tick?lane=default&now=true", "/tick/default?now=1"])
def test_a_lane_does_not_wait_when_it_is_to_start_now(here: World, client: Client, path: str) -> None:
    here.runner.set_annotation(JOB, "fanout/min-backlog", "50")
    here.runner.set_annotation(JOB, "fanout/max-wait", "5m")
    here.backlog.by_name = {"tasks-sub": Value(7, here.clock.now())}
    waiting = client.post("/tick/default").json()["lanes"][0]["decision"]
    assert (waiting["kind"], waiting["waits_until"] is not None) == ("nothing_to_do", True)
    (lane,) = [one for one in client.post(path).json()["lanes"] if one["lane"] == "default"]
    assert (lane["decision"]["kind"], len(here.runner.requests)) == ("launch", 1)


@pytest.mark.parametrize("path", ["/tick/", "/tick/bulk/", "/tick//", "/lanes/", "/decisions/", "/executions/", "/health/", "/readyz/"])
def test_a_slash_at_the_end_changes_nothing(here: World, client: Client, path: str) -> None:
    here.backlog_is(0)
    ask = client.post if path.startswith("/tick") else client.get
    with_slash, without = ask(path), ask(path.rstrip("/"))
    assert (with_slash.status_code, without.status_code) == (200, 200)
    assert set(with_slash.json()) == set(without.json())


def down(*_arguments: object) -> list[object]:
    raise DependencyUnavailable("cannot list the jobs")


def test_when_jobs_cannot_be_listed_the_answer_is_503(here: World, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(here.runner, "jobs", down)
    for response in (client.post("/tick"), client.post("/tick/bulk"), client.get("/lanes"), client.get("/decisions")):
        assert (response.status_code, response.json()) == (503, {"error": "cannot list the jobs"})


class Held:
    """A backlog reader that answers once it is let go."""

    def __init__(self, here: World, monkeypatch: pytest.MonkeyPatch, method: str = "read") -> None:
        self.asked, self.go_on = threading.Event(), threading.Event()
        self._read = here.backlog.read
        monkeypatch.setattr(here.backlog, method, self.read)

    def read(self, subscriptions: Sequence[str]) -> dict[str, Reading]:
        self.asked.set()
        assert self.go_on.wait(LIMIT_S)
        return self._read(subscriptions)


def test_a_tick_that_overlaps_another_is_skipped_and_says_who_has_it(here: World, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held(here, monkeypatch)
    answers: list[str] = []
    first = threading.Thread(target=lambda: answers.append(client.post("/tick", headers={"User-Agent": "Google-Cloud-Scheduler"}).text))
    first.start()
    assert held.asked.wait(LIMIT_S)
    second = client.post("/tick")
    held.go_on.set()
    first.join(LIMIT_S)
    assert (second.status_code, second.json()["status"], second.json()["lanes"]) == (200, "skipped", [])
    assert second.json()["running"] == {"lane": None, "who": "Google-Cloud-Scheduler", "since": "2026-01-01T00:00:00.000000Z"}
    assert json.loads(answers[0])["status"] == "done"
    assert client.post("/tick").json()["status"] == "done"


def test_a_slow_tick_is_answered_in_time_with_the_lanes_that_are_done_and_ends_by_itself(
    here: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    here.backlog_is(10)
    ticker = Ticker(here.outside, deadline_s=0.05)
    client = Client(create_app(here.outside, ticker=ticker))
    go_on, run = threading.Event(), here.runner.run

    def slow(name: str, request: object) -> object:
        assert not name.endswith("/bulk") or go_on.wait(LIMIT_S)
        return run(name, request)  # type: ignore[arg-type]

    monkeypatch.setattr(here.runner, "run", slow)
    answer = client.post("/tick").json()
    assert answer["status"] == "running"
    assert "goes on" in answer["reason"]
    assert "bulk" not in [one["lane"] for one in answer["lanes"]]
    assert client.post("/tick").json()["status"] == "skipped"
    go_on.set()
    assert ticker.finish(LIMIT_S) == ()
    assert sorted(one.rsplit("-", 1)[0] for one in here.runner.all) == ["bulk", "default"]


def test_what_is_done_by_the_deadline_is_told(here: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The deadline comes when one of two lanes is done: it is moved by hand."""
    here.backlog_is(10)
    ticker = Ticker(here.outside, deadline_s=LIMIT_S)
    client = Client(create_app(here.outside, ticker=ticker))
    go_on, told, run = threading.Event(), threading.Event(), here.runner.run

    def slow(name: str, request: object) -> object:
        assert not name.endswith("/bulk") or go_on.wait(LIMIT_S)
        return run(name, request)  # type: ignore[arg-type]

    def tick_lanes(outside: Outside, names: Sequence[str], *, wait: bool, on_result: Callable[[TickResult], None]) -> Round:
        def tell(result: TickResult) -> None:
            on_result(result)
            told.set()

        return controller.tick.rounds.tick_lanes(outside, names, wait=wait, on_result=tell)

    monkeypatch.setattr(here.runner, "run", slow)
    monkeypatch.setattr(controller.service.ticker, "tick_lanes", tick_lanes)
    answers: list[Any] = []
    asking = threading.Thread(target=lambda: answers.append(client.post("/tick").json()))
    asking.start()
    assert told.wait(LIMIT_S)
    ticker.stop_waiting()
    asking.join(LIMIT_S)
    go_on.set()
    assert ticker.finish(LIMIT_S) == ()
    assert (answers[0]["status"], [one["launched"] for one in answers[0]["lanes"]]) == ("running", [["default-00000"]])


def test_a_lane_can_be_ticked_while_all_are(here: World, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held(here, monkeypatch)
    first = threading.Thread(target=lambda: client.post("/tick"))
    first.start()
    assert held.asked.wait(LIMIT_S)
    monkeypatch.setattr(here.backlog, "read", held._read)
    here.backlog_is(10)
    assert client.post("/tick/default").json()["lanes"][0]["launched"] == ["default-00000"]
    held.go_on.set()
    first.join(LIMIT_S)


def test_lanes_decisions_and_executions_are_shown(here: World, client: Client) -> None:
    here.backlog.by_name = {"tasks-sub": Value(250, here.clock.now()), "bulk-sub": Value(0, here.clock.now())}
    client.post("/tick")
    shown = client.get("/lanes").json()
    assert [(one["lane"], one["last_decision"]["kind"]) for one in shown["lanes"]] == [("bulk", "nothing_to_do"), ("default", "launch")]
    assert [one["job"] for one in shown["refused"]] == ["wrong"]
    assert len(client.get("/decisions").json()["decisions"]) == 2
    assert [one["lane"] for one in client.get("/decisions?lane=default&limit=1").json()["decisions"]] == ["default"]
    (execution,) = client.get("/executions").json()["executions"]
    assert (execution["execution"], execution["lane"], execution["worker_count"]) == ("default-00000", "default", 3)
    assert client.get("/executions?lane=bulk").json()["executions"] == []
    assert "did you mean bulk?" in client.get("/executions?lane=bulks").json()["error"]
    assert client.get("/decisions?limit=0").status_code == 422


def test_a_state_that_cannot_be_read_hides_no_other_lane(here: World, client: Client) -> None:
    here.store.write("controller/bulk.json", b"{")
    here.backlog_is(10)
    client.post("/tick")
    shown = {one["lane"]: one for one in client.get("/lanes").json()["lanes"]}
    assert "delete it to start afresh" in shown["bulk"]["problem"]
    assert shown["default"]["last_decision"]["kind"] == "launch"
    decisions = client.get("/decisions").json()
    assert (len(decisions["decisions"]), decisions["problems"]) == (1, []), "nothing was recorded of the other lane"


def test_readiness_says_what_does_not_answer_and_the_fix(here: World, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    assert client.get("/readyz").json() == {"status": "ready", "checks": {"bucket": "ok", "jobs": "ok", "monitoring": "ok"}}
    monkeypatch.setattr(here.runner, "jobs", down)
    monkeypatch.setattr(here.store, "list", broken)
    here.backlog.reading = Unknown("Cloud Monitoring said no")
    assert client.get("/readyz").status_code == 200, "for a moment the last answer serves, whoever asks"
    here.clock.advance(6)
    response = client.get("/readyz")
    assert (response.status_code, response.json()["status"]) == (503, "not_ready")
    checks = response.json()["checks"]
    assert all(role in checks[name] for name, role in (("bucket", "storage.objectUser"), ("jobs", "run.viewer"), ("monitoring", "enable")))
    assert "RuntimeError: nobody foresaw this" in checks["bucket"]


def broken(_prefix: str) -> object:
    raise RuntimeError("nobody foresaw this")


def test_a_service_that_does_not_answer_makes_it_not_ready_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    from controller.service.readiness import Readiness

    here = world()
    go_on, asked = threading.Event(), []

    def stuck() -> list[object]:
        asked.append(1)
        assert go_on.wait(LIMIT_S)
        return []

    monkeypatch.setattr(here.runner, "jobs", stuck)
    readiness = Readiness(here.outside, deadline_s=0.02)
    for _ in range(3):
        assert list(readiness.ask()) == ["jobs"]
        here.clock.advance(6)
    go_on.set()
    assert len(asked) == 1, "a call that is stuck is not joined by others"


@pytest.fixture
def guarded(here: World) -> Client:
    certificates = Certificates(lambda: ({key().key_id: key().certificate}, 600.0), ManualClock())
    callers = Callers(Verifier(Rules(AUDIENCE, frozenset({EMAIL})), certificates), frozenset({DOOR}))
    return Client(create_app(here.outside, callers=callers))


def bearer(**claims: object) -> dict[str, str]:
    return {"Authorization": f"Bearer {key().token(**claims)}"}


def test_everything_but_health_needs_a_token(here: World, guarded: Client) -> None:
    asks: list[Callable[..., object]] = [
        lambda **options: guarded.post("/tick", **options),
        lambda **options: guarded.post("/tick/default", **options),
        lambda **options: guarded.get("/lanes", **options),
        lambda **options: guarded.get("/decisions", **options),
        lambda **options: guarded.get("/executions", **options),
        lambda **options: guarded.post("/pokes", json={"pokes": []}, **options),
    ]
    statuses = [[ask(headers=headers).status_code for ask in asks] for headers in ({}, bearer(email=DOOR), bearer())]  # type: ignore[attr-defined]
    assert statuses == [[401] * 6, [403] * 5 + [200], [200] * 6]
    assert [guarded.get(path).status_code for path in ("/health", "/healthz", "/readyz")] == [200] * 3
    assert guarded.post("/tick").headers["www-authenticate"] == "Bearer"
    assert [guarded.get(path).status_code for path in ("/docs", "/openapi.json", "/redoc")] == [404] * 3


def test_a_refused_tick_does_nothing(here: World, guarded: Client, caplog: pytest.LogCaptureFixture) -> None:
    here.backlog_is(10)
    answer = guarded.post("/tick", headers=bearer(aud="https://other"))
    assert (answer.status_code, here.runner.requests, here.backlog.calls) == (401, [], [])
    assert "OIDC_AUDIENCE" in answer.json()["error"]
    assert ["OIDC_AUDIENCE" in record.getMessage() for record in caplog.records if record.name == "fanout"] == [True]


def test_pages_of_other_sites_cannot_post(here: World, client: Client) -> None:
    here.backlog_is(10)
    for path, origin in product(("/tick", "/pokes"), ("https://evil.example", "null", "http://[", "")):
        assert client.post(path, headers={"Origin": origin}).status_code == 403
    assert here.runner.requests == []
    assert client.post("/tick", headers={"Origin": "http://controller"}).status_code == 200


SURROGATE = "\ud800"


def test_answers_can_be_encoded_whatever_a_client_sent(here: World) -> None:
    """What a client sends comes back in the answer: half a character, a number that no float holds, an email of its own."""
    outside = here.outside
    certificates = Certificates(lambda: ({"first": key().certificate}, 3600.0), ManualClock())
    checked = Client(create_app(outside, callers=Callers(Verifier(Rules(AUDIENCE, frozenset({EMAIL})), certificates))))
    client = Client(create_app(outside))
    poke = {"id": "0123456789", "accepted_count": 1, "at": here.clock.now()}
    odd = [
        {**poke, "topic": SURROGATE},
        {**poke, "lane": "x" + SURROGATE},
        {**poke, SURROGATE: 1},
        {**poke, "topic": "tasks", "id": SURROGATE * 10},
    ]
    for one in odd:
        answer = client.post("/pokes", content=json.dumps({"pokes": [one]}).encode())
        assert answer.status_code in (200, 400), answer.text
        assert isinstance(answer.json(), dict)
    for at in ("9" * 400, "-" + "9" * 400, "1e999", "NaN", "1e300", "true"):
        body = json.dumps({"pokes": [{**poke, "topic": "tasks", "at": 0}]}).replace('"at": 0', f'"at": {at}')
        assert client.post("/pokes", content=body.encode()).status_code == 400
    for email in (SURROGATE + "@p", "\u212a@p", "x" * 10_000 + "@p"):
        answer = checked.get("/lanes", headers={"Authorization": f"Bearer {key().token(email=email)}"})
        assert (answer.status_code, list(answer.json())) == (403, ["error"])
    for path in ("/tick/%ED%A0%80", "/tick?lane=%ED%A0%80", "/%ED%A0%80", "/lanes/%00"):
        assert client.post(path).status_code in (404, 405)
    assert client.get("/decisions?limit=%ED%A0%80").status_code == 422


def test_what_the_bucket_holds_can_be_shown(here: World, client: Client) -> None:
    here.backlog_is(10)
    client.post("/tick")
    found = load(here.store, "default")
    assert found.state.last is not None
    decision = replace(from_json(history(here.store)[0]), reason=SURROGATE)
    state, _ = write_history(here.store, found.state.with_decision(decision, f"{decision.decision_id}-later"))
    save(here.store, state, found.generation, "t")
    for path in ("/lanes", "/decisions"):
        answer = client.get(path)
        assert (answer.status_code, answer.json()[path[1:]][-1 if path == "/lanes" else 0]["lane"]) == (200, "default")
