"""The HTTP service: endpoints, their documentation, and what each failure is answered with. Nothing blocks its event loop."""

from __future__ import annotations

import asyncio
import difflib
import random
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, Response
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from batch.events import log
from batch.handling.registry import Registry
from batch.model.clock import Clock
from batch.model.errors import DependencyUnavailable, FanoutError
from intake.collector import Accepted, AsyncTopic, Collector, CollectorFull
from intake.config import IntakeSettings
from intake.models import DataTaskBody, Door, FileTaskBody, Submitted, TaskBody, message_of
from intake.pokes import Controller, Pokers
from intake.problems import Problem, RequestRefused, answer_gone, answer_http_error, answer_refused, as_json
from intake.request_ids import RequestIds, tagged_by

AT_ONCE_BYTES = 64 * 1024
"""Larger bodies are read as JSON in a thread: a few megabytes would stop all other requests for tens of milliseconds."""
MAX_REQUEST_BYTES = 32 * 1024 * 1024
"""What Cloud Run lets through. A body up to this size is read to its end even when it is refused: most clients look for the
answer only after they have sent everything. Of a larger or endless one no more than this is read."""
RETRY_AFTER_S = 2

Topics = Callable[[IntakeSettings], AbstractAsyncContextManager[Mapping[str, AsyncTopic]]]
"""Opens the topic of each lane inside the running event loop, and closes them."""


class FrontDoor:
    """The lanes' collectors, and the way of a request through them."""

    def __init__(self, settings: IntakeSettings, clock: Clock, rng: random.Random) -> None:
        self._settings, self._clock, self._rng = settings, clock, rng
        self._collectors: dict[str, Collector] = {}

    def open(self, topics: Mapping[str, AsyncTopic], accepted: Mapping[str, Accepted]) -> None:
        """`accepted` by lane is called with what the broker has confirmed."""
        limits = {"max_waiting": self._settings.max_waiting, "max_in_flight": self._settings.max_in_flight}
        self._collectors = {
            lane: Collector(topic, **limits, accepted=accepted.get(lane), clock=self._clock) for lane, topic in topics.items()
        }

    async def close(self) -> None:
        await asyncio.gather(*(collector.close() for collector in self._collectors.values()))

    def health(self) -> dict[str, Any]:
        waiting = {lane: collector.waiting_count for lane, collector in self._collectors.items()}
        return {"status": "ok", "service": "intake", "waiting": waiting}

    async def submit(self, request: Request, door: Door) -> Response:
        """Answer one request. Raises RequestRefused."""
        lane = self._lane(request)
        key = request.headers.get("idempotency-key")
        body = await _body(request, self._settings.max_body_bytes)
        if len(body) <= AT_ONCE_BYTES:
            message = message_of(door, body, key, lane, self._clock.now(), self._rng)
        else:
            message = await asyncio.to_thread(message_of, door, body, key, lane, self._clock.now(), self._rng)
        try:
            message_id = await self._collectors[lane].publish(tagged_by()(message))
        except (CollectorFull, DependencyUnavailable) as error:
            raise RequestRefused(503, str(error), retry_after_s=RETRY_AFTER_S) from error
        except FanoutError as error:
            log("task_not_submitted", f"a task could not be submitted: {error}", error=str(error))
            raise RequestRefused(500, str(error)) from error
        return as_json(200, {"task_id": message.attributes["task_id"], "message_id": message_id, "status": "submitted"})

    def _lane(self, request: Request) -> str:
        lane = request.query_params.get("lane", self._settings.default_lane)
        if lane not in self._collectors:
            near = difflib.get_close_matches(lane, self._collectors, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise RequestRefused(422, f"lane {lane[:80]!r} is not one of {', '.join(self._collectors)}{hint}", ["lane"])
        return lane


def create_app(
    settings: IntakeSettings,
    *,
    registry: Registry,
    topics: Topics,
    clock: Clock,
    rng: random.Random,
    controller: Controller | None = None,
) -> FastAPI:
    """The ASGI application; its lifespan opens the topics, and at the end finishes what was accepted. `controller` is poked."""
    front = FrontDoor(settings, clock, rng)
    pokers = None if controller is None else Pokers(settings, controller, clock, rng)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with topics(settings) as opened:
            if pokers is not None:
                pokers.start()
            front.open(opened, {} if pokers is None else {lane: poker.accepted for lane, poker in pokers.by_lane.items()})
            yield
            await front.close()
            if pokers is not None:
                await asyncio.to_thread(pokers.close)

    app = FastAPI(title="Fanout intake", summary="Submits tasks.", version="1", lifespan=lifespan)
    app.add_exception_handler(RequestRefused, answer_refused)
    app.add_exception_handler(HTTPException, answer_http_error)
    app.add_exception_handler(ClientDisconnect, answer_gone)
    app.add_middleware(RequestIds, rng)

    @app.get("/health", summary="Whether the service answers, and how many tasks wait for the broker, by lane")
    async def health() -> dict[str, Any]:
        return front.health()

    app.router.add_route("/health", _alive, methods=["HEAD"], include_in_schema=False)
    _add(app, front, "/submit-task", TaskBody, Door(registry), "Submit a task of any known type")
    _add(app, front, "/submit-file-task", FileTaskBody, Door(registry, "file_processing"), "Submit a file to process")
    _add(app, front, "/submit-data-task", DataTaskBody, Door(registry, "data_transformation"), "Submit data to transform")
    return app


async def _alive(_request: Request) -> Response:
    return Response()


def _add(app: FastAPI, front: FrontDoor, path: str, body: type[BaseModel], door: Door, summary: str) -> None:
    async def submit(request: Request) -> Response:
        return await front.submit(request, door)

    app.add_api_route(
        path,
        submit,
        methods=["POST"],
        name=path.strip("/"),
        summary=summary,
        response_model=Submitted,
        responses=_DOCUMENTED,
        openapi_extra={
            "requestBody": {"required": True, "content": {"application/json": {"schema": body.model_json_schema()}}},
            "parameters": [
                {
                    "name": "lane",
                    "in": "query",
                    "required": False,
                    "schema": {"type": "string"},
                    "description": "the default lane if left out",
                },
                {
                    "name": "Idempotency-Key",
                    "in": "header",
                    "required": False,
                    "schema": {"type": "string", "minLength": 1, "maxLength": 1024},
                    "description": "requests with the same key and lane are the same task, however often they are sent",
                },
            ],
        },
    )


_DOCUMENTED: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "The body is not a JSON object"},
    413: {"model": Problem, "description": "The task is too large to travel"},
    422: {"model": Problem, "description": "The type is unknown, or fields are wrong"},
    500: {"model": Problem, "description": "The topic is missing or may not be used"},
    503: {"model": Problem, "description": "The broker did not confirm, or too many tasks wait; see Retry-After"},
}


async def _body(request: Request, max_bytes: int) -> bytes:
    """The body, never holding more than `max_bytes` of it. Raises RequestRefused (413)."""
    error = f"the body is larger than {max_bytes} bytes; put large data into the bucket and name the object instead"
    declared = request.headers.get("content-length", "")
    waits = request.headers.get("expect", "").lower() == "100-continue"
    if declared.isdigit() and int(declared) > (max_bytes if waits else MAX_REQUEST_BYTES):
        raise RequestRefused(413, error)
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > MAX_REQUEST_BYTES:
            break
        if size <= max_bytes:
            parts.append(part)
        else:
            parts.clear()
    if size > max_bytes:
        raise RequestRefused(413, error)
    return b"".join(parts)
