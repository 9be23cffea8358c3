"""Manifests: the Cloud Run Jobs of a `jobs.yaml`, read, checked, and completed with what a project does not commit.

All problems are reported at once, each with document, path, value and rule, never as an exception of the parser. What stands in the file
is applied, with the settings and the image that were asked for: nothing is rewritten silently.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import count
from math import isfinite
from typing import Any

import yaml

from batch.model.errors import SettingsError
from batch.settings import limit_problem
from controller.lanes.annotations import read_policy
from controller.lanes.rules import problems_of
from controller.model.lane import Policy
from controller.observe.job_documents import Document, job_info
from controller.observe.jobs import LANE_LABEL

API_VERSION = "run.googleapis.com/v1"
MAX_DEPTH = 50
MAX_VALUES = 100_000
PLACEHOLDERS = ("PROJECT", "REGION", "BUCKET")
"""What a committed file has in place of a project's own values; nothing is applied with one left."""

_PLACEHOLDER = re.compile(rf"\b({'|'.join(PLACEHOLDERS)})\b")


@dataclass(frozen=True)
class Manifest:
    """One job. `document` is the manifest as it will be sent; `lane` is empty for a job that is not a lane."""

    name: str
    document: Document
    lane: str = ""
    subscription: str = ""
    topic: str = ""
    policy: Policy = field(default_factory=Policy)

    @property
    def containers(self) -> list[Document]:
        return list(_worker_spec(self.document)["containers"])

    @property
    def env(self) -> Mapping[str, str]:
        """Plain values of the first container."""
        return {str(one["name"]): str(one["value"]) for one in self.containers[0].get("env") or [] if "value" in one}


def read_manifests(text: str) -> tuple[Manifest, ...]:
    """All documents of a file. Raises SettingsError with every problem of every document."""
    read = documents(text)
    problems = [] if read else ["the file holds no document"]
    found: list[Manifest] = []
    for number, document in enumerate(read, start=1):
        try:
            found.append(_manifest(f"document {number}", document))
        except SettingsError as error:
            problems += error.problems
    problems += _repeated(found)
    if problems:
        raise SettingsError(problems)
    return tuple(found)


def _manifest(where: str, document: Any) -> Manifest:
    problems = odd_values(where, document) + _shape_problems(where, document)
    if problems:
        raise SettingsError(problems)
    metadata = document["metadata"]
    where = f"job {metadata['name']}"
    problems += _worker_problems(where, document)
    lane, subscription, topic, policy = "", "", "", Policy()
    labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
    if LANE_LABEL in labels:
        try:
            lane, subscription, topic, policy = read_policy(f"{where}: metadata", labels, annotations)
        except SettingsError as error:
            problems += error.problems
    if problems:
        raise SettingsError(problems)
    manifest = Manifest(str(metadata["name"]), document, lane, subscription, topic, policy)
    problems = _relation_problems(where, manifest)
    if problems:
        raise SettingsError(problems)
    return manifest


def _shape_problems(where: str, document: Any) -> list[str]:
    if not isinstance(document, dict):
        return [f"{where}: a mapping is expected, got {type(document).__name__}"]
    problems = [
        f"{where}: {key} is {document.get(key)!r}, must be {expected!r}"
        for key, expected in (("apiVersion", API_VERSION), ("kind", "Job"))
        if document.get(key) != expected
    ]
    metadata = document.get("metadata")
    if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str):
        return [*problems, f"{where}: metadata.name is not set: the job's name"]
    for part in ("labels", "annotations"):
        values = metadata.get(part) or {}
        if not isinstance(values, dict):
            problems.append(f"{where}: metadata.{part} must be a mapping")
            continue
        problems += [
            f"{where}: metadata.{part}[{key}]={in_yaml(value)}: {must_be_text(value)}"
            for key, value in values.items()
            if not isinstance(value, str)
        ]
    containers = _worker_spec(document).get("containers")
    path = "spec.template.spec.template.spec.containers"
    if not isinstance(containers, list) or not containers or not all(isinstance(one, dict) and one.get("image") for one in containers):
        problems.append(f"{where}: {path}: at least one container with an image is needed")
        return problems
    for at, container in enumerate(containers):
        problems += _env_problems(f"{where}: {path}[{at}]", container.get("env") or [])
    return problems


def _env_problems(path: str, env: Any) -> list[str]:
    if not isinstance(env, list) or not all(isinstance(one, dict) and isinstance(one.get("name"), str) for one in env):
        return [f"{path}.env: a list of names with values"]
    return [
        f"{path}.env[{one['name']}]={in_yaml(one['value'])}: {must_be_text(one['value'])}"
        for one in env
        if "value" in one and not isinstance(one["value"], str)
    ]


def _worker_problems(where: str, document: Document) -> list[str]:
    worker = _worker_spec(document)
    problems = []
    if timeout_s(document) <= 0:
        problems.append(f"{where}: timeoutSeconds={worker.get('timeoutSeconds')!r}: a whole number of seconds above 0")
    return problems


def _relation_problems(where: str, manifest: Manifest) -> list[str]:
    env, problems = manifest.env, []
    stated = env.get("TASK_TIMEOUT_S")
    if stated is not None and stated != str(timeout_s(manifest.document)):
        timeout = f"timeoutSeconds={timeout_s(manifest.document)}"
        problems.append(f"{where}: env TASK_TIMEOUT_S={stated!r} differs from {timeout}: leave it out, it is set from that")
    with suppress(ValueError):  # what is no number is refused by the worker, with the rule
        if problem := limit_problem(float(env.get("HANDLER_TIMEOUT_S") or 0), timeout_s(manifest.document)):
            problems.append(f"{where}: env {problem}")
    if manifest.lane:
        problems += problems_of(job_info(manifest.document, ""), manifest.policy)
    return problems


def _repeated(manifests: list[Manifest]) -> list[str]:
    problems = []
    for what, values in (
        ("job", [one.name for one in manifests]),
        ("lane", [one.lane for one in manifests if one.lane]),
        ("subscription", [one.subscription for one in manifests if one.lane]),
    ):
        twice = [value for value in sorted(set(values)) if values.count(value) > 1]
        problems += [f"{what} {value} is named by {values.count(value)} documents: one may have it" for value in twice]
    return problems


def advice(manifest: Manifest) -> list[str]:
    """Warnings about what is allowed and not wise."""
    retries = _worker_spec(manifest.document).get("maxRetries", 3)
    warning = f"job {manifest.name}: maxRetries is 0: a worker that is killed is not replaced; 1 is recommended"
    return [warning] if retries in (0, "0") else []


def timeout_s(document: Document) -> int:
    """The task timeout in seconds, 600 when absent; 0 when it is no number."""
    text = str(_worker_spec(document).get("timeoutSeconds", 600))
    return int(text) if text.isdecimal() else 0


def completed(manifest: Manifest, env: Mapping[str, str], image: str = "") -> Manifest:
    """The manifest with these settings and this image in every container, and TASK_TIMEOUT_S if it is absent."""
    document = copy.deepcopy(manifest.document)
    for container in _worker_spec(document)["containers"]:
        entries = list(container.get("env") or [])
        container["env"] = entries
        stated = any(one["name"] == "TASK_TIMEOUT_S" for one in entries)
        for name, value in {**({} if stated else {"TASK_TIMEOUT_S": str(timeout_s(document))}), **env}.items():
            _set(entries, name, value)
        if image:
            container["image"] = image
    return replace(manifest, document=document)


def _set(entries: list[Document], name: str, value: str) -> None:
    for entry in entries:
        if entry["name"] == name:
            entry.clear()
            entry.update(name=name, value=value)
            return
    entries.append({"name": name, "value": value})


def known_settings(manifest: Manifest, project: str, bucket: str) -> dict[str, str]:
    """Project and bucket, if the manifest does not set them or has a placeholder; its own values stand."""
    known = {"GOOGLE_CLOUD_PROJECT": project, "BUCKET_NAME": bucket}
    return {name: value for name, value in known.items() if value and manifest.env.get(name, "PROJECT") in PLACEHOLDERS}


def left_open(manifest: Manifest, *, image_matters: bool = True) -> list[str]:
    """Placeholders that are left, with what fills them."""
    problems = [
        f"job {manifest.name}: env {name}={value!r} is a placeholder: give --set-env {name}=..."
        for name, value in manifest.env.items()
        if value in PLACEHOLDERS
    ]
    for container in manifest.containers if image_matters else []:
        if _PLACEHOLDER.search(str(container["image"])):
            problems.append(f"job {manifest.name}: image {container['image']!r} has placeholders: give --image ...")
    return problems


def rendered(manifest: Manifest) -> str:
    """The manifest as YAML, as `gcloud run jobs replace` takes it."""
    return str(yaml.safe_dump(manifest.document, sort_keys=False, allow_unicode=True))


def _execution_spec(document: Document, path: str = "spec.template.spec") -> Document:
    node: Any = document
    for key in path.split("."):
        node = node.get(key) if isinstance(node, dict) else None
    return node if isinstance(node, dict) else {}


def _worker_spec(document: Document) -> Document:
    return _execution_spec(document, "spec.template.spec.template.spec")


def documents(text: str) -> list[Any]:
    """The YAML documents of a text, without empty ones. Raises SettingsError."""
    try:
        return [document for document in yaml.safe_load_all(text) if document is not None]
    except (yaml.YAMLError, ValueError) as error:
        raise SettingsError([f"not YAML: {' '.join(str(error).split())}"]) from error
    except RecursionError as error:
        raise SettingsError([f"nested more than {MAX_DEPTH} levels deep"]) from error


def odd_values(where: str, document: object) -> list[str]:
    """A problem for each name that is not a text and each value that JSON does not know. Raises SettingsError for a document that holds
    itself or is too large."""
    numbers = count(1)

    def odd(path: str, node: object, above: tuple[int, ...]) -> Iterator[str]:
        """Anchors let a small file stand for an endless document, so depth and number of values are bounded."""
        if id(node) in above:
            raise SettingsError([f"{where}: {path}: an anchor that holds itself: write its content out"])
        if len(above) > MAX_DEPTH:
            raise SettingsError([f"{where}: {path[:100]}…: nested more than {MAX_DEPTH} levels deep"])
        if next(numbers) > MAX_VALUES:
            raise SettingsError([f"{where}: more than {MAX_VALUES} values, with those that anchors repeat"])
        if isinstance(node, dict):
            for key, value in node.items():
                if not isinstance(key, str):
                    yield f"{where}: {path or 'document'}: the name {in_yaml(key)} {must_be_text(key)}"
                yield from odd(f"{path}.{key}" if path else f"{key}", value, (*above, id(node)))
        elif isinstance(node, list):
            for at, value in enumerate(node):
                yield from odd(f"{path}[{at}]", value, (*above, id(node)))
        elif not isinstance(node, str | int | None) and not (isinstance(node, float) and isfinite(node)):
            yield f"{where}: {path}={in_yaml(node)}: {must_be_text(node)}"

    return list(odd("", document, ()))


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
