"""Names of objects: the layout of the bucket in one place, and the check that keeps clients' names inside their folder."""

from __future__ import annotations

import hashlib
import re
from math import ceil
from urllib.parse import quote, unquote

from batch.model.clock import iso, minute
from batch.model.errors import NameRefused

MAX_NAME_BYTES = 900
"""Cloud Storage takes 1,024 bytes; the rest is for the folder before the name."""
DELAYED = "delayed/"
CANCEL = "cancel/"
DAMAGED = "delayed/damaged/"
HISTORY = "controller/history/"
HISTORY_END = ".end"
MAX_ID_BYTES = 400
KEYED = "k-"
"""Ids of submissions with an idempotency key begin so."""
_LAST_DUE = 9_999_999_999
_UNSEEN = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\u061c\\u200e\\u200f\\u2028-\\u202e\\u2066-\\u2069\\ud800-\\udfff]")
"""Control characters, line separators, marks that turn the direction of writing, and halves of characters: a name that holds one is shown
as another name, or as several lines."""
_DELAYED_NAME = re.compile(r"(\d{10})-([^/]+)-[0-9a-f]{16}", re.ASCII)


def checked(name: object, field: str = "filename") -> str:
    """Return a client's object name unchanged, or raise NameRefused saying which rule it breaks."""
    if not isinstance(name, str) or not name:
        raise NameRefused(f"{field} must be a non-empty text, got {name!r}")
    rule = _broken_rule(name)
    if rule:
        raise NameRefused(f"{field} {name[:200]!r} {rule}; give a relative name such as 'reports/2026.csv'")
    return name


OWN_FOLDERS = frozenset(
    ("attempts", "cancel", "controller", "dead", "delayed", "keys", "open", "outcomes", "slowed", "submissions", "workers")
)
"""Where Fanout keeps its own objects: payloads and errors of all clients, and what controller and workers decide
from. No task names one."""


def outside(name: str, field: str = "the object") -> str:
    """Return an object's name unchanged, or raise NameRefused if it lies in a folder of Fanout's own: a handler often takes it from its
    task, and so from a client."""
    if name.partition("/")[0] in OWN_FOLDERS:
        raise NameRefused(f"{field} {name[:200]!r} lies in a folder that Fanout keeps for itself; name an object of yours")
    return name


def _broken_rule(name: str) -> str | None:
    if name.startswith(("/", "\\")):
        return "begins with a slash"
    if _UNSEEN.search(name):
        return "holds a control character, a line separator or a mark of the direction of writing"
    if any(part in ("", ".", "..") for part in name.replace("\\", "/").split("/")):
        return "has an empty, '.' or '..' part"
    if len(name.encode()) > MAX_NAME_BYTES:
        return f"is longer than {MAX_NAME_BYTES} bytes"
    return None


def input_object(filename: str) -> str:
    """A file to process; `filename` has passed `checked`."""
    return f"input/{filename}"


def processed_object(filename: str) -> str:
    """The output of `file_processing`."""
    return f"processed/{filename}"


def result_object(task_id: str) -> str:
    """The result of `data_transformation`, which names its data."""
    return f"results/{task_id}.json"


def result_data_object(task_id: str, attempt: int, extension: str, replay_number: int = 0) -> str:
    """The data of one attempt (from 1); `extension` without a dot."""
    replayed = f"r{replay_number}-" if replay_number else ""
    return f"results/{task_id}-{replayed}{attempt}.{extension}"


def manifest_folder(submission_id: str) -> str:
    """Where the names of all manifests of a submission begin."""
    return f"submissions/{submission_id}/manifest-"


def manifest_object(submission_id: str, part: int, added: str = "") -> str:
    """The task ids of one part (from 0) of a submission; `added`: of a later request, which has numbers of its own."""
    return f"{manifest_folder(submission_id)}{added}{'-' if added else ''}{part:06d}.jsonl"


def opened_object(submission_id: str) -> str:
    """Written when a submission begins that stays open for parts of other requests: what they must know of it."""
    return f"submissions/{submission_id}/opened.json"


def closing_object(submission_id: str) -> str:
    """From when this stands on no part is counted that the closing does not list."""
    return f"submissions/{submission_id}/closing.json"


def submission_object(submission_id: str) -> str:
    """Written when a submission is closed: how many tasks it has."""
    return f"submissions/{submission_id}/submission.json"


OPEN = "open/"


def mark_object(lane: str, submission_id: str) -> str:
    """A submission whose end is still to be fired."""
    return f"{OPEN}{lane}/{submission_id}"


def stored_proof_object(submission_id: str) -> str:
    """The proof of a submission that has ended, and what it was made from."""
    return f"submissions/{submission_id}/proof.json"


def ended_object(submission_id: str) -> str:
    """The last round of a submission whose end was fired."""
    return f"submissions/{submission_id}/ended.json"


def outcome_folder(shard: str) -> str:
    """Where the outcomes of a shard lie."""
    return f"outcomes/{shard}/"


def outcome_object(shard: str, unix_s: float, writer: str, sequence: int) -> str:
    """The outcomes of one flush (`sequence`) of a writer (`writer_of`), in one shard, in the minute in which it was written."""
    return f"{outcome_folder(shard)}{minute(unix_s)}/{writer}-{sequence}.jsonl"


def writer_of(execution: str, index: int, retry: int) -> str:
    """One try of a worker, as it stands in names of objects."""
    return f"{execution}-{index}-{retry}"


def progress_folder(execution: str) -> str:
    """The hash comes first so that many executions do not write into one range of names (object stores split by name)."""
    return f"workers/{hashlib.sha256(execution.encode()).hexdigest()[:4]}/{execution}/"


def progress_object(execution: str, index: int, retry: int) -> str:
    """One try of a worker: its progress is this object's metadata."""
    return f"{progress_folder(execution)}{index}-{retry}"


def attempts_object(task_id: str) -> str:
    """The record of a task's failed attempts, and of who runs it."""
    return f"attempts/{task_id}.json"


def slowed_object(subscription: str, task_type: str) -> str:
    """What is known of a task type while it is slowed, for the workers that come after."""
    return f"slowed/{subscription}/{quote(task_type, safe='', errors='replace')}.json"


def key_object(task_id: str) -> str:
    """What is known of a task, or a submission, with an idempotency key: of the body it was submitted with, and when."""
    return f"keys/{task_id.removeprefix(KEYED)[:2]}/{task_id}"


RESERVED_LANES = frozenset({"raw", "lanes", "unknown"})
"""No lane has one of these names: they mean something else among the folders of lanes. Dead letters of no known lane lie in the last."""


def dead_folder(lane: str) -> str:
    """The log of a lane's dead letters."""
    return f"dead/{lane}/"


def dead_segment_object(lane: str, unix_s: float, writer: str, sequence: int | str) -> str:
    """A part of the log: of `writer`, a try of a worker (`writer_of`) or a command by its random id."""
    return f"{dead_folder(lane)}{minute(unix_s)}-{writer}-{sequence}.jsonl"


def dead_claims_folder(lane: str) -> str:
    """The claims on letters of a lane."""
    return f"{dead_folder(lane)}claims/"


def dead_claims_object(segment: str) -> str:
    """Which letters of a segment, an object of `dead_segment_object`, belong to which replay."""
    folder, _, name = segment.rpartition("/")
    return f"{folder}/claims/{name}"


def dead_raw_object(task_id: str, message_id: str) -> str:
    """The data of a dead letter that is too large to travel."""
    return f"dead/raw/{task_id}-{message_id}"


def delayed_folder(subscription: str) -> str:
    """Where a lane's delayed messages wait. By subscription, which worker and controller are both told: a lane's name is only a default
    in a worker that a person started."""
    return f"{DELAYED}{subscription}/"


def delayed_object(subscription: str, not_before: float, task_id: str, message_id: str) -> str:
    """Sorts by the second that it is due (Unix, rounded up), and names its task. The same message with the same time has one name."""
    due = min(max(0, ceil(not_before)), _LAST_DUE)
    digest = hashlib.sha256(f"{task_id}\n{message_id}".encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return f"{delayed_folder(subscription)}{due:010d}-{quote(task_id, safe=':', errors='replace')[:MAX_ID_BYTES]}-{digest}"


def delayed_parts(name: str) -> tuple[int, str] | None:
    """When (Unix seconds) a delayed object is due, and its task id; None for a name that `delayed_object` does not make."""
    found = _DELAYED_NAME.fullmatch(name.rpartition("/")[2])
    return (int(found[1]), unquote(found[2])) if found else None


def damaged_object(name: str) -> str:
    """Where a delayed object goes that cannot be published."""
    return f"{DAMAGED}{name.removeprefix(DELAYED)}"


def lane_state_object(lane: str) -> str:
    """What the controller remembers of a lane."""
    return f"controller/{lane}.json"


def history_folder(lane: str, unix_s: float | None = None) -> str:
    """Where a lane's decisions lie; with a time (Unix seconds) those of its day in UTC."""
    return f"{HISTORY}{lane}/" + ("" if unix_s is None else f"{iso(unix_s)[:10]}/")


def history_object(lane: str, decided_at: float, decision_id: str) -> str:
    """A decision of a lane, made at `decided_at` (Unix seconds). What its id begins with sorts by time."""
    return f"{history_folder(lane, decided_at)}{decision_id}"


def history_end_object(lane: str, decided_at: float, decision_id: str) -> str:
    """What became of a launch: it sorts behind its decision."""
    return f"{history_object(lane, decided_at, decision_id)}{HISTORY_END}"


LANES = "controller/lanes.json"
"""Every lane's subscription, topic and retry rules, for workers that serve several lanes."""


def cancel_object(lane: str) -> str:
    """What clients have cancelled in a lane."""
    return f"{CANCEL}{lane}.json"


def cancelled_ids_object(lane: str, digest: str, unix_s: float) -> str:
    """Many ids that one command cancelled, by a digest of them and the time."""
    return f"{CANCEL}{lane}/{digest}-{min(max(0, int(unix_s)), _LAST_DUE):010d}"


def claim_object(decision_id: str) -> str:
    """Which execution does the work of a decision."""
    return f"controller/claims/{decision_id}"
