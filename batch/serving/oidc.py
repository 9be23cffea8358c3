"""Who calls: OIDC tokens, as Cloud Scheduler and the metadata server issue them. A token counts only if all of it was checked.

Signature, issuer, audience, expiry and a verified email that is on the list: anybody with a Google account can have a token made for
any audience, so the audience alone proves nothing.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from batch.model.clock import Clock, is_time
from batch.model.errors import FanoutError
from batch.settings import names, setting, text

GOOGLE_ISSUER = "https://accounts.google.com"
GOOGLE_CERTS = "https://www.googleapis.com/oauth2/v1/certs"
SKEW_S = 30
"""How much clocks may differ."""
MAX_TOKEN_CHARS = 16_384
FETCH_S = 5.0
FRESH_S = 3600.0
"""How long certificates count as fresh if their answer does not say, and at most if it does."""
USABLE_S = 24 * 3600.0
"""How long they are used while no newer ones can be fetched."""
AGAIN_S = 60.0
"""Minimum time between two fetches: a flood of tokens with made-up key ids must not become a flood of fetches."""
FIRST_AGAIN_S = 5.0
"""The same while no certificates are known."""
REMOVED = "SIGNATURE_REMOVED_BY_GOOGLE"
"""What Cloud Run puts in place of the signature when its own check of the caller is on."""

Fetch = Callable[[], tuple[Mapping[str, str], float]]
"""PEM certificates by key id, and for how many seconds they are fresh. Raises CertificatesUnavailable."""


class CertificatesUnavailable(FanoutError):
    """The keys that tokens are checked with could not be fetched."""


class TokenRefused(FanoutError):
    """`status` is 401 if the token is wrong or missing, 403 if its owner may not do this, 503 if it could not be checked."""

    def __init__(self, status: int, text: str) -> None:
        self.status = status
        super().__init__(text)


@dataclass(frozen=True, slots=True)
class Rules:
    """Whose tokens are accepted. Without an audience nothing is checked: Cloud Run checks callers itself."""

    audience: str = ""
    emails: frozenset[str] = frozenset()
    issuer: str = GOOGLE_ISSUER

    @property
    def issuers(self) -> frozenset[str]:
        """The spellings of the issuer: Google's tokens name it with or without the scheme."""
        return frozenset({self.issuer, self.issuer.removeprefix("https://")}) if self.issuer == GOOGLE_ISSUER else frozenset({self.issuer})


@dataclass(slots=True)
class Certificates:
    """The issuer's certificates, kept as long as they are fresh; when they cannot be fetched, the old ones for a day. Safe from any
    thread."""

    fetch: Fetch
    clock: Clock
    _known: Mapping[str, str] = field(default_factory=dict)
    _fetched_at: float | None = None
    _fresh_until: float = 0.0
    _tried_at: float | None = None
    _failure: str = ""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def for_key(self, key_id: object) -> Mapping[str, str]:
        """All known certificates, fetched anew if `key_id` is not among them. Raises CertificatesUnavailable."""
        with self._lock:
            now = self.clock.monotonic()
            wanted = now >= self._fresh_until or key_id not in self._known
            if wanted and (self._tried_at is None or now - self._tried_at >= (AGAIN_S if self._known else FIRST_AGAIN_S)):
                self._fetch(now)
            if self._fetched_at is None or now - self._fetched_at > USABLE_S:
                raise CertificatesUnavailable(self._failure or "the certificates of the issuer are too old")
            return self._known

    def _fetch(self, now: float) -> None:
        self._tried_at = now
        try:
            self._known, fresh_s = self.fetch()
        except CertificatesUnavailable as error:
            self._failure = str(error)
            return
        self._failure, self._fetched_at, self._fresh_until = "", now, now + min(fresh_s, FRESH_S)


@dataclass(frozen=True, slots=True)
class Verifier:
    """Checks the header `Authorization` of requests against rules."""

    rules: Rules
    certificates: Certificates

    def caller(self, authorization: str, *, also: Collection[str] = ()) -> str:
        """The email of the caller, one of the rules' emails or of `also`; empty if nothing is checked. Raises TokenRefused."""
        if not self.rules.audience:
            return ""
        email = self.identified(authorization)
        if email not in self.rules.emails and email not in also:
            raise TokenRefused(403, f"{email[:200]} may not do this: add it to OIDC_EMAILS (for pokes alone, to POKE_EMAILS)")
        return email

    def identified(self, authorization: str) -> str:
        """The verified email in a token for the audience, in lower case, whatever it may do. Raises TokenRefused."""
        payload = self._payload(_token(authorization))
        issuer = payload.get("iss")
        if not isinstance(issuer, str) or issuer not in self.rules.issuers:
            raise TokenRefused(401, f"the token is not from {self.rules.issuer}: OIDC_ISSUER names who may issue tokens")
        if payload.get("aud") != self.rules.audience:
            raise TokenRefused(
                401,
                f"the token is for another audience than {self.rules.audience}: give the caller this audience (Cloud Scheduler: "
                "--oidc-token-audience; the front door: CONTROLLER_AUDIENCE), or set OIDC_AUDIENCE to what callers use",
            )
        email = payload.get("email")
        # Outside ASCII some letters have the lower case of others: KELVIN SIGN would pass for a k.
        if not isinstance(email, str) or not email.isascii() or payload.get("email_verified") is not True:
            raise TokenRefused(403, "the token has no verified email: use one of a service account, with the email in it")
        return email.lower()

    def _payload(self, token: str) -> Mapping[str, Any]:
        from google.auth import jwt
        from google.auth.exceptions import GoogleAuthError

        try:
            certificates = self.certificates.for_key(jwt.decode_header(token).get("kid"))
            payload = jwt.decode(token, certs=certificates, clock_skew_in_seconds=SKEW_S)
        except CertificatesUnavailable as error:
            raise TokenRefused(503, f"the token could not be checked: {error}") from error
        except (GoogleAuthError, ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
            raise TokenRefused(401, f"the token is not valid: {_why(error, token)}") from error
        if not isinstance(payload, Mapping):
            raise TokenRefused(401, "the token is not valid: it holds no claims")
        # A number that is none (NaN), or beyond every time, compares with nothing: such a token would never expire.
        for name in ("exp", "iat", *({"nbf"} & payload.keys())):
            if not is_time(payload[name]):
                raise TokenRefused(401, f"the token is not valid: its {name} is no time")
        if payload.get("nbf", 0) > self.certificates.clock.now() + SKEW_S:
            raise TokenRefused(401, "the token is not valid yet, by its nbf: compare the clocks")
        return payload


def _token(authorization: str) -> str:
    scheme, _, token = authorization.strip().partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token:
        raise TokenRefused(
            401,
            "there is no OIDC token: send the header `Authorization: Bearer TOKEN` (Cloud Scheduler: --oidc-service-account-email and "
            "--oidc-token-audience; the front door: CONTROLLER_URL with https)",
        )
    if len(token) > MAX_TOKEN_CHARS:
        raise TokenRefused(401, "the token is too long to be one")
    if token.endswith(REMOVED):
        raise TokenRefused(
            401,
            "Cloud Run has checked this token itself and removed its signature: either let it pass all callers "
            "(--no-invoker-iam-check, or --allow-unauthenticated) so that the controller checks them, or leave OIDC_AUDIENCE empty",
        )
    return token


def _why(error: Exception, token: str) -> str:
    """The error in one line, without any part of the token, which may be a secret that was sent by mistake."""
    text = " ".join(str(error.args[0] if error.args else error).split())
    if re.search(r"[A-Za-z0-9_-]{60,}", text) or any(part[:8] in text for part in token.split(".") if part):
        return "it cannot be read"
    return text[:200] or type(error).__name__


def fetched_from(url: str) -> Fetch:
    """Certificates as Google serves them: a JSON object of PEM texts by key id."""

    def fetch() -> tuple[Mapping[str, str], float]:
        from requests import RequestException, get

        try:
            answer = get(url, timeout=FETCH_S, allow_redirects=False)
            found = json.loads(answer.content)
        except (RequestException, ValueError, RecursionError) as error:
            raise CertificatesUnavailable(f"no certificates from {url}: {type(error).__name__}") from error
        if answer.status_code != 200 or not isinstance(found, dict) or not found or not all(_is_pem(one) for one in found.values()):
            raise CertificatesUnavailable(f"{url} answered {answer.status_code}, and not with PEM certificates by key id")
        return found, _max_age_s(answer.headers.get("Cache-Control", ""))

    return fetch


def emails(value: str) -> tuple[str, ...]:
    """Addresses separated by commas, in lower case. Raises ValueError with the rule."""
    found = names(value)
    if not all(is_email(one) for one in found):
        raise ValueError("email addresses of service accounts, separated by commas")
    return tuple(one.lower() for one in found)


def is_email(value: str) -> bool:
    """Whether it may be the address of a service account."""
    return value.isascii() and value.count("@") == 1 and value.strip("@") == value and " " not in value


def audience_setting() -> Any:
    """The field of both services, as are the two below."""
    return setting("OIDC_AUDIENCE", text, "what callers' tokens must be for; empty: Cloud Run checks callers", default="")


def issuer_setting() -> Any:
    """Together with `certs_url_setting`."""
    return setting("OIDC_ISSUER", text, "who issues the tokens", default=GOOGLE_ISSUER)


def certs_url_setting() -> Any:
    """Where the issuer's certificates are."""
    return setting("OIDC_CERTS_URL", _web_address, "its certificates, PEM by key id", default=GOOGLE_CERTS)


def issuer_problem(issuer: str, certs_url: str) -> list[str]:
    """Why the two do not go together; empty if they do."""
    if issuer == GOOGLE_ISSUER or certs_url != GOOGLE_CERTS:
        return []
    return [f"OIDC_CERTS_URL is not set: Google's certificates do not check tokens of OIDC_ISSUER={issuer!r}"]


def _web_address(value: str) -> str:
    if not value.startswith(("http://", "https://")) or len(value.split("//", 1)[1]) == 0:
        raise ValueError("a URL that begins with https://, or on loopback with http://")
    return value


def _is_pem(text: object) -> bool:
    return isinstance(text, str) and text.lstrip().startswith("-----BEGIN ")


def _max_age_s(header: str) -> float:
    found = re.search(r"max-age=(\d{1,9})", header)
    return float(found.group(1)) if found else FRESH_S
