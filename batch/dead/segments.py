"""The segments of a lane's log in the bucket: listed, read a few ahead, and written once."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from batch.dead.letters import DIED, Letter, from_body, to_line
from batch.dead.log import Act, Entry, Fold, counted, entry_line, entry_of, from_metadata, to_metadata
from batch.model.errors import PreconditionFailed
from batch.model.names import dead_folder
from batch.services.ports import ObjectInfo, ObjectStore
from batch.shards import contents

READS_AHEAD = 4
"""Of segments with letters, which have up to 8 MB."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a segment. `number` counts from 0 in its segment, whose name is `segment`. `problem`: it can be no letter and no act."""

    segment: str
    number: int
    what: Letter | Entry | None
    problem: str = ""


def listed(store: ObjectStore, lane: str, since: str = "") -> Iterator[ObjectInfo]:
    """The segments of a lane in the order of their minutes (`202601311200`), from `since` on. Raises DependencyError."""
    folder = dead_folder(lane)
    for info in store.list(folder):
        name = info.name.removeprefix(folder)
        if name[:1].isdigit() and "/" not in name and name >= since:
            yield info


def lines(store: ObjectStore, infos: Iterable[ObjectInfo]) -> Iterator[Line]:
    """All lines of these segments. Raises DependencyError."""
    for info, data in contents(store, infos, READS_AHEAD, may_go=True):
        yield from parsed(info.name, data)


def parsed(segment: str, data: bytes, only: Collection[int] | None = None) -> Iterator[Line]:
    """The lines of one segment, or those with these numbers."""
    for number, line in enumerate(data.splitlines()):
        if only is not None and number not in only:
            continue
        try:
            body = json.loads(line.decode())
            yield Line(segment, number, from_body(body) if body["event"] == DIED else entry_of(body))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            yield Line(segment, number, None, f"{segment} line {number + 1} is no letter and no act: {error}"[:300])


def has_acts(info: ObjectInfo) -> bool:
    """Whether a segment may hold acts, by its metadata."""
    events = from_metadata(info.metadata).events
    return not events or any(act in events for act in Act)


def has_letters(info: ObjectInfo) -> bool:
    """Whether a segment may hold letters, by its metadata."""
    events = from_metadata(info.metadata).events
    return not events or DIED in events


def folded(store: ObjectStore, infos: Iterable[ObjectInfo]) -> Fold:
    """What the acts in these segments come to; segments that hold letters alone are not read. Raises DependencyError."""
    fold = Fold()
    for info, data in contents(store, filter(has_acts, infos), may_go=True):
        for line in parsed(info.name, data):
            if isinstance(line.what, Entry):
                fold.add(line.what)
    return fold


def write(store: ObjectStore, name: str, what: Sequence[Letter | Entry]) -> None:
    """A new segment. One of that name that is there already is ours, and an answer was lost: its writer gives no name twice to other
    lines. Raises DependencyError."""
    body = b"".join(to_line(one) if isinstance(one, Letter) else entry_line(one) for one in what)
    try:
        store.write(name, body, content_type="application/x-ndjson", metadata=to_metadata(counted(what)), if_generation=0)
    except PreconditionFailed:
        return
