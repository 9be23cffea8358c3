"""A job from its document in the v1 API, which is also what a manifest says. Never raises: what is wrong in a manifest is for its rules."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from controller.observe.containers import Container, worker_at
from controller.observe.jobs import DEFAULT_RETRIES, DEFAULT_TIMEOUT_S, JobInfo

DELAYED = ("spec", "delayExecution")
INTERFACES = "run.googleapis.com/network-interfaces"
EXECUTION = ("spec", "template", "spec")
WORKER = (*EXECUTION, "template", "spec")

_SUBNET = re.compile(r"(?:https://[\w.-]+/compute/\w+/)?(projects/[\w.:-]+/regions/[\w-]+/subnetworks/[\w-]+)")

Document = dict[str, Any]


def job_info(document: Mapping[str, Any], parent: str) -> JobInfo:
    """`parent` is `projects/P/locations/R`."""
    metadata, status = mapping_at(document, "metadata"), mapping_at(document, "status")
    execution, worker = mapping_at(document, *EXECUTION), mapping_at(document, *WORKER)
    return JobInfo(
        full_name=f"{parent}/jobs/{metadata.get('name', '')}",
        uid=str(metadata.get("uid", "")),
        labels=texts(metadata.get("labels")),
        annotations=texts(metadata.get("annotations")),
        containers=_containers(worker) or (Container(),),
        task_timeout_s=number(worker.get("timeoutSeconds"), DEFAULT_TIMEOUT_S),
        parallelism=int(number(execution.get("parallelism"), 0)),
        max_retries=int(number(worker.get("maxRetries"), DEFAULT_RETRIES)),
        is_delayed=str(mapping_at(document, DELAYED[0]).get(DELAYED[1], "")).lower() == "true",
        service_account=str(worker.get("serviceAccountName") or ""),
        subnet=_subnet(mapping_at(document, "spec", "template", "metadata", "annotations").get(INTERFACES), parent),
        execution_count=int(number(status.get("executionCount"), 0)),
        latest_execution=str(mapping_at(status, "latestCreatedExecution").get("name", "")).rsplit("/", 1)[-1],
    )


def worker_container(document: Mapping[str, Any]) -> Document:
    """The container that drains, as it stands in the document, to be changed there."""
    worker = mapping_at(document, *WORKER)
    found: Document = worker["containers"][worker_at(_containers(worker))]
    return found


def _containers(worker: Mapping[str, Any]) -> tuple[Container, ...]:
    return tuple(map(_container, mappings(worker.get("containers"))))


def _container(found: Mapping[str, Any]) -> Container:
    words = [*_list(found.get("command")), *_list(found.get("args"))]
    env = [one for one in mappings(found.get("env")) if "name" in one]
    return Container(
        name=str(found.get("name") or ""),
        image=str(found.get("image") or ""),
        command=tuple(map(str, words)),
        env={str(one["name"]): str(one.get("value") or "") for one in env if not one.get("valueFrom")},
        filled=frozenset(str(one["name"]) for one in env if one.get("valueFrom")),
        limits=texts(mapping_at(found, "resources").get("limits")),
        of_image=bool(words) and not _list(found.get("command")),
    )


def mapping_at(document: object, *path: str) -> Mapping[str, Any]:
    """What stands there; empty unless it is a mapping."""
    node: Any = document
    for key in path:
        node = node.get(key) if isinstance(node, Mapping) else None
    return node if isinstance(node, Mapping) else {}


def mappings(value: object) -> Iterator[Mapping[str, Any]]:
    """Those of a list."""
    return (one for one in _list(value) if isinstance(one, Mapping))


def texts(value: object) -> dict[str, str]:
    return {str(key): str(one) for key, one in value.items()} if isinstance(value, Mapping) else {}


def number(value: object, default: float) -> float:
    """A number, or a text that holds one, as both stand in documents."""
    try:
        found = float(str(value)) if value is not None else default
    except ValueError:
        return default
    return found if abs(found) < 1e15 else default


def _subnet(interfaces: object, parent: str) -> str:
    """From a list of interfaces as JSON, of which Cloud Run takes one. A network alone means its subnet of the same name; short names are
    of the job's own project and region."""
    try:
        found = json.loads(interfaces) if isinstance(interfaces, str) else None
    except (ValueError, RecursionError):
        return ""
    first = next(mappings(found), {})
    name = str(first.get("subnetwork") or str(first.get("network") or "").rsplit("/", 1)[-1])
    own = parent.replace("/locations/", "/regions/")
    match = _SUBNET.fullmatch(name if "/" in name else f"{own}/subnetworks/{name}")
    return match[1] if match else ""


def _list(value: object) -> Sequence[Any]:
    return value if isinstance(value, list) else ()
