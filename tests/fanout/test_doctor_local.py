"""`fanout doctor` with Google's own clients: damage done to a local cloud is found and fixed; permissions, which the local cloud does
not know, come from small servers that answer as the real ones do."""

from __future__ import annotations

import copy
import json
import shlex
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import grpc
import pytest
from click.testing import CliRunner, Result
from google.iam.v1 import iam_policy_pb2, policy_pb2

from batch.model.errors import DependencyForbidden, DependencyMissing
from controller.config import ControllerSettings
from fanout import doctor
from fanout.doctor.google_services import GoogleFacts, GoogleFixer, bucket_facts, change_job, scheduled_calls
from fanout.doctor.services import NotServed
from local_cloud.addresses import Addresses
from tests.fanout.doctor_fakes import AGENT
from tests.fanout.test_apply import applied, cloud, jobs_file
from tests.fanout.test_commands import documented, keys
from tests.real_gcloud import Gcloud, find_gcloud
from tests.support import Service

__all__ = ["cloud", "jobs_file"]


def doctored(*arguments: str) -> Result:
    result = CliRunner().invoke(doctor.command, [*arguments, "--json"])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def verdicts(result: Result, *, about: str = "") -> dict[str, str]:
    found = json.loads(result.stdout)["findings"]
    return {f"{one['about']}: {one['check']}": one["verdict"] for one in found if about in one["about"]}


def of(result: Result, verdict: str) -> set[str]:
    return {name for name, found in verdicts(result).items() if found == verdict}


ADVISED = {"job urgent: max-retries"}
DECIDED = {"lane urgent: drain-within"}
"""What only a person can decide: no front door tells of this lane's tasks, and it is to drain sooner than the gauge shows them."""


@pytest.fixture
def damaged(cloud: str, jobs_file: Path, local_pubsub: Service, local_run: Service, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Lanes that were set up well, and then somebody changed them; what doctor should find."""
    from google.cloud import pubsub_v1

    monkeypatch.setenv("CLOUD_MONITORING_EMULATOR_HOST", local_pubsub.grpc)
    assert applied(str(jobs_file), "--yes", "--create-missing").exit_code == 0
    fixer = GoogleFixer(ControllerSettings(cloud, "b", run_emulator=local_run.http))
    fixer.set_job("urgent", parallelism=1, max_retries=3, env={"TASK_TIMEOUT_S": "1"})
    fixer.close()
    with pubsub_v1.SubscriberClient() as client:
        path = f"projects/{cloud}/subscriptions/default"
        changed: Any = {"name": path, "ack_deadline_seconds": 600, "retry_policy": {"minimum_backoff": {"seconds": 10}}}
        paths = ["ack_deadline_seconds", "retry_policy", "expiration_policy", "message_retention_duration", "dead_letter_policy"]
        changed |= {"expiration_policy": {"ttl": {"seconds": 86400 * 31}}, "message_retention_duration": {"seconds": 600}}
        client.update_subscription(request={"subscription": changed, "update_mask": {"paths": paths}})
        client.delete_subscription(subscription=f"projects/{cloud}/subscriptions/bulk")
    damage = {f"subscription default: {check}" for check in ("ack-deadline", "retry-policy", "expiry", "retention", "dead-letter-policy")}
    return damage | {"subscription bulk: exists", "job urgent: max-retries", "job urgent: parallelism", "job urgent: task-timeout"}


def test_damage_is_found_and_fixed(damaged: set[str]) -> None:
    first = doctored()
    assert (of(first, "wrong"), of(first, "advice"), first.exit_code) == (damaged - ADVISED, ADVISED | DECIDED, 1)
    fixed = doctored("--fix", "--yes")
    assert (of(fixed, "wrong") | of(fixed, "advice"), of(fixed, "unreadable"), fixed.exit_code) == (DECIDED, set(), 0)
    assert {f"{one['about']}: {one['check']}" for one in json.loads(fixed.stdout)["fixed"]} == damaged
    never_known = {"permissions", "service-agent", "ticks", "soft-delete"}
    assert {name.rsplit(": ", 1)[1] for name in of(fixed, "not_checked")} == never_known
    assert keys(json.loads(fixed.stdout)) - documented(doctor.command) == set()


@pytest.mark.slow
@pytest.mark.real
def test_the_commands_that_it_prints_fix_the_same(
    damaged: set[str], cloud: str, local_pubsub: Service, local_storage: Service, local_run: Service, tmp_path: Path
) -> None:
    find_gcloud()
    gcloud = Gcloud(Addresses(local_pubsub.grpc, local_pubsub.http, local_storage.http, local_run.http), tmp_path / "gcloud", cloud)
    findings = [one for one in json.loads(doctored().stdout)["findings"] if one["verdict"] in ("wrong", "advice")]
    wrong = [one for one in findings if f"{one['about']}: {one['check']}" not in DECIDED]
    for one in wrong:
        answer = gcloud(*shlex.split(one["command"])[1:])
        assert answer.code == 0, f"{one['command']}: {answer.messages}"
    assert len(wrong) == len(damaged)
    assert of(doctored(), "wrong") | of(doctored(), "advice") == DECIDED


def test_a_job_keeps_everything_but_what_is_fixed() -> None:
    worker: dict[str, Any] = {
        "maxRetries": 3,
        "containers": [{"image": "i", "env": [{"name": "A", "value": "1"}, {"name": "TASK_TIMEOUT_S", "value": "1"}]}],
    }
    document: dict[str, Any] = {
        "metadata": {"name": "j"},
        "spec": {"template": {"spec": {"parallelism": 4, "template": {"spec": worker}}}},
    }
    change_job(document, 0, None, {"TASK_TIMEOUT_S": "600"})
    container = {"image": "i", "env": [{"name": "A", "value": "1"}, {"name": "TASK_TIMEOUT_S", "value": "600"}]}
    kept = {"maxRetries": 3, "containers": [container]}
    assert document == {"metadata": {"name": "j"}, "spec": {"template": {"spec": {"template": {"spec": kept}}}}}
    sidecar = {"name": "proxy", "image": "p", "env": [{"name": "TASK_TIMEOUT_S", "value": "its own"}]}
    worker["containers"] = [copy.deepcopy(sidecar), {"name": "worker", "image": "i"}]
    change_job(document, None, 1, {"A": "1"})
    assert worker == {"maxRetries": 1, "containers": [sidecar, {"name": "worker", "image": "i", "env": [{"name": "A", "value": "1"}]}]}


def test_the_notifications_of_a_bucket(cloud: str, local_run: Service, local_pubsub: Service, local_storage: Service) -> None:
    import requests
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import pubsub_v1, storage

    requests.post(f"{local_storage.http}/pubsub", json={"url": local_pubsub.http}, timeout=60).raise_for_status()
    publisher = pubsub_v1.PublisherClient()
    publisher.create_topic(name=f"projects/{cloud}/topics/uploads")
    publisher.transport.close()
    with closing(storage.Client(cloud, AnonymousCredentials())) as client:
        bucket = client.create_bucket(f"{cloud}-bucket")
        bucket.notification("uploads", topic_project=cloud, blob_name_prefix="input/").create()
        bucket.notification("uploads", topic_project=cloud).create()
    with closing(
        GoogleFacts(ControllerSettings(cloud, bucket.name, run_emulator=local_run.http), pubsub_emulated=True, storage_emulated=True)
    ) as facts:
        assert sorted(facts.notified(bucket.name)) == [("", "uploads"), ("input/", "uploads")]
        with pytest.raises(DependencyMissing):
            facts.notified("nowhere")


def test_hands_do_what_is_done_already_without_an_error(cloud: str, local_run: Service) -> None:
    fixer = GoogleFixer(ControllerSettings(cloud, "b", run_emulator=local_run.http))
    for _ in range(2):
        fixer.create_topic("tasks")
        fixer.create_subscription("tasks-sub", "tasks", "")
    with pytest.raises(DependencyMissing, match="job nowhere"):
        fixer.set_job("nowhere", max_retries=1)
    fixer.close()


@pytest.fixture
def iam(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Pub/Sub's half of IAM: whoever asks may consume, and nothing else; the service agent publishes."""

    def held(request: Any, _context: Any) -> Any:
        return iam_policy_pb2.TestIamPermissionsResponse(permissions=[one for one in request.permissions if one.endswith("consume")])

    def policy(request: Any, context: Any) -> Any:
        if request.resource.endswith("/secret"):
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "no getIamPolicy")
        return policy_pb2.Policy(bindings=[policy_pb2.Binding(role="roles/pubsub.publisher", members=[AGENT])])

    def handler(call: Callable[[Any, Any], Any], kind: Any) -> Any:
        return grpc.unary_unary_rpc_method_handler(
            call, request_deserializer=kind.FromString, response_serializer=lambda one: one.SerializeToString()
        )

    server = grpc.server(futures.ThreadPoolExecutor(2))
    methods = {
        "TestIamPermissions": handler(held, iam_policy_pb2.TestIamPermissionsRequest),
        "GetIamPolicy": handler(policy, iam_policy_pb2.GetIamPolicyRequest),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("google.iam.v1.IAMPolicy", methods),))
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}")
    server.start()
    yield
    server.stop(0).wait()


@pytest.fixture
def web() -> Iterator[tuple[str, list[str]]]:
    """Storage's and Cloud Run's half: the paths that were asked for, and an answer that grants the first permission alone."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self._answer({"permissions": ["storage.objects.get"]})

        def do_POST(self) -> None:
            asked.append(self.path)
            self.rfile.read(int(self.headers["Content-Length"]))
            self._answer({"permissions": ["run.jobs.run"]})

        def _answer(self, body: object) -> None:
            data = json.dumps(body).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *arguments: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


def test_permissions_come_from_the_services(iam: None, web: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    url, asked = web
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", url)
    facts = GoogleFacts(ControllerSettings("p", "b", run_emulator=url), pubsub_emulated=False, storage_emulated=False)
    assert facts.lacking("subscription", "s", ["pubsub.subscriptions.consume"]) == []
    assert facts.lacking("topic", "t", ["pubsub.topics.publish"]) == ["pubsub.topics.publish"]
    assert facts.lacking("bucket", "b", ["storage.objects.get", "storage.objects.create"]) == ["storage.objects.create"]
    job = "projects/p/locations/r/jobs/j"
    assert facts.lacking("job", job, ["run.jobs.run", "run.jobs.runWithOverrides"]) == ["run.jobs.runWithOverrides"]
    assert facts.holders("topic", "t", "roles/pubsub.publisher") == [AGENT]
    assert facts.holders("topic", "t", "roles/pubsub.subscriber") == []
    with pytest.raises(DependencyForbidden, match="no getIamPolicy"):
        facts.holders("topic", "secret", "roles/pubsub.publisher")
    with pytest.raises(NotServed, match="no Cloud Scheduler"):
        facts.scheduled_calls()
    assert any(f"{job}:testIamPermissions" in path for path in asked)
    facts.close()


def bucket_of(**properties: Any) -> Any:
    """As the storage client gives it for this answer."""
    from google.cloud import storage

    made = storage.Bucket(None, "b")
    made._properties = properties
    return made


RULES = (
    {"action": {"type": "Delete"}, "condition": {"age": 7, "matchesPrefix": ["logs/"]}},
    {"action": {"type": "Delete"}, "condition": {"age": 7}},
    {"action": {"type": "Delete"}, "condition": {"numNewerVersions": 3}},
    {"action": {"type": "Delete"}, "condition": {"isLive": False}},
    {"action": {"type": "SetStorageClass", "storageClass": "NEARLINE"}, "condition": {"age": 1}},
)


def test_only_rules_that_delete_live_objects_count() -> None:
    softly = {"retentionDurationSeconds": "604800"}
    facts = bucket_facts(bucket_of(softDeletePolicy=softly, versioning={"enabled": True}, lifecycle={"rule": list(RULES)}))
    assert (facts.soft_delete_s, facts.versioned, facts.deleting_prefixes) == (604800.0, True, (("logs/",), ()))


class FakeSession:
    """Pages of Cloud Scheduler; a status other than 200 where there are none."""

    def __init__(self, *pages: dict[str, Any]) -> None:
        self._pages = list(pages)

    def get(self, url: str, *, params: dict[str, Any], timeout: float) -> Any:
        class Answer:
            status_code = 200 if self._pages else 403
            text = "the API is not enabled"
            body = self._pages.pop(0) if self._pages else {}

            def json(self) -> dict[str, Any]:
                return self.body

        return Answer()


def test_scheduled_calls_of_all_pages() -> None:
    one: dict[str, Any] = {"name": "projects/p/locations/r/jobs/a", "schedule": "* * * * *", "state": "ENABLED"}
    one |= {"httpTarget": {"uri": "https://c/tick", "httpMethod": "GET", "oidcToken": {"serviceAccountEmail": "s@p", "audience": "a"}}}
    other = {"name": "projects/p/locations/r/jobs/b", "state": "PAUSED", "httpTarget": {}}
    pubsub = {"name": "projects/p/locations/r/jobs/c", "pubsubTarget": {}}
    found = scheduled_calls(FakeSession({"jobs": [one, pubsub], "nextPageToken": "2"}, {"jobs": [other]}), "u")
    assert [(call.name, call.enabled, call.url) for call in found] == [("a", True, "https://c/tick"), ("b", False, "")]
    assert [(call.method, call.account, call.audience) for call in found] == [("GET", "s@p", "a"), ("POST", "", "")]
    with pytest.raises(DependencyForbidden, match="the API is not enabled"):
        scheduled_calls(FakeSession(), "u")
