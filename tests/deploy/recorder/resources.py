"""Resources by URL: created, read, listed, changed by an update mask, deleted. Operations are done at once."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping
from typing import Any

from tests.deploy.recorder.answers import Refused, Unknown, not_found
from tests.deploy.recorder.kinds import Kind, kind_of_collection, kind_of_resource
from tests.deploy.recorder.record import Request

Resource = dict[str, Any]
PROJECT_NUMBER = "123456789012"


class Resources:
    """By (API, name); a name is a path without the API's version. Not safe to use from several threads."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], Resource] = {}
        self.operations: dict[tuple[str, str], Resource] = {}
        self._numbers = itertools.count(1)

    def number(self) -> int:
        return next(self._numbers)

    def find(self, api: str, name: str) -> Resource:
        """Raises Refused."""
        found = self.kept.get((api, self._whole(api, name)))
        if found is None:
            raise not_found(name)
        return found

    def left(self) -> list[str]:
        """The names of all that is kept and not deleted."""
        return sorted(f"{api} {name}" for (api, name), one in self.kept.items() if not one.get("deleted") and one.get("state") != "DELETED")

    def answer(self, request: Request, name: str) -> Resource:
        """Raises Refused, or Unknown for what is in no table."""
        api = request.api
        if request.method == "GET" and (found := self.operations.get((api, name))):
            return found
        base, _, verb = name.partition(":")
        if api == "compute" and request.method == "POST" and (called := re.fullmatch(r"(.+/subnetworks/[^/]+)/(\w+)", name)):
            found = self.find(api, called[1])  # Compute Engine writes a call on a resource as a part of its path
            found |= request.body or {}
            return self._done(kind_of_resource(api, called[1]), api, called[1], found)
        if api == "compute" and request.method == "GET" and (found_in := re.fullmatch(r"(projects/[^/]+)/aggregated/(\w+)", name)):
            return self._aggregated(found_in[1], found_in[2])
        kind = kind_of_collection(api, base)
        if kind and not verb:
            by_method: Mapping[str, Callable[[Request, Kind, str], Resource]] = {"POST": self._create, "GET": self._list}
            if request.method in by_method:
                return by_method[request.method](request, kind, base)
        kind = kind_of_resource(api, base)
        if kind is None:
            raise Unknown
        return self._of_one(request, kind, self._whole(api, base), verb)

    def _of_one(self, request: Request, kind: Kind, name: str, verb: str) -> Resource:
        api = request.api
        if verb:
            return self._verb(request, name, verb)
        if request.method == "PUT" and (api, name) not in self.kept and api == "logging":
            return self._create(request, kind, name.rpartition("/")[0])
        found = self.find(api, name)
        if request.method == "GET":
            return found
        if request.method in ("PATCH", "PUT"):
            self._change(request, kind, found)
            return self._done(kind, api, name, found)
        if request.method == "DELETE":
            if kind.keeps_deleted:
                found |= {"deleted": True} if api == "iam" and "/roles/" in name else {"state": "DELETED"}
                return self._done(kind, api, name, found)
            for key in [key for key in self.kept if key == (api, name) or (key[0] == api and key[1].startswith(f"{name}/"))]:
                del self.kept[key]
            return self._done(kind, api, name, {})
        raise Unknown

    def _verb(self, request: Request, name: str, verb: str) -> Resource:
        if verb == "access" and name.endswith("/versions/latest"):
            versions = [key for key in self.kept if key[0] == request.api and key[1].startswith(name.removesuffix("latest"))]
            if not versions:
                raise not_found(name)
            return {key: value for key, value in self.kept[versions[-1]].items() if key in ("name", "payload")}
        found = self.find(request.api, name)
        if request.method != "POST":
            raise Unknown
        if verb == "undelete":
            found.pop("deleted", None)
            found.pop("state", None)
            return self._done(kind_of_resource(request.api, name), request.api, name, found)
        if request.api == "cloudscheduler" and verb in ("pause", "resume", "run"):
            return found | ({} if verb == "run" else {"state": "PAUSED" if verb == "pause" else "ENABLED"})
        if request.api == "iam" and verb in ("enable", "disable"):
            found["disabled"] = verb == "disable"
            return {}
        if request.api == "secretmanager" and verb == "addVersion":
            version = {"name": f"{name}/versions/{self.number()}", "state": "ENABLED", "payload": request.body["payload"]}
            self.kept[("secretmanager", version["name"])] = version
            return {key: value for key, value in version.items() if key != "payload"}
        raise Unknown

    def _create(self, request: Request, kind: Kind, collection: str) -> Resource:
        body = dict(request.body or {})
        resource = dict(body.get(kind.wrapper) or {}) if kind.wrapper else body
        given = request.query.get(kind.id_query, "") if kind.id_query else str(body.get(kind.id_field) or "").rpartition("/")[2]
        if kind.id_query and not given:
            raise Refused(400, f"{kind.id_query} is required")
        name = self._whole(request.api, f"{collection}/{given or self.number()}")
        if kind.wrapper == "serviceAccount":
            email = f"{given}@{collection.split('/')[1]}.iam.gserviceaccount.com"
            name = f"{collection}/{email}"
            resource |= {"email": email, "projectId": collection.split("/")[1], "uniqueId": f"1000{self.number()}"}
        if (request.api, name) in self.kept:
            raise Refused(409, f"Resource {name} already exists.")
        if request.api == "cloudscheduler":
            resource.setdefault("state", "ENABLED")
        if kind.pattern.endswith("/dashboards"):
            resource["etag"] = str(self.number())
        if kind.pattern.endswith("/metrics"):
            self._without_defaults(resource)
        resource["name"] = given if kind.keeps_name else name
        self.kept[(request.api, name)] = resource
        return self._done(kind, request.api, name, resource)

    @staticmethod
    def _without_defaults(metric: Resource) -> None:
        """As Google does, a label's type is left out where it is the first of its list, and labels have no order."""
        labels = metric.get("metricDescriptor", {}).get("labels", [])
        for label in labels:
            if label.get("valueType") == "STRING":
                del label["valueType"]
        labels.sort(key=lambda one: str(one["key"]), reverse=True)

    def _list(self, request: Request, kind: Kind, collection: str) -> Resource:
        if request.api == "artifactregistry" and "/packages/" in collection:
            self.find(request.api, collection.rpartition("/")[0])
        found = [
            one
            for (api, name), one in self.kept.items()
            if api == request.api and name.rpartition("/")[0] == collection and self._is_shown(request, one)
        ]
        return {kind.list_key: found} if found else {}

    def _aggregated(self, project: str, collection: str) -> Resource:
        """Of Compute Engine: what all regions have."""
        items: Resource = {}
        for (api, name), one in self.kept.items():
            found = re.fullmatch(rf"{project}/(regions/[^/]+)/{collection}/[^/]+", name)
            if api == "compute" and found:
                items.setdefault(found[1], {collection: []})[collection].append(one)
        return {"items": items}

    @staticmethod
    def _is_shown(request: Request, one: Resource) -> bool:
        is_deleted = bool(one.get("deleted")) or one.get("state") == "DELETED"
        return not is_deleted or request.query.get("showDeleted", "").lower() == "true"

    def _change(self, request: Request, kind: Kind, found: Resource) -> None:
        body = dict(request.body or {})
        mask = request.query.get("updateMask", "") or str(body.get("updateMask") or "")
        changed = dict(body.get(kind.wrapper) or body) if kind.wrapper else body
        changed.pop("name", None)
        if request.method == "PUT" and not mask:
            kept = {key: found[key] for key in ("name", "email", "uniqueId", "projectId") if key in found}
            found.clear()
            found |= kept | changed
            self._without_defaults(found)
            return
        if kind.pattern.endswith("/dashboards"):
            if not changed.get("etag"):
                raise Refused(400, "Update Dashboard should specify a non empty etag")
            if changed["etag"] != found["etag"]:
                raise Refused(409, "the etag is not that of the dashboard", "ABORTED")
            changed["etag"] = str(self.number())
        paths = [_camel(path) for path in mask.split(",") if path and path != "*"]
        for path in paths or list(changed):
            _set(found, changed, path.split("."))

    def _done(self, kind: Kind | None, api: str, name: str, resource: Resource) -> Resource:
        """The resource, or the operation that ended with it."""
        if kind is None or not kind.is_slow:
            return resource
        parts = name.split("/")
        if api == "compute":
            place = "/".join(parts[: 3 if parts[2] == "global" else 4])
            operation: Resource = {
                "name": f"operation-{self.number()}",
                "status": "DONE",
                "operationType": "update",
                "targetLink": f"http://compute.local/compute/v1/{name}",
            }
            operation["selfLink"] = f"http://compute.local/compute/v1/{place}/operations/{operation['name']}"
            if parts[2] == "regions":
                operation["region"] = f"http://compute.local/compute/v1/{place}"
            self.operations[(api, f"{place}/operations/{operation['name']}")] = operation
            return operation
        prefix = f"{name}/operations" if api == "iam" else f"{'/'.join(parts[:4])}/operations"
        return self.operation(api, f"{prefix}/{self.number()}", resource)

    def operation(self, api: str, name: str, response: Resource) -> Resource:
        """One that is done; its GET answers the same."""
        made = {"name": name, "done": True, "response": {"@type": "type.googleapis.com/google.protobuf.Struct", **response}}
        self.operations[(api, name)] = made
        return made

    def _whole(self, api: str, name: str) -> str:
        """`projects/-/serviceAccounts/EMAIL` with its project."""
        found = re.fullmatch(r"projects/-/serviceAccounts/([^@/]+@([^./]+)\.iam\.gserviceaccount\.com)", name)
        return f"projects/{found[2]}/serviceAccounts/{found[1]}" if api == "iam" and found else name


def _camel(path: str) -> str:
    return re.sub(r"_([a-z])", lambda found: found[1].upper(), path)


def _set(found: Resource, changed: Mapping[str, Any], path: list[str]) -> None:
    """Take one field from `changed`, or remove it where that has none."""
    head, *rest = path
    if rest and isinstance(changed.get(head), dict):
        _set(found.setdefault(head, {}), changed[head], rest)
    elif head in changed:
        found[head] = changed[head]
    else:
        found.pop(head, None)
