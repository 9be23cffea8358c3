"""What arrives on the dead-letter subscription, as letters of the log: a worker sent it, or Pub/Sub's dead-letter policy (the net) did.

Attributes may be anybody's: whatever stands in one becomes a letter, and nothing here raises for it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

from batch.dead.lanes import UNKNOWN_LANE, LaneFacts
from batch.dead.letters import Letter
from batch.formats.forms import ENVELOPES, Forms
from batch.formats.kinds import ENVELOPE
from batch.model.attempts import NONE, AttemptError, Attempts
from batch.model.clock import from_iso, iso
from batch.model.deadletters import MAX_REASON_BYTES, OURS, THEIRS, cut, fingerprint_of, undead_attributes
from batch.model.delayed import as_first_published, published_again, republication_of
from batch.model.delivery import MAX_ATTRIBUTES, Delivery, Outgoing
from batch.model.message import is_task_id
from batch.model.names import RESERVED_LANES
from batch.model.outcomes import Outcome

UNDELIVERABLE = "undeliverable"
RETURNED = f"{OURS}returned"
"""The attribute that counts how often the net caught a message that no attempt of its task had failed."""
MOST_RETURNS = 3
_SUBSCRIPTION = f"{THEIRS}SourceSubscription"
_PUBLISHED = f"{THEIRS}SourceTopicPublishTime"
_DELIVERIES = f"{THEIRS}SourceDeliveryCount"
_LANE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_FIRST = re.compile(r"(\d{1,10}\.\d{6}) ([A-Za-z0-9][A-Za-z0-9._:~-]{0,255})", re.ASCII)
_RAW = re.compile(r"dead/raw/[^/]{1,512}")
_FINGERPRINT = re.compile(r"[0-9a-f]{16}")
_UNKNOWN = AttemptError("", "unknown", "no error is on record", "", 0)
_UNRECORDED = ("permanent", "invalid")
"""What a first attempt ends with that leaves no record."""


@dataclass(frozen=True, slots=True)
class Arrived:
    """A delivery and its letter, without what `attempts/` tells. `topic` is its lane's, empty where the lane is not known; `first` is the
    message as it was first published. `by_net`: Pub/Sub's dead-letter policy sent it. `stays`: why it cannot go back to its lane."""

    delivery: Delivery
    letter: Letter
    first: Delivery
    topic: str = ""
    by_net: bool = False
    may_have_record: bool = False
    stays: str = ""


@dataclass(frozen=True, slots=True)
class Judged:
    """What becomes of it. `returned`: the message to publish on its lane's `topic`; None: its letter is logged. `dead`: no worker has
    written its outcome, so this job does."""

    delivery: Delivery
    letter: Letter
    topic: str = ""
    returned: Outgoing | None = None
    dead: bool = False

    def kept(self, because: str) -> Judged:
        """Not returned, but kept for a person."""
        return replace(self, letter=_caught(self.letter, because), returned=None, dead=True)

    def outcome(self, execution: str, index: int, retry: int) -> Outcome:
        """The line for its shard, of this worker of the job."""
        one = self.letter
        return Outcome(
            one.task_id,
            one.task_type,
            "dead",
            one.died_at,
            attempt_count=one.attempt_count,
            execution=execution,
            index=index,
            retry=retry,
            message_id=one.first_message_id,
            error_type=one.error_type,
            reason=one.reason,
            fingerprint=one.fingerprint,
            replay_number=one.replay_number,
        )


def arrived(delivery: Delivery, lanes: Mapping[str, LaneFacts]) -> Arrived:
    """`lanes` by name."""
    attributes = delivery.attributes
    if _SUBSCRIPTION in attributes:
        return _from_net(delivery, lanes)
    if f"{OURS}error_type" in attributes:
        return _from_worker(delivery, lanes)
    lane = _lane(attributes.get("lane", ""))
    letter, _ = _letter_of(delivery, delivery, lane, ENVELOPES)
    because = "it has the attributes neither of a worker's dead letter nor of Pub/Sub's dead-letter policy: who publishes to this topic?"
    return Arrived(delivery, _caught(letter, because), delivery)


def _from_worker(delivery: Delivery, lanes: Mapping[str, LaneFacts]) -> Arrived:
    attributes = delivery.attributes
    told = _FIRST.fullmatch(attributes.get(f"{OURS}first", ""))
    first = replace(delivery, published_s=float(told[1]), message_id=told[2]) if told else as_first_published(delivery)
    lane = _lane(attributes.get(f"{OURS}lane", ""), attributes.get("lane", ""))
    letter, _ = _letter_of(delivery, first, lane, lanes[lane].forms if lane in lanes else ENVELOPES)
    error_type, reason = attributes[f"{OURS}error_type"], attributes.get(f"{OURS}reason", "")
    given, raw = attributes.get(f"{OURS}fingerprint", ""), attributes.get(f"{OURS}raw", "")
    count = _count(attributes.get(f"{OURS}attempt_count", ""))
    if letter.form and is_task_id(named := attributes.get("task_id")):
        letter = replace(letter, task_id=named)  # as the worker has written it down; its data may be too large to be here
    letter = replace(
        letter,
        error_type=error_type,
        reason=reason,
        fingerprint=given if _FINGERPRINT.fullmatch(given) else fingerprint_of(error_type, reason),
        attempt_count=count,
        execution=attributes.get(f"{OURS}execution", ""),
        index=_count(attributes.get(f"{OURS}index", "")),
        raw_object=raw if _RAW.fullmatch(raw) else "",
    )
    recorded = count > 1 or bool(letter.replay_number) or (count == 1 and error_type not in _UNRECORDED)
    return Arrived(delivery, letter, first, may_have_record=recorded)


def _from_net(delivery: Delivery, lanes: Mapping[str, LaneFacts]) -> Arrived:
    attributes = delivery.attributes
    subscription = attributes[_SUBSCRIPTION].rpartition("/")[2]
    found = next((one for one in lanes.values() if one.subscription == subscription), None)
    lane = found.name if found else _lane(attributes.get("lane", ""))
    first = as_first_published(replace(delivery, published_s=_published_s(delivery)))
    forms = found.forms if found else ENVELOPES
    letter, problem = _letter_of(delivery, first, lane, forms)
    reason = f"Pub/Sub's dead-letter policy took it after {_count(attributes.get(_DELIVERIES, ''))} deliveries of {subscription[:255]}"
    letter = _with_error(letter, UNDELIVERABLE, reason)
    if problem:
        stays = f"it is no task that can be read ({problem}), and its subscription did not deliver it to a worker that could say so"
    elif forms.is_of_message(letter.task_id, first.message_id) and republication_of(attributes) is None:
        stays = "it names no task_id, and the id it had died with its first message: replayed, it is another task"
    elif found is None:
        stays = f"no lane drains subscription {subscription[:255]}: replay it to one with --to-lane"
    elif (count := _count(attributes.get(RETURNED, ""))) >= MOST_RETURNS:
        stays = f"it went back to its lane {count} times, and no worker ran it to an end"
    else:
        stays = ""
    return Arrived(delivery, letter, first, found.topic if found else "", by_net=True, may_have_record=not problem, stays=stays)


def _letter_of(delivery: Delivery, first: Delivery, lane: str, forms: Forms) -> tuple[Letter, str]:
    """The letter without its error, and why its message is no task."""
    attributes = delivery.attributes
    task, problem = forms.told(delivery.data, attributes, message_id=first.message_id, published_s=first.published_s, lane=lane)
    letter = Letter(
        task_id=task.task_id,
        task_type=task.task_type,
        lane=lane,
        shard=task.shard,
        died_at=iso(delivery.published_s),
        first_at=iso(first.published_s),
        error_type=UNDELIVERABLE,
        reason="",
        fingerprint="",
        submission_id=task.submission_id,
        replay_number=task.replay_number,
        first_message_id=first.message_id,
        attributes=undead_attributes(attributes),
        source={key: value for key, value in attributes.items() if key.startswith(THEIRS)},
        data=delivery.data,
        form="" if task.form == ENVELOPE else task.form,
    )
    return letter, cut(problem, MAX_REASON_BYTES // 2)


def judged(one: Arrived, attempts: Attempts = NONE) -> Judged:
    """With what `attempts/` tells of its task."""
    letter = replace(one.letter, errors=attempts.errors)
    counted = attempts.of_replay(letter.replay_number)
    if not one.by_net:
        return Judged(one.delivery, letter)
    if counted.attempt_count:
        last = counted.errors[-1] if counted.errors else _UNKNOWN
        reason = f"{last.error_type}: {last.reason} (attempt {counted.attempt_count}; then {letter.reason})"
        letter = replace(letter, attempt_count=counted.attempt_count, execution=last.execution, index=last.index)
        letter = _with_error(letter, last.error_type, reason, last.reason, last.traceback)
        return Judged(one.delivery, letter, dead=counted.replay_number == letter.replay_number)
    if one.stays:
        return Judged(one.delivery, letter).kept(one.stays)
    returned = _returned(one)
    found = Judged(one.delivery, letter, one.topic, returned)
    return found if returned is not None else found.kept("it has as many attributes as Pub/Sub takes, with no room for those of its return")


def _returned(one: Arrived) -> Outgoing | None:
    """The message as it goes back to its lane, where a worker asks `attempts/` about it first; None without room for the attributes."""
    own = replace(one.first, attributes=undead_attributes(one.delivery.attributes))
    again = published_again(own, 0.0, has_record=True)
    if again is None or len(again.attributes) >= MAX_ATTRIBUTES:
        return None
    count = _count(one.delivery.attributes.get(RETURNED, "")) + 1
    return Outgoing(again.data, {**again.attributes, RETURNED: f"{count}"})


def _caught(letter: Letter, because: str) -> Letter:
    reason = f"{letter.reason}: {because}" if letter.reason else because
    return _with_error(replace(letter, kept_because=because), UNDELIVERABLE, reason, because)


def _with_error(letter: Letter, error_type: str, reason: str, message: str = "", traceback: str = "") -> Letter:
    """`message` is the part of the reason that makes letters alike."""
    fingerprint = fingerprint_of(error_type, message or reason, traceback)
    return replace(letter, error_type=error_type, reason=cut(reason, MAX_REASON_BYTES), fingerprint=fingerprint)


def _lane(*named: str) -> str:
    return next((one for one in named if _LANE.fullmatch(one) and one not in RESERVED_LANES), UNKNOWN_LANE)


def _count(text: str) -> int:
    return int(text) if re.fullmatch(r"[0-9]{1,9}", text) else 0


def _published_s(delivery: Delivery) -> float:
    """When the message was published on its lane's topic."""
    with suppress(ValueError, OverflowError):
        told = from_iso(delivery.attributes.get(_PUBLISHED, ""))
        return min(max(0.0, told), delivery.published_s)
    return delivery.published_s
