"""The dead-letters job's drain: what arrives is in the log, byte for byte, with all that is known of it, or back in its lane."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from batch.dead.draining.arrived import MOST_RETURNS
from batch.dead.letters import MAX_INLINE_BYTES
from batch.dead.log import Act
from batch.model.deadletters import Replay
from batch.model.delayed import republication_of
from batch.model.delivery import Outgoing
from batch.model.errors import DependencyForbidden, DependencyMissing, DependencyUnavailable, ServiceRefused
from batch.model.exit import ExitReason
from batch.model.outcomes import Outcome, to_line
from batch.services.leases import LeaseKeeper
from batch.testing.clock import START_S
from tests.batch.dead.letterbox import LANE, SHARD, Letterbox, body

RAW = bytes(range(256)) * 3
DRAINED = ExitReason.DRAINED


@pytest.fixture(autouse=True)
def _no_keeper(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its waits would move the clock."""
    monkeypatch.setattr(LeaseKeeper, "start", lambda _self: None)


@pytest.fixture
def box() -> Letterbox:
    return Letterbox()


def test_a_workers_letter_keeps_all_that_it_was_sent_with(box: Letterbox) -> None:
    box.by_worker(
        "one", attributes={"color": "blue", "submission_id": "sub"}, fingerprint="0123456789abcdef", message_id="77", published_s=5.0
    )
    assert box.drain()[0] is DRAINED
    letter = box.letter("one")
    assert (letter.data, letter.task_type, letter.shard, letter.submission_id) == (body("one"), "work", SHARD, "sub")
    assert (letter.error_type, letter.reason, letter.fingerprint) == ("permanent", "no such row", "0123456789abcdef")
    assert (letter.attempt_count, letter.execution, letter.index) == (1, "lane-x", 3)
    assert (letter.first_at, letter.first_message_id) == ("1970-01-01T00:00:05.000000Z", "77")
    assert {"color": "blue", "submission_id": "sub"}.items() <= letter.attributes.items()
    assert not [name for name in letter.attributes if name.startswith("dead_")]
    assert (box.dead.backlog, box.outcomes(), letter.kept_because) == (0, [], "")


def test_errors_on_record_come_with_the_letter(box: Letterbox) -> None:
    box.failed("one", "slow", "slower")
    box.by_worker("one", error_type="TimeoutError", attempt_count=2)
    box.by_worker("two")
    box.store.fail_next("read", DependencyUnavailable("only records may be read, and only of tasks that can have one"))
    with pytest.raises(DependencyUnavailable):
        box.drain()
    assert box.drain(CLOUD_RUN_TASK_ATTEMPT=1)[0] is DRAINED
    assert [one.reason for one in box.letter("one").errors] == ["slow", "slower"]
    assert box.letter("two").errors == ()


def test_a_first_permanent_failure_costs_no_read(box: Letterbox) -> None:
    box.by_worker("one")
    box.by_worker("two", error_type="invalid")
    box.by_worker("three", error_type="not_json", attempt_count=0)
    box.store.fail_next("read", AssertionError("nothing is to be read"))
    box.made()._drain()
    assert box.store.unmet()


@pytest.mark.parametrize("data", [b"", RAW, b"\xff" * (MAX_INLINE_BYTES + 1), b'{"a": "' + b"\\ud83d" + b'"}', b"[]", b"plain text\r\n"])
def test_data_survives_byte_for_byte(box: Letterbox, data: bytes) -> None:
    box.by_worker("message-1", data, error_type="not_json", attempt_count=0)
    assert box.drain()[0] is DRAINED
    (letter,) = box.letters().values()
    assert (box.store.read(letter.raw_object) if letter.raw_object else letter.data) == data
    assert bool(letter.raw_object) == (len(data) > MAX_INLINE_BYTES)


def test_data_that_a_worker_has_put_into_the_bucket_is_found_there(box: Letterbox) -> None:
    box.store.write("dead/raw/one-5", RAW)
    box.store.write("controller/lane.json", b"secret")
    topic = box.broker.topic("dead-letters")
    for task_id, name in (("one", "dead/raw/one-5"), ("two", "controller/lane.json")):
        facts = {"dead_error_type": "permanent", "dead_reason": "no", "dead_lane": "lane"}
        topic.publish([Outgoing(b"", {"task_id": task_id, "dead_raw": name, **facts})])
    assert box.drain()[0] is DRAINED
    assert (box.letter("one").raw_object, box.letter("two").raw_object) == ("dead/raw/one-5", "")


def test_lanes_have_logs_of_their_own(box: Letterbox) -> None:
    box.by_worker("one", lane="urgent")
    box.by_worker("two", lane="../raw", attributes={"lane": "bulk"})
    box.by_worker("three", lane="raw", attributes={"lane": "a/b"})
    assert box.drain()[0] is DRAINED
    assert [key.task_id for lane in ("urgent", "bulk", "unknown") for key in box.letters(lane)] == ["one", "two", "three"]
    assert {name.split("/")[1] for name in box.store.names("dead/")} == {"urgent", "bulk", "unknown"}


def test_what_the_net_caught_without_a_failed_attempt_goes_back(box: Letterbox) -> None:
    box.by_net(body("one"), lane="elsewhere", color="blue")
    assert box.drain()[0] is DRAINED
    ((_, message),) = box.broker.topic(LANE.topic).published
    assert message.data == body("one")
    marker = republication_of(message.attributes)
    assert marker is not None
    assert (marker.due, marker.has_record, marker.published_s) == (0, True, START_S - 60)
    assert {"color": "blue", "shard": SHARD, "dead_returned": "1"}.items() <= message.attributes.items()
    assert not [name for name in message.attributes if name.startswith("CloudPubSub")]
    assert (box.letters(), box.outcomes(), box.dead.backlog) == ({}, [], 0)
    (entry,) = box.entries(Act.RETURNED)
    assert (entry.task_id, "after 5 deliveries of lane-sub" in entry.why) == ("one", True)


def test_a_message_that_dies_after_it_went_back_waits_as_a_letter(box: Letterbox) -> None:
    box.by_net(body("one"))
    box.drain()
    box.by_worker("one")
    box.drain(CLOUD_RUN_EXECUTION="dl-2")
    assert list(box.letters()) == [("one", 0)]


def test_the_net_may_return_a_message_a_few_times(box: Letterbox) -> None:
    attributes: dict[str, str] = {}
    for number in range(MOST_RETURNS):
        box.by_net(body("one"), **attributes)
        assert box.drain(CLOUD_RUN_EXECUTION=f"dl-{number}")[0] is DRAINED
        attributes = dict(box.broker.topic(LANE.topic).published[-1][1].attributes)
    assert (box.returned()["one"], box.letters()) == (MOST_RETURNS, {})
    box.by_net(body("one"), **attributes)
    box.drain(CLOUD_RUN_EXECUTION="dl-last")
    letter = box.letter("one")
    assert (letter.error_type, "3 times" in letter.kept_because, "3 times" in letter.reason) == ("undeliverable", True, True)
    assert [(one.task_id, one.outcome, one.error_type) for one in box.outcomes()] == [("one", "dead", "undeliverable")]
    assert box.returned()["one"] == MOST_RETURNS


def test_what_the_net_caught_after_a_failed_attempt_is_dead(box: Letterbox) -> None:
    box.failed("one", "slow", "slower")
    box.by_net(body("one"))
    assert box.drain()[0] is DRAINED
    letter = box.letter("one")
    assert (letter.error_type, letter.attempt_count, letter.kept_because) == ("TimeoutError", 2, "")
    assert letter.reason.startswith("TimeoutError: slower (attempt 2; then Pub/Sub's dead-letter policy took it after 5 deliveries")
    assert letter.source["CloudPubSubDeadLetterSourceDeliveryCount"] == "5"
    (outcome,) = box.outcomes()
    assert (outcome.outcome, outcome.reason, outcome.fingerprint) == ("dead", letter.reason, letter.fingerprint)
    assert box.returned()["one"] == 0


def test_attempts_of_an_earlier_replay_do_not_count(box: Letterbox) -> None:
    box.failed("one", "slow")
    replayed = str(Replay(1, box.clock.now(), "r"))
    box.by_net(body("one"), replay=replayed)
    box.drain()
    ((_, message),) = box.broker.topic(LANE.topic).published
    assert (message.attributes["replay"], box.letters()) == (replayed, {})


def test_a_letter_of_a_lower_replay_is_logged_and_has_no_outcome(box: Letterbox) -> None:
    box.failed("one", "slow", replay_number=2)
    box.by_net(body("one"), replay=str(Replay(1, box.clock.now(), "r")))
    box.by_worker("one", error_type="TimeoutError")
    box.drain()
    assert (sorted(box.letters()), box.outcomes(), box.returned()) == ([("one", 0), ("one", 1)], [], {})


@pytest.mark.parametrize(
    ("data", "attributes", "because"),
    [
        (RAW, {}, "is no task that can be read"),
        (b"{}", {}, "is no task that can be read"),
        (b'{"task_type": "work"}', {}, "names no task_id"),
        (body("one"), {"CloudPubSubDeadLetterSourceSubscription": "gone-sub"}, "no lane drains subscription gone-sub"),
        (body("one"), {f"a{number}": "" for number in range(99)}, "with no room"),
    ],
)
def test_what_cannot_go_back_is_kept_for_a_person(box: Letterbox, data: bytes, attributes: dict[str, str], because: str) -> None:
    box.by_net(data, **attributes)
    assert box.drain()[0] is DRAINED
    lane = "unknown" if "gone-sub" in because else "lane"
    (letter,) = box.letters(lane).values()
    assert because in letter.kept_because
    assert because in letter.reason
    assert letter.data == data
    assert [one.task_id for one in box.outcomes(letter.shard)] == [letter.task_id]
    assert box.broker.topic(LANE.topic).published == []


def test_an_id_that_a_marker_remembers_goes_back(box: Letterbox) -> None:
    box.by_net(b'{"task_type": "work"}', delayed="0000000000 5.000000 first 2 0")
    box.drain()
    ((_, message),) = box.broker.topic(LANE.topic).published
    marker = republication_of(message.attributes)
    assert marker is not None
    assert (marker.message_id, marker.published_s, marker.count) == ("first", 5.0, 3)


def test_what_nobody_knows_is_kept(box: Letterbox) -> None:
    box.broker.topic("dead-letters").publish([Outgoing(b"hello", {})])
    assert box.drain()[0] is DRAINED
    (letter,) = box.letters("unknown").values()
    assert (letter.data, "who publishes to this topic" in letter.kept_because) == (b"hello", True)


@pytest.mark.parametrize("error", [DependencyMissing("there is no topic"), ServiceRefused("too large")])
@pytest.mark.parametrize("text", ["", "x" * MAX_INLINE_BYTES])
def test_what_its_topic_refuses_is_kept(box: Letterbox, error: Exception, text: str) -> None:
    box.by_net(body("one", text=text))
    box.by_net(body("two"))
    for _ in range(2):
        box.broker.topic(LANE.topic).fail_next("publish", error)
    assert box.drain()[0] is DRAINED
    assert [key.task_id for key in box.letters()] == ["one"]
    assert (box.returned(), str(error) in box.letter("one").kept_because) == ({"two": 1}, True)
    assert bool(box.letter("one").raw_object) == bool(text)


@pytest.mark.parametrize("error", [DependencyForbidden("may not publish"), DependencyUnavailable("down")])
def test_while_its_topic_does_not_answer_it_waits(box: Letterbox, error: Exception) -> None:
    box.by_net(body("one"))
    box.by_worker("two")
    box.broker.topic(LANE.topic).fail_next("publish", error)
    reason, drain = box.drain()
    assert (reason, str(error) in drain.problem) == (ExitReason.BROKEN, True)
    assert (list(box.letters()), box.outcomes(), box.dead.backlog, box.dead.free) == ([("two", 0)], [], 1, 0)
    box.clock.advance(600)
    assert box.drain(CLOUD_RUN_EXECUTION="dl-2")[0] is DRAINED
    assert (box.returned(), box.dead.backlog) == ({"one": 1}, 0)


def test_an_outcome_that_says_succeeded_wins(box: Letterbox) -> None:
    for outcome in ("succeeded", "superseded", "cancelled", "dead"):
        box.by_worker(outcome)
        line = to_line(Outcome(outcome, "work", outcome, "2026-01-01T00:00:00Z"))
        box.store.write(f"outcomes/{SHARD}/202601010000/x-{outcome}.jsonl", line)
    box.by_worker("missing")
    assert box.drain()[0] is DRAINED
    assert sorted(key.task_id for key in box.letters()) == ["dead", "missing"]
    assert sorted(one.task_id for one in box.entries(Act.SUCCEEDED)) == ["cancelled", "succeeded", "superseded"]


def test_few_messages_a_pull_make_few_segments(box: Letterbox) -> None:
    for number in range(200):
        box.by_worker(f"task-{number}")
    box.dead.most_per_pull = 10
    assert box.drain()[0] is DRAINED
    assert (len(box.letters()), len(box.store.names("dead/lane/"))) == (200, 1)


def test_segments_stay_within_their_limits(box: Letterbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batch.dead.draining.drain.MAX_SEGMENT_BYTES", 10_000)
    for number in range(40):
        box.by_worker(f"task-{number}", body(f"task-{number}", text="x" * 1000))
    assert box.drain()[0] is DRAINED
    sizes = [len(box.store.read(name)) for name in box.store.names("dead/lane/")]
    assert (len(box.letters()), max(sizes) <= 10_000, len(sizes) < 10) == (40, True, True)


def test_what_was_not_written_is_nacked_when_it_is_stopped(box: Letterbox) -> None:
    for number in range(10):
        box.by_worker(f"task-{number}")
    drain = box.made()
    original = box.dead.pull

    def pull(max_messages: int, timeout_s: float) -> list[Any]:
        drain.stopping.set()
        return original(max_messages, timeout_s)

    box.dead.pull = pull  # type: ignore[method-assign]
    assert drain.run() is ExitReason.STOPPED
    assert (box.letters(), box.dead.free, drain.outstanding_count, drain.counts["nacked"]) == ({}, 10, 0, 10)


def test_leases_are_held_until_the_acknowledgement(box: Letterbox, monkeypatch: pytest.MonkeyPatch) -> None:
    box.by_worker("one")
    drain = box.made()
    held: dict[str, int] = {}

    def seen(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            held[name] = len(drain.leases.ack_ids())
            return method(*args, **kwargs)

        return call

    monkeypatch.setattr(box.store, "write", seen("write", box.store.write))
    monkeypatch.setattr(box.dead, "ack", seen("ack", box.dead.ack))
    drain.run()
    assert (held, drain.leases.ack_ids(), drain.leases.byte_count) == ({"write": 1, "ack": 1}, [], 0)


def test_it_ends_when_its_time_is_over(box: Letterbox) -> None:
    drain = box.made()
    drain.end_s = box.clock.monotonic()
    box.by_worker("one")
    assert (drain.run(), box.dead.free) == (ExitReason.OUT_OF_TIME, 1)


# --- killed at each request


class Killed(BaseException):
    pass


class Mortal:
    """A process that is killed at its n-th request, before or after it took effect; from then on it can ask nothing."""

    def __init__(self, box: Letterbox, monkeypatch: pytest.MonkeyPatch, kill_at: int, after: bool) -> None:
        self.count, self.killed, self._kill_at, self._after = 0, False, kill_at, after
        seams = [
            (box.dead, "pull ack extend nack"),
            (box.store, "read read_with_info write list"),
            (box.broker.topic(LANE.topic), "publish"),
        ]
        for seam, methods in seams:
            for method in methods.split():
                monkeypatch.setattr(seam, method, self._mortal(getattr(seam, method)))

    def _mortal(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if self.killed:
                raise Killed
            self.count += 1
            self.killed = self.count == self._kill_at
            if self.killed and not self._after:
                raise Killed
            result = method(*args, **kwargs)
            if isinstance(result, Iterator):
                result = iter(list(result))
            if self.killed:
                raise Killed
            return result

        return call


@pytest.mark.parametrize("after", [False, True])
def test_killed_at_any_request_it_loses_nothing(after: bool) -> None:
    kill_at, killed = 0, True
    while killed:
        kill_at += 1
        box = Letterbox()
        box.by_worker("permanent")
        box.failed("failed", "slow")
        box.by_worker("failed", error_type="TimeoutError")
        box.by_worker("large", b"x" * (MAX_INLINE_BYTES + 1))
        box.by_net(body("back"))
        box.failed("caught", "slow")
        box.by_net(body("caught"))
        box.by_net(RAW, task_id="raw")
        box.store.write(f"outcomes/{SHARD}/202601010000/x-1.jsonl", to_line(Outcome("permanent", "work", "succeeded", "2026-01-01")))
        with pytest.MonkeyPatch.context() as patched:
            mortal = Mortal(box, patched, kill_at, after)
            with suppress(Killed):
                box.drain()
            killed = mortal.killed
        box.clock.advance(61)
        assert box.drain(CLOUD_RUN_TASK_ATTEMPT=1)[0] is DRAINED, kill_at
        assert box.dead.backlog == 0
        waiting = {key.task_id for key in box.letters()}
        assert waiting - {"permanent"} == {"failed", "large", "caught", "raw"}, kill_at
        assert "permanent" not in waiting or box.letter("permanent"), kill_at
        large = box.letter("large")
        assert box.store.read(large.raw_object) == b"x" * (MAX_INLINE_BYTES + 1)
        assert 1 <= box.returned()["back"] <= 2, kill_at
        assert {one.task_id for one in box.outcomes() if one.outcome == "dead"} == {"caught", "raw"}, kill_at
    assert kill_at > 10, "the run was never killed"
