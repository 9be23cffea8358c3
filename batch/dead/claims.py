"""Claims on dead letters: which lines of a segment belong to which action. A letter that one action has claimed no other can claim.

One JSON object a segment, replaced only at the generation that was read. A claim also says which process works on it: one that takes an
interrupted action over writes itself there, and the other stops before it begins another segment.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from batch.model.errors import DependencyUnavailable, ObjectDamaged, ObjectMissing, PreconditionFailed
from batch.model.names import dead_claims_folder, dead_claims_object, dead_folder
from batch.services.ports import ObjectStore
from batch.shards import contents

MAX_ROUNDS = 20
"""Each lost round means that another action has claimed letters of this segment."""


@dataclass(frozen=True, slots=True)
class Claim:
    """Of one action on one segment. `runner` is the process that works on it. `repeated_count`: letters that may have been published a
    second time, after an interruption."""

    lines: tuple[int, ...]
    runner: str
    repeated_count: int = 0


Claims = Mapping[str, Claim]
"""By action id."""


def claim(
    store: ObjectStore, segment: str, action_id: str, runner: str, lines: Iterable[int], closed: Collection[str] = frozenset()
) -> Claim:
    """Those of these lines that no other action has. One that has `closed` has none: a letter that it claimed and that still waits was
    claimed while somebody else resumed, and ended, it. Raises DependencyError, ObjectDamaged."""
    wanted = set(lines)

    def claimed(known: Claims) -> Claim:
        taken = {line for other, one in known.items() if other != action_id and other not in closed for line in one.lines}
        mine = known.get(action_id, Claim((), runner))
        return Claim(tuple(sorted({*mine.lines, *(wanted - taken)})), runner, mine.repeated_count)

    return _changed(store, segment, action_id, claimed)


def take_over(store: ObjectStore, segment: str, action_id: str, runner: str, repeated_count: int) -> Claim:
    """From now on `runner` works on it. Raises DependencyError, ObjectDamaged."""

    def taken(known: Claims) -> Claim:
        mine = known[action_id]
        return Claim(mine.lines, runner, mine.repeated_count + repeated_count)

    return _changed(store, segment, action_id, taken)


def read(store: ObjectStore, segment: str) -> Claims:
    """Raises DependencyError, ObjectDamaged."""
    try:
        return _parsed(segment, store.read(dead_claims_object(segment)))
    except ObjectMissing:
        return {}


def of_action(store: ObjectStore, lane: str, action_id: str) -> dict[str, Claim]:
    """By segment, what the action has claimed. Raises DependencyError, ObjectDamaged."""
    return {segment: claims[action_id] for segment, claims in all_claims(store, lane) if action_id in claims}


def all_claims(store: ObjectStore, lane: str) -> Iterator[tuple[str, Claims]]:
    """By segment. Raises DependencyError, ObjectDamaged."""
    folder = dead_claims_folder(lane)
    for info, data in contents(store, store.list(folder), may_go=True):
        segment = dead_folder(lane) + info.name.removeprefix(folder)
        yield segment, _parsed(segment, data)


def _changed(store: ObjectStore, segment: str, action_id: str, change: Callable[[Claims], Claim]) -> Claim:
    """What the claim of an action is after the change, once it is written. One without lines is not."""
    name = dead_claims_object(segment)
    for _ in range(MAX_ROUNDS):
        try:
            data, info = store.read_with_info(name)
            known, generation = _parsed(segment, data), info.generation
        except ObjectMissing:
            known, generation = {}, 0
        changed = change(known)
        if not changed.lines or changed == known.get(action_id):
            return changed
        body = json.dumps({"actions": {one: asdict(its) for one, its in {**known, action_id: changed}.items()}}, separators=(",", ":"))
        try:
            store.write(name, body.encode(), content_type="application/json", if_generation=generation)
            return changed
        except PreconditionFailed:
            continue  # another action's claim, or ours, whose answer was lost
    raise DependencyUnavailable(f"{name} changed {MAX_ROUNDS} times while letters of it were claimed: find who writes it so often")


def _parsed(segment: str, data: bytes) -> Claims:
    try:
        actions: dict[str, Any] = json.loads(data)["actions"]
        return {name: Claim(tuple(map(int, one["lines"])), str(one["runner"]), int(one["repeated_count"])) for name, one in actions.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        what = f"{dead_claims_object(segment)} is not what Fanout writes ({error!r:.200})"
        raise ObjectDamaged(f"{what}: delete it if no replay runs, `fanout dead replays` shows them") from error
