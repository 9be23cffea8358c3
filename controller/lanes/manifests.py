"""Manifests: the Cloud Run Jobs of a `jobs.yaml`, read, completed with what a project does not commit, and checked as they would run.

All problems of all documents are reported at once, each with document, path, value and rule, never as an exception of the parser. What
stands in the file is applied, with the settings and the image that were asked for: nothing is rewritten silently.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import count
from math import isfinite
from typing import Any

import yaml

from batch.model.errors import SettingsError
from controller.lanes.annotations import read_policy
from controller.lanes.fields import CONTAINERS, field_problems, in_yaml, must_be_text
from controller.lanes.rules import FORMS, NOWHERE, Home, dead_letters_problems, problems_of, retries_advice
from controller.model.lane import Policy
from controller.observe.job_documents import WORKER, Document, job_info, mapping_at, worker_container
from controller.observe.jobs import JobInfo

API_VERSION = "run.googleapis.com/v1"
MAX_DEPTH = 50
MAX_VALUES = 100_000
PLACEHOLDERS = ("PROJECT", "REGION", "BUCKET")
"""What a committed file has in place of a project's own values; nothing is applied with one left."""
JOB_NAME = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
"""What Cloud Run takes as a job's name."""
ACCOUNT = "serviceAccountName"
"""As whom a job's workers run."""

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
        return list(mapping_at(self.document, *WORKER)["containers"])

    @property
    def job(self) -> JobInfo:
        """The job as it would be deployed."""
        return job_info(self.document, "")

    @property
    def env(self) -> Mapping[str, str]:
        """Plain values of the worker's container."""
        return self.job.worker.env


@dataclass(frozen=True)
class Filling:
    """What a project does not commit: the settings that were asked for, project and bucket where the file names none, the image, and the
    service account by job ("": of every other job), in place of the one that the file names."""

    project: str = ""
    bucket: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    image: str = ""
    accounts: Mapping[str, str] = field(default_factory=dict)


def read_manifests(text: str) -> tuple[Manifest, ...]:
    """All documents of a file as they stand there. Raises SettingsError with every problem of every document, but not with the rules that
    their jobs break."""
    found, problems = _read(text)
    if problems:
        raise SettingsError(problems)
    return tuple(found)


def checked_manifests(text: str, filling: Filling, home: Home = NOWHERE, *, image_matters: bool = True) -> tuple[Manifest, ...]:
    """All documents of a file, completed. Raises SettingsError with every problem of every document, broken rules and placeholders that
    are left among them."""
    read, problems = _read(text)
    found = [completed(one, filling) for one in read]
    problems += [problem for one in found for problem in (*broken_rules(one, home), *left_open(one, image_matters=image_matters))]
    if problems:
        raise SettingsError(problems)
    return tuple(found)


def _read(text: str) -> tuple[list[Manifest], list[str]]:
    """The documents that are jobs, and every problem of all but the rules that jobs break."""
    read = documents(text)
    problems = [] if read else ["the file holds no document"]
    found: list[Manifest] = []
    for number, document in enumerate(read, start=1):
        where = f"document {number}"
        problems += odd_values(where, document)
        if isinstance(document, dict):
            problems += [f"{_job(where, document)}: {problem}" for problem in field_problems(document)]
        wrong = _shape_problems(where, document)
        if not wrong:
            manifest, wrong = _manifest(document)
            found.append(manifest)
        problems += wrong
    return found, problems + _repeated(found)


def _job(where: str, document: Document) -> str:
    """What a problem begins with: the job's name, once it is known."""
    name = mapping_at(document, "metadata").get("name")
    return f"job {name}" if isinstance(name, str) else where


def _manifest(document: Document) -> tuple[Manifest, list[str]]:
    """With the problems of its annotations. A lane whose annotations cannot be read is told apart by them, and has no name."""
    job = job_info(document, "")
    if not job.is_lane:
        return Manifest(job.name, document), []
    try:
        return Manifest(job.name, document, *read_policy(f"job {job.name}: metadata", job.labels, job.annotations)), []
    except SettingsError as error:
        return Manifest(job.name, document), list(error.problems)


def _shape_problems(where: str, document: Any) -> list[str]:
    """What keeps a document from being a job at all."""
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
    if not JOB_NAME.fullmatch(metadata["name"]):
        return [*problems, f"{where}: metadata.name is {metadata['name']!r}: small letters, digits and hyphens, a letter first, 63 at most"]
    where = _job(where, document)
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
    containers = mapping_at(document, *WORKER).get("containers")
    if not isinstance(containers, list) or not containers:
        return [*problems, f"{where}: {CONTAINERS}: at least one container with an image is needed"]
    for at, container in enumerate(containers):
        if not isinstance(container, dict) or not isinstance(container.get("image"), str) or not container["image"]:
            problems.append(f"{where}: {CONTAINERS}[{at}] has no image: each container needs one")
        elif not _is_env(container.get("env")):
            problems.append(f"{where}: {CONTAINERS}[{at}].env: a list of names with values")
    return problems


def _is_env(value: object) -> bool:
    return value is None or (isinstance(value, list) and all(isinstance(one, dict) and isinstance(one.get("name"), str) for one in value))


def broken_rules(manifest: Manifest, home: Home = NOWHERE) -> list[str]:
    """Every rule that the job of a completed manifest breaks. Placeholders are not judged."""
    job = manifest.job
    open_names = {name for name, value in job.worker.env.items() if value in PLACEHOLDERS}
    kept = {name: value for name, value in job.worker.env.items() if name not in open_names}
    worker = replace(job.worker, env=kept, filled=job.worker.filled | open_names)
    job = replace(job, containers=tuple(worker if one is job.worker else one for one in job.containers))
    policy = manifest.policy if manifest.lane else None
    problems = list(problems_of(job, policy, home) if job.is_lane else dead_letters_problems(job, home))
    stated, timeout = kept.get("TASK_TIMEOUT_S"), f"{job.task_timeout_s:g}"
    if stated not in (None, timeout):
        leave = "leave it out, it is set from that"
        problems.append(f"job {manifest.name}: env TASK_TIMEOUT_S={stated!r} differs from timeoutSeconds={timeout}: {leave}")
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
    said = mapping_at(manifest.document, *WORKER).get("maxRetries")
    warning = retries_advice(None if said is None else int(said))
    return [f"job {manifest.name}: {warning}"] if warning else []


def completed(manifest: Manifest, filling: Filling) -> Manifest:
    """The manifest with what was asked for in the worker's container, and where it is absent with what repeats the manifest itself:
    TASK_TIMEOUT_S, and the settings that repeat an annotation."""
    document = copy.deepcopy(manifest.document)
    container = worker_container(document)
    entries = container["env"] = list(container.get("env") or [])
    repeated = {"TASK_TIMEOUT_S": f"{manifest.job.task_timeout_s:g}"}
    if manifest.lane:
        annotations = manifest.job.annotations
        repeated |= {name: annotations[annotation] for name, annotation in FORMS.items() if annotation in annotations}
    stated = {one["name"] for one in entries}
    absent = {name: value for name, value in repeated.items() if name not in stated}
    known = {"GOOGLE_CLOUD_PROJECT": filling.project, "BUCKET_NAME": filling.bucket}
    ours = {name: value for name, value in known.items() if value and (name not in stated or manifest.env.get(name) in PLACEHOLDERS)}
    for name, value in {**absent, **ours, **filling.env}.items():
        _set(entries, name, value)
    if filling.image:
        container["image"] = filling.image
    worker: Any = mapping_at(document, *WORKER)
    if filling.project and isinstance(account := worker.get(ACCOUNT), str):
        # The project of an organization's domain, such as example.com:shop, has accounts at shop.example.com.iam.gserviceaccount.com.
        domain = ".".join(reversed(filling.project.split(":")))
        worker[ACCOUNT] = re.sub(r"\bPROJECT\b", domain, account)
    if given := filling.accounts.get(manifest.name) or filling.accounts.get(""):
        worker[ACCOUNT] = given
    return replace(manifest, document=document)


def _set(entries: list[Document], name: str, value: str) -> None:
    for entry in entries:
        if entry["name"] == name:
            entry.clear()
            entry.update(name=name, value=value)
            return
    entries.append({"name": name, "value": value})


def left_open(manifest: Manifest, *, image_matters: bool = True) -> list[str]:
    """Placeholders that are left, with what fills them."""
    job, edit = manifest.job, "edit the file, options fill in the worker's container only"
    problems = []
    if _PLACEHOLDER.search(job.service_account):
        problems.append(f"job {job.name}: {ACCOUNT} {job.service_account!r} has placeholders: give --project ..., or edit the file")
    for one in job.containers:
        ours = one is job.worker
        problems += [
            f"job {job.name}: env {name}={value!r} is a placeholder: {f'give --set-env {name}=...' if ours else edit}"
            for name, value in one.env.items()
            if value in PLACEHOLDERS
        ]
        if image_matters and _PLACEHOLDER.search(one.image):
            problems.append(f"job {job.name}: image {one.image!r} has placeholders: {'give --image ...' if ours else edit}")
    return problems


def rendered(manifest: Manifest) -> str:
    """The manifest as YAML, as `gcloud run jobs replace` takes it."""
    return str(yaml.safe_dump(manifest.document, sort_keys=False, allow_unicode=True))


class _Loader(yaml.SafeLoader):
    """Refuses a name that a mapping has twice: the last would win without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"]
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise yaml.constructor.ConstructorError(None, None, f"{twice[0]} is there twice in one mapping: leave one", node.start_mark)
        return super().construct_mapping(node, deep)


def documents(text: str) -> list[Any]:
    """The YAML documents of a text, without empty ones. Raises SettingsError."""
    try:
        return [document for document in yaml.load_all(text, _Loader) if document is not None]
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
