"""What the bucket keeps of slowed types and delayed messages may be damaged, or of a clock that was wrong: no lane is held by it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from batch.model.delayed import DELAYED, DelayedMessage, as_first_published, republication_of, to_object
from batch.model.delivery import Delivery
from batch.model.exit import ExitReason
from batch.model.names import delayed_object, slowed_object
from batch.testing import MemoryBroker, MemoryObjectStore
from batch.worker.admission.slowing import FIRST_DELAY_S, Slowed, to_json
from controller.act.republisher import Republisher
from tests.batch.worker.plant import Plant, write
from tests.clocks import ShiftedClock

ODD = ("1e999", "-1e999", "NaN", "1" + "0" * 400, "-1", "null", "[]", "{}", '"\\ud83d"', '"x\\n"', "1e300", "[" * 100_000)
"""As JSON."""
SLOWED = Slowed("ValueError: no", 20, 1.7e9, 1.7e9)
WAITS = DelayedMessage("t", "7", 1.7e9, {"a": "b"}, b"{}")


def damaged(whole: bytes, key: str, odd: str) -> bytes:
    """A line of JSON with an odd value."""
    line, newline, data = whole.partition(b"\n")
    body = {name: json.dumps(value) for name, value in json.loads(line).items()} | {key: odd}
    return ("{" + ",".join(f'"{name}":{value}' for name, value in body.items()) + "}").encode() + newline + data


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: odd[:8])
@pytest.mark.parametrize("key", ["next_s", "delay_s", "unrun_count", "at_once", "tasks"])
def test_what_is_kept_of_a_slowed_type_holds_no_task(key: str, odd: str, caplog: pytest.LogCaptureFixture) -> None:
    plant = Plant(ShiftedClock())
    plant.registry.task("write")(write)
    now = plant.clock.now()
    kept = Slowed("ValueError: no", 20, now, now - 1, submissions={"s-1"}, tasks={"task-0"})
    plant.store.write(slowed_object("lane", "write"), damaged(to_json(kept), key, odd))
    plant.submit(3)
    plant.subscription.nack([one.ack_id for one in plant.subscription.pull(3, 1.0)])
    assert plant.worker(MAX_MESSAGES=3).run() in (ExitReason.SHARE_DONE, ExitReason.DRAINED)
    assert "runner_fault" not in [getattr(one, "event", "") for one in caplog.records]
    assert "succeeded" in plant.final().values()


def test_a_try_that_a_clock_ahead_has_put_off_for_a_day_holds_no_task() -> None:
    plant = Plant()
    plant.registry.task("write")(write)
    ahead_s = plant.clock.now() + 86_400
    kept = Slowed("ValueError: no", 20, ahead_s, ahead_s + FIRST_DELAY_S, next_at=1000, submissions={"s-1"}, tasks={"task-0"})
    plant.store.write(slowed_object("lane", "write"), to_json(kept))
    ids = plant.submit(3)
    plant.subscription.nack([one.ack_id for one in plant.subscription.pull(3, 1.0)])
    plant.worker(MAX_MESSAGES=3).run()
    assert plant.final() == dict.fromkeys(ids, "succeeded")


@pytest.mark.parametrize("odd", [*ODD, '{"a":"\\ud83d"}'], ids=lambda odd: odd[:8])
@pytest.mark.parametrize("key", ["message_id", "published_s", "attributes", "task_id"])
def test_a_delayed_message_that_is_damaged_is_set_aside_and_the_next_is_published(key: str, odd: str) -> None:
    clock, store = ShiftedClock(), MemoryObjectStore()
    broker = MemoryBroker(clock)
    due = clock.now() - 10
    body = damaged(to_object(WAITS), key, odd)
    store.write(delayed_object("lane", due - 10, "t", "7"), body)
    store.write(delayed_object("lane", due, "u", "8"), to_object(WAITS))
    done = Republisher("lane", lambda: broker.topic("lane"), store, clock).run()
    published = [republication_of(one.attributes) for _, one in broker.topic("lane").published]
    assert published[-1] is not None
    assert published[-1].message_id == "7"
    is_text = (key in ("task_id", "message_id") and odd == '"x\\n"') or (key, odd) == ("attributes", "{}")
    assert (done.count, len(store.names("delayed/damaged/")), len(done.problems)) == ((2, 0, 0) if is_text else (1, 1, 1))


def test_a_client_that_writes_our_attribute_cannot_set_the_clock_ahead() -> None:
    forged: dict[str, Any] = {DELAYED: "0000000000 9999999999.000000 other 1 0"}
    assert as_first_published(Delivery("a", "9", b"", forged, 1.7e9)).published_s == 1.7e9
    honest = {DELAYED: "0000000000 1600000000.000000 first 1 0"}
    assert as_first_published(Delivery("a", "9", b"", honest, 1.7e9)).published_s == 1.6e9
