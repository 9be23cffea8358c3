"""GET of submissions and tasks: how far it is, the proof, the outcomes line by line, one task's life."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Annotated, Any

from anyio import CancelScope, to_thread
from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import StreamingResponse
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope, Send

from batch.client.life import Life, State, Tracing, Where, located
from batch.client.reading.life_json import as_object
from batch.client.reading.lines import MAX_TASKS_HELD, Wanted, outcome_lines
from batch.client.reading.progress import progress
from batch.client.stored_proof import proof_of, read_stored, told_again
from batch.dead.lanes import read_lanes
from batch.events import log
from batch.model.clock import from_iso
from batch.model.errors import SettingsError
from batch.model.outcomes import RANK
from batch.services.ports import ObjectStore
from intake.access import Verb
from intake.problems import RequestRefused, as_json
from intake.reading.context import RETRY_AFTER_S, Context, answer_invalid, documented

MAX_STREAMS = 16
PIECE_BYTES = 64 * 1024
SEND_WITHIN_S = 60.0
"""How long a client may take to take a piece; a stream whose reader has stopped ends."""
MAX_NAMED = 1000
"""Missing tasks in a proof; their number is exact, and `fanout proof --json` names all."""
MAX_OBJECTS = 1000
"""For one task; where more would have to be read, its time is asked for."""
Texts = Annotated[list[str] | None, Query(description="only lines with this; may be given several times")]
Since = Annotated[str, Query(description="finished since then, such as 2026-01-31T12:00:00Z")]
Final = Annotated[bool, Query(description=f"of each task the line that counts, if it has ended; for at most {MAX_TASKS_HELD:,} tasks")]


def add_looking(app: FastAPI, context: Context) -> None:
    """Add the endpoints."""
    app.add_exception_handler(RequestValidationError, answer_invalid)
    about: dict[str, Any] = {"response_model": None, "responses": documented("submission or task")}

    @app.get("/submissions/{submission_id}", summary="How far a submission is; counts are approximate until it is proven", **about)
    async def status(request: Request, submission_id: str) -> Response:
        await context.submission(request, Verb.READ, submission_id)
        known, now, store = context.known(submission_id), context.clock.now(), context.bucket
        found = await context.run(lambda: progress(store, submission_id, read_lanes(store), now, known))
        return as_json(200, found.as_object())

    @app.get("/submissions/{submission_id}/proof", summary="How every task ended, by name; exact, and slow when it is new", **about)
    async def proof(request: Request, submission_id: str) -> Response:
        await context.submission(request, Verb.READ, submission_id)
        store = context.bucket
        told = await context.run(lambda: told_again(store, submission_id, read_stored(store, submission_id)))
        if told is None:
            told = await context.run(lambda: proof_of(store, submission_id), context.slow)
        return as_json(200, told.as_object(MAX_NAMED))

    @app.get("/submissions/{submission_id}/outcomes", summary="The outcomes as NDJSON; a task may have several lines", **about)
    async def outcomes(
        request: Request, submission_id: str, outcome: Texts = None, task_type: Texts = None, since: Since = "", final: Final = False
    ) -> Response:
        await context.submission(request, Verb.READ, submission_id)
        wanted = Wanted(frozenset(_outcomes(outcome or [])), frozenset(task_type or []), _time("since", since), final)
        return await _streamed(context, submission_id, wanted)

    @app.get("/tasks/{task_id}", summary="What became of one task, or what it waits for", **about)
    async def task(request: Request, task_id: str, lane: str = "", at: str = "", shard: str = "") -> Response:
        store, now = context.bucket, context.clock.now()
        of_lane, _ = await context.task(request, Verb.READ, task_id, lane, shard)
        where = await context.run(lambda: located(store, task_id, shard=shard, lane=of_lane, at=_time("at", at) or None))
        life = await context.run(lambda: _life(store, task_id, where, now))
        if life.state is State.NOT_KNOWN:
            raise RequestRefused(404, f"nothing is known of task {task_id} in {', '.join(where.shards)}; are lane and at right?")
        return as_json(200, as_object(life))


def _outcomes(given: list[str]) -> list[str]:
    for one in given:
        if one not in RANK:
            raise RequestRefused(422, f"?outcome must be one of {', '.join(RANK)}, got {one[:80]!r}")
    return given


def _time(name: str, given: str) -> float:
    try:
        found = from_iso(given) if given else 0.0
    except (ValueError, OverflowError) as error:
        raise RequestRefused(422, f"?{name} must be a time such as 2026-01-31T12:00:00Z, got {given[:80]!r}") from error
    if not 0 <= found < 9_999_999_999:
        raise RequestRefused(422, f"?{name}: no task was ever there at {given[:80]!r}")
    return found


def _life(store: ObjectStore, task_id: str, where: Where, now: float) -> Life:
    def before_reading(count: int) -> None:
        if count > MAX_OBJECTS:
            raise SettingsError([f"{count:,} objects would have to be read: give ?at=, about when the task was published"])

    facts = read_lanes(store)
    subscriptions = {name: one.subscription for name, one in facts.items()}
    return Tracing(store, task_id, where, now, lambda: subscriptions, lambda _lanes: None, before_reading).life()


async def _streamed(context: Context, submission_id: str, wanted: Wanted) -> Response:
    if context.stream_count >= MAX_STREAMS:
        raise RequestRefused(503, f"{MAX_STREAMS} clients already read outcomes; try again later", retry_after_s=RETRY_AFTER_S)
    context.stream_count += 1
    pieces: Iterator[bytes] = iter(())

    async def ended() -> None:
        context.stream_count -= 1
        with CancelScope(shield=True):
            await to_thread.run_sync(getattr(pieces, "close", lambda: None))

    try:
        store = context.bucket
        pieces = _pieces(await context.run(lambda: outcome_lines(store, submission_id, wanted)))
        # What is wrong is told before the answer begins.
        first = await context.run(lambda: next(pieces, b""))
    except BaseException:
        await ended()
        raise

    async def body() -> AsyncIterator[bytes]:
        piece = first
        while piece:
            yield piece
            piece = await context.run(lambda: next(pieces, b""))

    return _Stream(body(), ended)


def _pieces(lines: Iterator[bytes]) -> Iterator[bytes]:
    piece = bytearray()
    for line in lines:
        piece += line
        if len(piece) >= PIECE_BYTES:
            yield bytes(piece)
            piece.clear()
    if piece:
        yield bytes(piece)


class _Stream(StreamingResponse):
    """An answer in pieces, which calls `ended` however it ends. When the bucket fails midway the connection breaks, so that its client sees
    that the answer is not whole."""

    def __init__(self, content: AsyncIterator[bytes], ended: Callable[[], Awaitable[None]]) -> None:
        super().__init__(content, media_type="application/x-ndjson")
        self._ended = ended

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_soon(message: Message) -> None:
            async with asyncio.timeout(SEND_WITHIN_S):
                await send(message)

        try:
            await super().__call__(scope, receive, send_soon)
        except (RequestRefused, ClientDisconnect, TimeoutError) as error:
            log("answer_broken_off", f"GET {scope['path']} broke off: {error or 'its client stopped reading'}")
        finally:
            await self._ended()
