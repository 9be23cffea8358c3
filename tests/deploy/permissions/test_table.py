"""The table of `deploy/identity/` itself: its form, and what it says of itself elsewhere."""

from __future__ import annotations

import re

import pytest

from tests.deploy.permissions.deploying import lacking, needs, unused
from tests.deploy.permissions.page import PAGE, page
from tests.deploy.permissions.table import IDENTITY, ROOT, Recorded, custom_role, grants, not_granted, predefined
from tests.deploy.recorder import Request

ON = re.compile(
    r"project|bucket|build-bucket|repository|topics|subscriptions|dead-letter-(topic|subscription)|(service|job|account|secret):[a-z][a-z0-9-]*"
)
ROLES = sorted(path.stem for path in (IDENTITY / "roles").glob("*.yaml"))


def test_each_grant_has_a_place_a_role_and_a_reason() -> None:
    assert [row for row in grants() if not ON.fullmatch(row.on) or not row.reason] == []
    named = {row.role.removeprefix("custom:") for row in grants() if row.role.startswith("custom:")}
    assert named <= set(ROLES)
    keys = [(row.account, row.role, row.on) for row in grants()]
    assert len(keys) == len(set(keys))


@pytest.mark.parametrize("name", ROLES)
def test_a_custom_role_has_the_form_that_gcloud_takes(name: str) -> None:
    role = custom_role(name)
    assert set(role) == {"title", "description", "stage", "includedPermissions"}
    assert re.fullmatch(r"[a-zA-Z0-9_.]{3,64}", name)
    assert (role["stage"], len(role["title"]) <= 100, len(role["description"]) <= 256) == ("GA", True, True)
    permissions = role["includedPermissions"]
    assert permissions == sorted(set(permissions))
    assert all(re.fullmatch(r"[a-z]+\.[a-zA-Z]+\.[a-zA-Z]+", one) for one in permissions)


def test_a_call_that_is_not_granted_is_told() -> None:
    pull, dead = Recorded("worker", "pubsub.Pull", "subscription:bulk"), Recorded("worker", "pubsub.Pull", "subscription:dead-letters")
    assert not_granted([pull]) == []
    assert not_granted([pull, dead]) == ["worker calls pubsub.Pull on subscription:dead-letters: worker lacks pubsub.subscriptions.consume"]
    assert "methods.csv has no such method" in not_granted([Recorded("worker", "pubsub.Seek", "subscription:bulk")])[0]
    assert "name it in ACCOUNTS" in not_granted([Recorded("stranger", "pubsub.Pull", "subscription:bulk")])[0]
    patch = Recorded("intake", "storage.objects.patch", "bucket:b")
    assert not_granted([patch]) == ["intake calls storage.objects.patch on bucket:b: intake lacks storage.objects.update"]


def test_what_a_release_needs_is_held_against_what_the_deployer_has() -> None:
    put = Request("PUT", "run", "us-central1", "/apis/serving.knative.dev/v1/namespaces/p/services/fanout-intake", {})
    found, unknown = needs([put], ())
    assert not unknown
    assert ("iam.serviceAccounts.actAs", "account:fanout-intake") in found
    assert not lacking(found)
    assert {("run.jobs.update", "project"), ("roles/storage.objectCreator", "build-bucket")} <= unused(found)
    drop = Request("DELETE", "pubsub", "", "/v1/projects/p/topics/bulk", {})
    assert needs([drop], ()) == (set(), ["DELETE pubsub projects/p/topics/bulk"])
    assert lacking({("pubsub.topics.delete", "project")})


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run `make docs`"


PRODUCT = [path for package in ("batch", "controller", "intake", "fanout") for path in sorted((ROOT / package).rglob("*.py"))]


def test_messages_name_custom_roles_that_exist_and_roles_that_suffice() -> None:
    """Beside a custom role a message names the predefined one: known here, or of the services' own lists."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in PRODUCT)
    assert set(re.findall(r"\bfanout(?:Objects|WorkerObjects|Consumer|Controller|Operator|\w*Reader)\b", text)) <= set(ROLES)
    assert set(re.findall(r"custom role (\w+)", text)) - set(ROLES) == set()
    assert {row.role for row in grants() if row.role.startswith("roles/") and row.account in ("worker", "intake")} <= set(predefined())
