"""`fanout doctor` finds each setting of a bucket that Fanout cannot work with, and names what mends it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import Result

from batch.model.errors import DependencyForbidden, DependencyUnavailable
from controller.config import ControllerSettings
from fanout import doctor
from fanout.doctor.google_services import GoogleFacts, bucket_facts, key_problem
from fanout.doctor.services import BucketFacts, NotServed
from tests.controller.fakes import World
from tests.fanout.conftest import here, run
from tests.fanout.doctor_fakes import FakeFacts
from tests.fanout.test_doctor import facts, not_fine, the_job
from tests.fanout.test_doctor_local import bucket_of
from tests.seams.conftest import create_bucket
from tests.support import Service

__all__ = ["facts", "here", "run"]

Run = Callable[..., Result]
KEY = "projects/k/locations/eu/keyRings/r/cryptoKeys/c"


@pytest.mark.parametrize(
    ("changes", "check", "verdict", "what", "command"),
    [
        ({"requester_pays": True}, "requester-pays", "wrong", "BILLING_PROJECT is not set here", "update gs://b --no-requester-pays"),
        ({"retention_s": 864000.0}, "retention", "wrong", "keeps every object for 10 days", "update gs://b --clear-retention-period"),
        ({"retention_s": 86400.0, "retention_locked": True}, "retention", "wrong", "it is locked: nobody can take it away", "--clear-ret"),
        ({"default_hold": True}, "holds", "wrong", "event-based hold", "update gs://b --no-default-event-based-hold"),
        ({"object_retention": True}, "object-retention", "advice", "retention of their own", "--format='value(per_object_retention)'"),
        ({"uniform_access": False}, "uniform-access", "advice", "access lists", "update gs://b --uniform-bucket-level-access"),
    ],
)
def test_settings_of_the_bucket(
    facts: FakeFacts, run: Run, changes: dict[str, Any], check: str, verdict: str, what: str, command: str
) -> None:
    facts.buckets = {"b": BucketFacts(0.0, **changes)}
    result = run(doctor.command, "--json")
    (found,) = not_fine(result)
    assert (found["about"], found["check"], found["verdict"]) == ("bucket b", check, verdict)
    assert result.exit_code == (1 if verdict == "wrong" else 0)
    assert what in found["what"]
    assert found["command"].startswith("gcloud storage buckets ")
    assert command in found["command"]
    assert found["why"]
    assert not found["fixable"]


def test_with_requester_pays_each_job_names_who_pays(here: World, facts: FakeFacts, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BILLING_PROJECT", "payer")
    facts.buckets = {"b": BucketFacts(0.0, requester_pays=True)}
    (found,) = not_fine(run(doctor.command, "--json"))
    assert found["what"] == "it has Requester Pays, and BILLING_PROJECT is not set in default"
    assert found["command"].endswith(
        "gcloud run jobs update default --project=p --region=us-central1 --update-env-vars=BILLING_PROJECT=payer"
    )
    the_job(here, monkeypatch, env={"BILLING_PROJECT": "payer"})
    assert not_fine(run(doctor.command, "--json")) == []


def test_a_key_that_cloud_storage_may_not_use(facts: FakeFacts, run: Run) -> None:
    facts.buckets = {"b": BucketFacts(0.0, kms_key=KEY)}
    assert not_fine(run(doctor.command, "--json")) == []
    facts.key_problems = {KEY: "its version in use is DISABLED"}
    (found,) = not_fine(run(doctor.command, "--json"))
    assert (found["check"], found["what"]) == ("key", f"it encrypts with {KEY}, and its version in use is DISABLED")
    assert found["command"] == f"gcloud storage service-agent --project=p --authorize-cmek={KEY}"
    for error, verdict in ((NotServed("no KMS"), "not_checked"), (DependencyForbidden("403"), "unreadable")):
        facts.errors = {"key_problem": error}
        assert [(one["check"], one["verdict"]) for one in not_fine(run(doctor.command, "--json"))] == [("key", verdict)]


def test_a_deleted_bucket_is_restored_and_not_made_anew(facts: FakeFacts, run: Run) -> None:
    facts.buckets, facts.deleted = {}, {"b": "17"}
    (found,) = not_fine(run(doctor.command, "--json"))
    assert (found["check"], found["command"]) == ("exists", "gcloud storage restore gs://b#17")
    facts.errors = {"soft_deleted": DependencyUnavailable("503")}
    (found,) = not_fine(run(doctor.command, "--json"))
    assert (found["verdict"], "buckets create" in str(found)) == ("unreadable", False)
    facts.errors = {"soft_deleted": DependencyForbidden("403")}
    (found,) = not_fine(run(doctor.command, "--json"))
    assert found["command"].startswith("gcloud storage buckets create gs://b")


def test_facts_are_read_from_the_answer() -> None:
    found = bucket_facts(
        bucket_of(
            billing={"requesterPays": True},
            retentionPolicy={"retentionPeriod": "60", "isLocked": True},
            objectRetention={"mode": "Enabled"},
            defaultEventBasedHold=True,
            iamConfiguration={"uniformBucketLevelAccess": {"enabled": False}},
            encryption={"defaultKmsKeyName": KEY},
        )
    )
    assert found == BucketFacts(None, False, (), True, 60.0, True, True, True, False, KEY)
    assert bucket_facts(bucket_of(iamConfiguration={"uniformBucketLevelAccess": {"enabled": True}})) == BucketFacts(None)


def test_settings_of_a_local_bucket_are_seen(local_storage: Service, project: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from google.cloud import storage

    monkeypatch.setenv("STORAGE_EMULATOR_HOST", local_storage.http)
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", "127.0.0.1:1")
    create_bucket(local_storage, project, f"bucket-{project}")
    client = storage.Client(project=project)
    bucket = client.get_bucket(f"bucket-{project}")
    bucket.requester_pays, bucket.retention_period, bucket.default_event_based_hold = True, 3600, True
    bucket.patch()
    settings = ControllerSettings(project, f"bucket-{project}", run_emulator="http://127.0.0.1:1")
    facts = GoogleFacts(settings, pubsub_emulated=True, storage_emulated=True)
    assert facts.bucket(f"bucket-{project}") == BucketFacts(None, requester_pays=True, retention_s=3600.0, default_hold=True)
    assert facts.soft_deleted(f"bucket-{project}") == ""
    with pytest.raises(NotServed):
        facts.key_problem(KEY)
    facts.close()
    client.close()


class Session:
    """Answers for a key and its policy."""

    def __init__(self, state: str, *members: str, status: int = 200) -> None:
        self._status = status
        self._key = {"name": KEY, "primary": {"state": state}}
        self._policy = {"bindings": [{"role": "roles/cloudkms.cryptoKeyEncrypterDecrypter", "members": list(members)}, {"role": "r"}]}

    def get(self, url: str, *, timeout: float) -> Any:
        body = self._policy if url.endswith(":getIamPolicy") else self._key
        return type("Answer", (), {"status_code": self._status, "text": "no", "json": lambda _self: json.loads(json.dumps(body))})()


def test_what_is_wrong_with_a_key() -> None:
    agent = "serviceAccount:service-1@gs-project-accounts.iam.gserviceaccount.com"
    assert key_problem(Session("ENABLED", "user:a", agent), KEY, agent) == ""
    assert "is not granted roles/cloudkms.cryptoKeyEncrypterDecrypter" in key_problem(Session("ENABLED", "user:a"), KEY, agent)
    assert "its version in use is DESTROYED" in key_problem(Session("DESTROYED", agent), KEY, agent)
    with pytest.raises(DependencyForbidden, match="read the key of the bucket"):
        key_problem(Session("ENABLED", status=403), KEY, agent)
