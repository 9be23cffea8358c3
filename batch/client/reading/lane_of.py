"""Which lane a task or a submission belongs to, by what the bucket tells: what is cancelled is written into its lane's list."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import islice

from batch.client.life import located
from batch.model.errors import ObjectDamaged, ObjectMissing, SettingsError
from batch.model.message import TASK_ID_PATTERN, shard_in_id
from batch.model.names import manifest_object, opened_object, outcome_folder, submission_object
from batch.model.outcomes import REPLAYED, Outcome
from batch.services.ports import ObjectStore
from batch.shards import outcomes_of

MAX_OBJECTS = 200
"""Whether a task has ended already is looked up in shards of a few objects."""


def by_lane(store: ObjectStore, ids: Sequence[str], lane: str | None) -> dict[str, list[str]]:
    """The ids of each lane. Raises SettingsError with each id that is none, or whose lane is not known; DependencyError."""
    found: dict[str, list[str]] = defaultdict(list)
    problems: list[str] = []
    known: dict[str, str | None] = {}
    for one in ids:
        if not re.fullmatch(TASK_ID_PATTERN, one):
            problems.append(f"{one[:200]!r} is no id of a task or submission")
            continue
        key = shard_in_id(one) or one
        if lane is None and key not in known:
            known[key] = _lane_of(store, one, problems)
        name = lane or known[key]
        if name is not None:
            found[name].append(one)
    if problems:
        raise SettingsError(problems)
    return found


def _lane_of(store: ObjectStore, one: str, problems: list[str]) -> str | None:
    """By the task's id, the record of its key, or its submission."""
    try:
        return lane_of(store, one)
    except ObjectMissing:
        problems.append(
            f"bucket {store.bucket_name} has no submission {shard_in_id(one) or one}, so the lane is not known: name it with --lane"
        )
    except ObjectDamaged as error:
        problems.append(f"{error}: name the lane with --lane")
    return None


def lane_of(store: ObjectStore, one: str) -> str:
    """The lane of a task or a submission. Raises ObjectMissing when nothing tells that there is one, ObjectDamaged when nothing tells its
    lane, DependencyError."""
    try:
        where = located(store, one)
    except SettingsError:
        return lane_of_submission(store, one)
    return where.lane or lane_of_submission(store, where.shards[0])


def lane_of_submission(store: ObjectStore, submission_id: str) -> str:
    """As it says itself, closed or open. Raises as `lane_of`."""
    closed = submission_object(submission_id)
    for name in (closed, opened_object(submission_id)):
        try:
            lane = json.loads(store.read(name))["lane"]
        except ObjectMissing:
            continue
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ObjectDamaged(f"{name} does not tell the lane ({error!r:.100})") from error
        if isinstance(lane, str) and lane.isprintable() and lane:
            return lane
        raise ObjectDamaged(f"{name} names no lane")
    if store.info(manifest_object(submission_id, 0)) is not None:
        raise ObjectDamaged(f"submission {submission_id} is not closed, so the lane is not known")
    raise ObjectMissing(closed)


def ended(store: ObjectStore, ids: Iterable[str]) -> dict[str, Outcome]:
    """The outcomes that tasks among these have already, as far as that is quick to find."""
    wanted: dict[str, list[str]] = defaultdict(list)
    for one in ids:
        if (shard := shard_in_id(one)) is not None:
            wanted[shard].append(one)
    quick = {shard: of_shard for shard, of_shard in wanted.items() if _object_count(store, shard) <= MAX_OBJECTS}
    return {task_id: one for task_id, one in outcomes_of(store, quick).items() if one.outcome != REPLAYED}


def _object_count(store: ObjectStore, shard: str) -> int:
    return sum(1 for _ in islice(store.list(outcome_folder(shard)), MAX_OBJECTS + 1))
