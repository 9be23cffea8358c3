"""What waits in a lane's log: letters that match, segment by segment, and how many there are of each kind.

Acts are read first, for they tell which letters wait no more; then segments pass one after the other, and only keys stay in memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from batch.dead import segments
from batch.dead.filters import Filter
from batch.dead.letters import Key, Letter
from batch.dead.log import Fold, from_metadata
from batch.model.clock import from_iso, minute
from batch.model.message import task_type_of
from batch.services.ports import ObjectInfo, ObjectStore
from batch.shards import contents


@dataclass(frozen=True, slots=True)
class Found:
    """Letters of one segment, by their line."""

    segment: str
    letters: dict[int, Letter]


def edited(letter: Letter, fold: Fold) -> Letter:
    """As it is after its last edit."""
    edit = fold.edited.get(letter.key)
    if edit is None:
        return letter
    task_type = task_type_of(edit.data) or letter.task_type
    attributes = {**letter.attributes, "task_type": task_type} if "task_type" in letter.attributes else letter.attributes
    return replace(letter, data=edit.data, raw_object="", task_type=task_type, attributes=attributes)


def waiting(
    store: ObjectStore, infos: Sequence[ObjectInfo], fold: Fold, choose: Callable[[Letter], bool], wanted: Filter | None = None
) -> Iterator[Found]:
    """The letters in these segments that wait and are chosen, each once. `wanted` leaves out segments that can hold none that it matches;
    it is asked nothing else. Raises DependencyError."""
    seen: set[Key] = set()
    held = (info for info in infos if segments.has_letters(info) and (wanted is None or may_hold(info, wanted)))
    for info, data in contents(store, held, segments.READS_AHEAD, may_go=True):
        letters: dict[int, Letter] = {}
        for line in segments.parsed(info.name, data):
            letter = line.what
            if isinstance(letter, Letter) and (key := letter.key) not in seen and fold.waits(key):
                letter = edited(letter, fold) if key in fold.edited else letter
                if choose(letter):  # of a task under a key another submission may have a letter, too, which is not chosen
                    seen.add(key)
                    letters[line.number] = letter
        if letters:
            yield Found(info.name, letters)


def may_hold(info: ObjectInfo, wanted: Filter) -> bool:
    """Whether a segment can hold a letter that matches, by its name and metadata. It was written after its letters died."""
    if wanted.died_after and _minute(info) < minute(from_iso(wanted.died_after)):
        return False
    told = from_metadata(info.metadata)
    return not wanted.fingerprints or not told.whole or any(one in told.groups for one in wanted.fingerprints)


def _minute(info: ObjectInfo) -> str:
    return info.name.rpartition("/")[2].partition("-")[0]


@dataclass(slots=True)
class Group:
    """Letters of one fingerprint. `waiting_count` is approximate where it was made from metadata: a repeat counts again. `hours` tells when
    they died, or were found to have, by UTC hour (`2026013112`), whatever became of them."""

    fingerprint: str
    title: str = ""
    waiting_count: int = 0
    hours: Counter[str] = field(default_factory=Counter)
    example: Letter | None = None


def grouped(store: ObjectStore, lane: str, wanted: Filter) -> list[Group]:
    """What waits in a lane, the largest group first; from the segments' metadata alone where that tells enough. Raises DependencyError."""
    infos = list(segments.listed(store, lane))
    fold = segments.folded(store, infos)
    if wanted.needs_contents or _is_half_purged(infos, fold):
        found = _from_contents(store, infos, fold, wanted)
    else:
        found = _from_metadata(store, infos, fold)
        found = {name: one for name, one in found.items() if not wanted.fingerprints or name in wanted.fingerprints}
        _add_examples(store, infos, fold, [one for one in found.values() if one.waiting_count > 0])
    return sorted((one for one in found.values() if one.waiting_count > 0), key=lambda one: (-one.waiting_count, one.title))


def waiting_count(store: ObjectStore, lane: str) -> int:
    """How many letters wait in a lane; as approximate as the counts of groups. Raises DependencyError."""
    infos = list(segments.listed(store, lane))
    fold = segments.folded(store, infos)
    found = _from_contents(store, infos, fold, Filter()) if _is_half_purged(infos, fold) else _from_metadata(store, infos, fold)
    return sum(max(0, one.waiting_count) for one in found.values())


def _is_half_purged(infos: Sequence[ObjectInfo], fold: Fold) -> bool:
    """Of an interrupted purge acts may be left whose letters are gone, which metadata does not tell."""
    return any(info.name.rpartition("/")[2] in fold.purged for info in infos)


def _from_contents(store: ObjectStore, infos: Sequence[ObjectInfo], fold: Fold, wanted: Filter) -> dict[str, Group]:
    found: dict[str, Group] = {}
    for one in waiting(store, infos, fold, wanted.matches, wanted):
        for letter in one.letters.values():
            group = found.get(letter.fingerprint)
            if group is None:
                group = found[letter.fingerprint] = Group(letter.fingerprint, letter.title, example=letter)
            group.waiting_count += 1
            group.hours[minute(from_iso(letter.died_at))[:10]] += 1
    return found


def _from_metadata(store: ObjectStore, infos: Sequence[ObjectInfo], fold: Fold) -> dict[str, Group]:
    """Segments whose metadata is not whole are read. A letter that was ended twice ends once."""
    found: dict[str, Group] = {}

    def add(fingerprint: str, count: int, hour: str, title: str) -> None:
        group = found.setdefault(fingerprint, Group(fingerprint))
        group.title = group.title or title
        group.waiting_count += count
        group.hours[hour] += count

    for info in filter(segments.has_letters, infos):
        told, hour = from_metadata(info.metadata), _minute(info)[:10]
        if told.whole:
            for fingerprint, count in told.groups.items():
                add(fingerprint, count, hour, told.titles.get(fingerprint, ""))
            continue
        for line in segments.lines(store, [info]):
            if isinstance(line.what, Letter):
                add(line.what.fingerprint, 1, hour, line.what.title)
    for entry in fold.ended.values():
        if entry.fingerprint in found:
            found[entry.fingerprint].waiting_count -= 1
    return found


def _add_examples(store: ObjectStore, infos: Sequence[ObjectInfo], fold: Fold, groups: Sequence[Group]) -> None:
    """The first letter of each group that waits: most segments are not read. A group that has none was counted by letters told twice."""
    lacking = {one.fingerprint: one for one in groups}
    for info in filter(segments.has_letters, infos):
        if not lacking:
            return
        if not may_hold(info, Filter(fingerprints=tuple(lacking))):
            continue
        for found in waiting(store, [info], fold, lambda letter: letter.fingerprint in lacking):
            for letter in found.letters.values():
                group = lacking.pop(letter.fingerprint, None)
                if group is not None:
                    group.example = letter
    for group in lacking.values():
        group.waiting_count = 0
