"""`POST /submissions`, parts of open ones, and their closing: the endpoints, and what each answers. `bulk` does the work, in threads."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, TypeVar

from fastapi import FastAPI, Request, Response
from pydantic import BaseModel, Field

from batch.client.closing import Opened, close_opened, read_opened, read_summary
from batch.ends.options import LANE, End, Ends
from batch.model.errors import DependencyError, MessageRefused, ObjectDamaged
from intake.access import Access, Verb
from intake.asking import Asking
from intake.bodies import NO_BUCKET, Spools, key_of
from intake.collector import Collector
from intake.problems import Problem, RequestRefused, Wrong, as_json
from intake.submissions.bulk import MAX_SOURCE_TASKS, MAX_TASKS, Bulk, Tools, Work, refused_by
from intake.submissions.lane_topic import LaneTopic
from intake.submissions.options import ACCEPT, Options, read_options, read_part_options

SUBMISSION_ID = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
T = TypeVar("T")


class Receipt(BaseModel):
    """The broker has every accepted task, and the bucket their names."""

    submission_id: str = Field(
        description="ask for progress and proof by this id; the same for every request with the same Idempotency-Key"
    )
    lane: str
    accepted_count: int = Field(description="tasks of this request that are published; after a close, all tasks of the submission")
    refused_count: int = Field(description="tasks of this request that are not")
    errors: list[Wrong] = Field(description="why not: the first thousand places")
    closed: bool = Field(description="whether it is known how many tasks there are; an open submission takes more")
    status: Literal["submitted", "open"]


class Submissions:
    """The endpoints for many tasks. `collectors`, `lane_of` and `asking` are those of the front door, and `check_lane`, which raises
    RequestRefused for a lane that takes no task of a client."""

    def __init__(
        self,
        tools: Tools | None,
        access: Access,
        max_count: int,
        lane_of: Callable[[Request], str],
        asking: Asking,
        check_lane: Callable[[str], None],
    ) -> None:
        """Without `tools` there is no bucket."""
        self._tools, self._access, self._lane_of, self._asking, self._check_lane = tools, access, lane_of, asking, check_lane
        self._spools = Spools(max_count)
        self._threads = ThreadPoolExecutor(max_count, thread_name_prefix="submissions")
        self._collectors: Mapping[str, Collector] = {}

    def open(self, collectors: Mapping[str, Collector]) -> None:
        """Called by the running event loop."""
        self._collectors = collectors

    async def close(self) -> None:
        """What runs ends, or tells its client why not."""
        await asyncio.to_thread(self._threads.shutdown)

    async def create(self, request: Request) -> Response:
        """Raises RequestRefused."""
        tools, lane = self._ready(), self._lane_of(request)
        self._access.check(request, Verb.SUBMIT, lane)
        query, lanes = request.query_params.multi_items(), tuple(self._collectors)
        options = await asyncio.to_thread(read_options, query, lane, tools.store.bucket_name, tools.check, lanes)
        for other in _lanes(options.ends):
            self._access.check(request, Verb.SUBMIT, other)
        return await self._run(request, tools, options)

    async def add(self, request: Request) -> Response:
        """Raises RequestRefused."""
        tools = self._ready()
        opened, lane = await self._opened(request, tools)
        self._access.check(request, Verb.SUBMIT, lane)
        if opened is None:
            text = f"submission {_id(request)} is closed: submit these tasks as another one, or begin one with open=true to add to it"
            raise RequestRefused(409, text)
        if opened.lane not in self._collectors:
            raise RequestRefused(422, f"submission {opened.submission_id} is of lane {opened.lane}, which this service does not serve")
        self._check_lane(opened.lane)
        options = read_part_options(request.query_params.multi_items(), opened.lane, tools.store.bucket_name)
        return await self._run(request, tools, options, opened)

    async def finish(self, request: Request) -> Response:
        """Close an open submission. Raises RequestRefused."""
        tools = self._ready()
        opened, lane = await self._opened(request, tools)
        submission_id = _id(request)
        self._access.check(request, Verb.SUBMIT, lane)
        if opened is not None:
            summary = await self._asked(lambda: close_opened(tools.store, opened, tools.clock.now()))
        else:
            summary = await self._asked(lambda: read_summary(tools.store, submission_id) or {})
        return as_json(200, _closed(submission_id, summary))

    def _ready(self) -> Tools:
        if self._tools is None:
            raise RequestRefused(503, NO_BUCKET)
        return self._tools

    async def _opened(self, request: Request, tools: Tools) -> tuple[Opened | None, str]:
        """And its lane; None for one that was closed by the request that submitted it. Raises RequestRefused: 404 if there is none."""
        submission_id = _id(request)
        opened = await self._asked(lambda: read_opened(tools.store, submission_id))
        if opened is not None:
            return opened, opened.lane
        summary = await self._asked(lambda: read_summary(tools.store, submission_id))
        if summary is None:
            raise RequestRefused(404, f"there is no open submission {submission_id}: begin one with POST /submissions?open=true")
        return None, str(summary.get("lane", ""))

    async def _run(self, request: Request, tools: Tools, options: Options, opened: Opened | None = None) -> Response:
        async with self._spools.spooled(request) as path:
            if options.source and path.stat().st_size:
                text = "a request that names a source has no body"
                raise RequestRefused(422, text, wrong=[Wrong(pointer="?source", detail=text)])
            topic = LaneTopic(self._collectors[options.lane], asyncio.get_running_loop())
            work = Work(path, options, topic, key_of(request), opened)

            def run() -> tuple[Mapping[str, Any], bool]:
                try:
                    return Bulk(tools, work).run()
                except MessageRefused as error:  # of the key
                    wrong = [Wrong(pointer="Idempotency-Key", detail=str(error))]
                    raise RequestRefused(422, f"Idempotency-Key: {error}", wrong=wrong) from error

            # A client that leaves does not end it: what began goes on to its end, and its key tells what became of it.
            receipt, replayed = await asyncio.get_running_loop().run_in_executor(self._threads, run)
        return as_json(200, receipt, {"Idempotent-Replayed": "true"} if replayed else None)

    async def _asked(self, question: Callable[[], T]) -> T:
        """An answer of the bucket. Raises RequestRefused."""
        try:
            return await self._asking.asked(question)
        except DependencyError as error:
            raise refused_by(error, str(error)) from error
        except ObjectDamaged as error:
            raise RequestRefused(500, str(error)) from error


def add_endpoints(app: FastAPI, of: Submissions) -> None:
    """The three, with their documentation."""
    options = [_LANE, _ACCEPT, *_ENDS, _OPEN, _SOURCE, _KEY]
    _add(app, "/submissions", of.create, "Submit many tasks together", options, _TASKS)
    _add(app, "/submissions/{submission_id}/tasks", of.add, "Add tasks to an open submission", [_ID, _ACCEPT, _SOURCE, _KEY], _TASKS)
    _add(app, "/submissions/{submission_id}/close", of.finish, "Close an open submission: it takes no more tasks", [_ID], None)


def _add(app: FastAPI, path: str, endpoint: Callable[[Request], Any], summary: str, parameters: Sequence[Any], body: Any) -> None:
    extra: dict[str, Any] = {"parameters": list(parameters)}
    if body is not None:
        extra["requestBody"] = body
    app.add_api_route(path, endpoint, methods=["POST"], summary=summary, response_model=Receipt, responses=_DOCUMENTED, openapi_extra=extra)


def _id(request: Request) -> str:
    """The submission of the address; it stands in names of objects. Raises RequestRefused."""
    submission_id: str = request.path_params["submission_id"]
    if not re.fullmatch(SUBMISSION_ID, submission_id):
        raise RequestRefused(404, f"there is no submission {submission_id[:100]!r}: no id is like this")
    return submission_id


def _lanes(ends: Ends) -> set[str]:
    return {task[LANE] for end in End if (task := ends.task(end)) is not None and LANE in task}


def _closed(submission_id: str, summary: Mapping[str, Any]) -> dict[str, Any]:
    counts = {"accepted_count": summary.get("task_count", 0), "refused_count": summary.get("refused_count", 0)}
    return {"submission_id": submission_id, "lane": summary.get("lane", ""), **counts, "errors": [], "closed": True, "status": "submitted"}


def _parameter(name: str, where: str, description: str, schema: Mapping[str, Any] | None = None) -> dict[str, Any]:
    return {"name": name, "in": where, "required": where == "path", "schema": schema or {"type": "string"}, "description": description}


_LANE = _parameter("lane", "query", "the default lane if left out")
_ACCEPT = _parameter(
    "accept",
    "query",
    "all (the default): nothing is submitted unless every task is good; good: those that are",
    {"type": "string", "enum": list(ACCEPT)},
)
_ENDS = [
    _parameter("on_complete", "query", 'JSON: what is to happen when every task has ended, {"task_type": …, own fields} or {"webhook": …}'),
    _parameter("on_failure", "query", "JSON: the same, when more tasks have died than are tolerated"),
    _parameter("tolerate", "query", 'JSON: {"count": …, "percent": …} of dead tasks that are no failure'),
]
_OPEN = _parameter("open", "query", "true: it takes more tasks until it is closed", {"type": "string", "enum": ["false", "true"]})
_SOURCE = _parameter("source", "query", f"gs://BUCKET/input/…: an object with at most {MAX_SOURCE_TASKS} tasks; then there is no body")
_KEY = _parameter(
    "Idempotency-Key",
    "header",
    "a request with the same key and body goes on where the first was interrupted, or answers its receipt",
    {"type": "string", "minLength": 1, "maxLength": 1024},
)
_ID = _parameter("submission_id", "path", "as the receipt has it", {"type": "string"})
_TASK = {"type": "object", "properties": {"task_type": {"type": "string"}}, "required": ["task_type"], "additionalProperties": True}
_TASKS = {
    "required": False,
    "description": f"at most {MAX_TASKS} tasks and 32 MiB: a JSON array of tasks, or one task a line",
    "content": {"application/json": {"schema": {"type": "array", "items": _TASK}}, "application/x-ndjson": {"schema": {"type": "string"}}},
}
_DOCUMENTED: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "The body is not JSON"},
    404: {"model": Problem, "description": "There is no open submission of this id"},
    409: {"model": Problem, "description": "A request with this key is under way (see Retry-After), or the submission is closed"},
    413: {"model": Problem, "description": "The body, the source or an item is too large, or there are too many tasks"},
    415: {"model": Problem, "description": "The body is packed (Content-Encoding)"},
    422: {
        "model": Problem,
        "description": "Tasks or options are wrong, or another body came first with this key; see `errors`",
    },
    500: {"model": Problem, "description": "Topic or bucket are missing or may not be used; what was accepted is told"},
    503: {"model": Problem, "description": "Broker or bucket did not confirm, or too much is under way; what was accepted is told"},
}
