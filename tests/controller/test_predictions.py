"""Predictions are compared with what happened, once, when all of a launch has ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from batch.model.errors import SettingsError
from controller.config import controller_settings
from controller.decide.decision import Decision, OpenLaunch, ends_of, from_json, open_launch, to_json
from controller.decide.explanation import explained_decision
from controller.decide.ledger import Ledger
from controller.decide.policy import decision_for
from controller.decide.sizing import Rates
from controller.lanes.lanes import lanes_of
from controller.lanes.rules import Home
from controller.model.execution import ExecutionInfo, Worked
from controller.model.lane import Lane
from controller.model.reading import Value
from tests.controller.fakes import JOB, history, job, lane, progress, tick, world, write_progress

T = 10_000.0
LANE = lane(concurrency=10, vcpu=1.0, memory_gib=1.0)
DECISION = replace(decision_for(LANE, Value(1000, T), Ledger(T - 30), now=T, rates=Rates(9.0, 10.0)), decision_id="d1")
LAUNCH = open_launch(DECISION)


def told(end: Mapping[str, Any], decision: Decision = DECISION) -> str:
    """The lines of the decision with what became of it."""
    return "\n".join(explained_decision(from_json({**to_json(decision), **end})))


def end_of(executions: Sequence[Worked], launch: OpenLaunch = LAUNCH, of: Lane = LANE) -> Any:
    """None: it has not ended."""
    return ends_of([launch], executions, of).get(launch.decision_id)


def execution(workers: int, *, part: int = 0, ended_at: float | None = T + 130, acked_at: float = T + 120) -> Worked:
    name = f"default-0000{part}"
    info = ExecutionInfo(f"{JOB}/executions/{name}", workers, T + 1, completed_at=ended_at, env={"DECISION_ID": f"d1.{part}"})
    one = progress(100, T + 11, updated_at=T + 125, acked=100, last_acked_at=acked_at, exit_reason="share_done")
    return Worked(info, {index: [one] for index in range(workers)})


def test_a_launch_that_has_ended_says_how_long_it_took_and_what_it_cost() -> None:
    end = end_of([execution(10)])
    assert (LAUNCH.predicted_drain_s, end["actual_drain_s"], end["drain_error_percent"]) == (100.0, 120.0, 20.0)
    assert end["actual_cost_usd"] == pytest.approx(10 * 124 * 0.00002, rel=0.001)
    assert "happened: drained in 2 min, 20 % longer than predicted, for $0.0248" in told(end)


def test_parts_of_a_launch_count_together() -> None:
    parts = [execution(4, part=0), execution(6, part=1, acked_at=T + 90)]
    assert end_of(parts)["actual_drain_s"] == 120.0
    assert end_of(parts[:1]) is None
    assert end_of([parts[0], execution(6, part=1, ended_at=None)]) is None


@pytest.mark.parametrize(
    ("changes", "reasons", "failure"),
    [
        ({"failed_count": 2}, ("share_done", "drained"), "2 workers failed"),
        ({"failed_count": 1, "cancelled_count": 1}, ("share_done", "share_done"), "1 worker failed, 1 worker cancelled"),
        ({}, ("share_done", ""), "1 worker killed or crashed"),
        ({"failed_count": 1}, ("stopped", ""), "1 worker failed, 1 worker killed or crashed, 1 worker ended stopped"),
        ({}, ("drained", "out_of_time"), "1 worker ended out_of_time"),
    ],
)
def test_what_failed_was_not_drained(changes: dict[str, Any], reasons: tuple[str, str], failure: str) -> None:
    done = execution(10)
    tries = {index: [replace(found[0], exit_reason=reasons[index]) if index < 2 else found[0]] for index, found in done.tries.items()}
    end = end_of([Worked(replace(done.info, **changes), tries)])
    assert (end["actual_failure"], set(end)) == (failure, {"actual_failure", "actual_cost_usd"})
    assert f"happened: {failure}, for $0.0248; `fanout executions default` shows which" in told(end)
    assert "drained" not in told(end).split("happened:")[1].replace("ended drained", "")


def test_a_killed_try_of_a_worker_that_went_on_is_told() -> None:
    done = execution(10)
    tries = {**done.tries, 3: [replace(done.tries[3][0], exit_reason=""), done.tries[3][0]]}
    assert end_of([Worked(done.info, tries)])["actual_failure"] == "1 worker killed or crashed"


def test_what_did_nothing_is_no_drain() -> None:
    idle = execution(10)
    nothing = Worked(idle.info, {index: [replace(tries[0], acked=0)] for index, tries in idle.tries.items()})
    assert set(end_of([nothing])) == {"actual_cost_usd"}
    assert "happened" not in told(end_of([nothing]))
    assert end_of([nothing, Worked(idle.info)]) is None, "more workers than were launched"


def test_other_launches_have_not_ended() -> None:
    assert end_of([execution(10)], OpenLaunch("d2", T, 10)) is None
    assert ends_of([], [execution(10)], LANE) == {}


def test_without_a_prediction_the_time_is_still_told() -> None:
    end = end_of([execution(10)], replace(LAUNCH, predicted_drain_s=None))
    assert (end["actual_drain_s"], end["drain_error_percent"]) == (120.0, None)


def test_a_later_tick_adds_to_the_history_what_happened_and_sizes_by_it() -> None:
    here = world()
    here.backlog_is(250)
    first = tick(lane(), here.outside)
    assert first.decision.predicted_drain_s is None
    (name,) = first.launched
    began = here.clock.now()
    for index in range(3):
        acked = 84 if index == 0 else 83
        done = {"updated_at": began + 105, "taken": acked, "acked": acked, "handler_s": acked * 8.0, "last_acked_at": began + 100}
        write_progress(here.store, name, index, progress(acked, began + 12, exit_reason="share_done", **done))
    here.clock.advance(105)
    here.runner.complete(name, here.clock.now())
    here.clock.advance(200)
    here.backlog_is(1000)
    second = tick(lane(), here.outside).decision
    assert second.rates is not None
    assert (second.rates.message_s, second.rates.start_up_s, second.rates.idle_tail_s) == (8.0, 12.0, 5.0)
    assert second.rates.basis == "80 % quantile of 3 workers"
    assert (second.workers, second.predicted_drain_s) == (10, 12.0 + 13 * 8.0)
    assert [one["actual_drain_s"] for one in history(here.store) if one["kind"] == "launch"] == [None, 100.0]


def test_of_a_delayed_launch_the_hours_before_its_start_cost_nothing_and_are_no_drain() -> None:
    delayed = replace(LANE, is_delayed=True, start_within_s=12 * 3600.0)
    plain = decision_for(delayed, Value(1000, T), Ledger(T - 30), now=T, rates=Rates(9.0, 10.0))
    assert "done 1 min 40 s after their start, up to 12 h after the launch" in "\n".join(explained_decision(plain))
    first = decision_for(delayed, Value(1000, T), Ledger(T - 30), now=T)
    counted = "shown how long a message takes; it counts from their start, up to 12 h after the launch"
    assert counted in "\n".join(explained_decision(from_json(to_json(first))))
    late_s = 6 * 3600.0
    (early,) = [execution(10)]
    started = Worked(
        replace(early.info, started_at=T + 1 + late_s, completed_at=T + 130 + late_s),
        {
            index: [replace(one, started_at=T + 11 + late_s, updated_at=T + 125 + late_s, last_acked_at=T + 121 + late_s)]
            for index, (one,) in early.tries.items()
        },
    )
    launch = open_launch(replace(plain, decision_id="d1", workers=10))
    end = end_of([started], launch, delayed)
    assert (end["actual_drain_s"], end["actual_cost_usd"]) == (120.0, pytest.approx(10 * 124 * 0.00002, rel=0.001))
    unknown = Worked(replace(started.info, started_at=None), started.tries)
    assert end_of([unknown], launch, delayed)["actual_cost_usd"] == pytest.approx(10 * 114 * 0.00002, rel=0.001), "by what its workers say"


def test_a_delayed_lane_costs_the_list_price_until_somebody_says_what_it_costs() -> None:
    jobs = [replace(job(), is_delayed=True), job("bulk")]
    at_list, bulk = lanes_of(jobs)[0][::-1]
    cheap, bulk_too = lanes_of(jobs, Home(delayed_price_percent=40.0))[0][::-1]
    assert (at_list.price_percent, bulk.price_percent, cheap.price_percent, bulk_too.price_percent) == (100.0, 100.0, 40.0, 100.0)
    full, less = (decision_for(one, Value(1000, T), Ledger(T - 30), now=T, rates=Rates(9.0, 10.0)) for one in (at_list, cheap))
    assert less.predicted_cost_usd == pytest.approx(0.4 * (full.predicted_cost_usd or 0.0))
    assert "at list price" in "\n".join(explained_decision(full))
    assert "at 40 % of list price" in "\n".join(explained_decision(from_json(to_json(less))))


@pytest.mark.parametrize("value", ["0", "101", "half"])
def test_the_price_of_delayed_workers_is_a_part_of_the_list_price(value: str) -> None:
    environment = {"GOOGLE_CLOUD_PROJECT": "p", "BUCKET_NAME": "b"}
    assert controller_settings(environment | {"DELAYED_PRICE_PERCENT": "55"}).delayed_price_percent == 55.0
    assert controller_settings(environment).delayed_price_percent == 100.0
    with pytest.raises(SettingsError, match=r"DELAYED_PRICE_PERCENT.*a number above 0"):
        controller_settings(environment | {"DELAYED_PRICE_PERCENT": value})
