"""Faults and odd contents stay where they are: one lane is held and says why, the others go on, and a dry run writes nothing."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

import pytest

from batch.dead.lanes import read_lanes
from batch.model.errors import DependencyError
from batch.model.names import LANES, claim_object, lane_state_object
from batch.model.progress import from_metadata, to_metadata
from batch.services.claims import claim
from batch.testing import MemoryObjectStore
from controller.act.intents import Intent, Part, PartState
from controller.act.launcher import GRACE_S
from controller.act.state import FORMAT, LaneState, load, save
from controller.decide.decision import HoldCause, Kind
from controller.observe.listing import Observed, Seen
from controller.tick.outside import Memory
from controller.tick.results import TickResult, explained_round
from controller.tick.rounds import tick_lanes
from tests.controller.fakes import World, job, lane, progress, tick, world, write_progress

PART = "20260101T000000000-aa.0"


@pytest.fixture
def here() -> World:
    return world()


def ticked(here: World, *, dry_run: bool = False, **changes: object) -> TickResult:
    return tick(lane(**changes), here.outside, dry_run=dry_run)


def lost_launch(here: World) -> None:
    """A launch that nobody can find, saved so long ago that it is given up."""
    intent = Intent(PART.rsplit(".", 1)[0], here.clock.now(), (Part(PART, 1, 10),))
    save(here.store, LaneState("default", intents=(intent,)), 0, "token")
    here.clock.advance(GRACE_S + 1)
    here.backlog_is(10)


def test_a_fault_in_one_lane_holds_it_and_the_others_go_on() -> None:
    here = world([job("a"), job("b")])
    here.backlog_is(10)
    here.runner.run_errors = [ZeroDivisionError("nobody foresaw it"), None]
    outcome = tick_lanes(here.outside)
    first, second = outcome.results
    assert (first.decision.kind, first.decision.hold_cause, first.decision.troubled) == (Kind.HOLD, HoldCause.FAULT, True)
    assert "ZeroDivisionError: nobody foresaw it" in first.decision.reason
    assert "Traceback" in first.notes[0]
    assert second.launched == ("b-00000",)
    assert any("Traceback" in line for line in explained_round(outcome))


def test_a_dry_run_gives_up_no_launch(here: World) -> None:
    lost_launch(here)
    before = {name: here.store.read(name) for name in here.store.names()}
    result = ticked(here, dry_run=True)
    assert {name: here.store.read(name) for name in here.store.names()} == before
    assert result.decision.kind is Kind.NOTHING_TO_DO
    assert result.decision.reason == "all 10 messages are assigned already"
    assert ticked(here).launched
    assert load(here.store, "default").state.intents[0].parts[0].state is PartState.ABANDONED


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"\xff", b'{"execution": null}', b'{"execution": ""}', b"[" * 100_000])
def test_an_unreadable_claim_holds_its_lane(here: World, body: bytes) -> None:
    lost_launch(here)
    here.store.write(claim_object(PART), body)
    decision = ticked(here).decision
    assert decision.hold_cause is HoldCause.LISTING_FAILED
    assert f"claim {claim_object(PART)} is unreadable" in decision.reason
    assert "delete it" in decision.reason
    assert here.runner.requests == []


def test_a_claim_that_vanishes_while_it_is_read_is_no_claim(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryObjectStore()
    claim(store, PART, "default-a")
    reading = store.read
    monkeypatch.setattr(store, "read", lambda name: (store.delete(name), reading(name))[1])
    with pytest.raises(DependencyError, match="vanished"):
        claim(store, PART, "default-b")


STATE: dict[str, Any] = {
    "format": FORMAT,
    "lane": "default",
    "intents": [],
    "last": None,
    "launches": [],
    "launched_at": None,
    "observed": {**asdict(Observed()), "executions": []},
    "accepted": [],
    "pokes": [],
    "backoff": None,
    "learned": {"samples": [], "executions": []},
    "blind": None,
    "epoch": 1,
}


def test_the_state_that_is_damaged_below_is_one(here: World) -> None:
    here.store.write(lane_state_object("default"), json.dumps(STATE).encode())
    here.backlog_is(10)
    assert ticked(here).decision.kind is Kind.LAUNCH


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b"\xff",
        b"[" * 100_000,
        json.dumps({**STATE, "learned": {"samples": [[float("nan"), 1, None, None]], "executions": []}}).encode(),
        json.dumps({**STATE, "observed": {**STATE["observed"], "executions": [asdict(Seen("default-00000", 1, True))]}}).encode(),
        json.dumps({**STATE, "observed": "abc"}).encode(),
        json.dumps({**STATE, "intents": [{"decision_id": "a", "saved_at": "inf", "parts": []}]}).encode(),
        json.dumps({**STATE, "unwritten": [5]}).encode(),
    ],
)
def test_a_state_that_is_none_holds_its_lane(here: World, body: bytes) -> None:
    here.store.write(lane_state_object("default"), body)
    here.backlog_is(10)
    decision = ticked(here).decision
    assert decision.hold_cause is HoldCause.STATE_UNREADABLE
    assert "delete it to start afresh" in decision.reason


def test_a_decision_of_a_kind_that_only_another_version_knows_is_no_fault(here: World) -> None:
    last = {"kind": "ponder", "reason": "?", "decided_at": 5.0, "hold_cause": "?", "decision_id": "", "workers": 0}
    here.store.write(lane_state_object("default"), json.dumps({**STATE, "last": last}).encode())
    here.backlog_is(0)
    assert ticked(here).decision.kind is Kind.NOTHING_TO_DO


@pytest.mark.parametrize("changed", [{"handler_s": "nan"}, {"updated_at": "inf"}, {"marks": "[" * 100_000}])
def test_progress_that_is_no_number_is_none(changed: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="not a worker's progress"):
        from_metadata({**to_metadata(progress()), **changed})


def test_a_worker_that_died_for_good_gives_its_share_back_while_others_go_on(here: World) -> None:
    begin = here.clock.now()
    info = here.runner.add(2, {"BACKLOG": "200"})
    here.clock.advance(30)
    write_progress(here.store, info.name, 0, progress(100, begin, updated_at=begin + 15, taken=8))
    write_progress(here.store, info.name, 0, progress(100, begin + 20, updated_at=begin + 25, taken=8), retry=1)
    write_progress(here.store, info.name, 1, progress(100, begin, updated_at=begin + 25, taken=2, acked=1))
    here.backlog_is(199)
    assert ticked(here, max_retries=1).decision.kind is Kind.NOTHING_TO_DO
    assert here.runner.workers_listed == []
    here.runner.worker_failed(info.name, 0, here.clock.now())
    here.clock.advance(70)
    here.backlog_is(199)
    assert ticked(here, max_retries=1).decision.backlog == 100
    assert here.runner.workers_listed == [info.name]
    here.runner.all[info.name] = replace(here.runner.all[info.name], completed_at=here.clock.now())
    ticked(here, max_retries=1)
    assert here.runner.workers_listed == [info.name]


def test_one_worker_and_one_message_are_told_as_one(here: World) -> None:
    here.backlog_is(1)
    assert ticked(here).decision.reason == "1 worker for 1 of 1 unassigned message"
    assert ticked(here).decision.reason == "the only message is assigned already"
    here.backlog_is(5)
    assert ticked(here, max_workers=1).decision.reason == "4 messages wait, but 1 worker is alive and the lane's limit is 1"


# --- controller/lanes.json


def test_a_round_writes_what_all_lanes_are_once() -> None:
    here = world([job("a", replay_errors="*"), job("b")])
    tick_lanes(here.outside, dry_run=True)
    assert read_lanes(here.store) == {}
    tick_lanes(here.outside, ["a"])
    found = read_lanes(here.store)
    assert {name: (one.subscription, one.topic, one.rules.errors) for name, one in found.items()} == {
        "a": ("a-sub", "tasks", ("*",)),
        "b": ("b-sub", "tasks", ()),
    }
    assert (found["a"].vcpu, found["a"].memory_gib) == (1.0, 0.5)
    generation = here.store.read_with_info(LANES)[1].generation
    here.store.fail_next("read", DependencyError("it is not to be read again"))
    tick_lanes(here.outside)
    assert (here.store.read_with_info(LANES)[1].generation, len(here.store.unmet())) == (generation, 1)


def test_lanes_json_tells_which_messages_a_lane_takes() -> None:
    here = world([job("a", accept="raw,gcs-notification", default_type="note", event_types="OBJECT_DELETE"), job("b")])
    tick_lanes(here.outside)
    found = {name: (one.accept, one.default_type, one.event_types) for name, one in read_lanes(here.store).items()}
    assert found == {"a": (("raw", "gcs-notification"), "note", ("OBJECT_DELETE",)), "b": (("envelope",), "", ("OBJECT_FINALIZE",))}


def test_lanes_that_somebody_deleted_are_written_again() -> None:
    here = world([job("a")])
    tick_lanes(here.outside)
    here.store.delete(LANES)
    here.clock.advance(601)
    tick_lanes(here.outside)
    assert list(read_lanes(here.store)) == ["a"]


def test_a_new_controller_finds_the_lanes_as_they_are() -> None:
    here = world([job("a")])
    tick_lanes(here.outside)
    generation = here.store.read_with_info(LANES)[1].generation
    tick_lanes(replace(here.outside, memory=Memory()))
    assert here.store.read_with_info(LANES)[1].generation == generation


def test_a_job_that_is_refused_for_now_keeps_its_lane() -> None:
    here = world([job("a"), job("b")])
    tick_lanes(here.outside)
    here.runner._jobs = [job("a", drain_within="5m", replay_errors="*"), job("b", weight="none")]
    tick_lanes(here.outside)
    found = read_lanes(here.store)
    assert (list(found), found["a"].rules.errors) == (["a", "b"], ("*",))


def test_lanes_that_cannot_be_written_hold_up_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    here = world([job("a")])
    here.backlog_is(10)
    write = here.store.write

    def refused(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == LANES:
            raise DependencyError("no answer")
        return write(name, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(here.store, "write", refused)
        assert tick_lanes(here.outside).results[0].launched
    assert read_lanes(here.store) == {}
    tick_lanes(here.outside)
    assert list(read_lanes(here.store)) == ["a"]
