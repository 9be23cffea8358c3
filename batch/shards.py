"""Reading outcome shards: the contents of many small objects, a few reads ahead, and the line that counts of each of some tasks."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

from batch.model.errors import ObjectMissing
from batch.model.names import outcome_folder
from batch.model.outcomes import Outcome, from_line
from batch.services.ports import ObjectInfo, ObjectStore

READS_AHEAD = 16
_START = b'{"task_id":"'
"""How an outcome line begins."""


def contents(
    store: ObjectStore, infos: Iterable[ObjectInfo], reads_ahead: int = READS_AHEAD, *, may_go: bool = False
) -> Iterator[tuple[ObjectInfo, bytes]]:
    """The objects with their contents, in this order; fewer `reads_ahead` hold fewer in memory. `may_go`: one that was deleted since it was
    listed is left out. Raises ObjectMissing, DependencyError."""
    ahead: deque[tuple[ObjectInfo, Future[bytes]]] = deque()

    def first() -> Iterator[tuple[ObjectInfo, bytes]]:
        info, content = ahead.popleft()
        try:
            yield info, content.result()
        except ObjectMissing:
            if not may_go:
                raise

    with ThreadPoolExecutor(reads_ahead, thread_name_prefix="reads") as pool:
        try:
            for info in infos:
                ahead.append((info, pool.submit(store.read, info.name)))
                if len(ahead) >= reads_ahead:
                    yield from first()
            while ahead:
                yield from first()
        finally:
            for _, content in ahead:
                content.cancel()


def lines_of(data: bytes, wanted: Collection[str]) -> Iterator[Outcome]:
    """The outcomes in an object's content of these tasks; a line that is no outcome is left out. Lines of other tasks are not parsed."""
    at = len(_START)
    for line in data.splitlines():
        if line.startswith(_START):
            end = line.find(b'"', at)
            if line[at:end].decode("utf-8", "replace") not in wanted:
                continue
        try:
            outcome = from_line(line)
        except ValueError:
            continue
        if outcome.task_id in wanted:
            yield outcome


def outcomes_of(store: ObjectStore, wanted: Mapping[str, Collection[str]]) -> dict[str, Outcome]:
    """By task id, the line that counts of each of the tasks in `wanted` (ids by shard) that has one: one that says `replayed` means that
    the task is pending again. Reads these shards once. Raises DependencyError."""
    final: dict[str, Outcome] = {}
    for shard, ids in wanted.items():
        for _, data in contents(store, store.list(outcome_folder(shard))):
            for outcome in lines_of(data, ids):
                known = final.setdefault(outcome.task_id, outcome)
                if outcome.order < known.order:
                    final[outcome.task_id] = outcome
    return final
