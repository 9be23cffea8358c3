"""Who may call: tokens with keys of our own, certificates from a server of our own."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from batch.model.errors import SettingsError
from batch.serving.oidc import REMOVED, Certificates, Rules, TokenRefused, Verifier, fetched_from
from batch.testing import ManualClock
from controller.config import controller_settings
from tests.controller.issuer import AUDIENCE, EMAIL, CertsServer, certs_server, key

FRONT_DOOR = "door@p.iam.gserviceaccount.com"


@pytest.fixture
def server() -> Iterator[CertsServer]:
    with certs_server(key()) as one:
        yield one


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def verifier(server: CertsServer, clock: ManualClock) -> Verifier:
    return Verifier(Rules(AUDIENCE, frozenset({EMAIL})), Certificates(fetched_from(server.url), clock))


def refused(verifier: Verifier, authorization: str) -> tuple[int, str]:
    with pytest.raises(TokenRefused) as caught:
        verifier.caller(authorization)
    return caught.value.status, str(caught.value)


def test_a_right_token_is_taken_and_certificates_are_kept(verifier: Verifier, server: CertsServer) -> None:
    assert verifier.caller(f"Bearer {key().token()}") == EMAIL
    assert verifier.caller(f"bearer {key().token(iss='accounts.google.com', email=EMAIL.upper())}") == EMAIL
    assert server.request_count == 1


def test_without_rules_nothing_is_checked_and_nothing_fetched(server: CertsServer, clock: ManualClock) -> None:
    assert Verifier(Rules(), Certificates(fetched_from(server.url), clock)).caller("") == ""
    assert server.request_count == 0


NOW = int(datetime.now(UTC).timestamp())


@pytest.mark.parametrize(
    ("changes", "status", "said"),
    [
        ({"aud": "https://other.example"}, 401, "--oidc-token-audience"),
        ({"aud": None}, 401, "audience"),
        ({"aud": [AUDIENCE]}, 401, "audience"),
        ({"iss": "https://evil.example"}, 401, "OIDC_ISSUER"),
        ({"iss": None}, 401, "OIDC_ISSUER"),
        ({"iss": ["https://accounts.google.com"]}, 401, "not"),
        ({"exp": NOW - 3600, "iat": NOW - 7200}, 401, "expired"),
        ({"exp": None}, 401, "exp"),
        ({"exp": "tomorrow"}, 401, "not valid"),
        ({"iat": NOW + 3600, "exp": NOW + 7200}, 401, "too early"),
        ({"exp": float("nan")}, 401, "exp is no time"),
        ({"exp": float("inf")}, 401, "exp is no time"),
        ({"exp": 10**400}, 401, "exp is no time"),
        ({"exp": True, "iat": True}, 401, "expired"),
        ({"iat": float("nan")}, 401, "iat is no time"),
        ({"iat": -(10**400)}, 401, "iat is no time"),
        ({"nbf": NOW + 3600}, 401, "nbf"),
        ({"nbf": float("nan")}, 401, "nbf is no time"),
        ({"nbf": "now"}, 401, "nbf is no time"),
        ({"email": EMAIL.replace("k", "\u212a") + "\ud800"}, 403, "verified email"),
        ({"email": "other@p.iam.gserviceaccount.com"}, 403, "OIDC_EMAILS"),
        ({"email": None}, 403, "verified email"),
        ({"email": 7}, 403, "verified email"),
        ({"email_verified": False}, 403, "verified email"),
        ({"email_verified": "true"}, 403, "verified email"),
        ({"email_verified": None}, 403, "verified email"),
    ],
)
def test_one_wrong_claim_is_enough(verifier: Verifier, changes: dict[str, object], status: int, said: str) -> None:
    got, text = refused(verifier, f"Bearer {key().token(**changes)}")
    assert (got, said.lower() in text.lower()) == (status, True), text


def test_emails_are_compared_as_ascii(server: CertsServer, clock: ManualClock) -> None:
    """The Kelvin sign has the lower case of a k."""
    verifier = Verifier(Rules(AUDIENCE, frozenset({"kim@p.iam.gserviceaccount.com"})), Certificates(fetched_from(server.url), clock))
    assert verifier.caller(f"Bearer {key().token(email='KIM@p.iam.gserviceaccount.com')}") == "kim@p.iam.gserviceaccount.com"
    assert refused(verifier, f"Bearer {key().token(email=chr(0x212A) + 'im@p.iam.gserviceaccount.com')}")[0] == 403
    with pytest.raises(SettingsError, match="OIDC_EMAILS"):
        controller_settings({"GOOGLE_CLOUD_PROJECT": "p", "BUCKET_NAME": "b", "OIDC_AUDIENCE": "a", "OIDC_EMAILS": chr(0x212A) + "im@p"})


def test_a_token_that_is_valid_already(verifier: Verifier, clock: ManualClock) -> None:
    assert verifier.caller(f"Bearer {key().token(nbf=clock.now() - 1)}") == EMAIL


def test_what_is_no_token(verifier: Verifier) -> None:
    token = key().token()
    head, body, signature = token.split(".")
    for authorization in ("", "Bearer", "Bearer ", f"Basic {token}", token):
        status, text = refused(verifier, authorization)
        assert (status, "Authorization: Bearer" in text) == (401, True)
    for wrong in ("x", "a.b", "a.b.c", "....", f"{head}.{body}.", f"{head}.{body}", "é.é.é", f"{head}.{body}.{signature[:-8]}AAAAAAAA"):
        status, text = refused(verifier, f"Bearer {wrong}")
        assert (status, "\n" in text) == (401, False)
        assert signature not in text
    for secret in ("some-api-key-sent-by-mistake", "some.api-key.sent-by-mistake", f"{head}.api-key.{signature}"):
        assert "key" not in refused(verifier, f"Bearer {secret}")[1]
    assert refused(verifier, "Bearer " + "a" * 20_000)[0] == 401


def test_a_token_whose_signature_cloud_run_removed_says_what_to_set(verifier: Verifier, server: CertsServer) -> None:
    head, body, _ = key().token().split(".")
    status, text = refused(verifier, f"Bearer {head}.{body}.{REMOVED}")
    assert (status, "leave OIDC_AUDIENCE empty" in text) == (401, True)
    assert server.request_count == 0


def test_a_token_of_another_key_with_the_same_name_is_refused(server: CertsServer, clock: ManualClock) -> None:
    other = type(key())("first")
    verifier = Verifier(Rules(AUDIENCE, frozenset({EMAIL})), Certificates(fetched_from(server.url), clock))
    assert refused(verifier, f"Bearer {other.token()}") == (401, "the token is not valid: Could not verify token signature.")


def test_a_new_key_of_the_issuer_is_fetched_but_not_for_every_unknown_one(
    verifier: Verifier, server: CertsServer, clock: ManualClock
) -> None:
    verifier.caller(f"Bearer {key().token()}")
    server.keys.append(key("second"))
    assert refused(verifier, f"Bearer {key('second').token()}")[0] == 401
    clock.advance(61)
    assert verifier.caller(f"Bearer {key('second').token()}") == EMAIL
    for _ in range(5):
        refused(verifier, f"Bearer {key('third').token()}")
    assert server.request_count == 2


def test_when_the_issuer_is_away_known_certificates_serve_for_a_day(verifier: Verifier, server: CertsServer, clock: ManualClock) -> None:
    verifier.caller(f"Bearer {key().token()}")
    server.status = 500
    clock.advance(3700)
    assert verifier.caller(f"Bearer {key().token()}") == EMAIL
    clock.advance(24 * 3600)
    assert refused(verifier, f"Bearer {key().token()}")[0] == 503
    server.status = 200
    clock.advance(61)
    assert verifier.caller(f"Bearer {key().token()}") == EMAIL


def test_when_certificates_cannot_be_had_the_answer_is_503_and_a_flood_is_not_passed_on(verifier: Verifier, server: CertsServer) -> None:
    server.status = 503
    for _ in range(5):
        status, text = refused(verifier, f"Bearer {key().token()}")
        assert (status, "certificates" in text or "503" in text) == (503, True)
    assert server.request_count == 1


def test_settings_that_would_let_everybody_in_are_refused() -> None:
    base = {"GOOGLE_CLOUD_PROJECT": "p", "BUCKET_NAME": "b"}
    for wrong, said in (
        ({"OIDC_AUDIENCE": AUDIENCE}, "OIDC_EMAILS"),
        ({"OIDC_EMAILS": EMAIL}, "OIDC_AUDIENCE"),
        ({"POKE_EMAILS": EMAIL}, "OIDC_AUDIENCE"),
        ({"OIDC_AUDIENCE": AUDIENCE, "OIDC_EMAILS": "everybody"}, "OIDC_EMAILS"),
        ({"OIDC_AUDIENCE": AUDIENCE, "OIDC_EMAILS": EMAIL, "OIDC_ISSUER": "https://i.example"}, "OIDC_CERTS_URL"),
    ):
        with pytest.raises(SettingsError, match=said):
            controller_settings({**base, **wrong})
    rules = controller_settings({**base, "OIDC_AUDIENCE": AUDIENCE, "OIDC_EMAILS": f"{EMAIL.upper()}, {FRONT_DOOR}"}).rules
    assert rules.emails == {EMAIL, FRONT_DOOR}
