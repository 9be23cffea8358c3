"""Who may do what in which lane. Without rules everybody who reaches the service may do everything: it is private, or on a laptop.

With rules a caller who is not known is refused before anything of the request is read, but for `/health`.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fastapi import Request

from batch.events import log
from batch.model.clock import Clock, SystemClock
from batch.serving.oidc import Certificates, TokenRefused, Verifier, fetched_from
from batch.serving.oidc import Rules as TokenRules
from intake.config import IntakeSettings
from intake.problems import RequestRefused, answer_refused
from intake.rules import ALL, KEY, Keys, Rules, Verb, digest, may

__all__ = ["Access", "KnownCallers", "Verb", "access_of"]

CALLER = "fanout.caller"
"""Who calls, in the scope of a request."""
REMEMBER_S = 30.0
"""How long a token that was checked is taken without: no longer than clocks may differ."""
MOST_REMEMBERED = 1000
TOKEN_THREADS = 4
"""Checking a token may mean to fetch certificates, which the event loop must not wait for."""
HOW = "send the header `Authorization: Bearer …` with an API key, or with an OIDC token for the service's OIDC_AUDIENCE"


class Access:
    """Checks the caller of each request."""

    def __init__(self, rules: Rules = (), keys: Keys = (), verifier: Verifier | None = None, clock: Clock | None = None) -> None:
        self._rights, self._keys, self._verifier, self._clock = dict(rules), keys, verifier, clock or SystemClock()
        self._remembered: dict[bytes, tuple[str, float]] = {}
        self._threads = ThreadPoolExecutor(TOKEN_THREADS, "tokens")

    @property
    def is_open(self) -> bool:
        """Whether there are no rules."""
        return not self._rights

    def check(self, request: Request, verb: Verb, lane: str) -> str:
        """Who calls, empty if nothing is checked. Raises RequestRefused: 401 without a known caller, 403 if they may not do this in this
        lane."""
        if self.is_open:
            return ""
        caller = request.scope.get(CALLER)
        if caller is None:
            raise RequestRefused(401, f"it is not known who calls: {HOW}")
        rights = self._rights.get(caller, frozenset())
        if not may(rights, verb, lane):
            where = "every lane" if lane == ALL else f"lane {lane[:80]!r}"
            text = f"{caller[:200]} may not {verb} in {where}; ACCESS allows {', '.join(sorted(rights)) or 'nothing'}"
            log("request_refused", f"{request.method} {request.url.path} was refused: {text}")
            raise RequestRefused(403, text)
        return str(caller)

    async def identified(self, authorization: str) -> str:
        """The caller by a request's header: an email, or the name of an API key. Raises RequestRefused (401, or 503 if a token cannot be
        checked now)."""
        scheme, _, token = authorization.strip().partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise RequestRefused(401, f"it is not known who calls: {HOW}")
        own = digest(token.strip())
        names = [name for name, known in self._keys if hmac.compare_digest(known, own)]
        if names:
            return KEY + names[0]
        if self._verifier is None:
            raise RequestRefused(401, "this is none of the API keys of the service")
        now_s = self._clock.monotonic()
        email, until_s = self._remembered.get(own, ("", 0.0))
        if now_s < until_s:
            return email
        try:
            email = await asyncio.get_running_loop().run_in_executor(self._threads, self._verifier.identified, authorization)
        except TokenRefused as error:
            if error.status == 503:
                raise RequestRefused(503, str(error), retry_after_s=2) from error
            raise RequestRefused(401, str(error)) from error
        if len(self._remembered) >= MOST_REMEMBERED:
            self._remembered.clear()
        self._remembered[own] = email, now_s + REMEMBER_S
        return email


def access_of(settings: IntakeSettings, clock: Clock) -> Access:
    """What the settings allow."""
    if not settings.oidc_audience:
        return Access(settings.access, settings.api_keys, clock=clock)
    rules = TokenRules(settings.oidc_audience, issuer=settings.oidc_issuer)
    verifier = Verifier(rules, Certificates(fetched_from(settings.oidc_certs_url), clock))
    return Access(settings.access, settings.api_keys, verifier, clock)


class KnownCallers:
    """An ASGI application that answers for `app`, or refuses callers who are not known."""

    def __init__(self, app: Callable[..., Awaitable[None]], access: Access) -> None:
        self._app, self._access = app, access

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        """One request."""
        if scope["type"] == "http" and scope["path"] != "/health":
            request = Request(scope)
            try:
                scope[CALLER] = await self._access.identified(request.headers.get("authorization", ""))
            except RequestRefused as error:
                await (await answer_refused(request, error))(scope, receive, send)
                return
        await self._app(scope, receive, send)
