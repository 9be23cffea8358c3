"""Outcomes: one JSON line for each task that ended, and which one counts when a task has several.

A line is written before the message is acknowledged, so a task may have two lines (a kill in between, a redelivery) and
never none. Those with the highest replay number count, and of these precedence decides: succeeded, superseded, cancelled, dead. A line
`replayed` says that its task is published again under that number: until it ends once more it is pending.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from json.encoder import encode_basestring as quoted
from operator import attrgetter
from typing import Any

from batch.model.result import as_json
from batch.model.texts import json_bytes

MAX_LINE_BYTES = 64 * 1024
PRECEDENCE = ("succeeded", "superseded", "cancelled", "dead")
REPLAYED = "replayed"
SUBMISSIONS = "submissions"
"""The metadata that counts a shared shard's lines by submission, or says TOO_MANY: an object has 8 KiB of it."""
TOO_MANY = "too many"
MAX_SUBMISSIONS_BYTES = 6000
RANK = {name: rank for rank, name in enumerate((*PRECEDENCE, REPLAYED))}


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a task ended. `finished_at` is ISO 8601; `duration_s` the last attempt's; `output` the object written last;
    `result` what the handler returned; `error_type`, `reason` and `fingerprint` only for the dead (`reason` also for others that did not
    succeed). `replay_number`: how often the task had been replayed. `trace_id`: the trace that the task's message named."""

    task_id: str
    task_type: str
    outcome: str
    finished_at: str
    duration_s: float = 0.0
    attempt_count: int = 1
    execution: str = ""
    index: int = 0
    retry: int = 0
    message_id: str = ""
    output: str = ""
    result: Any = None
    error_type: str = ""
    reason: str = ""
    fingerprint: str = ""
    replay_number: int = 0
    trace_id: str = ""

    def __post_init__(self) -> None:
        if self.outcome not in RANK:
            raise ValueError(f"outcome must be one of {', '.join(RANK)}, got {self.outcome!r}")

    @property
    def order(self) -> tuple[int, int]:
        """Of a task's lines the one with the least counts."""
        return (-self.replay_number, RANK[self.outcome])


def to_line(outcome: Outcome) -> bytes:
    """One line with its line end; empty fields are left out. Raises ResultRefused for a result that is not JSON."""
    one = outcome
    lines = Lines(one.execution, one.index, one.retry)
    shared = lines.shared(one.task_type, one.outcome, one.finished_at, one.duration_s, one.attempt_count, one.replay_number)
    line = lines.of(one.task_id, shared, one.message_id, one.output, one.result, one.error_type, one.reason, one.fingerprint)
    return with_trace(line, one.trace_id)


class Lines:
    """Writes the lines of one worker try. What is the same in all of them is made once: a line costs as much as its task's own values."""

    def __init__(self, execution: str, index: int, retry: int) -> None:
        named = f'"execution":{quoted(execution)},' if execution else ""
        self._worker = f'{named}"index":{index},"retry":{retry}'

    def shared(self, task_type: str, outcome: str, finished_at: str, duration_s: float, attempt_count: int, replay_number: int = 0) -> str:
        """What the lines of tasks of one type that ended together have in common: made once for all of them."""
        replayed = f',"replay_number":{replay_number}' if replay_number else ""
        return (
            f'"task_type":{quoted(task_type)},"outcome":"{outcome}",'
            f'"finished_at":{quoted(finished_at)},"duration_s":{duration_s:.6f},"attempt_count":{attempt_count},{self._worker}{replayed}'
        )

    @staticmethod
    def of(
        task_id: str,
        shared: str,
        message_id: str,
        output: str = "",
        result: Any = None,
        error_type: str = "",
        reason: str = "",
        fingerprint: str = "",
    ) -> bytes:
        """The line of one of the tasks that `shared` was made for. Raises ResultRefused for a result that is not JSON."""
        text = f'{{"task_id":{quoted(task_id)},{shared}'
        if message_id:
            text += f',"message_id":{quoted(message_id)}'
        if output:
            text += f',"output":{quoted(output)}'
        if result is not None and not (type(result) is str and not result):
            text += f',"result":{as_json(result)}'
        if error_type:
            text += f',"error_type":{quoted(error_type)}'
        if reason:
            text += f',"reason":{quoted(reason)}'
        if fingerprint:
            text += f',"fingerprint":{quoted(fingerprint)}'
        return json_bytes(f"{text}}}\n")


def with_trace(line: bytes, trace_id: str) -> bytes:
    """The line with its task's trace, if it has one; most have none."""
    return line[:-2] + f',"trace_id":{quoted(trace_id)}}}\n'.encode() if trace_id else line


def counted(shard: str, ended: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The metadata of an object of outcomes, of each task's outcome and submission (empty without one): lines by outcome, and where not all
    are of the shard's own submission also by submission, as JSON."""
    counts = Counter(ended)
    by_outcome: Counter[str] = Counter()
    by_submission: dict[str, dict[str, int]] = {}
    for (outcome, submission_id), count in counts.items():
        by_outcome[outcome] += count
        if submission_id:
            by_submission.setdefault(submission_id, {})[outcome] = count
    metadata = {outcome: str(count) for outcome, count in by_outcome.items()}
    if is_rolling(shard) or not by_submission.keys() <= {shard}:
        told = json.dumps(by_submission, separators=(",", ":"))
        metadata[SUBMISSIONS] = told if len(told) <= MAX_SUBMISSIONS_BYTES else TOO_MANY
    return metadata


def counts_in(metadata: Mapping[str, str], submission_id: str, shard: str) -> Mapping[str, int] | None:
    """Lines by outcome that an object in this shard has of a submission. None where its metadata does not tell: its content does."""
    try:
        if shard == submission_id:
            return {outcome: int(metadata[outcome]) for outcome in RANK if outcome in metadata} or None
        told = metadata.get(SUBMISSIONS, TOO_MANY if is_rolling(shard) or metadata.keys().isdisjoint(RANK) else "")
        if told != TOO_MANY and f'"{submission_id}"' not in told:
            return {}  # nearly always: nothing is parsed for it
        counts = json.loads(told)[submission_id]
        return {outcome: int(counts[outcome]) for outcome in RANK if outcome in counts}
    except (ValueError, TypeError, KeyError):
        return None


def is_rolling(shard: str) -> bool:
    """Whether single tasks and small submissions share this shard."""
    return shard.startswith("rolling-")


def left_out(line: bytes) -> dict[str, str]:
    """What stands in place of a result with which its line would be too long."""
    return {"left_out": f"the result had {len(line)} bytes, at most {MAX_LINE_BYTES} are kept"}


def from_line(line: bytes) -> Outcome:
    """Raises ValueError on a line that is no outcome, or has a value that no outcome has."""
    try:
        body = _JSON.decode(line.decode("utf-8", "surrogatepass"))
        one = Outcome(**{name: body[name] for name in Outcome.__dataclass_fields__ if name in body})
    except (TypeError, RecursionError) as error:
        raise ValueError(f"not an outcome line: {error}") from error
    if {*map(type, _texts(one))} != {str} or {*map(type, _numbers(one))} != {int} or type(one.duration_s) not in (float, int):
        raise ValueError(f"not an outcome line: not its values in {line[:200]!r}")
    return one


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


_JSON = json.JSONDecoder(parse_constant=_no_constant)
_texts = attrgetter(
    "task_id", "task_type", "finished_at", "execution", "message_id", "output", "error_type", "reason", "fingerprint", "trace_id"
)
_numbers = attrgetter("index", "retry", "attempt_count", "replay_number")


def from_lines(data: bytes) -> Iterator[Outcome]:
    """All outcomes of one shard object."""
    for line in data.splitlines():
        if line.strip():
            yield from_line(line)


def merged(outcomes: Iterable[Outcome]) -> dict[str, Outcome]:
    """The line that counts, by task id; the first on a tie. One that says `replayed`: the task is pending."""
    final: dict[str, Outcome] = {}
    for outcome in outcomes:
        known = final.setdefault(outcome.task_id, outcome)
        if outcome.order < known.order:
            final[outcome.task_id] = outcome
    return final
