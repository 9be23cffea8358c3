"""The rules for jobs and runs, as values: one change to a good job, one message."""

from __future__ import annotations

from dataclasses import replace

import pytest

from local_cloud.run.api.timestamps import duration, duration_text, parse_duration, rfc3339
from local_cloud.run.spec.errors import ApiError
from local_cloud.run.spec.fields import Fields, Problems
from local_cloud.run.spec.manifest import read_spec, write_manifest
from local_cloud.run.spec.resources import check_limits
from local_cloud.run.spec.template import Container, ContainerOverride, JobSpec, Overrides, Template, override
from local_cloud.run.spec.validation import (
    V1_PATHS,
    V2_PATHS,
    V2_RUN_PATHS,
    check_env,
    check_labels,
    check_name,
    check_overrides,
    check_place,
    check_template,
)

CONTAINER = Container(image="i", command=("python",), args=("-m", "x"), env=(("A", "1"), ("B", "2")))
TEMPLATE = Template(containers=(CONTAINER,), parallelism=2, task_count=5)
CASES: list[tuple[Template, str]] = [
    (replace(TEMPLATE, task_count=0, parallelism=0), "template.taskCount: got 0, must be 1 to 10,000"),
    (replace(TEMPLATE, task_count=10_001), "template.taskCount: got 10001, must be 1 to 10,000"),
    (replace(TEMPLATE, parallelism=6), "template.parallelism: got 6, must be at most taskCount (5)"),
    (replace(TEMPLATE, parallelism=-1), "template.parallelism: got -1, must be 0 (no limit) or more"),
    (replace(TEMPLATE, max_retries=11), "template.template.maxRetries: got 11, must be 0 to 10"),
    (replace(TEMPLATE, max_retries=-1), "template.template.maxRetries: got -1, must be 0 to 10"),
    (replace(TEMPLATE, timeout_s=0.5), "template.template.timeout: got 0.5, must be 1 s to 604800 s (168 h)"),
    (replace(TEMPLATE, timeout_s=604_801.0), "template.template.timeout: got 604801.0, must be 1 s to 604800 s (168 h)"),
    (replace(TEMPLATE, containers=()), "template.template.containers: got [], must hold at least one container"),
    (replace(TEMPLATE, containers=(replace(CONTAINER, image=""),)), "template.template.containers[0].image: got '', must name an image"),
    (
        replace(TEMPLATE, containers=(replace(CONTAINER, command=(), args=()),)),
        "template.template.containers[0].command: got [], the local cloud runs the manifest's command; this container has none",
    ),
    (
        replace(TEMPLATE, containers=(replace(CONTAINER, env=(("A", "1"), ("A", "2"))),)),
        "template.template.containers[0].env[1].name: got 'A', must be unique within the container",
    ),
    (
        replace(TEMPLATE, containers=(replace(CONTAINER, env=(("CLOUD_RUN_X", "1"),)),)),
        "template.template.containers[0].env[0].name: got 'CLOUD_RUN_X', names that begin with CLOUD_RUN_ are reserved; choose another",
    ),
    (
        replace(TEMPLATE, containers=(replace(CONTAINER, env=(("", "1"),)),)),
        "template.template.containers[0].env[0].name: got '', must not be empty nor hold '=' or a null character",
    ),
]


LIMITS = [
    ({}, []),
    ({"cpu": "1", "memory": "512Mi"}, []),
    ({"cpu": "2000m", "memory": "8Gi"}, []),
    ({"cpu": "8", "memory": "32Gi"}, []),
    ({"memory": "1.5G"}, []),
    ({"cpu": "20", "memory": "80Gi", "nvidia.com/gpu": "1"}, []),
    ({"cpu": "0.5"}, ["limits.cpu: got '0.5', must be one of 1, 2, 4, 6, 8"]),
    ({"cpu": "3"}, ["limits.cpu: got '3', must be one of 1, 2, 4, 6, 8"]),
    (
        {"cpu": "one", "memory": "much"},
        ["limits.cpu: got 'one', must be one of 1, 2, 4, 6, 8", "limits.memory: got 'much', must be 512Mi to 32Gi"],
    ),
    ({"memory": "511Mi"}, ["limits.memory: got '511Mi', must be 512Mi to 32Gi"]),
    ({"cpu": "8", "memory": "33Gi"}, ["limits.memory: got '33Gi', must be 512Mi to 32Gi"]),
    ({"cpu": "1", "memory": "5Gi"}, ["limits.memory: got '5Gi', needs at least 2 CPUs, but there are 1"]),
    ({"cpu": "4", "memory": "1Gi"}, ["limits.cpu: got '4', needs at least 2Gi of memory"]),
    ({"disk": "1Gi"}, ["limits.disk: got '1Gi', there is no such limit; there are cpu, memory, nvidia.com/gpu"]),
]


@pytest.mark.parametrize(("limits", "expected"), LIMITS, ids=[str(limits) for limits, _ in LIMITS])
def test_cpu_and_memory_go_together(limits: dict[str, str], expected: list[str]) -> None:
    problems = Problems()
    check_limits(limits, "limits", problems)
    assert messages(problems) == expected


def test_there_is_an_end_to_labels_and_variables() -> None:
    problems = Problems()
    check_labels({f"k{number}": "" for number in range(64)}, "labels", problems)
    check_env((*((f"K{number}", "") for number in range(999)), ("LONG", "x" * 32 * 1024)), "env", problems)
    assert messages(problems) == []
    check_labels({f"k{number}": "" for number in range(65)}, "labels", problems)
    check_env(tuple((f"K{number}", "") for number in range(1001)), "env", problems)
    check_env((("LONG", "x" * (32 * 1024 + 1)),), "env", problems)
    assert [path for path, _ in problems.found] == ["labels", "env", "env[0].value"]


def messages(problems: Problems) -> list[str]:
    return [description for _, description in problems.found]


def test_a_good_template_has_no_problems() -> None:
    problems = Problems()
    for good in (TEMPLATE, replace(TEMPLATE, task_count=10_000, max_retries=10, timeout_s=604_800.0), replace(TEMPLATE, timeout_s=1.0)):
        check_template(good, V1_PATHS, problems)
    assert messages(problems) == []
    problems.raise_if_any()


@pytest.mark.parametrize(("template", "expected"), CASES, ids=[expected.partition(",")[0] for _, expected in CASES])
def test_each_rule_names_path_value_and_rule(template: Template, expected: str) -> None:
    problems = Problems()
    check_template(template, V2_PATHS, problems)
    assert messages(problems) == [expected]
    with pytest.raises(ApiError, match="got"):
        problems.raise_if_any()


GOOD_NAMES = ["a", "a-1", "a" * 63]
BAD_NAMES = ["", "a" * 64, "1a", "a-", "A", "a_b", "a\n", "../a"]


@pytest.mark.parametrize(("name", "good"), [*((name, True) for name in GOOD_NAMES), *((name, False) for name in BAD_NAMES)])
def test_names(name: str, good: bool) -> None:
    problems = Problems()
    check_name(name, "job_id", problems)
    assert (messages(problems) == []) == good


def test_labels() -> None:
    problems = Problems()
    check_labels({"fanout-lane": "a", "x.y/z": "", "bad key": "v", "k": "-"}, "labels", problems)
    check_labels({"tool.dev/Kind": "A.b", "tool.dev/": "", "Team": "a", "team": "A", "a.b": "", "1": ""}, "labels", problems)
    assert [path for path, _ in problems.found] == ["labels", "labels.k", "labels", "labels", "labels.team", "labels", "labels"]


@pytest.mark.parametrize(
    ("project", "region", "wrong"), [("p", "us-central1", 0), ("example.com:p-1", "me-west1", 0), ("../p", "-", 2), ("", "", 2)]
)
def test_places(project: str, region: str, wrong: int) -> None:
    problems = Problems()
    check_place(project, region, problems)
    assert len(problems.found) == wrong


@pytest.mark.parametrize(
    ("overrides", "path"),
    [
        (Overrides(task_count=1), "overrides.taskCount"),
        (Overrides(task_count=0), "overrides.taskCount"),
        (Overrides(task_count=10_001), "overrides.taskCount"),
        (Overrides(timeout_s=0.0), "overrides.timeout"),
        (Overrides((ContainerOverride(name="other"),)), "overrides.containerOverrides[0].name"),
        (Overrides((ContainerOverride(args=("a",), clear_args=True),)), "overrides.containerOverrides[0].clearArgs"),
        (Overrides((ContainerOverride(env=(("CLOUD_RUN_JOB", "x"),)),)), "overrides.containerOverrides[0].env[0].name"),
    ],
)
def test_runs_that_are_refused(overrides: Overrides, path: str) -> None:
    problems = Problems()
    check_overrides(TEMPLATE, overrides, V2_RUN_PATHS, problems)
    assert [found for found, _ in problems.found] == [path]


def test_overrides_are_laid_over_by_name() -> None:
    changed = override(TEMPLATE, Overrides((ContainerOverride(args=("y",), env=(("B", "3"), ("C", "4"))),), 2, 9.0))
    assert changed.containers[0] == replace(CONTAINER, args=("y",), env=(("A", "1"), ("B", "3"), ("C", "4")))
    assert (changed.task_count, changed.timeout_s, changed.parallelism) == (2, 9.0, 2)
    assert override(TEMPLATE, Overrides((ContainerOverride(clear_args=True),))).containers[0].args == ()
    assert override(TEMPLATE, Overrides()) == TEMPLATE


def test_a_spec_survives_its_manifest() -> None:
    spec = JobSpec(TEMPLATE, {"a": "b"}, {"fanout/x": "1"}, {"run.googleapis.com/y": "2"})
    problems = Problems()
    assert read_spec(Fields(write_manifest("lane", spec), "", problems)) == spec
    assert problems.found == []


@pytest.mark.parametrize(("text", "seconds"), [("600s", 600.0), ("1.5s", 1.5), ("600", None), ("s", None), ("", None)])
def test_durations(text: str, seconds: float | None) -> None:
    assert parse_duration(text) == seconds
    if seconds is not None:
        assert duration(seconds) == text


@pytest.mark.parametrize(("seconds", "text"), [(0.0, "0s"), (56.034, "56.03s"), (63.6, "1m3.6s"), (59.999, "1m0s"), (3661.5, "1h1m1.5s")])
def test_durations_in_messages(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


def test_times() -> None:
    assert rfc3339(1_700_000_000.25) == "2023-11-14T22:13:20.250000Z"
