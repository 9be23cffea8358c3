"""A bucket whose settings forbid what a worker or a handler does: the error names the setting and what mends it, and says who must act."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from batch.model.errors import DependencyForbidden, DependencyMissing, DependencyUnavailable, FanoutError, ServiceRefused
from batch.services.calls import Resource
from batch.services.calls import translated as translated_pubsub
from batch.services.objects import GoogleObjectStore
from batch.services.transport import PASSING_TRIES
from batch.testing import ManualClock
from tests.seams.test_google_objects import Server, server

__all__ = ["server"]

SETTINGS: dict[str, tuple[int, str, str, str]] = {
    "requester pays": (
        400,
        "required",
        "Bucket is requester pays bucket but no user project provided.",
        r"set BILLING_PROJECT to a project .*--no-requester-pays",
    ),
    "no project that pays": (400, "UserProjectMissing", "User project required", r"set BILLING_PROJECT"),
    "the project that pays is not theirs": (
        403,
        "forbidden",
        "w@p.iam.gserviceaccount.com does not have serviceusage.services.use access to the Google Cloud project.",
        r"the project that BILLING_PROJECT names .*roles/serviceusage\.serviceUsageConsumer",
    ),
    "the project that pays has no account": (403, "UserProjectAccountProblem", "There is a problem.", r"BILLING_PROJECT .*billing account"),
    "billing is off": (
        403,
        "accountDisabled",
        "The project to be billed is associated with an absent billing account.",
        r"gcloud billing projects link PROJECT",
    ),
    "the key may not be used": (
        403,
        "forbidden",
        "Permission denied on Cloud KMS key. Please ensure that your Cloud Storage service account has been authorized to use this key.",
        r"gcloud storage service-agent --project=p --authorize-cmek=KEY",
    ),
    "the key is disabled": (400, "cloudKmsDisabledKey", "Cloud KMS key is disabled, destroyed.", r"whether the key's version is enabled"),
    "uniform access": (
        400,
        "invalid",
        "Cannot insert legacy ACL for an object when uniform bucket-level access is enabled.",
        r"uniform bucket-level access, and the request named an access list",
    ),
    "a policy of the organization": (
        412,
        "orgPolicyConstraintFailed",
        "Request violates constraint 'constraints/x'.",
        r"org-policies list",
    ),
    "a perimeter": (403, "vpcServiceControls", "Request is prohibited by organization's policy.", r"perimeter"),
    "the API is off": (403, "accessNotConfigured", "It is disabled.", r"gcloud services enable storage\.googleapis\.com --project=p"),
    "no permission": (403, "forbidden", "w does not have storage.objects.get access.", r"roles/storage\.objectUser, on gs://b"),
}
"""What holds for everybody: status, reason and text of the real service, and what our error must say."""

ONE_OBJECT: dict[str, tuple[int, str, str, str]] = {
    "retention policy": (
        403,
        "retentionPolicyNotMet",
        "Object 'b/one' is subject to bucket's retention policy and cannot be deleted, overwritten or archived until 2027-01-01T00:00:00Z",
        r"a retention policy keeps the object .*until 2027-01-01",
    ),
    "retention policy, as people saw it": (
        403,
        "forbidden",
        "Object 'b/one' is subject to bucket's retention policy or object retention and cannot be deleted or overwritten until 2027-01-01",
        r"a retention policy keeps the object .*another name",
    ),
    "hold": (
        403,
        "objectUnderActiveHold",
        "Object 'b/one' is under active Event-Based hold and cannot be deleted, overwritten or archived until hold is removed.",
        r"gcloud storage objects update 'gs://b/one' --no-temporary-hold --no-event-based-hold",
    ),
    "a customer's key": (400, "resourceIsEncryptedWithCustomerEncryptionKey", "It is.", r"CSEK"),
    "too large": (413, "uploadTooLarge", "Too large.", r"too large"),
    "wrong": (400, "invalidArgument", "Invalid argument.", r"refused the request with 400; repeating it cannot help: .*Invalid argument"),
    "no length": (411, "", "Length Required", r"411; repeating it cannot help"),
}
PASSING: dict[str, tuple[int, str, str, str]] = {
    "too often": (403, "rateLimitExceeded", "The rate limit was exceeded.", r"more often than a limit allows"),
    "conflict": (409, "conflict", "The metadata was edited.", r"answered 409"),
    "gone": (410, "gone", "The upload session is no longer available.", r"answered 410"),
    "range": (416, "requestedRangeNotSatisfiable", "Range.", r"answered 416"),
    "precondition": (412, "conditionNotMet", "At least one of the pre-conditions you specified did not hold.", r"answered 412"),
}


@pytest.fixture
def store(server: Server) -> Iterator[GoogleObjectStore]:
    made = GoogleObjectStore("b", project="p", clock=ManualClock())
    yield made
    made.close()


def refuse(server: Server, status: int, reason: str, text: str) -> None:
    error: dict[str, Any] = {"code": status, "message": text}
    if reason:
        error["errors"] = [{"message": text, "domain": "global", "reason": reason}]
    server.answers.append((status, {"error": error}))


CALLS: dict[str, Callable[[GoogleObjectStore], object]] = {
    "write": lambda store: store.write("one", b"x"),
    "read": lambda store: store.read("one"),
    "info": lambda store: store.info("one"),
    "patch": lambda store: store.patch_metadata("one", {"a": "b"}),
    "delete": lambda store: store.delete("one"),
    "list": lambda store: list(store.list("o")),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("cause", SETTINGS)
def test_a_setting_of_the_bucket_is_named_and_no_tasks_fault(server: Server, store: GoogleObjectStore, cause: str, call: str) -> None:
    status, reason, text, said = SETTINGS[cause]
    refuse(server, status, reason, text)
    with pytest.raises(DependencyForbidden, match=said) as raised:
        CALLS[call](store)
    assert text in str(raised.value)
    assert "bucket b (project p)" in str(raised.value)


def test_a_policy_of_the_organization_is_no_other_writer(server: Server, store: GoogleObjectStore) -> None:
    refuse(server, *SETTINGS["a policy of the organization"][:3])
    with pytest.raises(DependencyForbidden, match="org-policies"):
        store.write("one", b"x", if_generation=0)


@pytest.mark.parametrize("call", ["write", "read", "delete"])
@pytest.mark.parametrize("cause", ONE_OBJECT)
def test_what_is_wrong_with_one_object_is_its_tasks_own_failure(server: Server, store: GoogleObjectStore, cause: str, call: str) -> None:
    status, reason, text, said = ONE_OBJECT[cause]
    refuse(server, status, reason, text)
    with pytest.raises(ServiceRefused, match=said) as raised:
        CALLS[call](store)
    assert not isinstance(raised.value, DependencyUnavailable)


@pytest.mark.parametrize("cause", PASSING)
def test_what_may_pass_is_tried_again_later(server: Server, store: GoogleObjectStore, cause: str) -> None:
    status, reason, text, said = PASSING[cause]
    for _ in range(1 + PASSING_TRIES):
        refuse(server, status, reason, text)
    with pytest.raises(DependencyUnavailable, match=said):
        store.write("one", b"x")
    server.answers.clear()  # it may be tried less often


def test_an_object_that_is_written_too_often_is_retried(server: Server, store: GoogleObjectStore) -> None:
    text = "The object b/one exceeded the rate limit for object mutation operations (create, update, and delete)."
    refuse(server, 429, "rateLimitExceeded", text)
    server.answers.append((200, {"name": "one", "bucket": "b", "generation": "7", "size": "1", "updated": "2026-01-01T00:00:00.000Z"}))
    assert store.write("one", b"x").generation == 7


def test_a_bucket_that_is_gone_may_be_restored(server: Server, store: GoogleObjectStore) -> None:
    refuse(server, 404, "notFound", "The specified bucket does not exist.")
    with pytest.raises(DependencyMissing, match="gcloud storage ls --buckets --soft-deleted"):
        store.read("one")


@pytest.mark.parametrize(
    ("code", "detail", "error", "said"),
    [
        ("PERMISSION_DENIED", "This API method requires billing to be enabled.", DependencyForbidden, "gcloud billing projects link p"),
        ("FAILED_PRECONDITION", "Cloud KMS key is disabled", DependencyForbidden, "whether its version is enabled"),
        ("FAILED_PRECONDITION", "This method is not supported for this subscription type.", DependencyForbidden, "that is pulled"),
        ("FAILED_PRECONDITION", "Subscription is detached.", DependencyForbidden, "create another"),
        ("FAILED_PRECONDITION", "else", DependencyForbidden, "gcloud pubsub subscriptions describe s --project=p"),
        ("PERMISSION_DENIED", "API has not been used in project 1 before", DependencyForbidden, "enable pubsub.googleapis.com"),
        ("INVALID_ARGUMENT", "a", ServiceRefused, "repeating it cannot help"),
        ("OUT_OF_RANGE", "a", ServiceRefused, "repeating it cannot help"),
        ("UNAVAILABLE", "a", DependencyUnavailable, "try again later"),
    ],
)
def test_pubsub_says_which_setting_it_was(code: str, detail: str, error: type[FanoutError], said: str) -> None:
    found = translated_pubsub("pull from", Resource("subscription", "p", "s"), code, detail)
    assert type(found) is error
    assert said in str(found)
    assert detail in str(found)


def test_requests_name_the_project_that_pays(server: Server) -> None:
    paid = GoogleObjectStore("b", project="p", billing_project="payer")
    one = {"name": "one", "bucket": "b", "generation": "7", "size": "1", "updated": "2026-01-01T00:00:00.000Z"}
    server.answers += [(200, one), (200, b"x"), (200, one), (200, one), (204, b""), (200, json.dumps({"items": [one]}).encode())]
    for call in CALLS.values():
        call(paid)
    assert len(server.requests) == 6
    assert all("userProject=payer" in request for request in server.requests), server.requests
    paid.close()
