"""`fanout lanes`: what stands in the way of a lane is seen, and an unknown number is not shown as zero."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from click.testing import Result

from batch.dead.log import Act, about
from batch.dead.segments import write
from batch.ends import marks
from batch.ends.marks import Mark, Told
from batch.ends.options import Ends
from batch.model.clock import iso
from batch.model.errors import DependencyUnavailable
from batch.model.names import dead_segment_object
from batch.services.ports import ObjectInfo
from controller.act.intents import Intent, parts_for
from controller.act.state import LaneState, save
from controller.decide.decision import HoldCause, held_decision
from controller.model.reading import Idle, Unknown, Value
from controller.observe.jobs import LaunchRefused, LaunchThrottled
from controller.tick.view import look
from fanout import lanes, tick
from tests.batch.traces import Bucket
from tests.controller.fakes import JOB, World, job, progress, world, write_progress

Run = Callable[..., Result]


def lane_of(result: Result, name: str = "default") -> dict[str, Any]:
    return next(one for one in json.loads(result.output)["lanes"] if one["lane"] == name)


def test_what_nobody_foresaw_of_one_lane_does_not_hide_the_others(here: World, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    executions = here.runner.executions

    def odd(job: str) -> Any:
        if job.endswith("/bulk"):
            raise ZeroDivisionError("nobody foresaw it")
        return executions(job)

    monkeypatch.setattr(here.runner, "executions", odd)
    here.runner.add(1, {}, job="projects/p/locations/r/jobs/bulk")
    here.backlog_is(5)
    result = run(lanes.command, "--json")
    assert result.exit_code == 1
    assert [one["lane"] for one in json.loads(result.output)["lanes"]] == ["bulk", "default"]
    assert "ZeroDivisionError: nobody foresaw it" in lane_of(result, "bulk")["troubles"][0]
    assert lane_of(result)["troubles"] == []


def test_backlog_ledger_workers_and_the_last_launch_stand_in_columns(here: World, run: Run) -> None:
    here.backlog.by_name = {"tasks-sub": Value(1040, here.clock.now() - 95, 70.0), "bulk-sub": Idle()}
    info = here.runner.add(3, {"BACKLOG": "300"})
    write_progress(here.store, info.name, 0, progress(100, updated_at=here.clock.now(), taken=100, acked=0))
    run(tick.tick, "default")
    here.clock.advance(30)
    here.runner.set_annotation("projects/p/locations/r/jobs/bulk", "fanout/paused", "true")
    result = run(lanes.command)
    assert result.exit_code == 0
    assert result.output.splitlines() == [
        "LANE     STATE   BACKLOG  OLDEST  ASSIGNED  WORKERS  DEAD  DELAYED  LAUNCH",
        "bulk     paused     idle       -         0        0     0        0  -",
        "default  ok         1040   3 min      1040       11     0        0  30 s",
    ]


def test_what_a_delayed_lane_waits_for_stands_below(here: World, run: Run) -> None:
    (before,) = (one for one in here.runner._jobs if one.name == "default")
    delayed = replace(before, is_delayed=True, annotations={**before.annotations, "fanout/drain-within": "1d"})
    here.runner._jobs[here.runner._jobs.index(before)] = delayed
    info = here.runner.add(3, {"BACKLOG": "300"})
    here.runner.all[info.name] = replace(info, running_count=0)
    here.backlog_is(300)
    result = run(lanes.command, "default")
    late = "no worker of default-00000 has started yet: this lane's start up to 12 h after their launch"
    assert (result.exit_code, result.output.splitlines()[2:]) == (0, [f"lane default: {late}"])
    here.runner.all[info.name] = replace(info, running_count=1)
    assert late not in run(lanes.command, "default").output


def test_a_lane_whose_messages_wait_is_fine_and_says_until_when(here: World, run: Run) -> None:
    here.runner.set_annotation(JOB, "fanout/max-wait", "5m")
    here.runner.set_annotation(JOB, "fanout/min-backlog", "50")
    here.backlog_is(20)
    run(tick.tick, "default")
    result = run(lanes.command, "default")
    (body,) = json.loads(run(lanes.command, "default", "--json").output)["lanes"]
    assert (result.exit_code, result.output.splitlines()[1].split()[:3], body["troubles"]) == (0, ["default", "ok", "20"], [])
    assert "lane default: the last decision, 0 s ago, was to launch nothing: 20 messages wait to be 50 (fanout/min-backlog), until " in (
        result.output
    )
    assert "waiting: 20 messages wait to be 50" in run(tick.plan, "default").output


def test_an_execution_that_has_not_started_for_long_is_told_of(here: World, run: Run) -> None:
    info = here.runner.add(3, {"BACKLOG": "300"})
    here.runner.all[info.name] = replace(info, running_count=0)
    here.clock.advance(1200)
    here.backlog_is(300)
    (told,) = run(lanes.command, "default").output.splitlines()[2:]
    assert told.startswith("lane default: default-00000: no worker has started in 20 min: look for a quota or an image problem")


def test_ends_that_are_still_to_be_fired_are_counted_and_an_overdue_one_is_told(here: World, run: Run) -> None:
    ends = Ends({"task_type": "report"})
    marks.write(here.store, Mark("s-1", "default"), ends)
    assert lane_of(run(lanes.command, "--json"))["ends_count"] == 1
    assert run(lanes.command, "default").exit_code == 0
    marks.write(here.store, Mark("s-2", "default", told=Told(here.clock.now(), 10, 3)), ends)
    result = run(lanes.command)
    assert (result.exit_code, result.output.splitlines()[2].split()[:2]) == (1, ["default", "unfired"])
    (trouble,) = lane_of(run(lanes.command, "--json"))["troubles"]
    assert trouble.startswith("the end of submission s-2 was asked for 3 times and is not fired: `fanout proof s-2`")


def test_json_tells_the_same_and_writes_nothing(here: World, run: Run) -> None:
    here.backlog_is(70, age_s=40)
    here.runner.add(1, {"BACKLOG": "50"})
    body = lane_of(run(lanes.command, "default", "--json"))
    assert (body["assigned_count"], body["unassigned_count"], body["live_worker_count"]) == (50, 20, 1)
    assert (body["reading"]["state"], body["sample_age_s"], body["last_decision"], body["troubles"]) == ("value", 40.0, None, [])
    assert list(here.store.list("")) == []


def test_a_look_gives_up_no_launch_and_publishes_nothing(here: World, run: Run) -> None:
    """What a tick would settle: a launch that never showed, and a delayed task that is due."""
    here.backlog_is(10)
    intent = Intent("d", here.clock.now() - 3600, parts_for("d", 1, 10))
    save(here.store, LaneState("default").with_intent(intent), 0, "t")
    here.store.write("delayed/tasks-sub/0000000001-a-b", b"{}\n{}")
    before = [(one.name, one.generation) for one in here.store.list("")]
    assert run(lanes.command, "default").exit_code == 0
    assert [(one.name, one.generation) for one in here.store.list("")] == before


def test_what_waits_for_more_than_a_worker_is_counted(here: World, run: Run) -> None:
    now = here.clock.now()
    traces = Bucket(here.store, here.clock)
    ids = [traces.new_id() for _ in range(5)]
    died = [traces.letter(one, fingerprint=f"{number:016x}" * 100) for number, one in enumerate(ids)]  # more groups than metadata holds
    traces.letters(*died)
    ends = [
        about(one, act, at=iso(now), action_id="a", who="me")
        for one, act in zip(died[:3], (Act.REPLAYED, Act.DISCARDED, Act.EDITED), strict=True)
    ]
    write(here.store, dead_segment_object("default", now, "a", 0), ends)
    again = [about(died[0], Act.SUCCEEDED, at=iso(now), action_id="b", who="job")]  # of one that an operator has just replayed
    write(here.store, dead_segment_object("default", now, "b", 0), again)
    here.store.write("dead/default/claims/x", b"{}", metadata={"died_count": "7"})
    for one in ids[:2]:
        traces.delay(one, now + 4000, "bulk-sub")
    cancelled = {"format": 1, "entries": [{"id": "a", "at": now, "until": now + 1}, {"id": "b", "at": now, "until": now}]}
    here.store.write("cancel/bulk.json", json.dumps(cancelled).encode())
    result = run(lanes.command, "--json")
    counts = {one: tuple(lane_of(result, one)[f"{name}_count"] for name in ("dead", "delayed", "cancelled")) for one in ("default", "bulk")}
    assert counts == {"default": (3, 0, 0), "bulk": (0, 2, 1)}
    _, bulk, default, below = run(lanes.command).output.splitlines()
    assert (bulk.split()[-3:-1], default.split()[-3:-1], below) == (["0", "2"], ["3", "0"], "lane bulk: 1 cancelled")


def test_no_more_than_ten_thousand_delayed_tasks_are_counted(here: World, run: Run) -> None:
    taken = []

    def many(prefix: str, start: str = "") -> Iterator[ObjectInfo]:
        for number in range(20_000 if prefix == "delayed/tasks-sub/" else 0):
            taken.append(number)
            yield ObjectInfo(f"{prefix}{number}", 1, 0)

    here.store.list = many  # type: ignore[method-assign]
    assert "  10,000+  -\n" in run(lanes.command, "default").output
    assert len(taken) == 10_000
    assert lane_of(run(lanes.command, "default", "--json"))["delayed_count"] == 10_000


def test_what_cannot_be_counted_is_a_trouble_of_its_lane(here: World, run: Run) -> None:
    here.store.write("cancel/default.json", b"[]")
    result = run(lanes.command, "--json")
    assert (result.exit_code, lane_of(result)["cancelled_count"], lane_of(result, "bulk")["cancelled_count"]) == (1, None, 0)
    (trouble,) = lane_of(result)["troubles"]
    assert trouble.startswith("how many tasks are cancelled is unknown: cancel/default.json is damaged, so it cancels nothing")
    assert run(lanes.command, "default").output.splitlines()[1].split()[1] == "unknown"


def test_what_cannot_be_known_is_null_and_a_trouble(here: World, run: Run) -> None:
    here.backlog.reading = Unknown("no answer")
    here.runner.add(1, {"BACKLOG": "50"})
    here.runner.list_errors = [DependencyUnavailable("503 from the list")]
    result = run(lanes.command, "default", "--json")
    body = lane_of(result)
    assert result.exit_code == 1
    assert (body["assigned_count"], body["unassigned_count"], body["sample_age_s"]) == (None, None, None)
    assert body["troubles"] == ["the backlog is unknown: no answer", "what runs already is unknown: 503 from the list"]
    here.runner.list_errors = [DependencyUnavailable("503 from the list")]
    text = run(lanes.command, "default").output
    assert text.splitlines()[1].split()[:5] == ["default", "unknown", "unknown", "-", "?"]


def test_a_broken_hold_is_told_with_what_to_do(here: World, run: Run) -> None:
    here.backlog_is(10)
    here.runner.fail(here.runner.add(1, {"BACKLOG": "10"}).name, here.clock.now())
    result = run(lanes.command, "default")
    assert result.exit_code == 1
    assert result.output.splitlines()[1].split()[1] == "broken"
    assert "lane default: default-00000 acknowledged nothing: its workers failed before they could begin; held until" in result.output


def test_refused_launches_are_told_until_their_wait_is_over(here: World, run: Run) -> None:
    here.backlog_is(10)
    here.runner.run_errors = [LaunchThrottled("429: too many")]
    run(tick.tick, "default")
    assert "Cloud Run refused launches, none is tried for" in lane_of(run(lanes.command, "--json"))["troubles"][0]
    here.clock.advance(60)
    here.backlog_is(10)
    assert lane_of(run(lanes.command, "--json"))["troubles"] == []


def test_a_launch_that_was_refused_is_told_until_something_else_is_decided(here: World, run: Run) -> None:
    here.backlog_is(10)
    here.runner.run_errors = [LaunchRefused("403: grant the role")]
    assert run(tick.tick, "default").exit_code == 1
    here.clock.advance(20)
    result = run(lanes.command, "default")
    columns = result.output.splitlines()[1].split()
    assert (result.exit_code, columns[1], columns[-1]) == (1, "refused", "-")
    assert "lane default: the last launch, 20 s ago, started nothing: 403: grant the role" in result.output.splitlines()
    run(tick.tick, "default")
    result = run(lanes.command, "default")
    assert (result.exit_code, result.output.splitlines()[1].split()[1]) == (0, "ok")


def test_a_damaged_state_is_one_lanes_trouble(here: World, run: Run) -> None:
    here.store.write("controller/default.json", b"{")
    body = json.loads(run(lanes.command, "--json").output)["lanes"]
    assert [bool(one["troubles"]) for one in body] == [False, True]
    assert body[1]["live_worker_count"] is None


def test_a_job_that_is_no_lane_is_told(here: World, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = world([job(), job("bulk", weight="-4")])
    monkeypatch.setattr(here.runner, "jobs", wrong.runner.jobs)
    result = run(lanes.command)
    assert result.exit_code == 1
    assert "job bulk is not a lane until this is right: job bulk: metadata.annotations[fanout/weight]='-4'" in result.output
    assert json.loads(run(lanes.command, "--json").output)["refused"][0]["job"] == "bulk"


def test_a_decision_of_another_version_does_not_hide_the_lane(here: World, run: Run) -> None:
    here.backlog_is(10)
    run(tick.tick, "default")
    state = json.loads(here.store.read("controller/default.json"))
    state["last"] |= {"kind": "ponder", "hold_cause": "?"}
    here.store.write("controller/default.json", json.dumps(state).encode())
    assert run(lanes.command, "default").output.splitlines()[1].endswith("  0 s")
    assert lane_of(run(lanes.command, "default", "--json"))["last_decision"]["kind"] == "ponder"


def test_no_lane_at_all_ends_with_1(here: World, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(here.runner, "jobs", list)
    result = run(lanes.command)
    assert (result.exit_code, "has no job labelled fanout-lane" in result.output) == (1, True)


def test_after_a_drain_nothing_is_shown_as_assigned(here: World, run: Run) -> None:
    """The ledger still has 400 messages that were acknowledged since the sample; the gauge counts none of them any more."""
    info = here.runner.add(4, {"BACKLOG": "400"})
    for index in range(4):
        now = here.clock.now()
        done = progress(100, now - 50, taken=100, acked=100, updated_at=now, exit_reason="share_done")
        write_progress(here.store, info.name, index, done)
    here.runner.complete(info.name, here.clock.now())
    here.backlog_is(0, age_s=60)
    result = run(lanes.command, "default")
    assert (result.exit_code, result.output.splitlines()[1].split()) == (0, ["default", "ok", "0", "-", "0", "0", "0", "0", "-"])
    assert len(result.output.splitlines()) == 2
    here.backlog_is(500, age_s=60)
    body = lane_of(run(lanes.command, "default", "--json"))
    assert (body["assigned_count"], body["unassigned_count"]) == (400, 100)
    told = run(lanes.command, "default").output.splitlines()[-1]
    assert told == "lane default: assigned, though no worker is alive: 400 acknowledged since the sample (1 min old)"
    here.backlog_is(500, age_s=20)
    told = run(lanes.command, "default").output.splitlines()[-1]
    assert told == (
        "lane default: assigned, though no worker is alive: 160 acknowledged since the sample, 240 perhaps acknowledged in the 30 s "
        "before it (20 s old)"
    )


def test_a_lane_whose_job_breaks_a_rule_is_held_and_says_why(here: World, run: Run) -> None:
    wrong = world([replace(job(), parallelism=3)])
    here.runner.jobs = wrong.runner.jobs  # type: ignore[method-assign]
    here.backlog_is(10)
    result = run(lanes.command)
    assert (result.exit_code, result.output.splitlines()[1].split()[1]) == (1, "held")
    assert "lane default: it is held until this is right: job default: spec.template.spec.parallelism=3" in result.output
    here.runner.jobs = world([replace(job(paused="true"), parallelism=3)]).runner.jobs  # type: ignore[method-assign]
    assert run(lanes.command).output.splitlines()[1].split()[1] == "paused+held"


def test_advice_is_told_and_is_no_trouble(here: World, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    advice = ("topic tasks has another subscription",)
    monkeypatch.setattr("fanout.lanes.look", lambda *args, **named: replace(look(*args, **named), advice=advice))
    result = run(lanes.command, "default")
    assert (result.exit_code, result.output.splitlines()[1].split()[1]) == (0, "ok")
    assert result.output.splitlines()[-1] == "lane default: advice: topic tasks has another subscription"
    assert lane_of(run(lanes.command, "default", "--json"))["advice"] == ["topic tasks has another subscription"]


def test_what_came_since_the_sample_and_a_hold_that_is_over_stand_below(here: World, run: Run) -> None:
    here.backlog_is(10, age_s=5)
    held = held_decision("default", Idle(), here.clock.now(), HoldCause.STATE_UNREADABLE, "the budget is unreadable")
    saved = save(here.store, LaneState("default").with_accepted(here.clock.now(), 7).with_decision(held, "h1"), 0, "t")
    here.clock.advance(1)
    assert run(lanes.command, "default").output.splitlines()[2:] == [
        "lane default: 7 accepted since the sample",
        "lane default: the last decision, 1 s ago, was to hold: the budget is unreadable",
    ]
    held = held_decision("default", Idle(), here.clock.now(), HoldCause.MISCONFIGURED, "its topic was deleted")
    save(here.store, saved.state.with_decision(held, "h2"), saved.generation, "t")
    here.clock.advance(120)
    (line,) = [one for one in run(lanes.command, "default").output.splitlines() if "topic" in one]
    assert line == "lane default: the last decision, 2 min ago, was to hold, and that has been put right: its topic was deleted"


def test_messages_that_somebody_else_holds_are_told(here: World, run: Run) -> None:
    info = here.runner.add(1, {"BACKLOG": "100"})
    write_progress(here.store, info.name, 0, progress(share=100, updated_at=here.clock.now(), exit_reason="drained"))
    here.clock.advance(120)
    here.runner.complete(info.name, here.clock.now() - 30)
    here.backlog.by_name = {"tasks-sub": Value(100, here.clock.now() - 10, 3000.0), "bulk-sub": Idle()}
    run(tick.tick, "default")
    result = run(lanes.command, "default")
    assert result.exit_code == 0
    assert f"100 messages are held by somebody else: {info.name} drained the subscription and found 0 of 100" in result.output


def test_what_is_in_the_way_of_several_lanes_is_one_line(here: World, run: Run) -> None:
    here.backlog.reading = Unknown("no answer")
    output = run(lanes.command).output
    assert "lanes bulk, default: the backlog is unknown: no answer" in output.splitlines()
    assert output.count("no answer") == 1
