"""The services through Google's clients; the local cloud in their place where the environment says so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from ipaddress import ip_network
from typing import Any

from batch.model.errors import DependencyError, DependencyForbidden, DependencyMissing, DependencyUnavailable
from batch.services.calls import client_info, http_client_info
from controller.config import ControllerSettings
from controller.lanes.resources import Creator
from controller.observe.deployed import DeployedJobs, authorized_session
from controller.observe.google_jobs import rest_options
from controller.observe.job_documents import Document, job_info, worker_container
from controller.observe.jobs import JobInfo
from controller.observe.sources import GoogleSources, SubscriptionFacts
from fanout.doctor.services import BucketFacts, NotServed, ScheduledCall

TIMEOUT_S = 10.0
OUTCOMES_KEPT_DAYS = 365
LOCAL = "the local cloud"
_SCHEDULER = "https://cloudscheduler.googleapis.com/v1"
_COMPUTE = "https://compute.googleapis.com/compute/v1"
_KMS = "https://cloudkms.googleapis.com/v1"
_KMS_ROLE = "roles/cloudkms.cryptoKeyEncrypterDecrypter"
_READ: dict[str, Any] = {"timeout": TIMEOUT_S, "retry": None}
_CHANGE: dict[str, Any] = {"timeout": 30.0, "retry": None}
_OLD_VERSIONS_ONLY = ("numNewerVersions", "daysSinceNoncurrentTime", "noncurrentTimeBefore")


class GoogleFacts:
    """Implements `Facts`. `pubsub_emulated` and `storage_emulated`: these clients speak to the local cloud."""

    def __init__(self, settings: ControllerSettings, *, pubsub_emulated: bool, storage_emulated: bool) -> None:
        from google.cloud import pubsub_v1, run_v2, storage

        with translated("log in"):
            self._jobs = run_v2.JobsClient(**rest_options(settings.run_emulator))
            self._publisher = pubsub_v1.PublisherClient(client_info=client_info())
            self._subscriber = pubsub_v1.SubscriberClient(client_info=client_info())
            self._storage = storage.Client(project=settings.project, client_info=http_client_info())
        self._settings = settings
        self._sources = GoogleSources(settings.project, TIMEOUT_S)
        emulated = {"subscription": pubsub_emulated, "topic": pubsub_emulated, "bucket": storage_emulated, "job": settings.run_emulator}
        self._may_lack = {kind: LOCAL if one else "" for kind, one in emulated.items()}

    def subscription(self, name: str) -> SubscriptionFacts:
        return self._sources.subscription(name)

    def subscriptions_of(self, topic: str) -> Sequence[str]:
        return self._sources.subscriptions_of(topic)

    def job(self, name: str) -> JobInfo:
        settings = self._settings
        with closing(DeployedJobs(settings.project, settings.region, emulator_url=settings.run_emulator, timeout_s=TIMEOUT_S)) as jobs:
            document = jobs.read(name)
        if document is None:
            raise DependencyMissing(f"there is no job {name} in project {settings.project}, region {settings.region}")
        return job_info(document, f"projects/{settings.project}/locations/{settings.region}")

    def bucket(self, name: str) -> BucketFacts:
        with translated(f"read bucket {name}"):
            return bucket_facts(self._storage.get_bucket(self._bucket(name), **_READ))

    def notified(self, bucket: str) -> Sequence[tuple[str, str]]:
        with translated(f"list the notifications of bucket {bucket}"):
            found = list(self._bucket(bucket).list_notifications(**_READ))
        return [(one.blob_name_prefix or "", one.topic_name) for one in found if one.topic_project == self._settings.project]

    def soft_deleted(self, bucket: str) -> str:
        with translated("list deleted buckets"):
            found = self._storage.list_buckets(prefix=bucket, soft_deleted=True, **_READ)
            generations = [int(one.generation) for one in found if one.name == bucket]
        return str(max(generations)) if generations else ""

    def key_problem(self, key: str) -> str:
        if self._may_lack["bucket"]:
            raise NotServed(f"{LOCAL} has no Cloud KMS")
        with translated(f"read key {key}"), authorized_session() as session:
            agent = self._storage.get_service_account_email(timeout=TIMEOUT_S, retry=None)
            return key_problem(session, f"{_KMS}/{key.partition('/cryptoKeyVersions/')[0]}", f"serviceAccount:{agent}")

    def _bucket(self, name: str) -> Any:
        return self._storage.bucket(name, user_project=self._settings.billing_project or None)

    def lacking(self, kind: str, name: str, permissions: Sequence[str]) -> Sequence[str]:
        with translated(f"ask for permissions on {kind} {name}", may_lack=self._may_lack[kind]):
            held = self._held(kind, name, permissions)
        return [one for one in permissions if one not in held]

    def _held(self, kind: str, name: str, permissions: Sequence[str]) -> Sequence[str]:
        if kind == "bucket":
            return list(self._bucket(name).test_iam_permissions(list(permissions), **_READ))
        client: Any = {"job": self._jobs, "topic": self._publisher, "subscription": self._subscriber}[kind]
        request = {"resource": self._path(kind, name), "permissions": list(permissions)}
        return list(client.test_iam_permissions(request=request, **_READ).permissions)

    def holders(self, kind: str, name: str, role: str) -> Sequence[str]:
        client: Any = {"topic": self._publisher, "subscription": self._subscriber}[kind]
        with translated(f"read who may use {kind} {name}", may_lack=self._may_lack[kind]):
            policy = client.get_iam_policy(request={"resource": self._path(kind, name)}, **_READ)
        return [member for binding in policy.bindings if binding.role == role for member in binding.members]

    def scheduled_calls(self) -> Sequence[ScheduledCall]:
        if self._settings.run_emulator:
            raise NotServed(f"{LOCAL} has no Cloud Scheduler")
        with translated("list the jobs of Cloud Scheduler"), authorized_session() as session:
            return scheduled_calls(session, f"{_SCHEDULER}/projects/{self._settings.project}/locations/{self._settings.region}/jobs")

    def addresses(self, subnet: str) -> int:
        if self._settings.run_emulator:
            raise NotServed(f"{LOCAL} has no networks")
        with translated(f"read {subnet}"), authorized_session() as session:
            return subnet_addresses(session, f"{_COMPUTE}/{subnet}")

    def close(self) -> None:
        self._sources.close()
        self._jobs.transport.close()
        self._publisher.transport.close()
        self._subscriber.close()
        self._storage.close()

    def _path(self, kind: str, name: str) -> str:
        """Jobs are given by their full names."""
        return name if kind == "job" else f"projects/{self._settings.project}/{kind}s/{name}"


def _keeps_long_enough(condition: Mapping[str, Any]) -> bool:
    """A rule of outcomes alone: after so long nobody proves their submissions anew, and the proofs are stored."""
    prefixes = condition.get("matchesPrefix", ())
    return bool(prefixes) and all(one.startswith("outcomes/") for one in prefixes) and condition.get("age", 0) >= OUTCOMES_KEPT_DAYS


def bucket_facts(found: Any) -> BucketFacts:
    """From a Bucket of the storage client."""
    seconds = found.soft_delete_policy.retention_duration_seconds
    deleting = [rule.get("condition", {}) for rule in found.lifecycle_rules if rule.get("action", {}).get("type") == "Delete"]
    live = [one for one in deleting if one.get("isLive") is not False and not any(name in one for name in _OLD_VERSIONS_ONLY)]
    prefixes = tuple(tuple(one.get("matchesPrefix", ())) for one in live if not _keeps_long_enough(one))
    return BucketFacts(
        None if seconds is None else float(seconds),
        bool(found.versioning_enabled),
        prefixes,
        requester_pays=bool(found.requester_pays),
        retention_s=float(found.retention_period or 0),
        retention_locked=bool(found.retention_policy_locked),
        object_retention=found.object_retention_mode == "Enabled",
        default_hold=bool(found.default_event_based_hold),
        uniform_access=bool(found.iam_configuration.uniform_bucket_level_access_enabled),
        kms_key=str(found.default_kms_key_name or ""),
    )


def key_problem(session: Any, url: str, agent: str) -> str:
    """Why `agent` could not use this key; what is granted on its key ring or project stands in no policy of the key. Raises
    DependencyError."""
    key, policy = (_answer(session, address, "read the key of the bucket") for address in (url, f"{url}:getIamPolicy"))
    state = str(key.get("primary", {}).get("state", "missing"))
    if state != "ENABLED":
        return f"its version in use is {state}: enable it, or give the key another"
    members = [one for binding in policy.get("bindings", ()) if binding.get("role") == _KMS_ROLE for one in binding.get("members", ())]
    return "" if agent in members else f"{agent} is not granted {_KMS_ROLE} on it (a grant on its key ring or project would not show here)"


def _answer(session: Any, url: str, what: str) -> Any:
    response = session.get(url, timeout=TIMEOUT_S)
    if response.status_code != 200:
        raise _refused(response.status_code, str(response.text), what)
    return response.json()


def subnet_addresses(session: Any, url: str) -> int:
    """Raises DependencyError, ValueError."""
    return ip_network(str(_answer(session, url, "read the subnet")["ipCidrRange"])).num_addresses


def scheduled_calls(session: Any, url: str) -> list[ScheduledCall]:
    """All pages. Raises DependencyError."""
    found: list[ScheduledCall] = []
    token = ""
    while True:
        response = session.get(url, params={"pageSize": 500, "pageToken": token}, timeout=TIMEOUT_S)
        if response.status_code != 200:
            raise _refused(response.status_code, str(response.text), "list the jobs of Cloud Scheduler")
        body = response.json()
        found += [_call(one) for one in body.get("jobs", ()) if "httpTarget" in one]
        token = body.get("nextPageToken", "")
        if not token:
            return found


def _call(job: Any) -> ScheduledCall:
    target = job["httpTarget"]
    token = target.get("oidcToken", {})
    return ScheduledCall(
        str(job["name"]).rsplit("/", 1)[-1],
        str(job.get("schedule", "")),
        str(target.get("uri", "")),
        job.get("state") == "ENABLED",
        str(target.get("httpMethod", "POST")),
        str(token.get("serviceAccountEmail", "")),
        str(token.get("audience", "")),
    )


def _refused(status: int, text: str, what: str) -> DependencyError:
    kinds: dict[int, type[DependencyError]] = {401: DependencyForbidden, 403: DependencyForbidden, 404: DependencyMissing}
    return kinds.get(status, DependencyUnavailable)(f"cannot {what}: HTTP {status}: {' '.join(text.split())[:300]}")


class GoogleFixer(Creator):
    """Implements `Fixer`. It creates what `fanout apply --create-missing` does, in the same way."""

    def __init__(self, settings: ControllerSettings) -> None:
        with translated("log in"):
            super().__init__(settings.project, settings.region, **_CHANGE)
        self._settings = settings

    def create_topic(self, name: str) -> None:
        with translated(f"create topic {name}"):
            list(self._topic(name))

    def create_subscription(self, name: str, topic: str, dead_letter_topic: str) -> None:
        with translated(f"create subscription {name}"):
            list(self._subscription(name, topic, dead_letter_topic))

    def set_subscription(self, name: str, settings: Mapping[str, Any]) -> None:
        changed = {"name": self._path("subscriptions", name)} | {field: value for field, value in settings.items() if value is not None}
        with translated(f"change subscription {name}"):
            self._subscriber.update_subscription(request={"subscription": changed, "update_mask": {"paths": list(settings)}}, **_CHANGE)

    def set_job(
        self, name: str, *, parallelism: int | None = None, max_retries: int | None = None, env: Mapping[str, str] | None = None
    ) -> None:
        with translated("log in"):
            client = DeployedJobs(self._settings.project, self._settings.region, emulator_url=self._settings.run_emulator)
        with closing(client) as deployed:
            deployed.change(name, lambda document: change_job(document, parallelism, max_retries, env or {}), f"change job {name}")


def change_job(document: Document, parallelism: int | None, max_retries: int | None, env: Mapping[str, str]) -> None:
    """In place; settings are the worker's, not those of other containers. A parallelism of 0 is one that is absent."""
    execution = document["spec"]["template"]["spec"]
    worker = execution["template"]["spec"]
    if parallelism == 0:
        execution.pop("parallelism", None)
    elif parallelism is not None:
        execution["parallelism"] = parallelism
    if max_retries is not None:
        worker["maxRetries"] = max_retries
    if env:
        container = worker_container(document)
        kept = [one for one in container.get("env") or [] if one["name"] not in env]
        container["env"] = kept + [{"name": name, "value": value} for name, value in env.items()]


_UNREADABLE = (AttributeError, KeyError, TypeError, ValueError)
"""What a client, and our reading of its answer, raise on bodies that lack what the service always says."""


@contextmanager
def translated(what: str, *, may_lack: str = "") -> Iterator[None]:
    """`what` completes "cannot". `may_lack` names a service that may not have the call at all, the local cloud's: its answer that it does
    not know it is NotServed, in whatever words it says so."""
    from google.api_core.exceptions import (
        BadRequest,
        Forbidden,
        GoogleAPIError,
        MethodNotAllowed,
        MethodNotImplemented,
        NotFound,
        Unauthorized,
    )
    from google.auth.exceptions import GoogleAuthError
    from requests.exceptions import RequestException

    try:
        yield
    except MethodNotImplemented as error:
        raise NotServed(f"{may_lack or 'the service'} has no such call") from error
    except (BadRequest, MethodNotAllowed, NotFound) as error:
        if may_lack:
            raise NotServed(f"{may_lack} has no such call") from error
        if "requester pays" in str(error).lower():
            raise DependencyForbidden(f"cannot {what}: set BILLING_PROJECT to a project that pays for requests: {_short(error)}") from error
        kind = DependencyMissing if isinstance(error, NotFound) else DependencyUnavailable
        raise kind(f"cannot {what}: {_short(error)}") from error
    except (Forbidden, Unauthorized, GoogleAuthError) as error:
        raise DependencyForbidden(f"cannot {what}: {_short(error)}") from error
    except (GoogleAPIError, RequestException) as error:
        raise DependencyUnavailable(f"cannot {what}: {type(error).__name__}: {_short(error)}") from error
    except _UNREADABLE as error:
        raise DependencyUnavailable(
            f"cannot {what}: the answer is not one of this service, is a proxy in between? {error!r:.300}"
        ) from error


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
