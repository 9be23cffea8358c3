"""What is written once about a submission: how it was opened, and how many tasks it has. No two requests disagree about either.

An open submission takes parts from several requests until one closes it. The closing writes its mark, then lists the manifests, then writes
`submission.json`, which names those it counted. A request that adds a part looks for the mark after it has written its manifest: without
one every closing will list it; with one it helps to write `submission.json`, and publishes only what stands there.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from batch.ends.options import Ends, ends_of, to_json
from batch.model.clock import from_iso, iso
from batch.model.errors import FanoutError, MessageRefused, ObjectDamaged, ObjectMissing, PreconditionFailed
from batch.model.names import closing_object, manifest_folder, opened_object, submission_object
from batch.services.ports import ObjectInfo, ObjectStore

JSON = "application/json"
PARTS = "parts"
"""In `submission.json` of one that was open: the manifests that count, in order."""
_KINDS = {"lane": str, "task_count": int, "part_count": int, "shards": list, "submitted_at": str, "closed_at": str}
SHARDS = "shards"
"""In a manifest's metadata."""
_NOT_COMPARED = ("closed_at", "refused_count")


@dataclass(frozen=True, slots=True)
class Opened:
    """A submission as its first request knows it. `submitted_at` is Unix seconds; `topic` the name of its lane's."""

    submission_id: str
    lane: str
    topic: str
    submitted_at: float
    ends: Ends

    @property
    def members(self) -> dict[str, Any]:
        """As its object has them."""
        about = {"submission_id": self.submission_id, "lane": self.lane, "topic": self.topic, "submitted_at": iso(self.submitted_at)}
        return {**about, **self._ends}

    @property
    def _ends(self) -> dict[str, Any]:
        return {"ends": to_json(self.ends)} if self.ends else {}

    def summary(self, counts: Mapping[str, int], shards: Iterable[str], now: float) -> dict[str, Any]:
        """`submission.json`, with these counts. It repeats the ends: a retry has their mark written anew."""
        about = {"lane": self.lane, "topic": self.topic, "shards": list(shards)}
        times = {"submitted_at": iso(self.submitted_at), "closed_at": iso(now)}
        return {"submission_id": self.submission_id, **counts, **about, **times, **self._ends}


def as_object(body: Mapping[str, Any]) -> bytes:
    """JSON that a person can read."""
    return json.dumps(body, indent=1).encode() + b"\n"


def create_same(store: ObjectStore, name: str, body: bytes, content_type: str = JSON, metadata: Mapping[str, str] | None = None) -> bool:
    """Write an object that is never replaced; whether it is new. Raises FanoutError if there is one with other content, DependencyError."""
    try:
        store.write(name, body, content_type=content_type, metadata=metadata, if_generation=0)
        return True
    except PreconditionFailed:
        # After a lost response, or a repeat, it is our own; anything else would mix two submissions.
        if store.read(name) != body:
            raise FanoutError(
                f"{name} exists with other content: two submissions share an id, or the handlers take other tasks than before; submit again"
            ) from None
        return False


def write_summary(store: ObjectStore, submission_id: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """Write `submission.json`, and return what stands there: the first that was written stays. Raises FanoutError if it is about other
    tasks, DependencyError."""
    try:
        store.write(submission_object(submission_id), as_object(body), content_type=JSON, if_generation=0)
        return dict(body)
    except PreconditionFailed:
        found = read_summary(store, submission_id) or {}
    if PARTS not in body and {**found, **_of(body)} != {**body, **_of(body)}:
        raise FanoutError(f"{submission_object(submission_id)} exists with other content: two submissions share an id; submit again")
    return found


def _of(body: Mapping[str, Any]) -> dict[str, Any]:
    return {name: body.get(name) for name in _NOT_COMPARED}


def read_summary(store: ObjectStore, submission_id: str) -> dict[str, Any] | None:
    """What `submission.json` says; None while the submission is not closed. Raises ObjectDamaged, DependencyError."""
    found = _read(store, name := submission_object(submission_id))
    if wrong := [key for key, kind in _KINDS.items() if found and key in found and type(found[key]) is not kind]:
        raise ObjectDamaged(f"object {name} is damaged: its {' and '.join(wrong)} cannot be one")
    return found


def read_opened(store: ObjectStore, submission_id: str) -> Opened | None:
    """None for one that was never open. Raises ObjectDamaged, DependencyError."""
    name = opened_object(submission_id)
    body = _read(store, name)
    if body is None:
        return None
    try:
        return Opened(submission_id, body["lane"], body["topic"], from_iso(body["submitted_at"]), ends_of(body.get("ends", {})))
    except (KeyError, ValueError, TypeError, MessageRefused) as error:
        raise ObjectDamaged(f"object {name} is not what opens a submission: {error!r}") from error


def is_closing(store: ObjectStore, submission_id: str) -> bool:
    """Whether an open submission is closed, or about to be. Raises DependencyError."""
    return store.info(closing_object(submission_id)) is not None


def close_opened(store: ObjectStore, opened: Opened, now: float) -> dict[str, Any]:
    """Close an open submission, or help another request to; what `submission.json` says. May be repeated. Raises DependencyError."""
    found = read_summary(store, opened.submission_id)
    if found is not None:
        return found
    with suppress(PreconditionFailed):  # another request does the same
        store.write(closing_object(opened.submission_id), as_object({"closing_at": iso(now)}), content_type=JSON, if_generation=0)
    counted = list(store.list(manifest_folder(opened.submission_id)))
    shards = {shard: None for info in counted for shard in _shards(store, info)}
    counts = {"task_count": sum(map(_task_count, counted)), "part_count": len(counted)}
    body = {**opened.summary(counts, shards, now), PARTS: [short_name(info.name) for info in counted]}
    return write_summary(store, opened.submission_id, body)


def _shards(store: ObjectStore, manifest: ObjectInfo) -> Iterable[str]:
    """Metadata has no room for very many; the lines name them, too."""
    if SHARDS in manifest.metadata:
        return manifest.metadata[SHARDS].split(",")
    try:
        return {str(json.loads(line)["shard"]): None for line in store.read(manifest.name).splitlines()}
    except (ValueError, KeyError, TypeError) as error:
        raise ObjectDamaged(f"manifest {manifest.name} holds a line that names no shard ({error!r}): delete that line") from error


def _task_count(manifest: ObjectInfo) -> int:
    try:
        return int(manifest.metadata["tasks"])
    except (KeyError, ValueError) as error:
        raise ObjectDamaged(f"manifest {manifest.name} has lost its metadata: set `tasks` to its number of lines") from error


def short_name(manifest: str) -> str:
    """A manifest as PARTS names it."""
    return manifest.rpartition("/")[2]


def _read(store: ObjectStore, name: str) -> dict[str, Any] | None:
    try:
        body = json.loads(store.read(name))
    except ObjectMissing:
        return None
    except (ValueError, RecursionError) as error:
        raise ObjectDamaged(f"object {name} is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise ObjectDamaged(f"object {name} is not a JSON object; it was not written by a submission")
    return body
