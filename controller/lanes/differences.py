"""What applying a manifest would change in the deployed job, field by field, without what the service itself adds."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from controller.observe.containers import cpus, gibibytes

_WRITTEN = (
    *(
        "client-name",
        "client-version",
        "operation-id",
        "creator",
        "lastModifier",
        "lastUpdatedTime",
        "user-image",
        "urls",
        "ingress-status",
    ),
    *("satisfiesPzs", "satisfiesPzi", "startupProbeType", "build-id", "build-name", "build-image-uri", "build-source-location"),
)
_OF_GOOGLE = {
    *(f"run.googleapis.com/{name}" for name in _WRITTEN),
    *("cloud.googleapis.com/location", "serving.knative.dev/creator", "serving.knative.dev/lastModifier"),
    *("client.knative.dev/nonce", "client.knative.dev/user-image"),
}
"""Labels and annotations that Cloud Run, gcloud and the console write about a change. All others are somebody's settings, such as
run.googleapis.com/network-interfaces, and are shown: applying a manifest without them takes them away."""
_SERVICE_METADATA = {"uid", "generation", "resourceVersion", "creationTimestamp", "selfLink", "namespace"}
_DEFAULTS = {
    "parallelism": {"0"},
    "taskCount": {"1"},
    "maxRetries": {"3"},
    "timeoutSeconds": {"600"},
    "resources.limits.cpu": {"1", "1000m"},
    "resources.limits.memory": {"512Mi"},
    "annotations[run.googleapis.com/execution-environment]": {"gen2"},
}
"""What the service fills in if a manifest does not say: not shown as removed while it has that value."""
_DEFAULT_ACCOUNT = re.compile(r"\d+-compute@developer\.gserviceaccount\.com")


@dataclass(frozen=True, slots=True)
class Change:
    """One changed field. `before` is None if it is added, `after` if it is removed."""

    path: str
    before: str | None
    after: str | None

    @property
    def short(self) -> str:
        """For a line on a terminal: what lies deep in a manifest goes without the whole path to it."""
        path = self.path.removeprefix("spec.template.spec.template.spec.")
        return str(replace(self, path=path.replace("spec.template.metadata.", "template.", 1)))

    def __str__(self) -> str:
        if self.before is None:
            return f"+ {self.path}: {self.after}"
        if self.after is None:
            return f"- {self.path}: {self.before}"
        return f"~ {self.path}: {self.before} -> {self.after}"


def differences(deployed: Mapping[str, Any] | None, wanted: Mapping[str, Any]) -> list[Change]:
    """The changes in the order of their paths; for a job that does not exist yet all of its fields are added."""
    before = dict(_fields(deployed, wanted)) if deployed is not None else {}
    after = dict(_fields(wanted, deployed or {}))
    changes = []
    for path in sorted({*before, *after}):
        old, new = before.get(path), after.get(path)
        if old != new and not (new is None and old is not None and _filled_in(path, old)) and not _same_size(path, old, new):
            changes.append(Change(path, old, new))
    return changes


def _fields(document: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key, value in document.items():
        if key not in ("status", "apiVersion", "kind"):
            yield from _flat(key, value, other.get(key))


def _flat(path: str, value: Any, other: Any) -> Iterator[tuple[str, str]]:
    """`other` is what stands there in the document that is compared."""
    if isinstance(value, Mapping):
        across = other if isinstance(other, Mapping) else {}
        for key, one in value.items():
            if not _of_the_service(path, str(key)):
                yield from _flat(f"{path}[{key}]" if "/" in str(key) else f"{path}.{key}", one, across.get(key))
    elif path.endswith(".env"):
        for one in value or ():
            rest = {key: part for key, part in one.items() if key != "name"}
            yield f"{path}[{one['name']}]", str(rest["value"]) if "value" in rest else _in_order(rest)
    elif isinstance(value, list) and any(isinstance(one, Mapping) for one in value):
        others = other if isinstance(other, list) else []
        by_key = dict(zip(_keys(path, others, value), others, strict=True))
        for key, one in zip(_keys(path, value, others), value, strict=True):
            yield from _flat(f"{path}[{key}]", one, by_key.get(key))
    elif isinstance(value, bool):
        yield path, str(value).lower()
    elif value is not None and value != []:
        # The service does not keep empty values: it would differ from the file for ever.
        yield path, str(value)


def _in_order(value: Any) -> str:
    """Where a value comes from, whatever the order of its names: gcloud writes another one than Cloud Run."""
    if isinstance(value, Mapping):
        return "".join(f"{{{', '.join(f'{key}: {_in_order(value[key])}' for key in sorted(value))}}}") if value else ""
    return str(value)


def _keys(path: str, mine: list[Any], others: list[Any]) -> list[str]:
    """What tells the items of a list apart: their names, so that one more is one that is added. Items at the same position that have no
    name, or names that the other list does not know, are the same one: Cloud Run names containers that have none."""
    own, theirs = _names(path, mine), _names(path, others)
    keys = []
    for at, name in enumerate(own):
        across = theirs[at] if at < len(theirs) else None
        keys.append(name if name and (name in theirs or across is None or (across and across in own)) else f"{at}")
    return keys


def _names(path: str, items: list[Any]) -> list[str]:
    field = "mountPath" if path.endswith(".volumeMounts") else "name"
    return [str(one.get(field) or "") if isinstance(one, Mapping) else "" for one in items]


def _same_size(path: str, old: str | None, new: str | None) -> bool:
    """Whether two limits are one, in different units."""
    read = {"cpu": cpus, "memory": gibibytes}.get(path.rpartition(".limits.")[2])
    if read is None or old is None or new is None:
        return False
    try:
        return read(old) == read(new)
    except ValueError:
        return False


def _of_the_service(path: str, key: str) -> bool:
    if path == "metadata" and key in _SERVICE_METADATA:
        return True
    return path.endswith((".labels", ".annotations")) and key in _OF_GOOGLE


def _filled_in(path: str, value: str) -> bool:
    if path.endswith("serviceAccountName"):
        return bool(_DEFAULT_ACCOUNT.fullmatch(value))
    if re.search(r"containers\[\d+\]\.name$", path):
        return True
    return any(path.endswith(f".{name}") and value in values for name, values in _DEFAULTS.items())
