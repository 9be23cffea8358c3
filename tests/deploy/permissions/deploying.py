"""What a release from CI needs: the requests of a real run of deploy.sh, against what the table grants the deployer.

`deploying.csv` has the permissions that Google documents for each request, as of 2026-11; `@` leads to what it is needed on, if not the
project. Since 2025-01 Cloud Run asks who writes a job or a service whether they may read its image.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Collection, Iterable
from functools import cache

from tests.deploy.permissions.table import DATA, Recorded, Row, grants, methods
from tests.deploy.recorder import Request

DEPLOYER = "deployer"
JOB_NEEDS = {
    ("iam.serviceAccounts.actAs", "account:fanout-worker"),
    ("iam.serviceAccounts.actAs", "account:fanout-dead-letters"),
    ("artifactregistry.repositories.downloadArtifacts", "repository"),
}
"""Of `fanout apply`, beside the permission on the job."""
Need = tuple[str, str]


@cache
def _patterns() -> tuple[tuple[str, frozenset[Need]], ...]:
    with (DATA / "deploying.csv").open(encoding="utf-8", newline="") as file:
        return tuple((one["request"], frozenset(_need(text) for text in one["permissions"].split())) for one in csv.DictReader(file))


def _need(text: str) -> Need:
    permission, _, on = text.partition("@")
    return permission, on or "project"


def told(request: Request) -> str:
    """A request as `deploying.csv` names it: method, API, and the path without the API's version."""
    path = re.sub(r"^/(?:apis/[^/]+/)?(?:storage/)?(?:v[0-9]\w*/)?", "", request.path.replace("/upload/storage/v1/", "/upload/"))
    return f"{request.method} {request.api} {path}"


def needs(requests: Iterable[Request], calls: Collection[Recorded]) -> tuple[set[Need], list[str]]:
    """(what these requests of gcloud, and calls of `fanout apply`, need; what no line is known for)."""
    found: set[Need] = {(permission, "project") for one in calls for permission in methods()[one.method]}
    found |= JOB_NEEDS if calls else set()
    unknown = []
    for text in sorted({told(one) for one in requests}):
        of_it = [needed for pattern, needed in _patterns() if re.fullmatch(re.escape(pattern).replace(r"\*", "[^/:]+"), text)]
        found |= {need for needed in of_it for need in needed}
        if not of_it:
            unknown.append(text)
    return found, unknown


def deployers() -> list[Row]:
    return [row for row in grants() if row.account == DEPLOYER]


def lacking(found: Collection[Need]) -> set[Need]:
    """What the deployer would be refused."""
    held = {(permission, row.on) for row in deployers() for permission in row.permissions}
    return {(permission, on) for permission, on in found if not held & {(permission, on), (permission, "project")}}


def unused(found: Collection[Need]) -> set[Need]:
    """What it has for nothing: each permission of a custom role, and a predefined role of which nothing is used."""
    idle = {(row.role, row.on) for row in deployers() if not any((permission, row.on) in found for permission in row.permissions)}
    own = {(permission, row.on) for row in deployers() if row.role.startswith("custom:") for permission in row.permissions}
    return idle | (own - set(found))
