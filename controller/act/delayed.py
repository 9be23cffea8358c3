"""Which delayed tasks are due, and in which portions they go back to their lane. Pure: names and sizes in, names out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from batch.model.names import delayed_parts
from batch.services.ports import ObjectInfo

MOST_PER_TICK = 2000
"""The rest waits for the next tick: a tick is to be over before the next one comes."""
PORTION_COUNT = 500
PORTION_BYTES = 9_000_000


@dataclass(frozen=True, slots=True)
class Due:
    """An object below the lane's folder whose time has come. `due` is Unix seconds; None: its name is none that a worker gives."""

    info: ObjectInfo
    due: int | None


def due_now(listed: Iterable[ObjectInfo], folder: str, now: float) -> Iterator[Due]:
    """What is due of the folder's objects, given in the order of their names. It stops at the first that is not due: names sort by due
    time, so a lane with many tasks that wait costs one page of a listing."""
    for info in listed:
        if "/" in info.name.removeprefix(folder):
            continue  # damaged ones lie deeper, and a subscription may be called `damaged`
        parts = delayed_parts(info.name)
        if parts is not None and parts[0] > now:
            return
        yield Due(info, None if parts is None else parts[0])


def portions(due: Iterable[Due]) -> Iterator[list[Due]]:
    """In their order, as many as fit into one request and into memory. The first goes alone: when it cannot be deleted once it is
    published, no more are, for they would all be published again at every tick."""
    portion: list[Due] = []
    total_bytes = 0
    most = 1
    for one in due:
        if portion and (len(portion) >= most or total_bytes + one.info.size > PORTION_BYTES):
            yield portion
            portion, total_bytes, most = [], 0, PORTION_COUNT
        portion.append(one)
        total_bytes += one.info.size
    if portion:
        yield portion
