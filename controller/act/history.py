"""A lane's history: its decisions, and what became of its launches, each an object that is created once and never changed.

`controller/history/<lane>/<day>/<id>` sorts by time. What became of a launch lies behind its decision, under the same name with `.end`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from batch.model.errors import FanoutError, ObjectDamaged, ObjectMissing, PreconditionFailed
from batch.model.names import HISTORY_END, history_folder
from batch.services.ports import ObjectStore
from controller.act.intents import id_begin
from controller.act.state import LaneState
from controller.model.together import together

DAY_S = 86_400.0
LOOK_BACK_S = (DAY_S, 8 * DAY_S, 64 * DAY_S, 512 * DAY_S)
"""How far back the newest decisions are looked for, step by step; then in the whole history."""
READS_IN_FLIGHT = 16


def write_history(store: ObjectStore, state: LaneState) -> tuple[LaneState, tuple[str, ...]]:
    """Give the history what it has yet to be given; the state without that, and a note if something could not be written, which stays in
    the state. What is there already is ours: its answer was lost, or another controller told the same end."""
    for at, one in enumerate(state.unwritten):
        try:
            store.write(one.name, json.dumps(one.body).encode(), content_type="application/json", if_generation=0)
        except PreconditionFailed:
            continue
        except FanoutError as error:
            note = f"the lane's history could not be written, the next tick tries again: {error}"
            return replace(state, unwritten=state.unwritten[at:]), (note,)
    return (replace(state, unwritten=()) if state.unwritten else state), ()


@dataclass(frozen=True, slots=True)
class Kept:
    """A decision of the history by the name of its object; `has_end`: what became of the launch is known too."""

    name: str
    has_end: bool = False

    @property
    def object_id(self) -> str:
        """Sorts by time, also over lanes."""
        return self.name.rpartition("/")[2]


def kept_newest(store: ObjectStore, lane: str, limit: int, until: float) -> list[Kept]:
    """The newest `limit` decisions that were made up to `until` (Unix seconds), the newest first. Raises DependencyError."""
    found: list[Kept] = []
    end = _behind(lane, until)
    for floor in (*(_begin(lane, max(0.0, until - back_s)) for back_s in LOOK_BACK_S), history_folder(lane)):
        found = [*found, *reversed(list(_listed(store, lane, floor, end)))]
        if len(found) >= limit:
            break
        end = floor
    return found[:limit]


def kept_after(store: ObjectStore, lane: str, before: Kept | None) -> Kept | None:
    """The first decision after `before`, or of all. Raises DependencyError."""
    start = history_folder(lane) if before is None else f"{before.name}{HISTORY_END}~"
    return next(_listed(store, lane, start, _end_of(lane)), None)


def read_kept(store: ObjectStore, kept: Sequence[Kept], damaged: Callable[[str], None] = lambda _: None) -> list[Mapping[str, Any]]:
    """These decisions as JSON, with what became of launches in them. One that is damaged or gone is left out, and `damaged` called with a
    note; of a damaged end only the decision is there. Raises DependencyError."""
    names = [name for one in kept for name in (one.name, *([one.name + HISTORY_END] if one.has_end else []))]
    bodies = dict(zip(names, together(lambda name: _body(store, name), names, READS_IN_FLIGHT, "history"), strict=True))
    for body in bodies.values():
        if isinstance(body, str):
            damaged(body)
    found: list[Mapping[str, Any]] = []
    for one in kept:
        body, end = bodies[one.name], bodies.get(one.name + HISTORY_END)
        if not isinstance(body, str):
            found.append({**body, **end} if isinstance(end, Mapping) else body)
    return found


def newest(
    store: ObjectStore, lane: str, limit: int, until: float, damaged: Callable[[str], None] = lambda _: None
) -> list[Mapping[str, Any]]:
    """At most `limit` decisions that were made up to `until` (Unix seconds), the newest first, as `read_kept` reads them."""
    return read_kept(store, kept_newest(store, lane, limit, until), damaged)


def read_between(
    store: ObjectStore, lane: str, since: float, until: float, damaged: Callable[[str], None] = lambda _: None
) -> Iterator[Mapping[str, Any]]:
    """Decisions that were made from `since` up to `until` (Unix seconds, to the millisecond), oldest first, as `read_kept` reads them."""
    listed = _listed(store, lane, _begin(lane, since), _behind(lane, until))
    while some := list(islice(listed, 4 * READS_IN_FLIGHT)):
        yield from read_kept(store, some, damaged)


def _begin(lane: str, unix_s: float) -> str:
    """The name before those of decisions made from then on."""
    return f"{history_folder(lane, unix_s)}{id_begin(unix_s)}"


def _behind(lane: str, unix_s: float) -> str:
    return f"{_begin(lane, unix_s)}~"


def _end_of(lane: str) -> str:
    return f"{history_folder(lane)}~"


def _listed(store: ObjectStore, lane: str, start: str, end: str) -> Iterator[Kept]:
    """Decisions by name, from `start` on and before `end`, oldest first."""
    decision = ""
    for info in store.list(history_folder(lane), start):
        if info.name >= end:
            break
        is_end = bool(decision) and info.name == decision + HISTORY_END
        if decision:
            yield Kept(decision, is_end)
        decision = "" if info.name.endswith(HISTORY_END) else info.name
    if decision:
        yield Kept(decision)


def _body(store: ObjectStore, name: str) -> Mapping[str, Any] | str:
    """The object, or what is wrong with it."""
    try:
        body = json.loads(store.read(name))
    except ObjectMissing:
        return f"object {name} was deleted meanwhile"
    except (ObjectDamaged, ValueError, RecursionError) as error:
        return f"object {name} is damaged and left out: {error!r:.200}"
    return body if isinstance(body, dict) else f"object {name} is no JSON object and left out"
