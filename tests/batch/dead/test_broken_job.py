"""BROKEN (found by trying): what stopped the dead-letters job from draining."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from batch.dead.lanes import write_lanes
from batch.dead.replaying import replay
from batch.model.clock import iso
from batch.model.errors import DependencyMissing, DependencyUnavailable
from batch.model.exit import ExitReason
from batch.model.names import LANES, dead_claims_folder
from batch.model.outcomes import Outcome, to_line
from batch.services.leases import LeaseKeeper
from tests.batch.dead.letterbox import LANE, SHARD, Letterbox, body
from tests.batch.dead.test_job import LANE_WITH_RULES, job


@pytest.fixture(autouse=True)
def _no_keeper(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its waits would move the clock."""
    monkeypatch.setattr(LeaseKeeper, "start", lambda _self: None)


@pytest.fixture
def box() -> Letterbox:
    made = Letterbox()
    write_lanes(made.store, {LANE.name: LANE_WITH_RULES, "other": replace(LANE_WITH_RULES, name="other", subscription="o", topic="o")})
    return made


def interrupted(box: Letterbox) -> None:
    box.by_worker("old")
    box.drain()
    box.broker.topic(LANE.topic).fail_next("publish", DependencyUnavailable("down"))
    told: dict[str, Any] = {"details": {}, "rate": None, "clock": box.clock, "rng": random.Random(9), "who": "ann", "why": "fixed"}
    with pytest.raises(DependencyUnavailable):
        replay(box.store, box.broker.topic, LANE, lambda _: True, **told)
    box.clock.advance(601)


@pytest.mark.parametrize("damaged", [True, False], ids=["damaged claims", "topic is gone"])
def test_a_replay_that_cannot_go_on_does_not_keep_the_job_from_draining(box: Letterbox, damaged: bool) -> None:
    interrupted(box)
    if damaged:
        (name,) = box.store.names(dead_claims_folder("lane"))
        box.store.write(name, b"[]")
    else:
        box.broker.topic(LANE.topic).fail_next("publish", DependencyMissing("topic lane-topic does not exist"))
    box.by_worker("new")
    box.by_worker("rule", error_type="TimeoutError", lane="other")
    assert job(box).run() is ExitReason.BROKEN
    assert box.dead.free == 0
    assert "new" in {key.task_id for key in box.letters()}
    box.clock.advance(1300)
    if damaged:
        assert job(box, 2).run() is ExitReason.BROKEN
        assert len(box.broker.topic("o").published) == 1, "the rules of another lane are applied"


def test_without_lanes_written_down_nothing_is_taken(box: Letterbox) -> None:
    """What the net caught would be dead and kept, in a log of no lane, though its lane is there: the tick has not written it yet."""
    box.store.delete(LANES)
    box.by_net(body("one"))
    assert job(box).run() is ExitReason.BROKEN
    assert box.dead.free == 1
    assert box.outcomes() == []


def test_a_death_that_was_replayed_and_purged_does_not_wait_when_it_is_told_again(box: Letterbox) -> None:
    """A redelivered message of the first death, after the log has forgotten it."""
    lines = [Outcome("one", "work", "dead", iso(box.clock.now()), replay_number=number) for number in (0, 1)]
    box.store.write(f"outcomes/{SHARD}/202601010000/x-0.jsonl", b"".join(map(to_line, lines)))
    box.by_worker("one")
    box.drain()
    assert box.letters() == {}
    box.by_worker("one", attributes={"replay": "1 1767225600.000 r-1"})
    box.drain(CLOUD_RUN_EXECUTION="dl-2")
    assert list(box.letters()) == [("one", 1)]
