"""What a request is refused with: RFC 9457 problems, and the response that each becomes.

`error` is one sentence, which simple clients read; `errors` points at every place that is wrong; `field` and `fields` name the fields.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from batch.model.errors import FanoutError
from batch.serving.answers import MEDIA_TYPE, encoded, problem
from batch.serving.guard import App, Message, Send

MAX_ERROR_CHARS = 2000


class Wrong(BaseModel):
    """One place that is wrong."""

    pointer: str = Field(
        description="where: a JSON pointer into the body ('#/filename', '#/3' for the fourth of a list), or '?lane', 'Header-Name'"
    )
    detail: str = Field(description="what is wrong there")


class Problem(BaseModel):
    """Why a request was refused, as RFC 9457 has it."""

    type: str = "about:blank"
    title: str = Field(description="the status in words")
    status: int
    detail: str = Field(description="what happened, to what, what to do")
    error: str = Field(description="the same as `detail`")
    errors: list[Wrong] | None = Field(default=None, description="all places that are wrong")
    field: str | None = Field(default=None, description="the first field that is wrong")
    fields: list[str] | None = Field(default=None, description="all fields that are wrong")


class RequestRefused(FanoutError):
    """A request that gets an answer other than 200. `status` is the HTTP status; `more` are further members of the answer."""

    def __init__(
        self,
        status: int,
        error: str,
        fields: Sequence[str] = (),
        retry_after_s: int | None = None,
        wrong: Sequence[Wrong] = (),
        more: Mapping[str, Any] | None = None,
    ) -> None:
        # One line, also where a handler's own model wrote several.
        self.error = " ".join(error.split())[:MAX_ERROR_CHARS]
        self.status, self.fields, self.retry_after_s = status, tuple(fields), retry_after_s
        self.wrong = tuple(wrong) or tuple(Wrong(pointer=f"#/{escaped(name)}", detail=self.error) for name in fields)
        self.more = dict(more or {})
        super().__init__(self.error)

    def body(self) -> dict[str, Any]:
        """The members of the answer."""
        named: dict[str, Any] = {"field": self.fields[0], "fields": list(self.fields)} if self.fields else {}
        errors = {"errors": [one.model_dump() for one in self.wrong]} if self.wrong else {}
        return problem(self.status, self.error, {**errors, **named, **self.more})


def document_problems(app: FastAPI) -> None:
    """Have the OpenAPI document say that refusals are problems: FastAPI knows one media type for all answers of an endpoint."""
    made = app.openapi

    def document() -> dict[str, Any]:
        document = made()
        operations = [one for path in document["paths"].values() for one in path.values()]
        for content in (answer.get("content", {}) for one in operations for status, answer in one["responses"].items() if status >= "400"):
            if "application/json" in content:
                content[MEDIA_TYPE] = content.pop("application/json")
        return document

    app.openapi = document  # type: ignore[method-assign]


def as_json(status: int, body: Any, headers: Mapping[str, str] | None = None, media_type: str = "application/json") -> Response:
    """A response that can be encoded whatever a client sent."""
    return Response(encoded(body), status_code=status, headers=headers, media_type=media_type)


async def answer_refused(_request: Request, error: Exception) -> Response:
    """The answer to a request that was refused."""
    if not isinstance(error, RequestRefused):
        raise error
    headers = {} if error.retry_after_s is None else {"Retry-After": str(error.retry_after_s)}
    if error.status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    if error.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        # Otherwise the server would go on reading the rest of the body, to keep the connection.
        headers["Connection"] = "close"
    return as_json(error.status, error.body(), headers, MEDIA_TYPE)


async def answer_http_error(request: Request, error: Exception) -> Response:
    """The answer to a path or a method that there is not."""
    if not isinstance(error, HTTPException):
        raise error
    text = f"{request.method} {request.url.path}: {error.detail}"
    return as_json(error.status_code, problem(error.status_code, text), error.headers, MEDIA_TYPE)


async def answer_fault(_request: Request, _error: Exception) -> Response:
    """The answer where Fanout itself is wrong; the server logs the traceback."""
    text = "a fault in Fanout itself: what became of this request is not known; its traceback stands in the service's log"
    return as_json(500, problem(500, text), media_type=MEDIA_TYPE)


async def answer_gone(_request: Request, _error: Exception) -> Response:
    """For the logs between here and the client, which reads no answer any more."""
    return as_json(400, problem(400, "the client left before the body was complete"), media_type=MEDIA_TYPE)


class CutOff:
    """ASGI middleware that answers whom the server cuts off, because its time after a signal is over."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Send) -> None:
        """One request."""
        began = False

        async def answered(message: Message) -> None:
            nonlocal began
            began = True
            await send(message)

        try:
            await self._app(scope, receive, answered)
        except asyncio.CancelledError:
            if began or scope["type"] != "http":
                raise
            text = "the service ended before what was accepted is known: send the request again, with the same Idempotency-Key"
            response = as_json(503, problem(503, text), {"Retry-After": "2"}, MEDIA_TYPE)
            await response(scope, receive, send)


def escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1").replace(".", "/")
