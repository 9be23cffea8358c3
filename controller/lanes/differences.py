"""What applying a manifest would change in the deployed job, field by field, without what the service itself adds."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_SYSTEM_PREFIXES = ("run.googleapis.com/", "cloud.googleapis.com/", "serving.knative.dev/", "client.knative.dev/")
_SERVICE_METADATA = {"uid", "generation", "resourceVersion", "creationTimestamp", "selfLink", "namespace"}
_DEFAULTS = {
    "parallelism": {"0"},
    "taskCount": {"1"},
    "maxRetries": {"3"},
    "timeoutSeconds": {"600"},
    "resources.limits.cpu": {"1", "1000m"},
    "resources.limits.memory": {"512Mi"},
    "serviceAccountName": set[str](),
}
"""What the service fills in if a manifest does not say: not shown as removed while it has that value."""
_DEFAULT_ACCOUNT = re.compile(r"\d+-compute@developer\.gserviceaccount\.com")


@dataclass(frozen=True, slots=True)
class Change:
    """One changed field. `before` is None if it is added, `after` if it is removed."""

    path: str
    before: str | None
    after: str | None

    def __str__(self) -> str:
        if self.before is None:
            return f"+ {self.path}: {self.after}"
        if self.after is None:
            return f"- {self.path}: {self.before}"
        return f"~ {self.path}: {self.before} -> {self.after}"


def differences(deployed: Mapping[str, Any] | None, wanted: Mapping[str, Any]) -> list[Change]:
    """The changes in the order of their paths; for a job that does not exist yet all of its fields are added."""
    before = dict(_fields(deployed)) if deployed is not None else {}
    after = dict(_fields(wanted))
    changes = []
    for path in sorted({*before, *after}):
        old, new = before.get(path), after.get(path)
        if old != new and not (new is None and old is not None and _filled_in(path, old)):
            changes.append(Change(path, old, new))
    return changes


def _fields(document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key, value in document.items():
        if key not in ("status", "apiVersion", "kind"):
            yield from _flat(key, value)


def _flat(path: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, one in value.items():
            if not _of_the_service(path, str(key)):
                yield from _flat(f"{path}[{key}]" if "/" in str(key) else f"{path}.{key}", one)
    elif path.endswith(".env"):
        for one in value or ():
            rest = {key: part for key, part in one.items() if key != "name"}
            yield f"{path}[{one['name']}]", str(rest.get("value", rest or ""))
    elif isinstance(value, list) and any(isinstance(one, Mapping) for one in value):
        for at, one in enumerate(value):
            yield from _flat(f"{path}[{at}]", one)
    elif value is not None and value != []:
        # The service does not keep empty values: it would differ from the file for ever.
        yield path, str(value)


def _of_the_service(path: str, key: str) -> bool:
    if path == "metadata" and key in _SERVICE_METADATA:
        return True
    return path.endswith((".labels", ".annotations")) and key.startswith(_SYSTEM_PREFIXES)


def _filled_in(path: str, value: str) -> bool:
    if path.endswith("serviceAccountName"):
        return bool(_DEFAULT_ACCOUNT.fullmatch(value))
    if re.search(r"containers\[\d+\]\.name$", path):
        return True
    return any(path.endswith(f".{name}") and value in values for name, values in _DEFAULTS.items())
