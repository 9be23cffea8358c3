"""Actions on many dead letters: a replay publishes them again, a discard ends their waiting; and those that were interrupted go on."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from batch.dead import segments
from batch.dead.action import Action, Progress, Replayed
from batch.dead.filters import Filter, from_json, to_json
from batch.dead.lanes import LaneFacts
from batch.dead.letters import Key, Letter
from batch.dead.log import Act, Entry, Fold
from batch.formats.kinds import ENVELOPE
from batch.model.clock import Clock, iso
from batch.services.ports import ObjectStore, Topic

STALLED_S = 600.0
"""An action without progress for this long was interrupted."""


def replay(
    store: ObjectStore,
    topics: Callable[[str], Topic],
    lane: LaneFacts,
    choose: Callable[[Letter], bool],
    *,
    details: Mapping[str, Any],
    rate: float | None,
    clock: Clock,
    rng: random.Random,
    who: str,
    why: str,
    wanted: Filter | None = None,
    limit: int | None = None,
    to_lane: LaneFacts | None = None,
    act: Act = Act.REPLAYED,
    until_s: float | None = None,
    progress: Progress | None = None,
) -> Replayed:
    """Replay the waiting letters that are chosen, but no envelope to a lane that takes none; with `Act.DISCARDED`, discard them. `wanted`
    is kept in the log, so that an interrupted action can go on to claim; without, it goes on with what it had. Not after `until_s` (of the
    clock's `monotonic`): the rest is resumed later. Raises DependencyError."""
    target = to_lane or lane
    kept: dict[str, Any] = {"act": act.value, "rate": rate, "limit": limit, "to_lane": target.name, "topic": target.topic}
    kept |= {"no_envelopes": True} if act is Act.REPLAYED and ENVELOPE not in target.accept else {}
    kept |= {"filter": to_json(wanted)} if wanted is not None else {}
    now = clock.now()
    action_id = f"{act.value[0]}-{datetime.fromtimestamp(now, UTC):%Y%m%d-%H%M%S}-{rng.getrandbits(32):08x}"
    opened = Entry(Act.OPENED, iso(now), action_id, who, why, details={**details, **kept})
    action = Action(store, topics, lane, clock, rng, opened, until_s, progress)
    return _run(action, choose, wanted)


def resume(
    store: ObjectStore,
    topics: Callable[[str], Topic],
    lane: LaneFacts,
    opened: Entry,
    *,
    clock: Clock,
    rng: random.Random,
    until_s: float | None = None,
    progress: Progress | None = None,
) -> Replayed:
    """Go on with an action that was interrupted. Raises DependencyError."""
    wanted = from_json(opened.details["filter"]) if "filter" in opened.details else None
    action = Action(store, topics, lane, clock, rng, opened, until_s, progress, resumed=True)
    return _run(action, wanted.matches if wanted is not None else lambda _: False, wanted)


def _run(action: Action, choose: Callable[[Letter], bool], wanted: Filter | None) -> Replayed:
    """An envelope is not published where workers would take it for something else: its letter is left to wait."""
    if not action.opened.details.get("no_envelopes"):
        return action.run(choose, wanted)
    untaken: set[Key] = set()

    def taken(letter: Letter) -> bool:
        if not choose(letter):
            return False
        if letter.is_envelope:
            untaken.add(letter.key)
            return False
        return True

    return replace(action.run(taken, wanted), untaken_count=len(untaken))


def resume_stalled(
    store: ObjectStore,
    topics: Callable[[str], Topic],
    lane: LaneFacts,
    *,
    clock: Clock,
    rng: random.Random,
    until_s: float | None = None,
    stalled_s: float = STALLED_S,
) -> list[Replayed]:
    """Go on with the lane's actions that were interrupted. Raises DependencyError."""
    fold = segments.folded(store, segments.listed(store, lane.name))
    found = stalled(fold, clock.now() - stalled_s)
    return [resume(store, topics, lane, one, clock=clock, rng=rng, until_s=until_s) for one in found]


def stalled(fold: Fold, since_s: float) -> list[Entry]:
    """The open actions without an entry since then (Unix seconds)."""
    last = {name: one.at for name, one in fold.replays.items() if name not in fold.closed}
    for entry in fold.ended.values():
        if entry.action_id in last:
            last[entry.action_id] = max(last[entry.action_id], entry.at)
    return [fold.replays[name] for name, at in last.items() if at <= iso(since_s)]
