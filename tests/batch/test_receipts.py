"""Records of keyed submissions: who may run, who waits, and who takes over; by a clock that the test moves."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch.client.receipts import HOLD_S, RENEW_AFTER_S, Held, Judged, Record, TakenOver, Turn, judged, request_id
from batch.model.clock import iso
from batch.model.errors import DependencyUnavailable, MessageRefused, ObjectDamaged
from batch.model.names import key_object
from batch.testing import ManualClock, MemoryObjectStore

REQUEST = request_id("default", "order-7")
NAME = key_object(REQUEST)


class Bucket:
    """A store, a clock, and requests with one key."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.store = MemoryObjectStore(clock=self.clock)
        self._rng = random.Random(3)

    def request(self) -> Held:
        return Held(self.store, REQUEST, self.clock, self._rng)

    def record(self, body_hash: str = "a") -> Record:
        return Record(body_hash, iso(self.clock.now()), "default")


@pytest.fixture
def bucket() -> Bucket:
    return Bucket()


def test_the_records_of_submissions_spread_over_the_bucket() -> None:
    assert REQUEST.startswith("k-")
    assert len(REQUEST) == 34
    assert f"keys/{REQUEST[2:4]}/{REQUEST}" == NAME
    assert request_id("default", "order-7") == REQUEST
    assert len({request_id("urgent", "order-7"), request_id("default", "order-8"), REQUEST}) == 3
    with pytest.raises(MessageRefused, match="idempotency key"):
        request_id("default", " ")


@given(
    known=st.sampled_from(["none", "same", "other"]),
    ended=st.booleans(),
    holder=st.sampled_from(["", "me", "else"]),
    left_s=st.floats(-1000, 1000),
)
def test_only_one_turn_is_right(known: str, ended: bool, holder: str, left_s: float) -> None:
    now = 1_800_000_000.0
    record = None if known == "none" else Record(known, iso(now), "default", {"ok": 1} if ended else None)
    metadata = {"holder": holder, "until": iso(now + left_s)} if holder else {}
    found = judged(record, metadata, now, "same", "me")
    if known == "none":
        assert found.turn is Turn.RUN
    elif known == "other":
        assert found.turn is Turn.OTHER_BODY, "also while the first works, and after it"
    elif ended:
        assert found.turn is Turn.DONE
    elif holder == "else" and 0.001 < left_s < 2 * HOLD_S - 0.001:
        assert found.turn is Turn.WAIT
        assert found.retry_after_s == pytest.approx(left_s, abs=0.001)
    elif holder != "else" or left_s <= -0.001:
        assert found == Judged(Turn.RUN)


def test_of_two_at_once_one_runs_and_the_other_comes_again(bucket: Bucket) -> None:
    first, second = bucket.request(), bucket.request()
    assert first.claim(bucket.record()).turn is Turn.RUN
    assert second.claim(bucket.record()) == Judged(Turn.WAIT, HOLD_S)
    assert second.claim(bucket.record("b")).turn is Turn.OTHER_BODY
    first.finish({"accepted_count": 3})
    assert second.look("a").turn is Turn.DONE
    assert second.record is not None
    assert second.record.receipt == {"accepted_count": 3}


def test_two_that_find_nothing_at_once_make_one_record(bucket: Bucket) -> None:
    first, second = bucket.request(), bucket.request()
    look = second.look

    def overtaken(body_hash: str) -> Judged:
        second.look = look  # type: ignore[method-assign]
        found = look(body_hash)
        assert first.claim(bucket.record()).turn is Turn.RUN
        return found

    second.look = overtaken  # type: ignore[method-assign]
    assert second.claim(bucket.record()).turn is Turn.WAIT


def test_what_a_killed_request_has_left_is_taken_over_after_a_minute(bucket: Bucket) -> None:
    first, second = bucket.request(), bucket.request()
    first.claim(bucket.record())
    begun = bucket.clock.now()
    bucket.clock.advance(HOLD_S - 1)
    assert second.claim(bucket.record()) == Judged(Turn.WAIT, 1.0)
    bucket.clock.advance(1)
    assert second.claim(bucket.record()).turn is Turn.RUN
    assert second.record is not None
    assert second.record.submitted_at == iso(begun), "its ids and times are those of the first"
    for step in (first.renew, lambda: first.finish({}), first.release):
        with pytest.raises(TakenOver):
            step()
    second.finish({"ok": 1})
    assert first.look("a").turn is Turn.DONE


def test_the_mark_is_renewed_while_the_request_lives(bucket: Bucket) -> None:
    first, second = bucket.request(), bucket.request()
    first.claim(bucket.record())
    for _ in range(20):
        bucket.clock.advance(RENEW_AFTER_S)
        first.renew()
        assert second.claim(bucket.record()).turn is Turn.WAIT
    before = bucket.store.info(NAME)
    bucket.clock.advance(RENEW_AFTER_S - 1)
    first.renew()
    assert bucket.store.info(NAME) == before, "not before it is time to"


def test_what_is_released_may_be_gone_on_with_at_once(bucket: Bucket) -> None:
    first, second = bucket.request(), bucket.request()
    first.claim(bucket.record())
    first.release()
    assert second.claim(bucket.record()).turn is Turn.RUN


def test_a_lost_answer_is_met_by_our_own_mark(bucket: Bucket) -> None:
    first = bucket.request()
    bucket.store.fail_next("write", DependencyUnavailable("lost"), after_effect=True)
    with pytest.raises(DependencyUnavailable):
        first.claim(bucket.record())
    assert first.claim(bucket.record()).turn is Turn.RUN
    bucket.clock.advance(RENEW_AFTER_S)
    bucket.store.fail_next("write", DependencyUnavailable("lost"), after_effect=True)
    with pytest.raises(DependencyUnavailable):
        first.renew()
    first.renew()
    first.finish({"ok": 1})


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"body_hash": "a", "submitted_at": "soon", "lane": "x", "receipt": null}'])
def test_a_damaged_record_is_named(bucket: Bucket, body: bytes) -> None:
    bucket.store.write(NAME, body)
    with pytest.raises(ObjectDamaged, match=NAME):
        bucket.request().claim(bucket.record())
