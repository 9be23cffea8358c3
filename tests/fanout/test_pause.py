"""`fanout pause` and `resume`: the deployed job is marked, once, and the next tick knows."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from click.testing import Result

from fanout import pause, tick
from tests.controller.fakes import JOB, World, job, world
from tests.fanout.test_apply import applied, cloud, deployed, jobs_file
from tests.support import Service

__all__ = ["cloud", "jobs_file"]
Run = Callable[..., Result]


def test_a_paused_lane_launches_nothing_until_it_is_resumed(here: World, run: Run) -> None:
    here.backlog_is(10)
    first = run(pause.pause, "default")
    assert (first.exit_code, first.output.startswith("lane default is paused: nothing is launched for it")) == (0, True)
    run(tick.tick, "default")
    assert here.runner.requests == []
    assert run(pause.pause, "default").output == "lane default was paused already\n"
    run(pause.resume, "default")
    run(tick.tick, "default")
    assert len(here.runner.requests) == 1
    assert run(pause.resume, "default").output == "lane default was not paused\n"


def test_what_is_so_already_is_not_set_again(here: World, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(here.runner, "jobs", world([job(paused="true"), job("bulk")]).runner.jobs)
    run(pause.pause, "default")
    run(pause.resume, "bulk")
    assert here.runner.annotated == {}


def test_nothing_is_changed_when_one_name_is_wrong(here: World, run: Run) -> None:
    result = run(pause.pause, "default", "bulki")
    assert (result.exit_code, "did you mean bulk?" in result.output) == (2, True)
    assert here.runner.annotated == {}


def test_json(here: World, run: Run) -> None:
    body = json.loads(run(pause.pause, "default", "--json").output)
    assert body == {"lanes": [{"lane": "default", "job": JOB, "paused": True, "changed": True}]}


def test_a_lane_must_be_named(here: World, run: Run) -> None:
    assert run(pause.pause).exit_code == 2


def test_the_deployed_job_keeps_everything_else(cloud: str, jobs_file: object, local_run: Service, run: Run) -> None:
    assert applied(str(jobs_file), "--yes").exit_code == 0
    before = deployed(cloud, local_run)["default"]
    options = ("--project", cloud)
    result = run(pause.pause, "default", *options)
    assert result.exit_code == 0, result.output
    after = deployed(cloud, local_run)["default"]
    assert after.annotations == {**before.annotations, "fanout/paused": "true"}
    assert (after.env, after.task_timeout_s, after.labels) == (before.env, before.task_timeout_s, before.labels)
    assert "was paused already" in run(pause.pause, "default", *options).output
    assert "- metadata.annotations[fanout/paused]" in applied(str(jobs_file), "--dry-run").output
