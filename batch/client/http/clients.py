"""The two clients of the front door: thin shells that do what the operations' steps ask for. httpx is imported when one is made."""

from __future__ import annotations

import asyncio
import json
import random
import threading
import uuid
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping
from math import inf
from types import TracebackType
from typing import Any, TypeVar

from batch.client.http import operations
from batch.client.http.exchange import Answer, Call, Patience, Steps, Wait, answered
from batch.client.http.operations import Part, Parts, Receipt, path_of
from batch.model.clock import Clock, SystemClock
from batch.model.errors import DependencyUnavailable

T = TypeVar("T")
Fields = Mapping[str, Any]
Token = Callable[[], str]
"""Gives an OIDC token for the front door; called before each request, so it should keep one while it is good."""


class _Door:
    """What both clients can do, each method raising DoorRefused and DependencyUnavailable. Those of AsyncClient are awaited."""

    def __init__(
        self,
        url: str,
        *,
        token: Token | str = "",
        retry_for_s: float = 120.0,
        timeout_s: float = 300.0,
        transport: Any = None,
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        """`token`: an API key, or what gives OIDC tokens. A request that fails is tried again for `retry_for_s`; it may take `timeout_s`
        between two bytes. Raises ValueError if `url` is no address."""
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"the front door's address must begin with https://, or on loopback with http://, got {url[:200]!r}")
        try:
            import httpx
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError("batch.client.http needs httpx: install 'fanout-batch[client]'", name=error.name) from error
        self._httpx = httpx
        self._token: Token = (lambda: token) if isinstance(token, str) else token
        self._patience = Patience(retry_for_s, clock or SystemClock(), rng or random.Random())
        self._options: dict[str, Any] = {"base_url": url, "timeout": timeout_s, "transport": transport}

    def submit(self, task_type: str, fields: Fields | None = None, *, lane: str = "", key: str = "") -> Any:
        """Submit a single task; its id. The same `key` is the same task."""
        return self._run(operations.submit(task_type, fields or {}, lane, key or _new_key(), self._patience))

    def status(self, submission_id: str) -> Any:
        """How far a submission is, a dictionary."""
        return self._ask("GET", "submissions", submission_id)

    def wait(self, submission_id: str, timeout_s: float = inf) -> Any:
        """Its status once it has ended. Raises TimeoutError."""
        return self._run(operations.waited(submission_id, timeout_s, self._patience))

    def proof(self, submission_id: str) -> Any:
        """What became of all its tasks, a dictionary."""
        return self._ask("GET", "submissions", submission_id, "proof")

    def cancel(self, submission_id: str, why: str = "") -> Any:
        """End those of its tasks that have not begun."""
        return self._ask("POST", "submissions", submission_id, "cancel", why=why)

    def retry(self, submission_id: str, why: str = "") -> Any:
        """Replay its dead letters."""
        return self._ask("POST", "submissions", submission_id, "retry", why=why)

    def task(self, task_id: str, **where: str) -> Any:
        """What became of one task, or what it waits for, a dictionary. `where`: lane and at, for one with an idempotency key."""
        return self._ask("GET", "tasks", task_id, **where)

    def cancel_task(self, task_id: str, lane: str = "", why: str = "") -> Any:
        """End a task that has not begun."""
        return self._ask("POST", "tasks", task_id, "cancel", lane=lane, why=why)

    def _ask(self, method: str, *path: str, **query: str) -> Any:
        given = {name: value for name, value in query.items() if value}
        return self._run(operations.asked(method, path_of(*path), self._patience, **given))

    def _run(self, steps: Steps[Any]) -> Any:
        raise NotImplementedError

    def _submission(self, key: str, options: Mapping[str, Any]) -> Steps[Receipt]:
        return operations.submit_many(options, key or _new_key(), self._patience)

    def _outcomes(self, submission_id: str, filters: Mapping[str, str]) -> Steps[Answer]:
        return answered(Call("GET", path_of("submissions", submission_id, "outcomes"), filters, streams=True), self._patience)

    def _request(self, http: Any, call: Call, token: str) -> Any:
        headers = call.headers | ({"Authorization": f"Bearer {token.strip()}"} if token else {})
        return http.build_request(call.method, call.path, params=call.query, content=call.body, headers=headers)


def _new_key() -> str:
    return uuid.uuid4().hex


def _lost(error: Exception) -> DependencyUnavailable:
    return DependencyUnavailable(f"the connection to the front door failed: {error or type(error).__name__}")


class Client(_Door):
    """For programs without an event loop. Safe from several threads."""

    def __init__(self, url: str, **options: Any) -> None:
        super().__init__(url, **options)
        self._http = self._httpx.Client(**self._options)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._http.close()

    def submit_many(self, tasks: Iterable[Fields], *, key: str = "", **options: Any) -> Receipt:
        """Submit tasks, each {"task_type": …, own fields}, as one submission. More than one request can carry go in several, each of them
        all or nothing. The same `key` and tasks are the same submission: after an error they complete it. `options`: lane, accept="good" to
        leave out those that are wrong, on_complete, on_failure, tolerate."""
        return self._run(self._submission(key, options), _parts(tasks))

    def outcomes(self, submission_id: str, **filters: str) -> Iterator[dict[str, Any]]:
        """The outcomes of its tasks, as they come."""
        stream = self._run(self._outcomes(submission_id, filters)).stream
        try:
            yield from (json.loads(line) for line in stream.iter_lines() if line)
        except self._httpx.TransportError as error:
            raise _lost(error) from error
        finally:
            stream.close()

    def _run(self, steps: Steps[T], parts: Iterator[Part] | None = None) -> T:
        result: Any = None
        while True:
            try:
                step = steps.send(result)
            except StopIteration as done:
                return done.value  # type: ignore[no-any-return]
            if isinstance(step, Call):
                result = self._sent(step)
            elif isinstance(step, Wait):
                self._patience.clock.wait(threading.Event(), step.seconds)
            elif parts is not None:
                result = next(parts)

    def _sent(self, call: Call) -> Answer | DependencyUnavailable:
        request = self._request(self._http, call, self._token())
        try:
            response = self._http.send(request, stream=True)
            if call.streams and response.status_code < 300:
                return Answer(response.status_code, response.headers, stream=response)
            return Answer(response.status_code, response.headers, response.read())
        except self._httpx.TransportError as error:
            return _lost(error)


class AsyncClient(_Door):
    """For programs with an event loop; tasks may also come from an asynchronous iterable."""

    def __init__(self, url: str, **options: Any) -> None:
        super().__init__(url, **options)
        self._http = self._httpx.AsyncClient(**self._options)

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._http.aclose()

    async def submit_many(self, tasks: Iterable[Fields] | AsyncIterable[Fields], *, key: str = "", **options: Any) -> Receipt:
        """As `Client.submit_many`."""
        return await self._run(self._submission(key, options), _parts_of_any(tasks))

    async def outcomes(self, submission_id: str, **filters: str) -> AsyncIterator[dict[str, Any]]:
        """As `Client.outcomes`."""
        stream = (await self._run(self._outcomes(submission_id, filters))).stream
        try:
            async for line in stream.aiter_lines():
                if line:
                    yield json.loads(line)
        except self._httpx.TransportError as error:
            raise _lost(error) from error
        finally:
            await stream.aclose()

    async def _run(self, steps: Steps[T], parts: AsyncIterator[Part] | None = None) -> T:
        result: Any = None
        while True:
            try:
                step = steps.send(result)
            except StopIteration as done:
                return done.value  # type: ignore[no-any-return]
            if isinstance(step, Call):
                result = await self._sent(step)
            elif isinstance(step, Wait):
                await asyncio.sleep(step.seconds)
            elif parts is not None:
                result = await anext(parts)

    async def _sent(self, call: Call) -> Answer | DependencyUnavailable:
        request = self._request(self._http, call, await asyncio.to_thread(self._token))
        try:
            response = await self._http.send(request, stream=True)
            if call.streams and response.status_code < 300:
                return Answer(response.status_code, response.headers, stream=response)
            return Answer(response.status_code, response.headers, await response.aread())
        except self._httpx.TransportError as error:
            return _lost(error)


def _parts(tasks: Iterable[Fields]) -> Iterator[Part]:
    parts = Parts()
    yield from (part for task in tasks if (part := parts.add(task)) is not None)
    yield parts.last()


async def _parts_of_any(tasks: Iterable[Fields] | AsyncIterable[Fields]) -> AsyncIterator[Part]:
    parts = Parts()
    if not isinstance(tasks, AsyncIterable):
        for part in _parts(tasks):
            yield part
        return
    async for task in tasks:
        if (cut := parts.add(task)) is not None:
            yield cut
    yield parts.last()
