"""The collections of resources that are kept by URL: how each is created, named, listed and deleted. One table; nothing else is known."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Kind:
    """A collection below `pattern`, with `*` for one part of the path.

    The id of a new resource is the value of the query parameter `id_query`, or of `id_field` in the body (its last part, if it is a path),
    or else made up. `wrapper`: where the resource lies in the body. `listed`: the key of lists. `is_slow`: changes are operations.
    `keeps_deleted`: deleted ones stay, marked, and can be undeleted. `keeps_name`: the body's name is not the path.
    """

    api: str
    pattern: str
    id_query: str = ""
    id_field: str = "name"
    wrapper: str = ""
    listed: str = ""
    is_slow: bool = False
    keeps_deleted: bool = False
    keeps_name: bool = False

    @property
    def list_key(self) -> str:
        return self.listed or self.pattern.rpartition("/")[2]


_POOLS = "projects/*/locations/*/workloadIdentityPools"
_IN = "projects/*/locations/*"
KINDS = (
    Kind("iam", "projects/*/serviceAccounts", id_field="accountId", wrapper="serviceAccount", listed="accounts"),
    Kind("iam", "projects/*/roles", id_field="roleId", wrapper="role", keeps_deleted=True),
    Kind("iam", _POOLS, id_query="workloadIdentityPoolId", is_slow=True, keeps_deleted=True),
    Kind("iam", f"{_POOLS}/*/providers", id_query="workloadIdentityPoolProviderId", listed="workloadIdentityPoolProviders", is_slow=True),
    Kind("artifactregistry", f"{_IN}/repositories", id_query="repositoryId", is_slow=True),
    Kind("artifactregistry", f"{_IN}/repositories/*/packages", id_field="name"),
    Kind("artifactregistry", f"{_IN}/repositories/*/packages/*/tags", id_query="tagId"),
    Kind("artifactregistry", f"{_IN}/repositories/*/packages/*/versions"),
    Kind("artifactregistry", f"{_IN}/repositories/*/dockerImages"),
    Kind("cloudscheduler", f"{_IN}/jobs"),
    Kind("secretmanager", "projects/*/secrets", id_query="secretId"),
    Kind("secretmanager", "projects/*/secrets/*/versions"),
    Kind("monitoring", "projects/*/alertPolicies", id_field=""),
    Kind("monitoring", "projects/*/notificationChannels", id_field=""),
    Kind("monitoring", "projects/*/dashboards"),
    Kind("logging", "projects/*/metrics", keeps_name=True),
    Kind("logging", "projects/*/sinks", keeps_name=True),
    Kind("cloudkms", f"{_IN}/keyRings", id_query="keyRingId"),
    Kind("cloudkms", f"{_IN}/keyRings/*/cryptoKeys", id_query="cryptoKeyId"),
    Kind("monitoring", "projects/*/snoozes", id_field=""),
    Kind("orgpolicy", "projects/*/policies"),
    Kind("compute", "projects/*/global/networks", keeps_name=True, listed="items", is_slow=True),
    Kind("compute", "projects/*/regions/*/subnetworks", keeps_name=True, listed="items", is_slow=True),
    Kind("compute", "projects/*/regions/*/addresses", keeps_name=True, listed="items", is_slow=True),
    Kind("compute", "projects/*/regions/*/routers", keeps_name=True, listed="items", is_slow=True),
)
POLICIES = (
    ("cloudresourcemanager", "projects/*"),
    ("pubsub", "projects/*/topics/*"),
    ("pubsub", "projects/*/subscriptions/*"),
    ("run", f"{_IN}/services/*"),
    ("run", f"{_IN}/jobs/*"),
    ("iam", "projects/*/serviceAccounts/*"),
    ("artifactregistry", f"{_IN}/repositories/*"),
    ("secretmanager", "projects/*/secrets/*"),
    ("cloudkms", f"{_IN}/keyRings/*/cryptoKeys/*"),
)
"""What has a policy of its own, by `:getIamPolicy` and `:setIamPolicy`. A bucket's is below `/iam`."""


def matches(pattern: str, name: str) -> bool:
    return re.fullmatch(re.escape(pattern).replace(r"\*", "[^/]+"), name) is not None


def kind_of_collection(api: str, name: str) -> Kind | None:
    return next((kind for kind in KINDS if kind.api == api and matches(kind.pattern, name)), None)


def kind_of_resource(api: str, name: str) -> Kind | None:
    return kind_of_collection(api, name.rpartition("/")[0])
