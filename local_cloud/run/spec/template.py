"""What a job says about its executions: containers, environment, counts and limits; and what a run may override.

Values only: a template never changes; `override` makes a new one, which must be checked again before it runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

DEFAULT_MAX_RETRIES = 3
DEFAULT_TIMEOUT_S = 600.0
DEFAULT_TASK_COUNT = 1


@dataclass(frozen=True)
class SecretRef:
    """A version of a secret, in place of a variable's value. `name` as the client wrote it: alone, or `projects/P/secrets/NAME`."""

    name: str
    version: str = "latest"


Env = tuple[tuple[str, "str | SecretRef"], ...]


@dataclass(frozen=True)
class Container:
    """`env` in the order given; `extras` are fields of the v1 API without an effect here, which are shown again as they came."""

    name: str = ""
    image: str = ""
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    env: Env = ()
    limits: Mapping[str, str] = field(default_factory=dict)
    working_dir: str = ""
    extras: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Template:
    """One execution's shape. `parallelism` 0 means as many as the platform allows; labels and annotations go to the execution."""

    containers: tuple[Container, ...]
    parallelism: int = 0
    task_count: int = DEFAULT_TASK_COUNT
    max_retries: int = DEFAULT_MAX_RETRIES
    timeout_s: float = DEFAULT_TIMEOUT_S
    service_account: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    extras: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class JobSpec:
    """What a client writes about a job. `system_annotations` (run.googleapis.com/… and the like) and `delay_execution` ("true", "false" or
    empty) are seen in v1 only."""

    template: Template
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    system_annotations: Mapping[str, str] = field(default_factory=dict)
    delay_execution: str = ""

    @property
    def is_delayed(self) -> bool:
        return self.delay_execution == "true"


@dataclass(frozen=True)
class ContainerOverride:
    name: str = ""
    args: tuple[str, ...] = ()
    clear_args: bool = False
    env: Env = ()


@dataclass(frozen=True)
class Overrides:
    """What one run changes of its job. None: as the job says."""

    containers: tuple[ContainerOverride, ...] = ()
    task_count: int | None = None
    timeout_s: float | None = None


def target_of(override: ContainerOverride, template: Template) -> int | None:
    """The index of the named container, or 0 when no name is given and there is one; None when no container is meant."""
    if not override.name and len(template.containers) == 1:
        return 0
    return next((index for index, container in enumerate(template.containers) if container.name == override.name), None)


def main_of(template: Template, overrides: Overrides | None = None) -> int:
    """The index of the container whose command runs: the one that the run's overrides name, else the first that has a command."""
    named = [target_of(change, template) for change in overrides.containers] if overrides else []
    if named and named[0] is not None:
        return named[0]
    return next((index for index, one in enumerate(template.containers) if one.command or one.args), 0)


def override(template: Template, overrides: Overrides) -> Template:
    """The template of a run. Raises ValueError when an override names a container that the job does not have."""
    containers = list(template.containers)
    for change in overrides.containers:
        index = target_of(change, template)
        if index is None:
            raise ValueError(f"the job has no container named {change.name!r}")
        container = containers[index]
        args = () if change.clear_args else (change.args or container.args)
        # By name; new names come last.
        env = {**dict(container.env), **dict(change.env)}
        containers[index] = replace(container, args=args, env=tuple(env.items()))
    return replace(
        template,
        containers=tuple(containers),
        task_count=template.task_count if overrides.task_count is None else overrides.task_count,
        timeout_s=template.timeout_s if overrides.timeout_s is None else overrides.timeout_s,
    )
