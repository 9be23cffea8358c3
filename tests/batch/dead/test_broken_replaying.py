"""BROKEN (found by trying): what replays, and the lists of what waits, got wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from batch.dead import claims, publishing, replaying, segments
from batch.dead.filters import Filter
from batch.dead.history import fates
from batch.dead.letters import Key
from batch.dead.log import Act, Entry, Fold, about
from batch.dead.purging import purge, purge_of
from batch.dead.replaying import replay, resume, resume_stalled
from batch.dead.selecting import grouped
from batch.model.clock import iso
from batch.model.deadletters import dead_letter, replay_number_of
from batch.model.delivery import MAX_ATTRIBUTES, Outgoing
from batch.model.errors import ServiceRefused
from batch.model.names import dead_segment_object
from batch.testing import ManualClock
from batch.testing.clock import START_S
from tests.batch.dead.log_of_letters import LANE, SHARD, here, letter, outcome_lines, published, write_log
from tests.batch.dead.test_replaying import Killed, killing, replayed

ALL = Filter()


def waiting_counts(store: Any) -> dict[str, int]:
    return {one.fingerprint: one.waiting_count for one in grouped(store, "default", ALL)}


def test_what_was_ended_twice_hides_no_other_letter() -> None:
    """The job notes SUCCEEDED of letters that it logged a moment ago and an operator has replayed meanwhile."""
    clock = ManualClock()
    store, broker, rng = here(clock)
    ended = [letter(number) for number in range(3)]
    write_log(store, [*ended, letter(7), letter(8)])
    replayed(store, broker, clock, rng, wanted=Filter(task_ids=frozenset(one.task_id for one in ended)))
    settled = [about(one, Act.SUCCEEDED, at=iso(clock.now()), action_id="dl-1-0-0", who="dl-1-0-0") for one in ended]
    segments.write(store, dead_segment_object("default", clock.now(), "dl-1-0-0", 9), settled)
    assert waiting_counts(store) == {letter(7).fingerprint: 2}


def test_a_purge_between_death_and_replay_hides_no_other_letter() -> None:
    """The letters were older than the purge's limit, what was done to them is not."""
    clock = ManualClock()
    store, broker, rng = here(clock)
    write_log(store, [letter(number) for number in range(4)])
    clock.advance(3600)
    replayed(store, broker, clock, rng)
    found = purge_of(store, "default", clock.now() - 600)
    purge(store, "default", found, clock=clock, rng=rng, who="ann", why="")
    write_log(store, [letter(number) for number in range(10, 13)], writer="dead-letters-y-0-0")
    assert waiting_counts(store) == {letter(10).fingerprint: 3}


def test_a_group_of_which_nothing_waits_is_not_listed() -> None:
    """A letter that was logged twice, and replayed."""
    clock = ManualClock()
    store, broker, rng = here(clock)
    write_log(store, [letter(1)])
    segments.write(store, dead_segment_object("default", START_S, "dead-letters-x-0-1", 0), [letter(1)])
    replayed(store, broker, clock, rng)
    assert waiting_counts(store) == {}


def test_data_that_a_later_letter_needs_is_not_purged() -> None:
    """A worker names the data of a large letter by task and first message id: the same after a replay."""
    clock = ManualClock()
    store, broker, rng = here(clock)
    name = "dead/raw/large-first"
    store.write(name, b"large")
    first = letter(1, data=b"", raw_object=name)
    write_log(store, [first])
    replayed(store, broker, clock, rng)
    again = replace(first, replay_number=1, died_at=iso(clock.now()))
    segments.write(store, dead_segment_object("default", clock.now(), "dead-letters-x-1-0", 0), [again])
    clock.advance(3600)
    found = purge_of(store, "default", clock.now())
    assert found.letter_count == 1
    purge(store, "default", found, clock=clock, rng=rng, who="ann", why="")
    assert store.read(name) == b"large"


def test_returns_beside_letters_do_not_keep_a_segment_for_ever() -> None:
    clock = ManualClock()
    store, broker, rng = here(clock)
    returned = about(letter(5), Act.RETURNED, at=iso(START_S - 30), action_id="dl", who="dl")
    segments.write(store, dead_segment_object("default", START_S - 30, "dl-1-0-0", 0), [letter(1), returned])
    replayed(store, broker, clock, rng)
    clock.advance(3600)
    assert purge_of(store, "default", clock.now()).letter_count == 1


@pytest.mark.parametrize("after_effect", [False, True], ids=["before", "after"])
def test_a_refused_letter_is_in_the_log_wherever_the_replay_was_killed(monkeypatch: pytest.MonkeyPatch, after_effect: bool) -> None:
    """Its task is dead under the new number: without a letter nobody could replay or edit it any more."""
    at, was_met = 0, True
    while was_met:
        at += 1
        clock = ManualClock()
        store, broker, rng = here(clock)
        write_log(store, [letter(1)])
        topic = broker.topic("tasks")

        def refuse(messages: Sequence[Outgoing]) -> list[str]:
            raise ServiceRefused("too large")

        monkeypatch.setattr(topic, "publish", refuse)
        kill = killing(monkeypatch, store, broker)
        kill.at, kill.after_effect = at, after_effect
        was_met = False
        try:
            replayed(store, broker, clock, rng)
        except Killed:
            was_met = True
        kill.at = None
        clock.advance(replaying.STALLED_S)
        resumed = resume_stalled(store, broker.topic, LANE, clock=clock, rng=rng)
        if not resumed and was_met:
            replayed(store, broker, clock, rng)
        lines = list(segments.lines(store, segments.listed(store, "default")))
        fold = segments.folded(store, segments.listed(store, "default"))
        waits = {
            line.what.key for line in lines if line.what is not None and not isinstance(line.what, Entry) and fold.waits(line.what.key)
        }
        assert waits == {Key(letter(1).task_id, 1)}, f"killed at request {at}"
    assert at > 5


def test_an_answer_that_was_lost_does_not_stop_a_replay(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client's own retry finds its own outcome object."""
    clock = ManualClock()
    store, broker, rng = here(clock)
    write_log(store, [letter(1)])

    def refuse(messages: Sequence[Outgoing]) -> list[str]:
        raise ServiceRefused("too large")

    monkeypatch.setattr(broker.topic("tasks"), "publish", refuse)
    write = store.write

    def lost(name: str, data: bytes, **options: Any) -> Any:
        if b"NotPublished" in data and name.startswith("outcomes/"):
            write(name, data, **options)
        return write(name, data, **options)

    monkeypatch.setattr(store, "write", lost)
    assert replayed(store, broker, clock, rng).closed


def test_who_resumes_a_running_replay_repeats_no_more_than_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """An operator's typical mistake: --resume in a second window. The first process must stop at its next request."""
    monkeypatch.setattr(publishing, "MAX_PUBLISH_MESSAGES", 2)
    clock = ManualClock()
    store, broker, rng = here(clock)
    write_log(store, [letter(number) for number in range(12)], a_segment=12)
    topic = broker.topic("tasks")
    publish, told = topic.publish, list[int]()

    def second_window(messages: Sequence[Outgoing]) -> Any:
        monkeypatch.setattr(topic, "publish", publish)
        (opened,) = segments.folded(store, segments.listed(store, "default")).replays.values()
        result = resume(store, broker.topic, LANE, opened, clock=clock, rng=rng)
        told.append(result.repeated_count)
        return publish(messages)

    monkeypatch.setattr(topic, "publish", second_window)
    replayed(store, broker, clock, rng)
    repeats = sum(count - 1 for count in published(broker).values())
    assert repeats <= told[0] <= 2


def test_an_opening_that_is_told_again_counts_whatever_its_name() -> None:
    """Two processes write in one minute; names sort by their random ids."""
    first = Entry(Act.OPENED, iso(START_S), "r-1", details={"act": "replayed"})
    again = replace(first, details={"act": "replayed", "claimed_count": 3})
    fold = Fold()
    fold.add(again)
    fold.add(first)
    assert fold.replays["r-1"].details.get("claimed_count") == 3


def test_an_edit_that_was_accepted_before_the_claim_is_what_is_published(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = ManualClock()
    store, broker, rng = here(clock)
    write_log(store, [letter(1)])
    claim = claims.claim
    mended = letter(1).data.replace(b'"width":1', b'"width":77')

    def edited_just_before(store: Any, segment: str, *rest: Any) -> claims.Claim:
        edit = about(letter(1), Act.EDITED, at=iso(clock.now()), action_id="e-1", who="ann", data=mended)
        segments.write(store, dead_segment_object("default", clock.now(), "e-1", 0), [edit])
        return claim(store, segment, *rest)

    monkeypatch.setattr(claims, "claim", edited_just_before)
    replayed(store, broker, clock, rng)
    ((_, message),) = broker.topic("tasks").published
    assert message.data == mended


def test_two_replays_of_a_letter_told_twice_publish_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its two lines differ in the error, so each operator's filter takes another line."""
    clock = ManualClock()
    store, broker, rng = here(clock)
    one, other = letter(1), letter(1, "ValueError")
    write_log(store, [one])
    segments.write(store, dead_segment_object("default", START_S, "dead-letters-x-0-1", 0), [other])
    claim, second = claims.claim, list[Any]()

    def meanwhile(store: Any, segment: str, *rest: Any) -> claims.Claim:
        monkeypatch.setattr(claims, "claim", claim)
        found = claim(store, segment, *rest)
        wanted = Filter(fingerprints=(other.fingerprint,))
        second.append(replayed(store, broker, clock, rng, wanted=wanted))
        return found

    monkeypatch.setattr(claims, "claim", meanwhile)
    replayed(store, broker, clock, rng, wanted=Filter(fingerprints=(one.fingerprint,)))
    assert published(broker) == Counter({(one.task_id, 1): 1})


def test_a_message_with_all_attributes_keeps_its_replay_number_when_it_dies_again() -> None:
    """Without it the letter would be that of the first death, which waits no more."""
    clock = ManualClock()
    store, broker, rng = here(clock)
    many = {f"client-{number:03d}": "x" for number in range(MAX_ATTRIBUTES)}
    write_log(store, [letter(1, attributes={**letter(1).attributes, **many})])
    replayed(store, broker, clock, rng)
    ((_, message),) = broker.topic("tasks").published
    facts: dict[str, Any] = {"task_id": letter(1).task_id, "error_type": "KeyError", "reason": "again", "attempt_count": 2, "index": 0}
    facts |= {"execution": "x", "lane": "default", "fingerprint": "0" * 16, "message_id": "m", "published_s": 1.0}
    found = dead_letter(message.data, message.attributes, **facts)
    assert len(found.attributes) <= MAX_ATTRIBUTES
    assert (replay_number_of(found.attributes), found.attributes["shard"], found.attributes["lane"]) == (1, SHARD, "default")


def test_who_resumes_a_replay_that_still_claims_leaves_no_letter_claimed_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first process claims one more letter after the second has ended the replay, and stops: nobody could have claimed that letter."""
    clock = ManualClock()
    store, broker, rng = here(clock)
    write_log(store, [letter(number) for number in range(8)])
    claim, calls = claims.claim, list[str]()

    def meanwhile(store: Any, segment: str, *rest: Any) -> claims.Claim:
        calls.append(segment)
        if len(calls) == 2:
            (opened,) = segments.folded(store, segments.listed(store, "default")).replays.values()
            resume(store, broker.topic, LANE, opened, clock=clock, rng=rng)
        return claim(store, segment, *rest)

    monkeypatch.setattr(claims, "claim", meanwhile)
    rules: dict[str, Any] = {"details": {}, "rate": None, "who": "dl", "why": "retry rules"}
    replay(store, broker.topic, LANE, lambda _: True, clock=clock, rng=rng, **rules)
    monkeypatch.setattr(claims, "claim", claim)
    replayed(store, broker, clock, rng)
    assert published(broker) == Counter({(letter(number).task_id, 1): 1 for number in range(8)})


def test_who_announced_too_late_publishes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody resumes the replay between its look at the claims and its outcome lines, and publishes first."""
    clock = ManualClock()
    store, broker, rng = here(clock)
    write_log(store, [letter(1)])
    write, told = store.write, list[int]()

    def meanwhile(name: str, data: bytes, **options: Any) -> Any:
        if name.startswith("outcomes/") and not told:
            told.append(0)
            (opened,) = segments.folded(store, segments.listed(store, "default")).replays.values()
            told[0] = resume(store, broker.topic, LANE, opened, clock=clock, rng=rng).repeated_count
        return write(name, data, **options)

    monkeypatch.setattr(store, "write", meanwhile)
    replayed(store, broker, clock, rng)
    assert published(broker).total() - 1 <= told[0]


def test_who_was_overtaken_at_the_last_request_does_not_end_the_replay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its count of repeats would stand in the log: none."""
    clock = ManualClock()
    store, broker, rng = here(clock)
    write_log(store, [letter(1)])
    topic = broker.topic("tasks")
    publish = topic.publish

    def second_window(messages: Sequence[Outgoing]) -> Any:
        monkeypatch.setattr(topic, "publish", publish)
        (opened,) = segments.folded(store, segments.listed(store, "default")).replays.values()
        resume(store, broker.topic, LANE, opened, clock=clock, rng=rng)
        return publish(messages)

    monkeypatch.setattr(topic, "publish", second_window)
    first = replayed(store, broker, clock, rng)
    (closed,) = segments.folded(store, segments.listed(store, "default")).closed.values()
    assert (first.closed, closed.details["repeated_count"], published(broker).total()) == (False, 1, 2)


def test_an_interrupted_purge_hides_no_later_letter(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = ManualClock()
    store, broker, rng = here(clock)
    write_log(store, [letter(number) for number in range(4)])
    replayed(store, broker, clock, rng)
    clock.advance(3600)
    found = purge_of(store, "default", clock.now())
    kill = killing(monkeypatch, store, broker)
    kill.at = kill.count + 4  # the act, a segment, its claims, and no more
    with pytest.raises(Killed):
        purge(store, "default", found, clock=clock, rng=rng, who="ann", why="")
    kill.at = None
    write_log(store, [letter(number) for number in range(10, 13)], writer="dead-letters-y-0-0")
    assert waiting_counts(store) == {letter(10).fingerprint: 3}


def test_a_replay_keeps_what_it_replayed_whatever_the_job_notes_in_the_same_minute() -> None:
    """`fanout dead replays` would say that its tasks were not needed."""
    clock = ManualClock()
    store, broker, rng = here(clock)
    write_log(store, [letter(1)])
    action_id = replayed(store, broker, clock, rng).action_id
    settled = about(letter(1), Act.SUCCEEDED, at=iso(clock.now()), action_id="dl-1-0-0", who="dl-1-0-0")
    segments.write(store, dead_segment_object("default", clock.now(), "dl-1-0-0", 9), [settled])
    fold = segments.folded(store, segments.listed(store, "default"))
    assert fates(store, "default", action_id, fold) == {"pending": [letter(1).task_id]}


def test_who_was_overtaken_while_it_claimed_makes_no_task_pending(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody has resumed, and ended, the replay before it had claimed anything. Killed later, nobody would have gone on with it."""
    clock = ManualClock()
    store, broker, rng = here(clock)
    write_log(store, [letter(1)])
    claim = claims.claim

    def meanwhile(store: Any, segment: str, *rest: Any) -> claims.Claim:
        (opened,) = segments.folded(store, segments.listed(store, "default")).replays.values()
        resume(store, broker.topic, LANE, opened, clock=clock, rng=rng)
        return claim(store, segment, *rest)

    monkeypatch.setattr(claims, "claim", meanwhile)
    rules: dict[str, Any] = {"details": {}, "rate": None, "who": "dl", "why": "retry rules"}
    assert not replay(store, broker.topic, LANE, lambda _: True, clock=clock, rng=rng, **rules).closed
    assert not outcome_lines(store, "replayed")
