"""What all of an operator's commands have in common: examples in the help, and JSON with no key that the help does not name."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from batch.model.message import new_task_id, rolling_shard
from batch.model.names import outcome_object
from batch.model.outcomes import Outcome, to_line
from fanout import apply, cancel, doctor, executions, explain, lanes, launch, pause, task, tick
from fanout.submission import following
from tests.controller.fakes import World
from tests.fanout.test_apply import cloud, jobs_file

__all__ = ["cloud", "jobs_file"]
Run = Callable[..., Result]
COMMANDS = {
    "tick": tick.tick,
    "plan": tick.plan,
    "explain": explain.command,
    "lanes": lanes.command,
    "executions": executions.command,
    "pause": pause.pause,
    "resume": pause.resume,
    "launch": launch.command,
    "task": task.command,
    "doctor": doctor.command,
    "cancel": cancel.command,
    "status": following.status,
    "wait": following.wait,
    "apply": apply.apply,
    "render": apply.render,
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_help_has_examples_and_json(name: str) -> None:
    text = CliRunner().invoke(COMMANDS[name], ["--help"]).output
    assert f"\n  fanout {name}" in text
    assert "--json" in text


def documented(command: click.Command) -> set[str]:
    """The words of the help's paragraph on JSON."""
    paragraph = re.search(r"JSON: (.*?)(\n\n|\Z)", str(command.help), re.DOTALL)
    assert paragraph is not None
    return set(re.findall(r"[a-z_]+", paragraph[1]))


def keys(body: Any) -> set[str]:
    """Of the body, and of what it lists."""
    rows = [row for value in body.values() if isinstance(value, list) for row in value if isinstance(row, dict)]
    return set(body) | {key for row in rows for key in row}


@pytest.mark.parametrize("name", ["tick", "lanes", "executions", "explain", "pause", "launch", "cancel"])
def test_every_key_stands_in_the_help(here: World, run: Run, name: str) -> None:
    here.backlog_is(10)
    run(tick.tick)
    ended = new_task_id(here.outside.rng, rolling_shard("default", 0.0))
    here.store.write(outcome_object(ended[17:], 0.0, "x", 0), to_line(Outcome(ended, "t", "dead", "")))
    arguments = {"pause": ["default"], "launch": ["default", "--workers", "1"], "cancel": [ended]}.get(name, [])
    body = json.loads(run(COMMANDS[name], *arguments, "--json").output)
    assert keys(body) - documented(COMMANDS[name]) == set()


def test_workers_and_tasks_are_one_option(here: World, run: Run) -> None:
    for option in ("--workers", "--tasks"):
        assert "with 3 workers" in run(launch.command, "default", option, "3").output
    assert [request.task_count for _, request in here.runner.requests] == [3, 3]


@pytest.mark.parametrize("name", COMMANDS)
def test_without_credentials_a_command_says_how_to_log_in(name: str, tmp_path: Path) -> None:
    """`render` needs none."""
    environment = {"GOOGLE_CLOUD_PROJECT": "p", "BUCKET_NAME": "bucket", "GOOGLE_APPLICATION_CREDENTIALS": str(tmp_path / "nowhere.json")}
    arguments = {"launch": ["default", "--workers", "1"], "pause": ["default"], "resume": ["default"], "render": ["default"]}.get(name, [])
    if name == "task":
        arguments = ["0123456789abcdef-s-1"]
    if name in ("status", "wait"):
        arguments = ["s-1"]
    if name == "cancel":
        arguments = ["s-1", "--lane", "default"]
    if name == "apply":
        arguments = ["--set-env", "GOOGLE_CLOUD_PROJECT=p", "--image", "i"]
    result = CliRunner().invoke(COMMANDS[name], arguments, env=environment)
    assert isinstance(result.exception, SystemExit | None)
    assert result.exit_code == (0 if name == "render" else 1), result.output
    assert name == "render" or "nowhere.json" in result.output


def test_apply_tells_json_what_it_did_and_asks_beside_it(cloud: str, jobs_file: Path) -> None:
    result = CliRunner().invoke(apply.apply, [str(jobs_file), "--json"], input="y\n")
    assert result.exit_code == 0, result.output
    body = json.loads(result.stdout)
    assert [(one["job"], one["exists"], one["applied"]) for one in body["jobs"]] == [
        (name, False, True) for name in ("urgent", "default", "bulk", "dead-letters")
    ]
    assert keys(body) - documented(apply.apply) == set()
    again = json.loads(CliRunner().invoke(apply.apply, [str(jobs_file), "--json"]).stdout)
    assert [(one["exists"], one["applied"], one["changes"]) for one in again["jobs"]] == [(True, False, [])] * 4


def test_render_as_json_is_the_manifest(jobs_file: Path) -> None:
    arguments = ["bulk", str(jobs_file), "--project", "p", "--bucket", "bucket", "--json"]
    document = json.loads(CliRunner().invoke(apply.render, arguments).stdout)
    assert (document["kind"], document["metadata"]["name"]) == ("Job", "bulk")
