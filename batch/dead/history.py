"""What became of dead letters: all lines of the log about one task, and how the tasks of a replay have ended since."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from batch.dead import claims, segments
from batch.dead.letters import Letter
from batch.dead.log import Act, Fold
from batch.dead.segments import Line
from batch.model.outcomes import REPLAYED, Outcome
from batch.services.ports import ObjectInfo, ObjectStore
from batch.shards import contents, outcomes_of


def lines_about(store: ObjectStore, infos: Sequence[ObjectInfo], task_id: str) -> Iterator[Line]:
    """In the order of the log; lines of other tasks are not parsed. Raises DependencyError."""
    told = task_id.encode()
    for info, data in contents(store, infos, segments.READS_AHEAD, may_go=True):
        if told in data:
            for line in segments.parsed(info.name, data):
                if line.what is not None and line.what.task_id == task_id:
                    yield line


def fates(store: ObjectStore, lane: str, action_id: str, fold: Fold) -> dict[str, list[str]]:
    """The task ids of a replay by what became of each: `succeeded`, `superseded`, `cancelled`, `dead again`, `replayed since`, `pending`,
    `not published yet`, or `not needed` of those that it skipped. Raises DependencyError."""
    letters = dict(_claimed(store, lane, action_id))
    shards: dict[str, set[str]] = {}
    for task_id, letter in letters.items():
        shards.setdefault(letter.shard, set()).add(task_id)
    outcomes: Mapping[str, Outcome] = outcomes_of(store, shards)
    found: dict[str, list[str]] = {}
    for task_id, letter in letters.items():
        found.setdefault(_fate(letter, fold, outcomes.get(task_id)), []).append(task_id)
    return found


def _fate(letter: Letter, fold: Fold, outcome: Outcome | None) -> str:
    end = fold.ended.get(letter.key)
    if end is None:
        return "not published yet"
    if end.act is not Act.REPLAYED:
        return "not needed" if end.act is Act.SUCCEEDED else end.act.value
    number = letter.replay_number + 1
    if outcome is None or outcome.replay_number < number or (outcome.replay_number == number and outcome.outcome == REPLAYED):
        return "pending"
    if outcome.replay_number > number:
        return "replayed since"
    return "dead again" if outcome.outcome == "dead" else outcome.outcome


def _claimed(store: ObjectStore, lane: str, action_id: str) -> Iterator[tuple[str, Letter]]:
    """By task id."""
    held = claims.of_action(store, lane, action_id)
    listed = (info for info in segments.listed(store, lane) if info.name in held)
    for info, data in contents(store, listed, segments.READS_AHEAD, may_go=True):
        for line in segments.parsed(info.name, data, set(held[info.name].lines)):
            if isinstance(line.what, Letter):
                yield line.what.task_id, line.what
