"""`fanout executions`: states, workers by state, what is done of what, and who launched it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from click.testing import Result

from batch.model.progress import RunningTask
from batch.prices import worker_usd_per_s
from fanout import executions, tick
from fanout.executions import share_count, state_of
from tests.controller.fakes import World, progress, write_progress

Run = Callable[..., Result]


def listed(result: Result) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(result.output)["executions"]
    return found


def test_a_decided_execution_next_to_one_by_hand(here: World, run: Run) -> None:
    by_hand = here.runner.add(2, {"MAX_MESSAGES": "1000"})
    here.runner.all[by_hand.name] = replace(by_hand, started_at=here.clock.now(), running_count=1)
    here.clock.advance(60)
    here.backlog_is(2300)
    run(tick.tick, "default")
    write_progress(here.store, "default-00001", 0, progress(100, taken=80, acked=60, returned=5, exit_reason="out_of_time"), retry=0)
    write_progress(here.store, "default-00001", 0, progress(100, taken=40, acked=30), retry=1)
    result = run(executions.command, "default")
    assert result.exit_code == 0
    header, decided, manual, below = result.output.splitlines()
    assert header.split() == ["EXECUTION", "STATE", "WORKERS", "DONE", "OF", "BY", "STARTED", "TOOK"]
    assert decided.split() == ["default-00001", "running", "3", "90", "300", "tick", "-", "0", "s"]
    assert manual.split() == ["default-00000", "running", "2", "0", "2000", "hand", "1", "min", "ago", "1", "min"]
    assert below == "default-00000: 1 waiting, 1 running"


def test_a_task_that_runs_for_long_is_named_below(here: World, run: Run) -> None:
    info = here.runner.add(1, {"BACKLOG": "3", "DECISION_ID": "d.0"})
    running = (RunningTask("9f2c-x", "resize", int(here.clock.now())),)
    write_progress(here.store, info.name, 0, progress(3, updated_at=here.clock.now(), taken=1, running=running))
    here.clock.advance(59)
    assert len(run(executions.command).output.splitlines()) == 2
    here.clock.advance(241)
    assert run(executions.command).output.splitlines()[2] == "default-00000: its oldest task: 9f2c-x (resize), 5 min"


def test_json_counts_all_tries_and_the_reasons_of_the_last(here: World, run: Run) -> None:
    info = here.runner.add(2, {"BACKLOG": "150", "DECISION_ID": "d.0"})
    write_progress(here.store, info.name, 0, progress(75, taken=75, acked=10, returned=65, exit_reason="stopped"))
    write_progress(here.store, info.name, 0, progress(75, taken=70, acked=65, exit_reason="broken"), retry=1)
    write_progress(here.store, info.name, 1, progress(75, taken=75, acked=75, exit_reason="share_done"))
    here.clock.advance(90)
    here.runner.all[info.name] = replace(info, completed_at=here.clock.now(), succeeded_count=1, failed_count=1, retried_count=1)
    (body,) = listed(run(executions.command, "--json"))
    assert (body["taken_count"], body["acked_count"], body["returned_count"], body["share_count"]) == (220, 150, 65, 150)
    assert (body["state"], body["exit_reasons"], body["decision_id"]) == ("failed", {"broken": 1, "share_done": 1}, "d.0")
    assert (body["duration_s"], body["running_count"], body["waiting_count"]) == (90.0, 0, 0)
    assert "default-00000: 1 succeeded, 1 failed, 1 retried (broken 1)" in run(executions.command).output


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({}, "waiting"),
        ({"running_count": 1}, "running"),
        ({"completed_at": 5.0, "succeeded_count": 2}, "succeeded"),
        ({"completed_at": 5.0, "cancelled_count": 2}, "cancelled"),
        ({"completed_at": 5.0, "cancelled_count": 1, "failed_count": 1}, "failed"),
    ],
)
def test_states(here: World, changes: dict[str, Any], state: str) -> None:
    assert state_of(replace(here.runner.add(2, {}), **{"running_count": 0, **changes})) == state


def test_newest_first_over_all_lanes_within_the_limit(here: World, run: Run) -> None:
    for lane in ("default", "bulk", "default"):
        here.runner.add(1, {}, job=f"projects/p/locations/r/jobs/{lane}")
        here.clock.advance(1)
    assert [one["execution"] for one in listed(run(executions.command, "--json"))] == ["default-00002", "bulk-00001", "default-00000"]
    assert [one["execution"] for one in listed(run(executions.command, "--json", "--limit", "2"))] == ["default-00002", "bulk-00001"]
    here.runner.complete("default-00002", here.clock.now())
    assert [one["execution"] for one in listed(run(executions.command, "--json", "--live"))] == ["bulk-00001", "default-00000"]


def test_progress_that_cannot_be_read_is_told(here: World, run: Run) -> None:
    info = here.runner.add(1, {})
    write_progress(here.store, info.name, 0, progress())
    name = next(one.name for one in here.store.list("workers/"))
    here.store.write(name, b"", metadata={"share": "many"})
    (body,) = listed(run(executions.command, "--json"))
    assert "not a worker's progress" in body["problems"][0]
    assert "not a worker's progress" in run(executions.command).stderr


def test_a_share_without_a_bound_is_not_zero(here: World) -> None:
    assert share_count(here.runner.add(2, {})) is None


def test_what_an_execution_costs_is_the_time_of_its_workers_at_list_price(here: World, run: Run) -> None:
    """A worker is billed for a minute at least."""
    info = here.runner.add(2, {})
    write_progress(here.store, info.name, 0, progress(started_at=1000.0, updated_at=1100.0))
    write_progress(here.store, info.name, 1, progress(started_at=1000.0, updated_at=1001.0))
    (body,) = listed(run(executions.command, "--json"))
    assert body["usd"] == round(160.0 * worker_usd_per_s(1.0, 0.5), 6) > 0


def test_one_that_cannot_start_says_why_in_cloud_run_s_words(here: World, run: Run) -> None:
    info = here.runner.add(2, {"BACKLOG": "20"})
    here.runner.all[info.name] = replace(info, cannot_start="Image 'x' not found.")
    assert run(executions.command, "default").output.splitlines()[-1] == f"{info.name}: it cannot start: Image 'x' not found."
