"""The rules that Cloud Run has for jobs and runs: names, counts, limits, environment. Pure; every problem is reported at once.

Limits are those of the public quotas and API reference: 1–10,000 tasks, 1 s–168 h per try, 0–10 retries, parallelism at most
the task count. The one rule of our own: a container must say its command, as images are not run here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from local_cloud.run.spec.fields import Problems
from local_cloud.run.spec.resources import check_limits
from local_cloud.run.spec.template import Container, Env, JobSpec, Overrides, SecretRef, Template, main_of, target_of

MAX_TASK_COUNT = 10_000
MAX_RETRIES = 10
MAX_TIMEOUT_S = 168 * 3600.0
MAX_DELAYED_S = 12 * 3600.0
"""How late an execution of a delayed job starts at most, how long it runs at most, and so the most that its task timeout may be."""
MAX_NAME_LENGTH = 63
MAX_LABEL_COUNT = 64
MAX_ENV_COUNT = 1000
MAX_ENV_BYTES = 32 * 1024
SYSTEM_NAMESPACES = ("run.googleapis.com/", "cloud.googleapis.com/", "serving.knative.dev/", "autoscaling.knative.dev/")

_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?\Z")
_PROJECT = re.compile(r"[a-z0-9][-a-z0-9.:]{0,62}\Z")
_REGION = re.compile(r"[a-z]+-[a-z]+[0-9]+\Z")
_SECRET = re.compile(r"(projects/[^/]+/secrets/)?[A-Za-z0-9_-]{1,255}\Z")
_VERSION = re.compile(r"latest\Z|[1-9][0-9]{0,17}\Z")
_LABEL_KEY = re.compile(r"[a-z]([-a-z0-9_]{0,61}[a-z0-9])?\Z")
_LABEL_VALUE = re.compile(r"([a-z0-9]([-a-z0-9_]{0,61}[a-z0-9])?)?\Z")
# Keys with a prefix belong to a tool, such as client.knative.dev/nonce, and follow Kubernetes' rules.
_TOOL_KEY = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?/[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?\Z")
_TOOL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?\Z")
NO_COMMAND = "the local cloud runs the manifest's command; this container has none"


@dataclass(frozen=True)
class Paths:
    """The paths of the same things in the two API versions, so that a message names the line that its reader wrote."""

    name: str
    labels: str
    template_labels: str
    execution: str
    task: str
    timeout: str


_V1_SPEC = "spec.template.spec"
V1_PATHS = Paths(
    "metadata.name", "metadata.labels", "spec.template.metadata.labels", _V1_SPEC, f"{_V1_SPEC}.template.spec", "timeoutSeconds"
)
V2_PATHS = Paths("job_id", "labels", "template.labels", "template", "template.template", "timeout")
V1_RUN_PATHS = Paths("", "", V1_PATHS.template_labels, "overrides", "overrides", "timeoutSeconds")
V2_RUN_PATHS = Paths("", "", V2_PATHS.template_labels, "overrides", "overrides", "timeout")


def is_system(name: str) -> bool:
    """Whether a label or annotation belongs to the platform and not to the user."""
    return name.startswith(SYSTEM_NAMESPACES)


def check_name(name: str, path: str, problems: Problems) -> None:
    if not _NAME.match(name) or len(name) > MAX_NAME_LENGTH:
        rule = f"must be lower-case letters, digits and hyphens, start with a letter, not end with a hyphen, at most {MAX_NAME_LENGTH} long"
        problems.add(path, name, rule)


def check_place(project: str, region: str, problems: Problems) -> None:
    """Check the project and region of a new job."""
    if not _PROJECT.match(project):
        problems.add("project", project, "must be a project's id: lower-case letters, digits and hyphens")
    if not _REGION.match(region):
        problems.add("location", region, "must be the name of a region, such as us-central1")


def check_labels(labels: Mapping[str, str], path: str, problems: Problems) -> None:
    if len(labels) > MAX_LABEL_COUNT:
        problems.add(path, len(labels), f"must be at most {MAX_LABEL_COUNT} labels")
    for key, value in labels.items():
        if "/" in key:
            if not _TOOL_KEY.match(key):
                problems.add(path, key, "the key must be letters, digits, '-', '_', '.', at most 63 long, after a 'prefix/'")
            if not _TOOL_VALUE.match(value):
                problems.add(f"{path}.{key}", value, "must be letters, digits, '-', '_' and '.', at most 63 long")
            continue
        if not _LABEL_KEY.match(key):
            problems.add(path, key, "the key must be lower-case letters, digits, '-', '_', start with a letter, at most 63 long")
        if not _LABEL_VALUE.match(value):
            problems.add(f"{path}.{key}", value, "must be lower-case letters, digits, '-' and '_', at most 63 long")


def check_delay(spec: JobSpec, paths: Paths, problems: Problems) -> None:
    """Note every rule of delayed jobs that a job breaks."""
    if spec.delay_execution not in ("", "true", "false"):
        problems.add("spec.delayExecution", spec.delay_execution, 'must be "true" or "false"')
    if spec.is_delayed:
        check_delayed_timeout(spec.template, paths, problems)


def check_delayed_timeout(template: Template, paths: Paths, problems: Problems) -> None:
    if template.timeout_s > MAX_DELAYED_S:
        problems.add(
            f"{paths.task}.{paths.timeout}", template.timeout_s, f"must be at most {MAX_DELAYED_S:.0f} s (12 h): the job is delayed"
        )


def check_template(template: Template, paths: Paths, problems: Problems, main: int | None = None) -> None:
    """Note every broken rule of a job's template. `main`: the index of the container that a run would start."""
    check_labels(template.labels, paths.template_labels, problems)
    _check_task_count(template.task_count, f"{paths.execution}.taskCount", problems)
    if template.parallelism < 0:
        problems.add(f"{paths.execution}.parallelism", template.parallelism, "must be 0 (no limit) or more")
    if template.parallelism > template.task_count:
        problems.add(f"{paths.execution}.parallelism", template.parallelism, f"must be at most taskCount ({template.task_count})")
    if not 0 <= template.max_retries <= MAX_RETRIES:
        problems.add(f"{paths.task}.maxRetries", template.max_retries, f"must be 0 to {MAX_RETRIES}")
    _check_timeout(template.timeout_s, f"{paths.task}.{paths.timeout}", problems)
    if not template.containers:
        problems.add(f"{paths.task}.containers", [], "must hold at least one container")
    main = main_of(template) if main is None else main
    for index, container in enumerate(template.containers):
        _check_container(container, f"{paths.task}.containers[{index}]", problems, runs=index == main)
    _check_container_names(template, f"{paths.task}.containers", problems)


def _check_container_names(template: Template, path: str, problems: Problems) -> None:
    names = [container.name for container in template.containers]
    for index, name in enumerate(names):
        if len(names) > 1 and not name:
            problems.add(f"{path}[{index}].name", name, "must be set, as the job has several containers")
        elif name in names[:index]:
            problems.add(f"{path}[{index}].name", name, "must be unique within the job")
        elif name:
            check_name(name, f"{path}[{index}].name", problems)


def check_overrides(template: Template, overrides: Overrides, paths: Paths, problems: Problems) -> None:
    """Note every broken rule of a run. A run with fewer tasks than the job's parallelism is refused, as by the real service."""
    if overrides.task_count is not None:
        path = f"{paths.execution}.taskCount"
        _check_task_count(overrides.task_count, path, problems)
        if 0 < overrides.task_count < template.parallelism:
            rule = f"must be at least the job's parallelism ({template.parallelism}), which a run cannot override; update the job"
            problems.add(path, overrides.task_count, rule)
    if overrides.timeout_s is not None:
        _check_timeout(overrides.timeout_s, f"{paths.task}.{paths.timeout}", problems)
    for index, change in enumerate(overrides.containers):
        path = f"{paths.execution}.containerOverrides[{index}]"
        if target_of(change, template) is None:
            known = ", ".join(container.name for container in template.containers)
            rule = "the job has no such container" if change.name else f"must name one of the job's containers, which are {known}"
            problems.add(f"{path}.name", change.name, rule)
        if change.clear_args and change.args:
            problems.add(f"{path}.clearArgs", True, "cannot be set together with args")
        check_env(change.env, f"{path}.env", problems)


def check_env(env: Env, path: str, problems: Problems) -> None:
    if len(env) > MAX_ENV_COUNT:
        problems.add(path, len(env), f"must be at most {MAX_ENV_COUNT} variables")
    seen: set[str] = set()
    for index, (name, value) in enumerate(env):
        where = f"{path}[{index}].name"
        if not name or "=" in name or "\0" in name:
            problems.add(where, name, "must not be empty nor hold '=' or a null character")
        elif name.startswith("CLOUD_RUN_"):
            problems.add(where, name, "names that begin with CLOUD_RUN_ are reserved; choose another")
        elif name in seen:
            problems.add(where, name, "must be unique within the container")
        seen.add(name)
        if isinstance(value, SecretRef):
            if not _SECRET.match(value.name) or not _VERSION.match(value.version):
                problems.add(f"{path}[{index}]", f"{value.name}:{value.version}", "must be a secret, with `latest` or a version's number")
            continue
        if "\0" in value:
            problems.add(f"{path}[{index}].value", value, "must not hold a null character")
        if len(value.encode(errors="replace")) > MAX_ENV_BYTES:
            problems.add(f"{path}[{index}].value", f"{value[:20]}…", f"must be at most {MAX_ENV_BYTES:,} bytes")


def _check_task_count(task_count: int, path: str, problems: Problems) -> None:
    if not 1 <= task_count <= MAX_TASK_COUNT:
        problems.add(path, task_count, f"must be 1 to {MAX_TASK_COUNT:,}")


def _check_timeout(timeout_s: float, path: str, problems: Problems) -> None:
    if not 1 <= timeout_s <= MAX_TIMEOUT_S:
        problems.add(path, timeout_s, f"must be 1 s to {MAX_TIMEOUT_S:.0f} s (168 h)")


def _check_container(container: Container, path: str, problems: Problems, *, runs: bool) -> None:
    if not container.image:
        problems.add(f"{path}.image", container.image, "must name an image")
    words = container.command + container.args
    if runs and (not words or not words[0]):
        problems.add(f"{path}.command", list(container.command), NO_COMMAND)
    for index, word in enumerate(words):
        if "\0" in word:
            problems.add(f"{path}.command[{index}]", word, "must not hold a null character")
    check_env(container.env, f"{path}.env", problems)
    check_limits(container.limits, f"{path}.resources.limits", problems)
