"""Who may do what, as `deploy/identity/` says it, and which permissions a recorded call needs.

`methods.csv` has the permissions that Google documents for each call (of Pub/Sub, Cloud Run, Cloud Storage with its JSON methods, Cloud
Monitoring), `predefined.csv` what the predefined roles contain that the table names; both as of 2026-11.
"""

from __future__ import annotations

import csv
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[3]
IDENTITY = ROOT / "deploy" / "identity"
DATA = Path(__file__).parent
DEAD = "dead-letters"
ACCOUNTS = {"worker": "worker", DEAD: DEAD, "intake": "intake", "controller": "controller", "cli": "operator", "client": "submitter"}
"""As whom a process runs that calls itself by such a role."""


@dataclass(frozen=True)
class Row:
    """One grant."""

    account: str
    role: str
    on: str
    reason: str

    @property
    def permissions(self) -> frozenset[str]:
        """Empty for a role of which nothing is known here, such as one of Cloud Build's."""
        if self.role.startswith("custom:"):
            return frozenset(custom_role(self.role.removeprefix("custom:"))["includedPermissions"])
        return predefined().get(self.role, frozenset())

    def covers(self, resource: str) -> bool:
        """Whether the grant holds on a resource as the local cloud names it."""
        kind, _, name = resource.partition(":")
        if self.on == "project" or kind == "job":
            return self.on in ("project", resource)
        if kind in ("topic", "subscription"):
            return self.on == (f"dead-letter-{kind}" if name == DEAD else f"{kind}s")
        return self.on == kind


@dataclass(frozen=True, order=True)
class Recorded:
    """A call that the local cloud has recorded."""

    role: str
    method: str
    resource: str


def rows(name: str) -> list[Row]:
    with (IDENTITY / name).open(encoding="utf-8", newline="") as file:
        return [Row(**{key: str(value) for key, value in one.items()}) for one in csv.DictReader(file)]


@cache
def grants() -> tuple[Row, ...]:
    """Of service accounts and of people."""
    return (*rows("bindings.csv"), *rows("people.csv"))


@cache
def custom_role(name: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = yaml.safe_load((IDENTITY / "roles" / f"{name}.yaml").read_text(encoding="utf-8"))
    return found


def _sets(name: str, key: str) -> Mapping[str, frozenset[str]]:
    with (DATA / name).open(encoding="utf-8", newline="") as file:
        return {one[key]: frozenset(one["permissions"].split()) for one in csv.DictReader(file)}


@cache
def predefined() -> Mapping[str, frozenset[str]]:
    return _sets("predefined.csv", "role")


@cache
def methods() -> Mapping[str, frozenset[str]]:
    return _sets("methods.csv", "method")


def used(calls: Collection[Recorded]) -> dict[tuple[str, str, str], set[str]]:
    """By account, role and `on` of each grant: the permissions that the calls need of it."""
    found: dict[tuple[str, str, str], set[str]] = {}
    for call in calls:
        for row in grants():
            if row.account == ACCOUNTS[call.role] and row.covers(call.resource):
                found.setdefault((row.account, row.role, row.on), set()).update(methods()[call.method] & row.permissions)
    return found


def not_granted(calls: Collection[Recorded]) -> list[str]:
    """What is wrong, a line for each call that no permission is known for, or that lacks one."""
    problems = []
    for call in sorted(calls):
        account = ACCOUNTS.get(call.role)
        if account is None:
            problems.append(f"{call.role} is no role that has an account: name it in ACCOUNTS")
            continue
        if call.method not in methods():
            problems.append(f"{call.role} calls {call.method} on {call.resource}: methods.csv has no such method")
            continue
        held = {one for row in grants() if row.account == account and row.covers(call.resource) for one in row.permissions}
        lacking = methods()[call.method] - held
        if lacking:
            problems.append(f"{call.role} calls {call.method} on {call.resource}: {account} lacks {', '.join(sorted(lacking))}")
    return problems
