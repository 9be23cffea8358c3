"""docs/permissions.md, from `deploy/identity/`: who may do what, on what, and why. Written by `make docs`."""

from __future__ import annotations

from tests.deploy.permissions.table import IDENTITY, ROOT, Row, custom_role, rows

INTRODUCTION = """Written from `deploy/identity/` by `make docs`; a test fails when it is out of date. Tests hold it against what the
processes really call: the local cloud records each call with the role of its caller, an end-to-end test fails when a call needs a
permission that its account lacks, and one test fails when an account has a permission that nothing uses.

Processes call Google as `fanout-worker/…`, `fanout-controller/…` and so on, in `User-Agent` and `x-goog-api-client`, so an audit log tells
them apart."""
ACCOUNTS = """`fanout-<account>@PROJECT.iam.gserviceaccount.com`; `pubsub-agent` is Pub/Sub's own service agent. `topics` and
`subscriptions` are each lane's: a lane whose job has an account of its own grants that one its own only."""
PEOPLE = """Nothing grants these by itself: an `operator` runs the command `fanout`, a `submitter` is a program that submits with
`batch.client`. Creating and deploying need more, and belong to the deployer. With a bucket that has Requester Pays, each account also needs
`serviceusage.services.use` on the project that pays."""
PAGE = ROOT / "docs" / "permissions.md"


def page() -> str:
    """The whole page."""
    parts = [
        "# Who may do what",
        INTRODUCTION,
        "## Service accounts",
        ACCOUNTS,
        _table(rows("bindings.csv")),
        "## People and programs",
        PEOPLE,
        _table(rows("people.csv")),
        "## Custom roles",
        "`gcloud iam roles create ID --project=PROJECT --file=deploy/identity/roles/ID.yaml` creates one.",
        _roles(),
    ]
    return "\n\n".join(parts) + "\n"


def _table(found: list[Row]) -> str:
    lines = ["| account | role | on | reason |", "| --- | --- | --- | --- |"]
    for row in found:
        role = row.role.removeprefix("custom:")
        lines.append(f"| {row.account} | `{role}` | {row.on} | {row.reason} |")
    return "\n".join(lines)


def _roles() -> str:
    lines = ["| role | what it is for | permissions |", "| --- | --- | --- |"]
    for path in sorted((IDENTITY / "roles").glob("*.yaml")):
        role = custom_role(path.stem)
        permissions = ", ".join(f"`{one}`" for one in role["includedPermissions"])
        lines.append(f"| `{path.stem}` | {role['description']} | {permissions} |")
    return "\n".join(lines)
