"""`fanout tick`: a decision in plain lines, and an exit code that a script can trust."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner, Result

from batch.model.errors import DependencyUnavailable
from controller.act.state import load, save
from controller.model.reading import Idle, Reading, Unknown, Value
from controller.observe.jobs import LaunchRefused
from fanout import tick
from tests.controller.fakes import JOB, World, progress, write_progress

ENVIRONMENT = {"GOOGLE_CLOUD_PROJECT": "p", "BUCKET_NAME": "b"}


def run(*arguments: str, environment: dict[str, str] = ENVIRONMENT) -> Result:
    return CliRunner().invoke(tick.tick, arguments, env=environment)


def test_a_launch_is_argued_line_by_line(here: World) -> None:
    info = here.runner.add(3, {"BACKLOG": "300"})
    write_progress(here.store, info.name, 0, progress(100, updated_at=here.clock.now(), taken=100))
    here.backlog.reading = Value(1040, here.clock.now() - 95, 70.0)
    result = run("default")
    lines = result.output.splitlines()
    assert lines[:5] == [
        "lane default: launch: 8 workers for 740 of 740 unassigned messages",
        "  reading: 1040 undelivered, the oldest 2 min 45 s old by now, sampled 1 min 35 s ago",
        "  ledger: 300 of it assigned already",
        "    default-00000 (3 of 3 workers alive): 300 by its workers",
        "  unassigned: 1040 - 300 assigned = 740",
    ]
    assert lines[5].endswith("ceil(740 unassigned / 100 a worker) = 8")
    assert lines[-1] == "  launched default-00001"
    assert result.exit_code == 0


def test_what_waits_is_launched_now_when_somebody_says_so(here: World) -> None:
    here.runner.set_annotation(JOB, "fanout/min-backlog", "50")
    here.runner.set_annotation(JOB, "fanout/max-wait", "5m")
    here.backlog_is(7)
    waiting = run("default")
    assert "7 messages wait" in waiting.output
    assert (waiting.exit_code, len(here.runner.requests)) == (0, 0)
    launched = run("default", "--now")
    assert "lane default: launch: 1 worker for 7 of 7 unassigned messages" in launched.output
    assert (launched.exit_code, len(here.runner.requests)) == (0, 1)


def test_a_deadline_that_no_worker_can_meet_by_the_gauge_alone_is_noted_by_a_plan(here: World) -> None:
    here.runner.set_annotation(JOB, "fanout/drain-within", "2m")
    here.backlog_is(7)
    plan = CliRunner().invoke(tick.plan, ["default"], env=ENVIRONMENT)
    assert plan.exit_code == 0
    assert "note: fanout/drain-within is 2 min and cannot be met by the gauge alone" in plan.output
    assert "cannot be met" not in run("default").output, "not at each tick"
    found = load(here.store, "default")
    save(here.store, found.state.with_accepted(here.clock.now(), 5, "poke-1"), found.generation, "a poke")
    assert "cannot be met" not in CliRunner().invoke(tick.plan, ["default"], env=ENVIRONMENT).output


@pytest.mark.parametrize(("reading", "code"), [(Idle(), 0), (Value(0, 0.0), 0), (Unknown("no answer"), 1)])
def test_the_exit_code_tells_a_decision_from_a_hold(here: World, reading: Reading, code: int) -> None:
    here.backlog.reading = reading
    assert run().exit_code == code


def test_a_failed_listing_is_a_hold(here: World) -> None:
    here.backlog_is(10)
    here.runner.add(1, {"BACKLOG": "10"})
    here.runner.list_errors = [DependencyUnavailable("503")]
    result = run("default")
    assert result.exit_code == 1
    assert "on hold: what runs already is unknown: 503" in result.output


def test_a_lane_held_for_broken_workers_or_a_fault_troubles(here: World) -> None:
    here.backlog_is(10)
    broken = here.runner.add(1, {"BACKLOG": "10"})
    here.runner.fail(broken.name, here.clock.now())
    result = run("default")
    assert result.exit_code == 1
    assert "default-00000 acknowledged nothing: its workers failed before they could begin; held until" in result.output
    here.clock.advance(60)
    here.runner.run_errors = [ZeroDivisionError()]
    assert run("default").exit_code == 1


def test_jobs_that_cannot_be_listed_end_with_1(here: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def down() -> None:
        raise DependencyUnavailable("cannot list the jobs")

    monkeypatch.setattr(here.runner, "jobs", down)
    result = run()
    assert (result.exit_code, result.output) == (1, "Error: cannot list the jobs\n")


def test_no_lane_at_all_ends_with_1(monkeypatch: pytest.MonkeyPatch, here: World) -> None:
    monkeypatch.setattr(here.runner, "jobs", list)
    result = run()
    assert result.exit_code == 1
    assert "project p, region us-central1 has no job labelled fanout-lane" in result.output


def test_a_refused_launch_ends_with_1(here: World) -> None:
    here.backlog_is(10)
    here.runner.run_errors = [LaunchRefused("403: no")]
    result = run("default")
    assert result.exit_code == 1
    assert "403: no" in result.output


def test_a_dry_run_and_a_plan_launch_and_write_nothing(here: World) -> None:
    here.backlog_is(10)
    assert "dry run: nothing was launched" in run("--dry-run").output
    planned = CliRunner().invoke(tick.plan, ["default"], env=ENVIRONMENT)
    assert (planned.exit_code, "dry run: nothing was launched" in planned.output) == (0, True)
    assert here.runner.requests == []
    assert list(here.store.list("")) == []


def test_a_paused_lane_is_no_trouble(here: World) -> None:
    here.backlog_is(10)
    for lane in ("default", "bulk"):
        here.runner.set_annotation(f"projects/p/locations/r/jobs/{lane}", "fanout/paused", "true")
    result = run()
    assert (result.exit_code, "on hold: the lane is paused" in result.output) == (0, True)


def test_json(here: World) -> None:
    here.backlog_is(10)
    body = json.loads(run("--json").output)
    assert [one["lane"] for one in body["lanes"]] == ["bulk", "default"]
    assert body["lanes"][1]["decision"]["backlog"] == 10


def test_an_unknown_lane_is_named_with_what_was_meant(here: World) -> None:
    result = run("defalt")
    assert result.exit_code == 2
    assert "did you mean default?" in result.output


def test_missing_settings_come_all_at_once(here: World) -> None:
    result = run(environment={})
    assert result.exit_code == 2
    assert "GOOGLE_CLOUD_PROJECT is not set" in result.output
    assert "BUCKET_NAME is not set" in result.output
