"""The rules over a job as it is: what each wrong one is told, and that nothing right is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batch.dead.draining.settings import DeadLetterSettings
from batch.settings import WorkerSettings
from controller.config import ControllerSettings
from controller.lanes.lanes import lane_of
from controller.lanes.rules import Home, dead_letters_problems
from controller.observe.containers import Container
from controller.observe.job_documents import job_info
from controller.observe.jobs import JobInfo
from intake.config import IntakeSettings
from tests.controller.fakes import job, worker

DAY = {"fanout/drain-within": "1d"}
RAW = {"fanout/accept": "raw", "fanout/default-type": "note"}
NOTIFICATIONS = {"fanout/accept": "gcs-notification"}
Change = Mapping[str, Any]


def changed(
    env: Mapping[str, str | None] = {},
    annotations: Mapping[str, str] = {},
    command: str = "python -m batch",
    filled: tuple[str, ...] = (),
    beside: tuple[Container, ...] = (),
    name: str = "",
    **others: Any,
) -> JobInfo:
    """A right job of the lane `default` with changes; a setting that is None is taken away."""
    right = job()
    given = {**worker(right.annotations).env, **env}
    kept = {one: value for one, value in given.items() if value is not None}
    container = Container(name, "image", tuple(command.split()), kept, frozenset(filled))
    return replace(right, annotations={**right.annotations, **annotations}, containers=(container, *beside), **others)


def problems(found: JobInfo) -> list[str]:
    return list(lane_of(found, Home("p", "bucket")).problems)


WRONG: list[tuple[Change, str]] = [
    ({"env": {"CONCURRENCY": "eight"}}, "env CONCURRENCY='eight': a whole number from 1 to 1000"),
    ({"env": {"CONCURENCY": "8"}}, "env CONCURENCY is no setting; did you mean CONCURRENCY? (if it is the handlers' own, name it in CHILD"),
    ({"env": {"concurrency": "8"}}, "env concurrency is no setting; did you mean CONCURRENCY?"),
    ({"env": {"MAX_MESSAGE": "8"}}, "env MAX_MESSAGE is no setting; did you mean MAX_MESSAGES?"),
    ({"filled": ("WEBHOK_SECRETS",)}, "env WEBHOK_SECRETS is no setting; did you mean WEBHOOK_SECRETS?"),
    (
        {"env": {"CLOUD_RUN_TASK_INDEX": "0"}},
        "env CLOUD_RUN_TASK_INDEX: names that begin with CLOUD_RUN_ are Cloud Run's own: leave it out",
    ),
    ({"env": {"BACKLOG": "100"}}, "env BACKLOG is for one launch only, and is set by the controller: leave it out"),
    ({"env": {"DECISION_ID": "d.0"}}, "env DECISION_ID is for one launch only"),
    (
        {"env": {"SUBSCRIPTION_NAME": None}},
        "env SUBSCRIPTION_NAME is not set, and must be as the annotation fanout/subscription='tasks-sub'",
    ),
    ({"env": {"SUBSCRIPTION_NAME": "bulk"}}, "env SUBSCRIPTION_NAME='bulk' differs from the annotation fanout/subscription='tasks-sub'"),
    ({"env": {"BUCKET_NAME": "other"}}, "env BUCKET_NAME='other' differs from the controller's bucket='bucket': make them equal"),
    ({"env": {"LANE": "bulk"}}, "env LANE='bulk' differs from the label fanout-lane='default'"),
    (
        {"env": {"MAX_MESSAGES": "500"}},
        "env MAX_MESSAGES=500 is above fanout/max-messages=100, and has no effect in launches: make them equal",
    ),
    ({"env": {"HANDLER_TIMEOUT_S": "301"}}, "env HANDLER_TIMEOUT_S=301: must be at most half of TASK_TIMEOUT_S=600"),
    (
        {"env": {"HANDLER_TIMEOUT_S": "301", "TASK_TIMEOUT_S": "9999"}},
        "env HANDLER_TIMEOUT_S=301: must be at most half of TASK_TIMEOUT_S=600",
    ),
    ({"env": {"PREFETCH_S": "400"}}, "env PREFETCH_S=400: must be at most half of TASK_TIMEOUT_S=600"),
    ({"parallelism": 3}, "spec.template.spec.parallelism=3: must be 0 or absent"),
    ({"command": "python -m bacth"}, "command 'python -m bacth' runs no worker: did you mean -m batch, not -m bacth?"),
    ({"command": "dead-letters"}, "command 'dead-letters' is that of the dead-letters job: a lane's is python -m batch"),
    ({"command": "pyton -m batch"}, "command 'pyton -m batch': did you mean python, not pyton?"),
    (
        {"command": "python worker.py"},
        "command 'python worker.py' runs no worker: end it with python -m batch, also behind a wrapper of yours",
    ),
    ({"command": "python -m batch.worker"}, "command 'python -m batch.worker' runs no worker"),
    ({"command": "python -m batch dead-letters"}, "is that of the dead-letters job: a lane's is python -m batch"),
    ({"command": "python -m batch urgent"}, "command 'python -m batch urgent': must be python -m batch"),
    (
        {"command": "python -m batch --concurency 8"},
        "option --concurency of the command is none that python -m batch has; did you mean option --c",
    ),
    ({"command": "python -m batch --concurrency=eight"}, "option --concurrency='eight': a whole number from 1 to 1000"),
    ({"command": "python -m batch --subscription-name bulk"}, "option --subscription-name='bulk' differs from the annotation"),
    ({"command": "python -m batch --backlog 9"}, "option --backlog of the command is for Cloud Run, or a launch, to set: leave it out"),
    (
        {"annotations": {"fanout/accept": "raw"}, "env": {"ACCEPT": "raw"}},
        "fanout/accept has raw, which name no task type: set fanout/default-t",
    ),
    ({"annotations": NOTIFICATIONS, "env": {"ACCEPT": "gcs-notification"}}, "fanout/accept has gcs-notification, which name no task type"),
    (
        {
            "annotations": RAW | {"fanout/schedule-nightly": '0 3 * * *; UTC; {"task_type": "report"}'},
            "env": {"ACCEPT": "raw", "DEFAULT_TYPE": "note"},
        },
        "fanout/schedule-nightly publishes an envelope, and fanout/accept has none: add envelope, or move the schedule to another lane",
    ),
    (
        {"annotations": RAW, "env": {"DEFAULT_TYPE": "note"}},
        "env ACCEPT is not set, and must be as the annotation fanout/accept='raw': make t",
    ),
    (
        {"env": {"ACCEPT": "raw,envelope"}},
        "env ACCEPT='raw,envelope' differs from the annotation fanout/accept, which is not set: make them equal",
    ),
    (
        {"annotations": RAW, "env": {"ACCEPT": "raws", "DEFAULT_TYPE": "note"}},
        "env ACCEPT='raws' differs from the annotation fanout/accept='raw'",
    ),
    ({"annotations": {"fanout/event-types": "OBJECT_DELETE"}, "env": {"EVENT_TYPES": "OBJECT_DELETE"}}, "fanout/event-types does nothing"),
    ({"annotations": {"fanout/default-type": "note"}, "env": {"DEFAULT_TYPE": "note"}}, "fanout/default-type does nothing while"),
    ({"annotations": {"fanout/start-within": "5m"}}, "fanout/start-within=5m: must be at least 10m"),
    ({"is_delayed": True}, "fanout/drain-within is 10 min: with delayExecution a worker may start 12 hours late; set it to 1d or more"),
    (
        {"is_delayed": True, "annotations": DAY, "task_timeout_s": 86400.0},
        "timeoutSeconds=86400: with delayExecution it must be at most 43200",
    ),
    ({"beside": (Container("proxy", "p"),)}, "of several containers each needs a name of its own: a launch names the worker's"),
    ({"name": "a", "beside": (Container("b", "i", ("python", "-m", "batch")),)}, "containers a, b all run a worker: one may"),
]


@pytest.mark.parametrize(("change", "said"), WRONG)
def test_a_job_that_breaks_a_rule_is_told_once_with_the_fix(change: Change, said: str) -> None:
    (problem,) = problems(changed(**change))
    assert problem.startswith("job default: ")
    assert said in problem


RIGHT: list[Change] = [
    {},
    {"command": ""},
    {"command": "/bin/tini -- python3.12 -m batch --concurrency=4"},
    {"command": "opentelemetry-instrument python -m batch"},
    {"command": "--concurrency 4"},
    {"command": "opentelemetry-instrument python3 -um batch"},
    {"command": "python -mbatch --concurrency 4"},
    {
        "env": dict.fromkeys(
            ("DATABASE_URL", "BATCH_SIZE", "TOPIC_NAMES_EXTRA", "MY_BUCKET_NAME", "BUCKET_NAME_2", "PROCESS", "TZ", "PORT"), "x"
        )
    },
    {
        "env": dict.fromkeys(
            (
                "OTEL_SERVICE_NAME",
                "OTEL_TRACES_EXPORTER",
                "https_proxy",
                "LANES",
                "PYTHONPATH",
                "JOB",
                "RETRY",
                "WEBHOOK_SECRET",
                "EVENT_TYPE",
                "LOGLEVEL",
            ),
            "x",
        )
    },
    {"env": {"HANDLER": "x", "CHILD_ENVIRONMENT": "HANDLER,MY_*"}},
    {"env": {"TASK_TIMEOUT_S": "1"}},
    {"env": {"TASK_TIMEOUT_S": "x"}},
    {"env": {"MAX_MESSAGES": "100"}},
    {"env": {"GOOGLE_CLOUD_PROJECT": None}},
    {"env": {"SUBSCRIPTION_NAME": None, "BUCKET_NAME": None}, "filled": ("SUBSCRIPTION_NAME", "BUCKET_NAME", "WEBHOOK_SECRETS")},
    {"annotations": RAW, "env": {"ACCEPT": "raw", "DEFAULT_TYPE": "note"}},
    {"annotations": {"fanout/accept": "envelope"}},
    {"annotations": {**NOTIFICATIONS, "fanout/default-type": "n"}, "env": {"ACCEPT": " gcs-notification ", "DEFAULT_TYPE": "n"}},
    {"max_retries": 0},
    {"task_timeout_s": 604_800.0},
    {"is_delayed": True, "annotations": DAY, "task_timeout_s": 43_200.0},
    {"name": "worker", "beside": (Container("proxy", "p", ("envoy",), {"CONCURENCY": "x", "BACKLOG": "1"}),)},
]


PROBE = Container("side", "p", ("sh", "-c", "while pgrep -f 'python -m batch'; do sleep 5; done"))


@pytest.mark.parametrize("name", ["worker", "main"])
@pytest.mark.parametrize("command", ["python -m batch", ""])
def test_a_container_that_speaks_of_the_worker_is_none(name: str, command: str) -> None:
    made = changed(command=command, name=name)
    assert problems(replace(made, containers=(*made.containers, PROBE))) == []
    if command:
        found = lane_of(replace(made, containers=(PROBE, *made.containers)), Home("p", "bucket"))
        assert (found.container, found.problems) == (name, ())


SHELL: list[tuple[str, str]] = [
    ("exec python -m batch", ""),
    ("cd /srv\nFOO=1 python3 -u -m batch 2>&1 | tee log", ""),
    ('python -m batch --concurrency "$N" --max-messages=$M', ""),
    ('python -m batch "$@"', ""),
    ("python -m batch --concurrency 4 && echo --subscription-name x", ""),
    ("sleep 1; python -m batch --subscription-name bulk", "option --subscription-name='bulk' differs from the annotation"),
    ("exec python -m batch --concurency=8 > log", "did you mean option --concurrency?"),
]


@pytest.mark.parametrize(("text", "said"), SHELL)
def test_options_in_the_text_of_a_shell_count(text: str, said: str) -> None:
    made = changed()
    found = problems(replace(made, containers=(replace(made.worker, command=("/bin/sh", "-c", text)),)))
    assert len(found) == bool(said)
    assert all(said in one for one in found)


@pytest.mark.parametrize(("words", "said"), [(["worker", "--fast"], ""), (["-m", "bacth"], "did you mean -m batch"), (["-m", "batch"], "")])
def test_arguments_of_a_command_that_the_image_says_are_its_own_affair(words: list[str], said: str) -> None:
    read = job_info({"spec": {"template": {"spec": {"template": {"spec": {"containers": [{"image": "i", "args": words}]}}}}}}, "p")
    made = changed()
    found = problems(replace(made, containers=(replace(read.worker, env=made.worker.env),)))
    assert len(found) == bool(said)
    assert all(said in one for one in found)


@pytest.mark.parametrize("change", RIGHT)
def test_a_job_that_works_is_told_nothing(change: Change) -> None:
    assert problems(changed(**change)) == []


def test_settings_of_other_services_are_nobody_s_misspelling() -> None:
    names = {one.metadata["env"] for kind in (ControllerSettings, IntakeSettings, DeadLetterSettings) for one in fields(kind)}
    found = problems(changed(dict.fromkeys(sorted(names), "1")))
    assert [one for one in found if "no setting" in one] == []


WORDS = st.sampled_from(["python", "-m", "batch", "bacth", "--", "--concurrency", "--=", "--backlog=", "dead-letters", "-", "", "\n'\""])
SETTINGS = st.sampled_from([one.metadata["env"] for one in fields(WorkerSettings)] + ["", "=", "max_messages", "CONCURENCY", "\u00e9\n"])


@settings(max_examples=200)
@given(st.lists(WORDS, max_size=6), st.dictionaries(SETTINGS, WORDS | st.text(max_size=5), max_size=6), st.sets(SETTINGS, max_size=3))
def test_nothing_that_somebody_deploys_stops_the_controller(command: list[str], env: dict[str, str], filled: set[str]) -> None:
    odd = Container("worker", "image", tuple(command), env, frozenset(filled), {"cpu": "x", "memory": ""})
    assert all(one.startswith("job default: ") and "None" not in one for one in problems(replace(job(), containers=(odd, odd))))


def test_all_settings_that_are_gone_are_told() -> None:
    gone = changed(dict.fromkeys(("SUBSCRIPTION_NAME", "TOPIC_NAME", "BUCKET_NAME", "CONCURRENCY"), None) | {"FOO": "1"})
    assert [one.split(" is not set")[0] for one in problems(gone)] == ["job default: env SUBSCRIPTION_NAME", "job default: env BUCKET_NAME"]


@pytest.mark.parametrize(
    ("command", "env", "said"),
    [
        ("python -m bacth dead-letters", {}, "did you mean -m batch, not -m bacth?"),
        ("python -m batch dead-leters", {}, "did you mean dead-letters?"),
        ("python -m batch", {}, "must be python -m batch dead-letters"),
        ("", {}, "its container has no command: give it python -m batch dead-letters"),
        ("python -m batch dead-letters", {"DEAD_LETTER_SUBSCRIPTON": "x"}, "did you mean DEAD_LETTER_SUBSCRIPTION?"),
        ("python -m batch dead-letters", {"DRAIN_AFTER_S": "soon"}, "env DRAIN_AFTER_S='soon': a number of seconds"),
        ("python -m batch dead-letters", {"BUCKET_NAME": ""}, "env BUCKET_NAME=''"),
        ("python -m batch dead-letters --drain-after 5", {}, "did you mean option --drain-after-s?"),
    ],
)
def test_the_dead_letters_job_has_rules_of_its_own(command: str, env: dict[str, str], said: str) -> None:
    made = replace(changed({"BUCKET_NAME": "bucket", **env}, command=command), full_name="p/jobs/dead-letters", labels={}, annotations={})
    (problem,) = dead_letters_problems(made)
    assert said in problem
    right = replace(made, containers=(Container("", "i", ("python", "-m", "batch", "dead-letters"), {"BUCKET_NAME": "bucket"}),))
    assert dead_letters_problems(right) == ()
    assert dead_letters_problems(replace(made, full_name="p/jobs/other", containers=(Container("", "i", ("true",)),))) == ()
