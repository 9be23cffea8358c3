"""Replays: each letter takes effect once, wherever the process is killed and however many replay at once."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from batch.dead import action, claims, publishing, replaying, segments
from batch.dead.action import Replayed
from batch.dead.filters import Filter
from batch.dead.letters import Letter
from batch.dead.log import Act, about
from batch.dead.publishing import message_of
from batch.dead.replaying import replay, resume_stalled
from batch.model.clock import iso
from batch.model.deadletters import Replay, replay_of
from batch.model.delayed import republication_of
from batch.model.delivery import MAX_ATTRIBUTES
from batch.model.errors import DependencyUnavailable, ServiceRefused
from batch.model.message import decode
from batch.model.names import dead_raw_object, outcome_object
from batch.model.outcomes import Outcome, to_line
from batch.testing import ManualClock, MemoryBroker, MemoryObjectStore
from batch.testing.clock import START_S
from tests.batch.dead.log_of_letters import BULK, LANE, SHARD, acts, here, keys, letter, outcome_lines, published, write_log

KEY_ERRORS = Filter(error_types=("KeyError",))


def replayed(store: MemoryObjectStore, broker: MemoryBroker, clock: ManualClock, rng: random.Random, **options: Any) -> Replayed:
    wanted = options.pop("wanted", KEY_ERRORS)
    named = {"details": {}, "rate": None, "who": "ann", "why": "fixed", "wanted": wanted, **options}
    return replay(store, broker.topic, LANE, wanted.matches, clock=clock, rng=rng, **named)


def mixed(count: int) -> list[Letter]:
    """Every second one is a KeyError."""
    return [letter(number, "KeyError" if number % 2 else "ValueError") for number in range(count)]


def test_half_of_the_letters_are_published_again_and_the_log_says_so() -> None:
    clock = ManualClock()
    store, broker, rng = here(clock)
    letters = mixed(10)
    write_log(store, letters)
    result = replayed(store, broker, clock, rng)
    wanted = keys(letters[1::2])
    assert (result.claimed_count, result.done_count, result.repeated_count, result.skipped, result.closed) == (5, 5, 0, {}, True)
    assert sorted(published(broker).elements()) == wanted == outcome_lines(store, "replayed")
    told = acts(store)
    assert Counter(one.act for one in told) == {Act.OPENED: 2, Act.REPLAYED: 5, Act.CLOSED: 1}
    assert {(one.who, one.why, one.action_id) for one in told} == {("ann", "fixed", result.action_id)}
    assert replayed(store, broker, clock, rng) == Replayed()


def test_the_message_is_the_same_task_without_its_death() -> None:
    clock = ManualClock()
    store, broker, rng = here(clock)
    attributes = {"colour": "red", "dead_reason": "x", "CloudPubSubDeadLetterSourceSubscription": "tasks-sub", "googclient_x": "1"}
    one = letter(1, attributes={**letter(1).attributes, **attributes}, first_message_id="m-1")
    raw = letter(2, attributes={}, data=b"", raw_object=dead_raw_object("x", "y"), task_id="message-77", first_message_id="77")
    write_log(store, [one, raw])
    store.write(raw.raw_object, b"\xff\x00")
    replayed(store, broker, clock, rng)
    (_, first), (_, second) = sorted(broker.topic("tasks").published, key=lambda found: found[1].data, reverse=True)[::-1]
    assert {name for name in first.attributes if name.startswith(("dead_", "Cloud", "goog"))} == set()
    again = republication_of(first.attributes)
    assert again is not None
    assert (again.message_id, again.published_s, again.has_record) == ("m-1", START_S - 120, True)
    task = decode(first.data, first.attributes, message_id="new", published_s=clock.now(), lane="default")
    assert (task.task_id, task.replay_number, task.shard, first.attributes["colour"]) == (one.task_id, 1, SHARD, "red")
    assert (second.data, second.attributes["shard"]) == (b"\xff\x00", SHARD)
    again = republication_of(second.attributes)
    assert again is not None
    assert again.message_id == "77"


def test_to_another_lane_with_the_same_id_and_shard() -> None:
    clock = ManualClock()
    store, broker, rng = here(clock)
    write_log(store, [letter(1)])
    replayed(store, broker, clock, rng, to_lane=BULK)
    assert not broker.topic("tasks").published
    ((_, message),) = broker.topic("bulk").published
    assert (message.attributes["lane"], message.attributes["shard"], message.attributes["task_id"]) == ("bulk", SHARD, letter(1).task_id)
    assert {one.to_lane for one in acts(store) if one.act is Act.REPLAYED} == {"bulk"}


def test_tasks_that_need_it_no_more_are_noted_and_not_published() -> None:
    clock = ManualClock()
    store, broker, rng = here(clock)
    letters = [letter(number) for number in range(5)]
    write_log(store, letters)
    others = [("succeeded", 0), ("cancelled", 0), ("superseded", 0), ("dead", 1)]
    lines = [Outcome(one.task_id, "resize", name, iso(START_S), replay_number=n) for one, (name, n) in zip(letters, others, strict=False)]
    store.write(outcome_object(SHARD, START_S, "default-x-0-0", 1), b"".join(map(to_line, lines)))
    result = replayed(store, broker, clock, rng)
    assert sorted(published(broker)) == keys(letters[4:])
    assert result.skipped == {"succeeded": 1, "cancelled": 1, "superseded": 1, "replayed since": 1}
    assert sorted(one.why for one in acts(store) if one.act is Act.SUCCEEDED) == sorted(result.skipped)
    assert replayed(store, broker, clock, rng) == Replayed()


def test_what_pubsub_refuses_or_the_bucket_has_lost_is_dead_again_with_that_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = ManualClock()
    store, broker, rng = here(clock)
    letters = [letter(number) for number in range(6)]
    letters[5] = replace(letters[5], data=b"", raw_object="dead/raw/gone")
    write_log(store, letters, a_segment=6)
    topic = broker.topic("tasks")
    take = topic.publish

    def refusing(messages: Any) -> list[str]:
        if any(one.attributes["task_id"] == letters[2].task_id for one in messages):
            raise ServiceRefused("not of the topic's schema")
        return take(messages)

    monkeypatch.setattr(topic, "publish", refusing)
    result = replayed(store, broker, clock, rng)
    assert result.done_count == 6
    assert sorted(published(broker)) == keys([letters[0], letters[1], letters[3], letters[4]])
    assert [one for one in outcome_lines(store, "dead") if one[1]] == keys([letters[2], letters[5]])
    found = [line.what for line in segments.lines(store, segments.listed(store, "default")) if isinstance(line.what, Letter)]
    again = {one.task_id: one for one in found if one.replay_number == 1}
    assert "not of the topic's schema" in again[letters[2].task_id].reason
    assert "dead/raw/gone" in again[letters[5].task_id].reason
    assert all(one.kept_because for one in again.values())


def test_an_edit_is_what_is_published() -> None:
    clock = ManualClock()
    store, broker, rng = here(clock)
    one = letter(1)
    write_log(store, [one])
    data = one.data.replace(b"resize", b"thumbnail")
    edit = about(one, Act.EDITED, at=iso(START_S), action_id="e-1", who="ann", data=data)
    segments.write(store, "dead/default/202601010000-e-1-0.jsonl", [edit])
    replayed(store, broker, clock, rng)
    ((_, message),) = broker.topic("tasks").published
    assert (message.data, message.attributes["task_type"]) == (data, "thumbnail")


def test_a_letter_told_twice_is_published_once() -> None:
    clock = ManualClock()
    store, broker, rng = here(clock)
    write_log(store, [letter(1), letter(2)])
    write_log(store, [letter(2), letter(1)], writer="dead-letters-x-1-0")
    assert replayed(store, broker, clock, rng).done_count == 2
    assert published(broker).total() == 2
    assert replayed(store, broker, clock, rng) == Replayed()


def test_limits_hold_over_segments() -> None:
    clock = ManualClock()
    store, broker, rng = here(clock)
    write_log(store, [letter(number) for number in range(10)])
    assert replayed(store, broker, clock, rng, limit=6).done_count == 6
    assert replayed(store, broker, clock, rng, limit=6).done_count == 4


def test_a_rate_is_kept_to_and_time_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = ManualClock()
    store, broker, rng = here(clock)
    monkeypatch.setattr(action, "IN_FLIGHT", 1)  # a clock that is moved by waiting counts for one thread
    write_log(store, [letter(number) for number in range(100)], a_segment=40)
    topic = broker.topic("tasks")
    take = topic.publish

    late: list[float] = []

    def slow(messages: Any) -> list[str]:
        replays = [replay_of(one.attributes) for one in messages]
        late.extend(clock.now() - one.at for one in replays if one is not None)
        clock.advance(0.8)
        return take(messages)

    monkeypatch.setattr(topic, "publish", slow)
    begin_s = clock.monotonic()
    result = replayed(store, broker, clock, rng, rate=5.0, limit=80)
    assert result.done_count == 80
    assert clock.monotonic() - begin_s == pytest.approx(16.0, rel=0.05)
    assert published(broker).total() == 80
    assert max(late) == pytest.approx(0, abs=0.01), "the time of a replay is that of its publish: a cancel before it does not hold"
    result = replayed(store, broker, clock, rng, rate=5.0, until_s=clock.monotonic() + 2.1)
    assert (result.done_count, result.claimed_count, result.closed) == (10, 20, False)
    clock.advance(replaying.STALLED_S)
    (resumed,) = resume_stalled(store, broker.topic, LANE, clock=clock, rng=rng)
    assert (resumed.done_count, resumed.repeated_count <= 10, resumed.closed) == (20, True, True)
    assert published(broker).total() == 100


def test_discarded_letters_wait_no_more_and_nothing_is_published() -> None:
    clock = ManualClock()
    store, broker, rng = here(clock)
    letters = mixed(10)
    write_log(store, letters)
    assert replayed(store, broker, clock, rng, act=Act.DISCARDED).done_count == 5
    assert not broker.topic("tasks").published
    assert not outcome_lines(store, "replayed")
    assert replayed(store, broker, clock, rng, wanted=Filter()).done_count == 5
    assert sorted(published(broker)) == keys(letters[0::2])


class Killed(BaseException):
    """The process is gone: no handler of errors runs."""


class Killing:
    """Raises Killed at a request, before or after its effect, and at each later one."""

    def __init__(self) -> None:
        self.count = 0
        self.at: int | None = None
        self.after_effect = False
        self._lock = threading.Lock()

    @contextmanager
    def request(self) -> Iterator[None]:
        with self._lock:
            self.count += 1
            number = self.count
        if self.at is not None and (number > self.at or (number == self.at and not self.after_effect)):
            raise Killed
        yield
        if number == self.at:
            raise Killed


def killing(monkeypatch: pytest.MonkeyPatch, store: MemoryObjectStore, broker: MemoryBroker) -> Killing:
    found = Killing()
    for twin in (store, broker.topic("tasks")):
        monkeypatch.setattr(twin, "_fault", lambda _: found.request())
    return found


@pytest.mark.parametrize("after_effect", [False, True], ids=["before", "after"])
def test_killed_at_any_request_and_resumed(monkeypatch: pytest.MonkeyPatch, after_effect: bool) -> None:
    monkeypatch.setattr(publishing, "MAX_PUBLISH_MESSAGES", 2)
    at, was_met, repeated_any = 0, True, 0
    while was_met:
        at += 1
        clock = ManualClock()
        store, broker, rng = here(clock)
        letters = [replace(one, shard=f"s-{number // 2 % 2 + 1}") for number, one in enumerate(mixed(16))]
        write_log(store, letters, a_segment=8)
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
            replayed(store, broker, clock, rng)  # nothing had begun, or all was done
        counts = published(broker)
        assert sorted(counts) == keys(letters[1::2]) == outcome_lines(store, "replayed"), f"killed at request {at}"
        repeats = sum(count - 1 for count in counts.values())
        assert repeats <= sum(one.repeated_count for one in resumed) <= 2 * 2, f"killed at request {at}"
        repeated_any += repeats
        fold = segments.folded(store, segments.listed(store, "default"))
        assert [fold.waits(one.key) for one in letters] == [True, False] * 8
        assert fold.replays.keys() == fold.closed.keys()
    assert at > 20
    assert repeated_any > 0, "no kill met a publish whose confirmation was not noted"


def test_what_was_claimed_is_published_whatever_an_edit_made_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise it would wait for ever, claimed by a replay that has ended."""
    clock = ManualClock()
    store, broker, rng = here(clock)
    letters = [letter(number) for number in range(8)]
    write_log(store, letters)
    claim, claimed = claims.claim, list[str]()

    def second_fails(store: MemoryObjectStore, segment: str, *rest: Any) -> claims.Claim:
        if claimed:
            raise DependencyUnavailable("down")
        claimed.append(segment)
        return claim(store, segment, *rest)

    monkeypatch.setattr(claims, "claim", second_fails)
    wanted = Filter(task_types=("resize",))
    with pytest.raises(DependencyUnavailable):
        replayed(store, broker, clock, rng, wanted=wanted)
    monkeypatch.setattr(claims, "claim", claim)
    edits = [
        about(one, Act.EDITED, at=iso(START_S), action_id="e-1", who="ann", data=b'{"task_type":"crop"}')
        for one in (letters[0], letters[7])
    ]
    segments.write(store, "dead/default/202601010000-e-1-0.jsonl", edits)
    clock.advance(replaying.STALLED_S)
    (resumed,) = resume_stalled(store, broker.topic, LANE, clock=clock, rng=rng)
    assert (resumed.done_count, resumed.claimed_count, resumed.repeated_count) == (7, 7, 0)
    assert sorted(published(broker).elements()) == keys(letters[:7])


def test_a_failed_publish_is_raised_and_the_rest_is_resumed() -> None:
    clock = ManualClock()
    store, broker, rng = here(clock)
    write_log(store, mixed(4))
    broker.topic("tasks").fail_next("publish", DependencyUnavailable("down"), after_effect=True)
    with pytest.raises(DependencyUnavailable, match="down"):
        replayed(store, broker, clock, rng)
    assert resume_stalled(store, broker.topic, LANE, clock=clock, rng=rng) == []
    clock.advance(replaying.STALLED_S)
    (resumed,) = resume_stalled(store, broker.topic, LANE, clock=clock, rng=rng)
    assert (resumed.done_count, resumed.repeated_count) == (2, 2)
    assert set(published(broker).values()) == {2}


def test_two_operators_at_once_claim_each_letter_once() -> None:
    clock = ManualClock()
    store, broker, _ = here(clock)
    letters = [letter(number) for number in range(400)]
    write_log(store, letters, a_segment=20)
    begin = threading.Barrier(3)

    def operator(seed: int) -> Replayed:
        begin.wait(10)
        return replayed(store, broker, clock, random.Random(seed))

    with ThreadPoolExecutor(3) as pool:
        results = list(pool.map(operator, range(3)))
    assert sum(one.done_count for one in results) == 400
    assert published(broker) == Counter(keys(letters))
    lines = [line for _, its in claims.all_claims(store, "default") for one in its.values() for line in one.lines]
    assert len(lines) == 400


def test_who_was_overtaken_begins_no_other_segment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A laptop that slept: the job has resumed its replay meanwhile."""
    clock = ManualClock()
    store, broker, rng = here(clock)
    letters = [letter(number) for number in range(12)]
    write_log(store, letters)
    monkeypatch.setattr(action, "IN_FLIGHT", 1)
    topic = broker.topic("tasks")
    take = topic.publish

    def slept(messages: Any) -> list[str]:
        monkeypatch.setattr(topic, "publish", take)
        clock.advance(replaying.STALLED_S)
        resume_stalled(store, broker.topic, LANE, clock=clock, rng=rng)
        return take(messages)

    monkeypatch.setattr(topic, "publish", slept)
    result = replayed(store, broker, clock, rng)
    assert not result.closed
    assert sorted(published(broker)) == keys(letters)
    assert published(broker).total() == 12 + 4
    assert Counter(one.act for one in acts(store))[Act.CLOSED] == 1


def test_a_message_with_as_many_attributes_as_pubsub_takes_still_says_which_task_it_is() -> None:
    one = letter(1)
    crowded = {f"client-{number}": "x" for number in range(MAX_ATTRIBUTES - len(one.attributes))} | dict(one.attributes)
    message = message_of(replace(one, attributes=crowded), one.data, Replay(1, START_S, "r-1"), "default")
    assert len(message.attributes) == MAX_ATTRIBUTES
    assert dict(one.attributes).items() <= dict(message.attributes).items()
    assert message.attributes["client-0"] == "x"
