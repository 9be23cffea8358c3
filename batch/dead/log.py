"""The log of dead letters of a lane, and its fold: what stands in segments, and what holds in the end.

A segment is an object of up to 2,000 lines that is written once. Most lines tell of a death (`letters`); the others are acts: what was done
to a letter later, by whom and why, or that a replay began or ended. Nothing is ever changed, so the log is the audit too.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any

from batch.dead.letters import DIED, Key, Letter, data_fields, data_of

MAX_LINES = 2000
MAX_SEGMENT_BYTES = 8_000_000
METADATA_BYTES = 6000
"""Cloud Storage takes 8 KiB of metadata an object."""


class Act(StrEnum):
    """What was done."""

    REPLAYED = "replayed"
    """Published again, under the next replay number: this letter is done with."""
    RETURNED = "returned"
    """Pub/Sub's net had caught it without a failed attempt on record: it went back to its lane under the same number, without a letter.
    A letter that its task leaves later waits like any other."""
    DISCARDED = "discarded"
    SUCCEEDED = "succeeded"
    """Its outcome said so already."""
    EDITED = "edited"
    """Its data is another from here on; it waits as before."""
    OPENED = "opened"
    """A replay, or a discard, began: `details` say which filter, who, why; told again with their number once it has claimed all."""
    PURGED = "purged"
    """Segments whose letters were all done with were deleted: `details` say which."""
    CLOSED = "closed"
    """A replay has ended: `details` hold its counts."""


ENDS = frozenset({Act.REPLAYED, Act.DISCARDED, Act.SUCCEEDED})
"""After these a letter waits no more."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One act. `at` is ISO 8601; `action_id` is that of the command or replay, `who` ran it; `data` is that of an edit."""

    act: Act
    at: str
    action_id: str
    who: str = ""
    why: str = ""
    task_id: str = ""
    replay_number: int = 0
    fingerprint: str = ""
    to_lane: str = ""
    data: bytes = b""
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> Key:
        """The letter that it is about."""
        return Key(self.task_id, self.replay_number)


def about(letter: Letter, act: Act, *, at: str, action_id: str, who: str, why: str = "", to_lane: str = "", data: bytes = b"") -> Entry:
    """An act on a letter."""
    return Entry(act, at, action_id, who, why, letter.task_id, letter.replay_number, letter.fingerprint, to_lane, data)


def entry_line(entry: Entry) -> bytes:
    """One line with its line end; empty fields are left out."""
    body: dict[str, Any] = {"event": entry.act.value}
    for of in fields(entry):
        value = getattr(entry, of.name)
        if of.name == "data":
            body |= data_fields(value) if entry.act is Act.EDITED else {}
        elif of.name != "act" and (value or (of.name == "replay_number" and entry.task_id)):
            body[of.name] = value
    return json.dumps(body, separators=(",", ":")).encode() + b"\n"


def entry_of(body: Mapping[str, Any]) -> Entry:
    """Raises ValueError for what is no act."""
    try:
        known = {of.name: body[of.name] for of in fields(Entry) if of.name in body}
        return Entry(**{**known, "act": Act(body["event"]), "data": data_of(body)})
    except (TypeError, KeyError) as error:
        raise ValueError(f"not an act on a dead letter: {error}") from error


@dataclass(frozen=True, slots=True)
class Counted:
    """What the metadata of a segment tells without its content: how many lines of each event, how many letters of each fingerprint, and a
    title for each. `whole` is False where not all groups fitted, or where it is another object's metadata."""

    events: Mapping[str, int] = field(default_factory=dict)
    groups: Mapping[str, int] = field(default_factory=dict)
    titles: Mapping[str, str] = field(default_factory=dict)
    whole: bool = True


def counted(lines: Iterable[Letter | Entry]) -> Counted:
    """The counts of a segment with these lines."""
    events: Counter[str] = Counter()
    groups: Counter[str] = Counter()
    titles: dict[str, str] = {}
    for one in lines:
        if isinstance(one, Entry):
            events[one.act.value] += 1
            continue
        events[DIED] += 1
        groups[one.fingerprint] += 1
        if one.fingerprint not in titles:
            titles[one.fingerprint] = one.title
    return Counted(events, groups, titles)


def to_metadata(one: Counted) -> dict[str, str]:
    """Within the limit: as many of the largest groups as fit."""
    left, groups = METADATA_BYTES, dict[str, int]()
    for group, count in sorted(one.groups.items(), key=lambda item: -item[1]):
        left -= len(json.dumps(one.titles.get(group, ""))) + 2 * len(group) + 16
        if left < 0:
            break
        groups[group] = count
    titles = {group: one.titles.get(group, "") for group in groups}
    return {
        **{f"{event}_count": str(count) for event, count in one.events.items()},
        "groups": json.dumps(groups, separators=(",", ":")),
        "titles": json.dumps(titles, separators=(",", ":")),
        "whole": "1" if one.whole and len(groups) == len(one.groups) else "0",
    }


def from_metadata(metadata: Mapping[str, str]) -> Counted:
    """What a segment's metadata tells."""
    try:
        events = {event: int(metadata[f"{event}_count"]) for event in (DIED, *Act) if f"{event}_count" in metadata}
        groups = {str(group): int(count) for group, count in json.loads(metadata["groups"]).items()}
        titles = {str(group): str(title) for group, title in json.loads(metadata["titles"]).items()}
    except (ValueError, AttributeError, TypeError, KeyError):
        return Counted(whole=False)
    return Counted(events, groups, titles, whole=metadata.get("whole") == "1")


@dataclass(slots=True)
class Fold:
    """What holds of letters after all acts were read. `ended`: those that wait no more, with what ended them; `edited`: data that
    replaces a letter's; `replays`: the replays that began, by id, and `closed` those that ended; `purged`: the segments, by the last part
    of their names, that a purge has deleted, or was to delete before it was interrupted."""

    ended: dict[Key, Entry] = field(default_factory=dict)
    edited: dict[Key, Entry] = field(default_factory=dict)
    replays: dict[str, Entry] = field(default_factory=dict)
    closed: dict[str, Entry] = field(default_factory=dict)
    purged: set[str] = field(default_factory=set)

    def add(self, entry: Entry) -> None:
        """In the order of the segments' names; of two acts of one time either may come first."""
        if entry.act is Act.OPENED:
            if "claimed_count" in entry.details or entry.action_id not in self.replays:  # of two of one minute either may come first
                self.replays[entry.action_id] = entry
        elif entry.act is Act.CLOSED:
            self.closed[entry.action_id] = entry
        elif entry.act is Act.PURGED:
            self.purged.update(map(str, entry.details.get("segments", ())))
        elif entry.act is Act.EDITED:
            known = self.edited.setdefault(entry.key, entry)
            if entry.at >= known.at:
                self.edited[entry.key] = entry
        elif entry.act in ENDS:
            known = self.ended.setdefault(entry.key, entry)
            if known.act is Act.SUCCEEDED and entry.act is Act.REPLAYED:  # the job found a moment later what had become of it
                self.ended[entry.key] = entry

    def waits(self, key: Key) -> bool:
        """Whether the letter still waits for a rule or a person."""
        return key not in self.ended
