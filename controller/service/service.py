"""The controller as an HTTP service: Cloud Scheduler posts to `/tick`, the front door to `/pokes`, people look at the rest.

Overlapping ticks are harmless: the answer to the second one names the first. Every answer comes within a deadline.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Query, Request
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Receive, Scope, Send

from batch.events import log
from batch.model.errors import DependencyError, FanoutError, SettingsError
from batch.serving.answers import encoded
from batch.serving.oidc import TokenRefused, Verifier
from controller.act.history import Kept, kept_newest, read_kept
from controller.act.state import load
from controller.lanes.lanes import lanes_named
from controller.lanes.sources import NOT_ASKED, Source
from controller.model.lane import Lane
from controller.model.together import together
from controller.observe.listing import listed_json, newest_executions
from controller.service.poked_lanes import PokedLanes
from controller.service.pokes import MAX_BODY_BYTES, PokesRefused, read_pokes
from controller.service.readiness import FIXES, Readiness
from controller.service.ticker import ALL_LANES, Ticker, answer_json
from controller.tick.found import find_lanes
from controller.tick.outside import Outside
from controller.tick.rounds import LANES_AT_A_TIME

TICK_DEADLINE_S = 50.0
MOST = 50
"""Decisions, and executions of a lane, that are shown."""
Limit = Annotated[int, Query(ge=1, le=MOST)]


class Answer(JSONResponse):
    """Every answer of this service: JSON that can be encoded whatever a client sent."""

    def render(self, content: Any) -> bytes:
        """The body."""
        return encoded(content)


class NoSlashAtTheEnd:
    """`/tick/` is `/tick`: Cloud Scheduler follows no redirect."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (path := scope["path"].rstrip("/")):
            scope["path"] = path
        await self._app(scope, receive, send)


@dataclass(frozen=True, slots=True)
class Callers:
    """Who may call what. `verifier` None: everybody who can reach the service."""

    verifier: Verifier | None = None
    poke_emails: frozenset[str] = frozenset()

    def check(self, request: Request) -> None:
        """For everything but pokes. Raises TokenRefused."""
        self._check(request, frozenset())

    def check_poke(self, request: Request) -> None:
        """For pokes. Raises TokenRefused."""
        self._check(request, self.poke_emails)

    def _check(self, request: Request, also: frozenset[str]) -> None:
        origin = request.headers.get("origin")
        if request.method == "POST" and origin is not None and origin.partition("//")[2] != request.headers.get("host"):
            raise TokenRefused(403, "requests from pages of other sites are refused")
        if self.verifier is not None:
            self.verifier.caller(request.headers.get("authorization", ""), also=also)


def create_app(
    outside: Outside, *, ticker: Ticker | None = None, poked: PokedLanes | None = None, callers: Callers | None = None
) -> FastAPI:
    """The service over one `Outside`. What blocks runs in threads."""
    ticker = ticker or Ticker(outside, deadline_s=TICK_DEADLINE_S)
    callers = callers or Callers()
    app = FastAPI(title="Fanout controller", docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    app.add_middleware(NoSlashAtTheEnd)
    for kind, answer in _ERRORS.items():
        app.add_exception_handler(kind, answer)
    _add_health(app, Readiness(outside))
    _add_ticks(app, ticker, callers)
    _add_views(app, outside, callers)
    _add_pokes(app, outside, poked or PokedLanes(outside, ticker), callers)
    return app


def _add_health(app: FastAPI, readiness: Readiness) -> None:
    @app.get("/health")
    @app.get("/healthz")
    async def health() -> Answer:
        """Whether the process answers. It calls no service: a restart would not repair one."""
        return Answer({"status": "healthy"})

    @app.get("/readyz")
    def ready() -> Answer:
        problems = readiness.ask()
        body = {"status": "not_ready" if problems else "ready", "checks": {name: problems.get(name, "ok") for name in FIXES}}
        return Answer(body, status_code=503 if problems else 200)


def _add_ticks(app: FastAPI, ticker: Ticker, callers: Callers) -> None:
    def answer(lane: str, request: Request, now: bool) -> Answer:
        """200 whatever was decided: a hold is an answer, and a retry would change nothing. `now`: lanes do not wait."""
        who = request.headers.get("user-agent", "somebody")[:80]
        return Answer(answer_json(ticker.tick(lane, who, wait=not now), ticker.deadline_s))

    @app.post("/tick", dependencies=[Depends(callers.check)])
    def tick(request: Request, lane: str = "", now: bool = False) -> Answer:
        return answer(lane or ALL_LANES, request, now)

    @app.post("/tick/{lane}", dependencies=[Depends(callers.check)])
    def tick_lane(lane: str, request: Request, now: bool = False) -> Answer:
        return answer(lane, request, now)


def _add_views(app: FastAPI, outside: Outside, callers: Callers) -> None:
    @app.get("/lanes", dependencies=[Depends(callers.check)])
    def lanes() -> Answer:
        """Every lane with its policy and its last decision, and the jobs that cannot be one."""
        found = find_lanes(outside)
        jobs = [{"job": one.job, "problems": list(one.problems)} for one in found.refused]
        return Answer({"lanes": [_lane(lane, found.sources.get(lane.name, NOT_ASKED), outside) for lane in found.lanes], "refused": jobs})

    @app.get("/decisions", dependencies=[Depends(callers.check)])
    def decisions(lane: str = "", limit: Limit = MOST) -> Answer:
        """The newest decisions first, of one lane or all."""
        names = [one.name for one in lanes_named(outside.runner.jobs(), [lane] if lane else [], outside.home)]
        problems: list[str] = []

        def kept(name: str) -> list[Kept]:
            try:
                return kept_newest(outside.store, name, limit, outside.clock.now())
            except FanoutError as error:
                problems.append(f"lane {name}: {error}")
                return []

        found = [one for some in together(kept, names, LANES_AT_A_TIME, "history") for one in some]
        newest = sorted(found, key=lambda one: one.object_id, reverse=True)[:limit]
        return Answer({"decisions": read_kept(outside.store, newest, problems.append), "problems": problems})

    @app.get("/executions", dependencies=[Depends(callers.check)])
    def executions(lane: str = "", limit: Limit = MOST) -> Answer:
        """The newest executions first, of one lane or all."""
        found = newest_executions(outside.runner, lanes_named(outside.runner.jobs(), [lane] if lane else [], outside.home), limit)
        return Answer({"executions": [{**listed_json(name, info), "live_worker_count": info.live_worker_count} for name, info in found]})


def _lane(lane: Lane, source: Source, outside: Outside) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "lane": lane.name,
        "job": lane.job,
        "subscription": lane.subscription,
        "topic": lane.topic,
        "paused": lane.policy.paused,
        "policy": asdict(lane.policy),
        "problems": [*lane.problems, *source.problems(lane.subscription)],
        "advice": list(source.advice),
        "last_decision": None,
        "problem": None,
    }
    try:
        last = load(outside.store, lane.name).state.last
    except FanoutError as error:
        return {**shown, "problem": str(error)}
    return {**shown, "last_decision": last.shown(lane.name) if last else None}


def _add_pokes(app: FastAPI, outside: Outside, poked: PokedLanes, callers: Callers) -> None:
    @app.post("/pokes", dependencies=[Depends(callers.check_poke)])
    async def pokes(request: Request) -> Answer:
        """Answers once the lanes are ticked: on Cloud Run there may be no CPU after the answer."""
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > MAX_BODY_BYTES:
                break
        given = read_pokes(bytes(body), outside.clock.now())
        return Answer(await run_in_threadpool(poked.take, given))


def _refused(request: Request, error: Exception) -> Answer:
    assert isinstance(error, TokenRefused)
    log("request_refused", f"{request.method} {request.url.path} was refused: {error}")
    headers = {"WWW-Authenticate": "Bearer"} if error.status == 401 else None
    return Answer({"error": str(error)}, status_code=error.status, headers=headers)


def _answer(status: int) -> Callable[[Request, Exception], Answer]:
    return lambda _request, error: Answer({"error": str(error)}, status_code=status)


_ERRORS: dict[type[Exception], Callable[[Request, Exception], Answer]] = {
    TokenRefused: _refused,
    SettingsError: _answer(404),
    PokesRefused: _answer(400),
    DependencyError: _answer(503),
}
