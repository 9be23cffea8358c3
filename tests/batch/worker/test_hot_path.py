"""What was made quick for every message says the same as the plain way, and lists reach whoever can take them."""

from __future__ import annotations

import json
import random
import threading
from datetime import UTC, datetime
from itertools import count
from queue import SimpleQueue

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch.model.clock import SystemClock, iso
from batch.model.delivery import Delivery
from batch.model.errors import MessageRefused
from batch.model.exit import ExitReason
from batch.model.message import decode
from batch.services.leases import LeaseKeeper
from batch.worker.attempt import Ended, Finished
from batch.worker.circuit_breaker import CircuitBreaker
from batch.worker.committing.committer import MAX_BUFFERED_COUNT, Committer
from batch.worker.ready_queue import ReadyQueue
from tests.batch.worker.plant import SHARD, Plant, ended, in_thread, write

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(st.floats(-62e9, 250e9) | st.integers(0, 4 * 10**15).map(lambda microseconds: microseconds / 1e6))
def test_a_time_is_written_as_datetime_writes_it(unix_s: float) -> None:
    assert iso(unix_s) == datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


@given(
    json_values,
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32-be"]),
    st.booleans(),
    st.sampled_from(["", " ", "\n", "x"]),
)
def test_data_is_read_as_json_loads_reads_it(value: object, encoding: str, escaped: bool, tail: str) -> None:
    data = (json.dumps({"task_type": "a", "value": value}, ensure_ascii=escaped) + tail).encode(encoding, "surrogatepass")
    try:
        expected = json.loads(data)
    except ValueError:
        with pytest.raises(MessageRefused):
            decode(data, {}, message_id="1", published_s=0.0, lane="l")
        return
    fields = decode(data, {}, message_id="1", published_s=0.0, lane="l").fields
    assert repr(fields["value"]) == repr(expected["value"])  # repr: NaN is not equal to itself


@pytest.mark.parametrize(
    ("given_at", "read"),
    [
        ("2026-01-31T12:00:00.123456Z", "2026-01-31T12:00:00.123456Z"),
        ("2026-01-31T12:00:00.123456+00:00", "2026-01-31T12:00:00.123456Z"),
        ("2026-01-31T13:00:00+01:00", "2026-01-31T12:00:00.000000Z"),
        ("2026-13-31T12:00:00.123456Z", "2027-01-15T08:00:00.000000Z"),
        ("2026-W05-6T12:00:00.123456Z", "2026-01-31T12:00:00.123456Z"),
        ("٢٠٢٦-01-31T12:00:00.123456Z", "2027-01-15T08:00:00.000000Z"),
    ],
)
def test_a_time_is_kept_only_in_its_normal_form(given_at: str, read: str) -> None:
    data = json.dumps({"task_type": "a", "submitted_at": given_at}).encode()
    found = decode(data, {}, message_id="1", published_s=1.8e9, lane="l").submitted_at
    assert found == read


def test_a_list_reaches_all_who_wait_when_each_takes_one() -> None:
    ready = ReadyQueue()
    all_there = threading.Barrier(9)

    def take_one() -> None:
        assert len(ready.take(lambda _waiting: 1)) == 1
        all_there.wait(60)

    takers = [threading.Thread(target=take_one, daemon=True) for _ in range(8)]
    for taker in takers:
        taker.start()
    ready.put([Delivery(str(number), str(number), b"x", {}, 0.0) for number in range(8)])
    all_there.wait(60)
    for taker in takers:
        taker.join(60)
    assert len(ready) == 0


class SlowClock(SystemClock):
    """Every look at it takes a second."""

    def __init__(self) -> None:
        self._looked = count(1)

    def monotonic(self) -> float:
        return float(next(self._looked))


def test_what_is_finished_meanwhile_is_written_together() -> None:
    plant = Plant(SlowClock())
    worker = plant.worker()
    inbox: SimpleQueue[list[Finished] | None] = SimpleQueue()
    leases = LeaseKeeper(plant.subscription, plant.clock, random.Random(1), lambda _error: None)
    dead_letters = plant.broker.topic("dead-letters")
    breaker, given_up = CircuitBreaker(20), worker.shutdown.runner.given_up
    committer = Committer(
        worker.settings, inbox, plant.subscription, dead_letters, plant.store, leases, worker.tally, breaker, plant.clock, given_up
    )
    for number in range(MAX_BUFFERED_COUNT):
        inbox.put([Ended(f"ack-{number}", SHARD, f"t-{number}", "m", "succeeded", b"{}\n")])
    inbox.put(None)
    committer.run()
    (written,) = [plant.store.read(name) for name in plant.store.names("outcomes/")]
    assert written.count(b"\n") == MAX_BUFFERED_COUNT


def test_outcomes_are_written_soon_when_nothing_else_is_in_hand() -> None:
    plant = Plant()
    plant.registry.task("write")(write)
    plant.submit(3)
    thread, reasons = in_thread(plant.worker(BACKLOG=3, FLUSH_INTERVAL_S=600))
    ended(thread)
    assert reasons == [ExitReason.SHARE_DONE]
    assert len(plant.final()) == 3
