"""The HTTP service: endpoints, their documentation, and what each failure is answered with. Nothing blocks its event loop."""

from __future__ import annotations

import asyncio
import difflib
import random
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any

from fastapi import FastAPI, Request, Response
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from batch.client.keys import Keyed, settled
from batch.client.submit import check_by
from batch.events import log
from batch.handling.registry import Registry
from batch.model.clock import Clock
from batch.model.delivery import Outgoing
from batch.model.errors import DependencyUnavailable, FanoutError, MessageRefused
from batch.services.ports import ObjectStore
from batch.telemetry.ports import ServiceWatch
from intake.access import Access, KnownCallers, Verb, access_of
from intake.asking import Asking
from intake.bodies import RETRY_AFTER_S, body_of, key_of
from intake.collector import Accepted, AsyncTopic, Collector, CollectorFull
from intake.config import IntakeSettings
from intake.models import DEFAULT_DATA, DEFAULT_FILE, DataTaskBody, Door, FileTaskBody, Submitted, TaskBody, message_of
from intake.pokes import Controller, Pokers
from intake.problems import (
    CutOff,
    Problem,
    RequestRefused,
    Wrong,
    answer_fault,
    answer_gone,
    answer_http_error,
    answer_refused,
    as_json,
    document_problems,
)
from intake.reading import Context, add_reading
from intake.request_ids import RequestIds, tagged_by, watch_here
from intake.submissions.bulk import Tools
from intake.submissions.endpoints import Submissions, add_endpoints
from intake.takers import Takers

AT_ONCE_BYTES = 64 * 1024
"""Larger bodies are read as JSON in a thread: a few megabytes would stop all other requests for tens of milliseconds."""
Topics = Callable[[IntakeSettings], AbstractAsyncContextManager[Mapping[str, AsyncTopic]]]
"""Opens the topic of each lane inside the running event loop, and closes them."""


class FrontDoor:
    """The lanes' collectors, and the way of a request for one task through them."""

    def __init__(self, settings: IntakeSettings, clock: Clock, rng: random.Random, store: ObjectStore | None, access: Access) -> None:
        """With a `store`, an idempotency key means one task: another under the same is refused."""
        self._settings, self._clock, self._rng, self._store, self._access = settings, clock, rng, store, access
        self.asking = Asking()
        self.takers = Takers(store, settings.topics, clock, self.asking)
        self.collectors: Mapping[str, Collector] = {}

    def open(self, topics: Mapping[str, AsyncTopic], accepted: Mapping[str, Accepted]) -> None:
        """`accepted` by lane is called with what the broker has confirmed."""
        limits = {"max_waiting": self._settings.max_waiting, "max_in_flight": self._settings.max_in_flight}
        self.collectors = {
            lane: Collector(topic, **limits, accepted=accepted.get(lane), clock=self._clock) for lane, topic in topics.items()
        }
        self.takers.look()

    async def close(self) -> None:
        await asyncio.gather(*(collector.close() for collector in self.collectors.values()))

    def health(self) -> dict[str, Any]:
        waiting = {lane: collector.waiting_count for lane, collector in self.collectors.items()}
        return {"status": "healthy", "service": "intake", "waiting": waiting}

    async def submit(self, request: Request, door: Door) -> Response:
        """Answer one request. Raises RequestRefused."""
        lane = self.lane_of(request)
        self._access.check(request, Verb.SUBMIT, lane)
        key = key_of(request)
        body = await body_of(request, self._settings.max_body_bytes)
        if len(body) <= AT_ONCE_BYTES:
            message = message_of(door, body, key, lane, self._clock.now(), self._rng)
        else:
            message = await asyncio.to_thread(message_of, door, body, key, lane, self._clock.now(), self._rng)
        try:
            if key is not None and self._store is not None:
                message = await self.asking.asked(partial(settled, self._store, Keyed(key, message), self._clock.now()))
            message_id = await self._published(lane, tagged_by()(message))
        except MessageRefused as error:
            raise RequestRefused(422, f"Idempotency-Key: {error}", wrong=[Wrong(pointer="Idempotency-Key", detail=str(error))]) from error
        except (CollectorFull, DependencyUnavailable) as error:
            raise RequestRefused(503, str(error), retry_after_s=RETRY_AFTER_S) from error
        except RequestRefused:
            raise
        except FanoutError as error:
            log("task_not_submitted", f"a task could not be submitted: {error}", error=str(error))
            raise RequestRefused(500, str(error)) from error
        return as_json(200, {"task_id": message.attributes["task_id"], "message_id": message_id, "status": "submitted"})

    async def _published(self, lane: str, message: Outgoing) -> str:
        collector, watch = self.collectors[lane], watch_here()
        if watch is None:
            return await collector.publish(message)
        with watch.sending(collector.topic.name, message.attributes) as span:
            message_id = await collector.publish(Outgoing(message.data, {**message.attributes, **span.attributes}))
            span.sent(message_id)
            return message_id

    def lane_of(self, request: Request) -> str:
        """The lane that a request names, or the default one. Raises RequestRefused."""
        lane = request.query_params.get("lane", self._settings.default_lane)
        if lane not in self.collectors:
            near = difflib.get_close_matches(lane, self.collectors, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            text = f"lane {lane[:80]!r} is not one of {', '.join(self.collectors)}{hint}"
            raise RequestRefused(422, text, ["lane"], wrong=[Wrong(pointer="?lane", detail=text)])
        self.takers.check(lane)
        return lane


def create_app(
    settings: IntakeSettings,
    *,
    registry: Registry,
    topics: Topics,
    clock: Clock,
    rng: random.Random,
    controller: Controller | None = None,
    store: ObjectStore | None = None,
    ending: Callable[[], bool] = lambda: False,
    watch: ServiceWatch | None = None,
) -> FastAPI:
    """The ASGI application; its lifespan opens the topics, and at the end finishes what was accepted. `controller` is poked. `ending` says
    whether the server is about to end: requests with many tasks then stop, and tell what they have published."""
    access = access_of(settings, clock)
    front = FrontDoor(settings, clock, rng, store, access)
    stopped = threading.Event()
    tools = None if store is None else Tools(store, clock, rng, check_by(registry), lambda: stopped.is_set() or ending())
    submissions = Submissions(tools, access, settings.max_submissions, front.lane_of, front.asking, front.takers.check)
    reading = Context(clock, rng, access, store)
    pokers = None if controller is None else Pokers(settings, controller, clock, rng)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with topics(settings) as opened:
            if pokers is not None:
                pokers.start()
            front.open(opened, {} if pokers is None else {lane: poker.accepted for lane, poker in pokers.by_lane.items()})
            submissions.open(front.collectors)
            reading.open(front.collectors)
            yield
            stopped.set()
            await submissions.close()
            await front.close()
            if pokers is not None:
                await asyncio.to_thread(pokers.close)

    app = FastAPI(title="Fanout intake", summary="Submits tasks.", version="1", lifespan=lifespan, redirect_slashes=False)
    if not access.is_open:
        app.add_middleware(KnownCallers, access=access)
    app.add_exception_handler(RequestRefused, answer_refused)
    app.add_exception_handler(HTTPException, answer_http_error)
    app.add_exception_handler(ClientDisconnect, answer_gone)
    app.add_exception_handler(Exception, answer_fault)
    app.add_middleware(CutOff)
    app.add_middleware(RequestIds, rng, watch)
    _add_simple(app, front, registry)
    add_endpoints(app, submissions)
    add_reading(app, reading)
    document_problems(app)
    return app


def _add_simple(app: FastAPI, front: FrontDoor, registry: Registry) -> None:
    """The endpoints of the simplest clients."""

    @app.get("/health", summary="Whether the service answers, and how many tasks wait for the broker, by lane")
    async def health() -> dict[str, Any]:
        return front.health()

    app.router.add_route("/health", _alive, methods=["HEAD"], include_in_schema=False)
    file_door = Door(registry, "file_processing", DEFAULT_FILE)
    data_door = Door(registry, "data_transformation", DEFAULT_DATA)
    _add(app, front, "/submit-task", TaskBody, Door(registry), "Submit a task of any known type")
    _add(app, front, "/submit-file-task", FileTaskBody, file_door, "Submit a file to process: sample.txt if the body is empty")
    _add(app, front, "/submit-data-task", DataTaskBody, data_door, "Submit data to transform: to normalize if the body is empty")


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
    415: {"model": Problem, "description": "The body is packed (Content-Encoding)"},
    422: {"model": Problem, "description": "The type is unknown, or fields are wrong"},
    500: {"model": Problem, "description": "The topic is missing or may not be used"},
    503: {"model": Problem, "description": "The broker did not confirm, or too many tasks wait; see Retry-After"},
}
