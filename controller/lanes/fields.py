"""The fields of a v1 job manifest: which there are at each level, and which values they take. Pure.

A name that is nearly one of these, or belongs to another level, is refused with what was meant; others pass, since Cloud Run refuses what
it does not know, and its new fields must not need a release of ours.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from controller.observe.containers import cpus, gibibytes
from controller.observe.job_documents import WORKER, mapping_at, mappings

Rule = Callable[[Any], str]
"""What a value must be; empty if it is that."""

TASK = ".".join(WORKER)
CONTAINERS = f"{TASK}.containers"
MAX_RETRIES = 10
MAX_TIMEOUT_S = 604_800
CPUS = (1, 2, 4, 6, 8)
MEMORY_GIB = (0.5, 32)
GPU = "nvidia.com/gpu"
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")


def in_yaml(value: object) -> str:
    """A value as its author wrote it, as far as is known."""
    if isinstance(value, bool):
        return str(value).lower()
    return "null" if value is None else repr(value)[:200]


def must_be_text(value: object) -> str:
    """The rule, and what to write instead."""
    if value is None:
        return 'must be a text; write "" for an empty one, or leave it out'
    if isinstance(value, list | dict | set | bytes | tuple):
        return "must be a text"
    text = in_yaml(value) if isinstance(value, bool) else str(value)[:200]
    return f'must be a text; write "{text}" in quotes'


def _any(_value: object) -> str:
    return ""


def _text(value: object) -> str:
    return "" if isinstance(value, str) else must_be_text(value)


def _value(value: object) -> str:
    """Of a variable: unlike a field, one that is null is not one that is absent."""
    return _text(value)


def _whole(minimum: int, maximum: int) -> Rule:
    """A whole number, also as a text: both occur in manifests."""

    def rule(value: object) -> str:
        text = "" if isinstance(value, bool) else str(value)
        right = re.fullmatch(r"-?[0-9]{1,18}", text) is not None and minimum <= int(text) <= maximum
        return "" if right else f"must be a whole number from {minimum} to {maximum}"

    return rule


def _flag(value: object) -> str:
    return "" if str(value).lower() in ("true", "false") else 'must be "true" or "false"'


def _account(value: object) -> str:
    right = isinstance(value, str) and (not value or _EMAIL.fullmatch(value))
    return "" if right else "must be the email of a service account, such as worker@my-project.iam.gserviceaccount.com"


def _words(value: object) -> str:
    right = isinstance(value, list) and all(isinstance(one, str) for one in value)
    return "" if right else "must be a list of texts, such as [python, -m, batch]"


def _limit(read: Callable[[str], float]) -> Rule:
    def rule(value: object) -> str:
        if not isinstance(value, str):
            return must_be_text(value)
        try:
            read(value)
        except ValueError as error:
            return f"must be {error}"
        return ""

    return rule


Schema = Mapping[str, Any]
"""By name: a rule, the schema of a mapping, or in a list that of each item."""
_METADATA: Schema = dict.fromkeys(
    ("name", "labels", "annotations", "namespace", "generation", "uid", "resourceVersion", "creationTimestamp", "selfLink", "finalizers"),
    _any,
)
_LIMITS: Schema = {"cpu": _limit(cpus), "memory": _limit(gibibytes), GPU: _any}
_CONTAINER: Schema = {
    "name": _text,
    "image": _text,
    "command": _words,
    "args": _words,
    "env": [{"name": _text, "value": _value, "valueFrom": {"secretKeyRef": {"name": _text, "key": _any}, "configMapKeyRef": _any}}],
    "resources": {"limits": _LIMITS, "requests": _any},
    "volumeMounts": [dict.fromkeys(("name", "mountPath", "subPath", "readOnly"), _any)],
    **dict.fromkeys(("workingDir", "ports", "startupProbe", "livenessProbe", "readinessProbe", "dependsOn", "envFrom"), _any),
    **dict.fromkeys(("imagePullPolicy", "securityContext", "terminationMessagePath", "terminationMessagePolicy"), _any),
    **dict.fromkeys(("baseImageUri", "buildInfo", "sourceCode"), _any),
}
_TASK: Schema = {
    "containers": [_CONTAINER],
    "maxRetries": _whole(0, MAX_RETRIES),
    "timeoutSeconds": _whole(1, MAX_TIMEOUT_S),
    "serviceAccountName": _account,
    "volumes": [dict.fromkeys(("name", "secret", "emptyDir", "csi", "nfs", "configMap"), _any)],
    "nodeSelector": _any,
}
_EXECUTION: Schema = {
    "parallelism": _whole(0, 10_000),
    "taskCount": _whole(0, 10_000),
    "template": {"metadata": _METADATA, "spec": _TASK},
}
JOB: Schema = {
    "apiVersion": _text,
    "kind": _text,
    "metadata": _METADATA,
    "spec": {
        "template": {"metadata": _METADATA, "spec": _EXECUTION},
        "delayExecution": _flag,
        "startExecutionToken": _text,
        "runExecutionToken": _text,
    },
    "status": _any,
}
_ELSEWHERE = {
    **dict.fromkeys(("maxRetries", "timeoutSeconds", "serviceAccountName", "volumes", "containers"), TASK),
    **dict.fromkeys(("parallelism", "taskCount"), "spec.template.spec"),
    **dict.fromkeys(("image", "command", "args", "env", "resources", "volumeMounts"), f"{CONTAINERS}[0]"),
    **dict.fromkeys(("cpu", "memory"), f"{CONTAINERS}[0].resources.limits"),
    **dict.fromkeys(("labels", "annotations"), "metadata"),
    "limits": f"{CONTAINERS}[0].resources",
    "delayExecution": "spec",
}
"""Names that are often put one level too high or too low, and where they belong."""

_OTHER_NAMES = {"environment": "env", "arguments": "args", "timeout": "timeoutSeconds", "retries": "maxRetries", "tasks": "taskCount"}
"""What other tools call a field."""


def field_problems(document: Mapping[str, Any]) -> list[str]:
    """What is wrong with the names and values of a manifest, each with its path."""
    return [*_problems("", document, JOB), *_twice(document), *_sizes(document)]


def _problems(path: str, value: object, schema: Any) -> Iterator[str]:
    if callable(schema):
        if (value is not None or schema is _value) and (rule := schema(value)):
            yield f"{path}={in_yaml(value)}: {rule}"
    elif isinstance(schema, list):
        if isinstance(value, list):
            for at, one in enumerate(value):
                yield from _problems(f"{path}[{_name(one) if path.endswith('.env') else at}]", one, schema[0])
        elif value is not None:
            yield f"{path}: must be a list, got {in_yaml(value)[:80]}"
    elif isinstance(value, Mapping):
        for key, one in value.items():
            below = path if schema.get(key) is _value else f"{path}.{key}" if path else str(key)
            if key in schema:
                yield from _problems(below, one, schema[key])
            elif hint := _meant(str(key), schema):
                yield f"{below} is no field here; {hint}"
    elif value is not None:
        yield f"{path}: must be a mapping, got {in_yaml(value)[:80]}"


def _meant(key: str, schema: Schema) -> str:
    names = {**{name: name for name in schema}, **{other: name for other, name in _OTHER_NAMES.items() if name in schema}}
    if near := difflib.get_close_matches(key, names, n=1, cutoff=0.75):
        return f"did you mean {names[near[0]]}?"
    return f"it belongs to {_ELSEWHERE[key]}" if key in _ELSEWHERE else ""


def _name(entry: object) -> str:
    return str(entry.get("name", "")) if isinstance(entry, Mapping) else ""


def _containers(document: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return list(mappings(mapping_at(document, *WORKER).get("containers")))


def _twice(document: Mapping[str, Any]) -> Iterator[str]:
    for at, container in enumerate(_containers(document)):
        env = container.get("env")
        names = [_name(one) for one in env] if isinstance(env, list) else []
        twice = [name for name in sorted({*names}) if name and names.count(name) > 1]
        yield from (f"{CONTAINERS}[{at}].env[{name}] is there twice: leave one" for name in twice)


def _sizes(document: Mapping[str, Any]) -> Iterator[str]:
    """A container that is the only one, and has no GPU, must have a size that Cloud Run sells."""
    containers = _containers(document)
    resources = containers[0].get("resources") if len(containers) == 1 else None
    limits = resources.get("limits") if isinstance(resources, Mapping) else None
    if not isinstance(limits, Mapping) or GPU in limits:
        return
    path = f"{CONTAINERS}[0].resources.limits"
    cpu, memory = limits.get("cpu"), limits.get("memory")
    if isinstance(cpu, str) and not _LIMITS["cpu"](cpu) and cpus(cpu) not in CPUS:
        yield f"{path}.cpu={cpu!r}: must be one of {', '.join(map(str, CPUS))}"
    least, most = MEMORY_GIB
    if isinstance(memory, str) and not _LIMITS["memory"](memory) and not least <= gibibytes(memory) <= most:
        yield f"{path}.memory={memory!r}: must be 512Mi to {most}Gi"
