"""The parameters file: every problem at once, with its line, and nothing in it is ever executed."""

from __future__ import annotations

import importlib.util
import re
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

from tests.support import clean_environment

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
SCRIPTS = sorted([*DEPLOY.glob("*.sh"), *DEPLOY.glob("steps/*.sh")])
GOOD = {
    "PROJECT": "my-project",
    "REGION": "us-central1",
    "BUCKET": "my-project-fanout",
    "BASE_DIGEST": "sha256:" + "a" * 64,
    "NOTIFY_EMAIL": "oncall@example.com",
}


def module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"deploy_{name}", DEPLOY / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    import sys

    sys.modules[spec.name] = made
    spec.loader.exec_module(made)
    return made


parameters, files = module("parameters"), module("files")


def text(**changed: str) -> str:
    return "".join(f"{key}={value}\n" for key, value in {**GOOD, **changed}.items())


def problems(content: str) -> list[str]:
    return list(parameters.read(content, "p.env")[1])


def test_what_is_given_is_taken_and_the_rest_has_defaults() -> None:
    values, wrong = parameters.read("# a comment\n\n" + text(TICK_SCHEDULE='"*/5 * * * *"'), "p.env")
    assert not wrong
    assert (values["PROJECT"], values["TICK_SCHEDULE"], values["JOBS_FILE"]) == ("my-project", "*/5 * * * *", "jobs.yaml")


def test_the_example_has_every_parameter_and_lacks_only_the_base() -> None:
    example = (DEPLOY / "parameters.example.env").read_text()
    (problem,) = problems(example)
    assert problem.startswith("p.env: BASE_DIGEST is the example's")
    assert not problems(example.replace("\nIMAGE=\n", f"\nIMAGE=a/b@sha256:{'c' * 64}\n")), "with an image there is nothing to build"
    assert re.findall(r"(?m)^([A-Z_]+)=", example) == list(parameters.PARAMETERS)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("PROJEKT=x", "PROJEKT is no parameter; did you mean PROJECT?"),
        ("project=x", "did you mean PROJECT?"),
        ("ZZZ=1", "parameters.example.env has all of them"),
        ("REGION", "'REGION' is not NAME=value"),
        ("export REGION=us-east1", "is not NAME=value"),
        ("REGION = us-east1", "spaces around"),
        ("REGION=us-east1 ", "spaces around"),
        ("REGION=us-east1\r", "CR LF"),
        ("BUILD_REGION=everywhere", "must be a region, as us-central1, or global"),
        ("REGION=us-east1", "REGION is there twice"),
        ("HANDLERS=$(touch /tmp/fanout-was-here)", "HANDLERS="),
        ("HANDLERS=a;reboot", "HANDLERS="),
        ("HANDLERS=`id`", "HANDLERS="),
        ("HANDLERS=m\u00e4", "HANDLERS="),
        ("JOBS_FILE=a b.yaml", "JOBS_FILE="),
        ("JOBS_FILE='a", "JOBS_FILE="),
        ("IMAGE=us-docker.pkg.dev/p/fanout/fanout:latest", "by digest"),
        ("COST_A_DAY_USD=-1", "dollars"),
        ("COST_A_DAY_USD=NaN", "dollars"),
        ("CALLERS=somebody", "members such as"),
        ("WORKER_ACCOUNTS=two", "one, or lane"),
        ("NOTIFY_CHANNEL=projects/p-x/notificationChannels/1", "both set"),
        ("PUBLIC_INTAKE=yes", "everybody could submit"),
        ("TICK_SCHEDULE=every minute", "cron"),
        ("\ufeffIMAGE=", "is not NAME=value"),
        ("IMAGE=\x00", "IMAGE="),
    ],
)
def test_a_wrong_line_is_named_with_what_is_right(line: str, said: str) -> None:
    (problem,) = problems(text() + line)
    assert said in problem
    assert problem.startswith("p.env")


@pytest.mark.parametrize("value", ["", "My-Project", "a", "p" * 40, "123456", "x;y-project", "my-project-"])
def test_an_ill_formed_project_is_refused(value: str) -> None:
    (problem,) = problems(text(PROJECT=value))
    assert problem.startswith("p.env:1: PROJECT=")


def test_all_problems_come_at_once() -> None:
    assert len(problems("REGION=moon\nBUKET=x\nCOST_A_DAY_USD=much\n")) == 5


def test_a_file_that_cannot_be_read_is_told_and_nothing_is_called(tmp_path: Path) -> None:
    bad = tmp_path / "p.env"
    bad.write_bytes(b"PROJECT=\xff\n")
    for path in (bad, tmp_path / "none.env"):
        done = subprocess.run(["python3", DEPLOY / "parameters.py", path], capture_output=True, text=True, env=clean_environment())
        assert (done.returncode, done.stdout) == (2, "")
        assert "cannot be read" in done.stderr


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_of_the_bash_that_every_machine_has(script: Path) -> None:
    assert subprocess.run(["bash", "-n", script], capture_output=True).returncode == 0
    content = script.read_text()
    newer = r"declare -A|local -A|mapfile|readarray|\$\{\w+(,,|\^\^)|&>>|\|&|coproc|local -n|printf '%\("
    assert not re.findall(newer, content), "bash 3.2 has none of these"
    assert max(map(len, content.splitlines())) <= 150


def test_names_are_filled_in_and_what_is_empty_then_is_left_out() -> None:
    text = '{"a": "${A}-x", "n": ${A}, "b": "${B}", "kept": "${metric.label.lane}", "e": "", "env": [{"name": "K", "value": "${B}"}]}'
    assert files.filled(text, ".json", {"A": "1", "B": ""}) == {"a": "1-x", "n": 1, "kept": "${metric.label.lane}", "e": "", "env": []}
    secret = '[{name: S, valueFrom: {secretKeyRef: {name: "${B}", key: latest}}}]'
    assert files.filled(secret, ".yaml", {"B": ""}) == []
    assert files.filled(secret, ".yaml", {"B": "s"})[0]["valueFrom"] == {"secretKeyRef": {"name": "s", "key": "latest"}}


@pytest.mark.parametrize(
    ("wanted", "found", "said"),
    [
        ({"a": 1}, {"a": "1", "more": 2}, []),
        ({"a": {"ttl": None}}, {"a": {}}, []),
        ({"a": {"ttl": None}}, {}, []),
        ({"a": {"ttl": None}}, {"a": {"ttl": "3s"}}, ['a.ttl is "3s"']),
        ({"a": None}, {"a": {"b": 1}}, ['a is {"b": 1}']),
        ({"a": [1, 2]}, {"a": [1]}, ["a has 1 entries, not 2"]),
        ({"a": False}, {}, []),
        ({"a": True}, {}, ["a is null"]),
    ],
)
def test_only_what_is_wanted_is_compared(wanted: object, found: object, said: list[str]) -> None:
    assert list(files.differences(wanted, found)) == said


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--list"], 0, "apis\nrepository\naccounts\ntopics\nbucket\npermissions\nimage\njobs\nservices\nschedule\nmonitoring\n"),
        (["--help"], 0, "--dry-run"),
        (["--from", "moon", "p.env"], 1, "moon is no step"),
        (["--from"], 1, "--from needs a step"),
        (["--from", "apis", "--only", "jobs", "p.env"], 1, "do not go together"),
        (["--force", "p.env"], 1, "--force is no option"),
        ([], 2, "deploy/deploy.sh [--dry-run]"),
    ],
)
def test_the_command_line_is_checked_before_anything_is_called(arguments: list[str], code: int, said: str) -> None:
    done = subprocess.run([DEPLOY / "deploy.sh", *arguments], capture_output=True, text=True, env=clean_environment())
    assert done.returncode == code
    assert said in done.stdout + done.stderr


def test_the_table_of_bindings_can_be_read_by_the_shell() -> None:
    """Its first three columns hold neither quotes nor commas."""
    lines = (DEPLOY / "identity" / "bindings.csv").read_text().splitlines()
    assert lines[0] == "account,role,on,reason"
    assert all(re.match(r"[a-z-]+,(roles/[\w.]+|custom:\w+),[\w:-]+,", line) for line in lines[1:])
