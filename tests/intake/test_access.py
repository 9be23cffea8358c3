"""Who may do what: rules as they are set, and requests of known and unknown callers."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from fastapi import Request

from batch.handling.registry import Registry
from batch.model.errors import SettingsError
from batch.testing import ManualClock
from intake.access import Access, Verb
from intake.collector import AsyncTopic
from intake.config import IntakeSettings, intake_settings
from intake.problems import RequestRefused
from intake.rules import keys_of, may, rules_of
from intake.service import create_app
from tests.controller.issuer import CertsServer, certs_server, key
from tests.intake.fake import FakeTopic

AUDIENCE = "https://door.example"
TEAM = "team@p.iam.gserviceaccount.com"
CI = "ci-key-0123456789abcdef"
NEXT_CI = "ci-next-0123456789abcdef"
BASE = {"GOOGLE_CLOUD_PROJECT": "p", "LANES": "default=a,bulk=b"}
KEYS = f"ci {CI}\nci {NEXT_CI}\n"
RULES = {TEAM: ["submit:default", "read:*"], "key:ci": ["*:bulk"]}


@pytest.fixture(scope="module")
def issuer() -> Iterator[CertsServer]:
    with certs_server(key()) as one:
        yield one


def asked(issuer: CertsServer, authorization: str | None, path: str = "/submit-task", **environment: str) -> httpx.Response:
    """The answer to one request."""

    async def run() -> httpx.Response:
        ruled = {"ACCESS": json.dumps(RULES), "API_KEYS": KEYS, "OIDC_AUDIENCE": AUDIENCE}
        settings = intake_settings({**BASE, **(environment or ruled)})
        object.__setattr__(settings, "oidc_certs_url", issuer.url)
        registry = Registry()
        registry.task("thumbnail")(lambda _task, _ctx: None)

        @asynccontextmanager
        async def topics(_settings: IntakeSettings) -> AsyncIterator[Mapping[str, AsyncTopic]]:
            yield {lane: FakeTopic(name) for lane, name in settings.topics.items()}

        app = create_app(settings, registry=registry, topics=topics, clock=ManualClock(), rng=random.Random(5))
        async with app.router.lifespan_context(app), httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://d") as client:
            headers = {} if authorization is None else {b"Authorization": authorization.encode("latin-1")}
            if path in ("/health", "/openapi.json"):
                return await client.get(path, headers=headers)
            return await client.post(path, json={"task_type": "thumbnail"}, headers=headers)

    return asyncio.run(run())


def token(**changes: Any) -> str:
    return f"Bearer {key().token(**{'aud': AUDIENCE, 'email': TEAM, **changes})}"


@pytest.mark.parametrize(
    ("authorization", "path", "status", "said"),
    [
        (f"Bearer {CI}", "/submit-task?lane=bulk", 200, ""),
        (f"bearer  {NEXT_CI}", "/submit-task?lane=bulk", 200, ""),
        (token(), "/submit-task", 200, ""),
        (token(email=TEAM.upper()), "/submit-task", 200, ""),
        (f"Bearer {CI}", "/submit-task", 403, "key:ci may not submit in lane 'default'; ACCESS allows *:bulk"),
        (token(), "/submit-task?lane=bulk", 403, f"{TEAM} may not submit in lane 'bulk'; ACCESS allows read:*, submit:default"),
        (token(email="other@p.iam.gserviceaccount.com"), "/submit-task", 403, "ACCESS allows nothing"),
        (None, "/submit-task", 401, "Authorization: Bearer"),
        ("Basic abc", "/submit-task", 401, "Authorization: Bearer"),
        ("Bearer ", "/submit-task", 401, "Authorization: Bearer"),
        (f"Bearer {CI}x", "/submit-task", 401, "not valid"),
        (f"Bearer {CI[:-1]}", "/submit-task", 401, "not valid"),
        ("Bearer \u00e9", "/submit-task", 401, "not valid"),
        (token(aud="https://other.example"), "/submit-task", 401, "audience"),
        (token(email_verified=False), "/submit-task", 401, "verified email"),
        (token(exp=1), "/submit-task", 401, "expired"),
        (None, "/submit-task?lane=nowhere", 401, "Authorization: Bearer"),
        (None, "/openapi.json", 401, "Authorization: Bearer"),
        (None, "/nowhere", 401, "Authorization: Bearer"),
        (None, "/health", 200, ""),
    ],
)
def test_who_may_do_what(issuer: CertsServer, authorization: str | None, path: str, status: int, said: str) -> None:
    answer = asked(issuer, authorization, path)
    assert answer.status_code == status, answer.text
    if status != 200:
        assert said in answer.json()["error"]
        assert answer.headers["content-type"] == "application/problem+json"
        assert CI not in answer.text.replace("key:ci", "")
        assert (answer.headers.get("www-authenticate") == "Bearer") == (status == 401)


def test_a_token_that_cannot_be_checked_now_is_503(issuer: CertsServer) -> None:
    issuer.status = 500
    try:
        answer = asked(issuer, token())
    finally:
        issuer.status = 200
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")


def test_without_rules_everybody_may(issuer: CertsServer) -> None:
    assert asked(issuer, None, LANES="default=a").status_code == 200


def test_a_token_is_checked_once_in_a_while(issuer: CertsServer) -> None:
    class Counted:
        count = 0

        def identified(self, _authorization: str) -> str:
            self.count += 1
            return TEAM

    async def run() -> list[int]:
        verifier, clock = Counted(), ManualClock()
        access = Access(rules_of(json.dumps(RULES)), (), verifier, clock)  # type: ignore[arg-type]
        counts = []
        for _ in range(3):
            assert await access.identified("Bearer one") == TEAM
            counts.append(verifier.count)
        clock.advance(31)
        await access.identified("Bearer one")
        for number in range(2500):
            await access.identified(f"Bearer {number}")
        assert len(access._remembered) <= 1000
        return [*counts, verifier.count]

    assert asyncio.run(run()) == [1, 1, 1, 2502]


def test_an_application_without_the_check_of_callers_lets_nobody_in() -> None:
    with pytest.raises(RequestRefused) as refused:
        Access(rules_of(json.dumps(RULES))).check(Request({"type": "http", "headers": []}), Verb.READ, "default")
    assert refused.value.status == 401


def test_rights() -> None:
    assert [may(rights, Verb.CANCEL, "bulk") for rights in (["cancel:bulk"], ["*:bulk"], ["cancel:*"], ["*:*"])] == [True] * 4
    assert [may(rights, Verb.CANCEL, "bulk") for rights in ([], ["read:*"], ["cancel:default"], ["cancel:bul"])] == [False] * 4


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"ACCESS": "{"}, ["not JSON"]),
        ({"ACCESS": "[]"}, ["an object"]),
        (
            {"ACCESS": '{"nobody": ["submit:default"], "key:": [], "a@b": ["write:default", 3, "read"]}'},
            ["'nobody'", "'key:'", "write", "3", "'read'"],
        ),
        ({"ACCESS": '{"\u212a@p": ["*:*"]}'}, ["neither an email"]),
        ({"ACCESS": '{"a@b": ["read:nowhere"]}', "OIDC_AUDIENCE": "a"}, ["nowhere: no such lane"]),
        ({"ACCESS": '{"a@b": ["read:*"], "key:ci": ["*:*"]}'}, ["OIDC_AUDIENCE is not set", "key:ci, which API_KEYS does not have"]),
        ({"API_KEYS": KEYS}, ["API_KEYS has ci, which ACCESS gives no rights"]),
        ({"OIDC_AUDIENCE": "a"}, ["ACCESS names no email"]),
        ({"API_KEYS": f"ci {CI} x\nci short-secret\n{CI}"}, ["line 1", "line 2", "line 3"]),
        ({"API_KEYS": f"a {CI}\nb {CI}"}, ["a key of its own"]),
        ({"OIDC_ISSUER": "https://i.example"}, ["OIDC_CERTS_URL"]),
    ],
)
def test_wrong_rules_are_all_named_and_no_key_is(environment: dict[str, str], said: list[str]) -> None:
    with pytest.raises(SettingsError) as refused:
        intake_settings({**BASE, **environment})
    for text in said:
        assert text in str(refused.value)
    assert "secret" not in str(refused.value)
    assert CI not in str(refused.value)


def test_settings_show_no_key() -> None:
    settings = intake_settings({**BASE, "ACCESS": '{"key:ci": ["*:*"]}', "API_KEYS": f"\n  ci   {CI}  \n\n"})
    assert "api_keys" not in repr(settings)
    assert settings.api_keys == keys_of(f"ci {CI}")
    assert CI.encode() not in settings.api_keys[0][1]
