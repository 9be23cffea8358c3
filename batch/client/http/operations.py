"""What a client of the front door can do, as steps that both clients carry out: which requests, in which order, and what they return."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import count
from typing import Any, NamedTuple
from urllib.parse import quote

from batch.client.http.exchange import Call, DoorRefused, Patience, Steps, Wait, answered

MAX_TASKS = 100_000
MAX_BYTES = 32 * 1024 * 1024
ERRORS_KEPT = 1000
POLL_S = 1.0
LONGEST_POLL_S = 15.0
ENDED = ("complete", "failed")
FINISHING = "finishing"
NEXT_PART: Any = object()
"""A step that is sent the next Part."""


class Part(NamedTuple):
    """Tasks for one request, one a line."""

    body: bytes
    task_count: int
    is_last: bool


@dataclass(frozen=True, slots=True)
class Receipt:
    """The broker has `accepted_count` tasks. `errors` are the first thousand places that are wrong, each a pointer and a detail; pointers
    count from the first task of all. `replayed`: the answer is that of an earlier request with this key."""

    submission_id: str
    lane: str
    accepted_count: int
    refused_count: int
    errors: tuple[Mapping[str, str], ...]
    closed: bool
    replayed: bool = False


class Parts:
    """Cuts tasks into requests of at most `max_tasks` and `max_bytes`. Holds one of them."""

    def __init__(self, max_tasks: int = MAX_TASKS, max_bytes: int = MAX_BYTES) -> None:
        self._max_tasks, self._max_bytes = max_tasks, max_bytes
        self._lines: list[bytes] = []
        self._size = 0

    def add(self, task: Mapping[str, Any]) -> Part | None:
        """The part that this task did not fit into. Raises ValueError, TypeError for what JSON cannot hold."""
        line = json.dumps(task, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode() + b"\n"
        full = len(self._lines) == self._max_tasks or (self._lines and self._size + len(line) > self._max_bytes)
        part = self._cut(is_last=False) if full else None
        self._lines.append(line)
        self._size += len(line)
        return part

    def last(self) -> Part:
        """The rest."""
        return self._cut(is_last=True)

    def _cut(self, *, is_last: bool) -> Part:
        part = Part(b"".join(self._lines), len(self._lines), is_last)
        self._lines, self._size = [], 0
        return part


def submit(task_type: str, fields: Mapping[str, Any], lane: str, key: str, patience: Patience) -> Steps[str]:
    """The id of a single task."""
    body = json.dumps({**fields, "task_type": task_type}, allow_nan=False).encode()
    answer = yield from answered(Call("POST", "/submit-task", {"lane": lane} if lane else {}, body, key), patience)
    return str(json.loads(answer.body)["task_id"])


def submit_many(options: Mapping[str, Any], key: str, patience: Patience) -> Steps[Receipt]:
    """One request, or an open submission with a part for each further one, whose key is its number: so the whole may be repeated."""
    part: Part = yield NEXT_PART
    options = {name: value if isinstance(value, str) else json.dumps(value) for name, value in options.items()}
    query = options if part.is_last else {**options, "open": "true"}
    receipt = yield from _sent(Call("POST", "/submissions", query, part.body, key), patience)
    if part.is_last:
        return receipt
    path = _submission(receipt.submission_id)
    part_options = {name: value for name, value in options.items() if name == "accept"}
    try:
        task_count, more = part.task_count, True
        for number in count(1):
            if not more:
                break
            part = yield NEXT_PART
            call = Call("POST", f"{path}/tasks", part_options, part.body, f"part-{number}")
            receipt = _together(receipt, (yield from _sent(call, patience)), task_count)
            task_count, more = task_count + part.task_count, not part.is_last
        yield from answered(Call("POST", f"{path}/close"), patience)
    except DoorRefused as error:
        error.problem.setdefault("submission_id", receipt.submission_id)
        raise
    return replace(receipt, closed=True)


def _sent(call: Call, patience: Patience) -> Steps[Receipt]:
    answer = yield from answered(call, patience)
    found = json.loads(answer.body)
    return Receipt(
        found["submission_id"],
        found["lane"],
        found["accepted_count"],
        found["refused_count"],
        tuple(found["errors"]),
        found["closed"],
        answer.headers.get("idempotent-replayed") == "true",
    )


def _together(before: Receipt, part: Receipt, task_count: int) -> Receipt:
    """`part` begins after `task_count` tasks."""
    moved = tuple({**one, "pointer": _moved(one["pointer"], task_count)} for one in part.errors)
    return replace(
        before,
        accepted_count=before.accepted_count + part.accepted_count,
        refused_count=before.refused_count + part.refused_count,
        errors=(*before.errors, *moved)[:ERRORS_KEPT],
        replayed=before.replayed and part.replayed,
    )


def _moved(pointer: str, by: int) -> str:
    """`#/3/filename` is about the fourth task of a request."""
    root, _, rest = pointer.partition("/")
    place, slash, name = rest.partition("/")
    return f"{root}/{int(place) + by}{slash}{name}" if root == "#" and place.isdigit() else pointer


def asked(method: str, path: str, patience: Patience, **query: str) -> Steps[dict[str, Any]]:
    """The answer of an endpoint that takes no body."""
    answer = yield from answered(Call(method, path, query), patience)
    found = json.loads(answer.body)
    return dict(found)


def waited(submission_id: str, timeout_s: float, patience: Patience) -> Steps[dict[str, Any]]:
    """The progress of a submission once it has ended. Raises TimeoutError."""
    path = _submission(submission_id)
    until_s = patience.clock.monotonic() + timeout_s
    poll_s = POLL_S
    while True:
        found = yield from asked("GET", path, patience)
        if found["state"] == FINISHING and (yield from asked("GET", f"{path}/proof", patience))["complete"]:
            found = yield from asked("GET", path, patience)
        if found["state"] in ENDED:
            return found
        if patience.clock.monotonic() + poll_s > until_s:
            raise TimeoutError(f"submission {submission_id} is {found['state']} after {timeout_s:g} s")
        yield Wait(poll_s)
        poll_s = min(LONGEST_POLL_S, 1.5 * poll_s)


def _submission(submission_id: str) -> str:
    return f"/submissions/{quote(submission_id, safe='')}"


def path_of(kind: str, named: str, then: str = "") -> str:
    """`/tasks/ID/cancel`."""
    return f"/{kind}/{quote(named, safe='')}{then and '/' + then}"
