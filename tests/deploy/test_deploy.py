"""deploy.sh and teardown.sh from start to end, with the real gcloud: on the local cloud where it serves, else on the recording endpoint."""

from __future__ import annotations

import json
import re
import shutil
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.permissions.deploying import lacking, needs, unused
from tests.deploy.permissions.recording import recorded
from tests.deploy.recorder import Recorder
from tests.deploy.recorder.fixtures import run_script
from tests.real_gcloud import Answer

ROOT = Path(__file__).resolve().parents[2]
SECRET = "projects/{}/secrets/fanout-api-keys"
FAULTS = (
    ("POST", "serviceusage.*batchEnable"),
    ("POST", "artifactregistry.*repositories$"),
    ("POST", "iam.*serviceAccounts$"),
    ("PUT", "pubsub.*subscriptions/default$"),
    ("PATCH", "storage/storage/v1/b/"),
    ("POST", "pubsub.*topics/.*setIamPolicy"),
    ("POST", "cloudbuild.*builds$"),
    ("POST", "run.*jobs/.*setIamPolicy"),
    ("POST", "run.*services/.*setIamPolicy"),
    ("POST", "cloudscheduler.*jobs$"),
    ("POST", "monitoring.*notificationChannels$"),
)
"""A request of each step, mostly in its middle, which is refused once."""
SOON = (
    ("GET", "pubsub.*/topics$", 403, "Cloud Pub/Sub API has not been used in project 1 before or it is disabled. Enable it, then retry."),
    ("POST", "cloudbuild.*builds$", 400, "could not resolve source: fanout-builder does not have storage.objects.get access"),
    ("POST", "run/apis/serving.*services$", 400, "Permission denied on secret: fanout-api-keys"),
    (
        "POST",
        "monitoring.*alertPolicies$",
        404,
        "Cannot find metric(s) of this type. It could take up to 10 minutes to be available.",
    ),
)
"""What Google says, once, of what was made a moment ago: it is tried again."""

pytestmark = [pytest.mark.slow, pytest.mark.real, pytest.mark.timeout(900)]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What is deployed of a checkout, in a folder with a space, with rights for the front door's keys."""
    made = tmp_path / "a checkout"
    for name in ("batch", "controller", "intake", "requirements", "deploy"):
        shutil.copytree(ROOT / name, made / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Dockerfile", ".dockerignore", ".gcloudignore", "jobs.yaml"):
        shutil.copy(ROOT / name, made / name)
    (made / ".venv").symlink_to(sys.prefix)
    service = made / "deploy" / "services" / "fanout-intake.yaml"
    last = service.read_text().index("          resources:")
    rights = """            - {name: ACCESS, value: '{"key:ci": ["submit:*"]}'}\n"""
    service.write_text(service.read_text()[:last] + rights + service.read_text()[last:])
    return made


@pytest.fixture
def parameters(recorder: Recorder, tmp_path: Path) -> Path:
    values = {
        "PROJECT": recorder.project,
        "REGION": "us-central1",
        "BUCKET": f"{recorder.project}-fanout",
        "BASE_DIGEST": "sha256:" + "a" * 64,
        "NOTIFY_EMAIL": "oncall@example.com",
        "CALLERS": "user:ada@example.com",
        "API_KEYS_SECRET": "fanout-api-keys",
        "BUILD_REGION": "europe-west1",
        "WORKER_ACCOUNTS": "lane",
        "JOBS_FILE": "two-lanes.yaml",
    }
    urgent, default, _, dead_letters = (ROOT / "jobs.yaml").read_text().split("\n---\n")
    (tmp_path / "two-lanes.yaml").write_text("\n---\n".join((urgent, default, dead_letters)))
    path = tmp_path / "parameters.env"
    path.write_text("".join(f"{key}={value}\n" for key, value in values.items()))
    return path


def run(recorder: Recorder, script: Path, *arguments: str | Path) -> Answer:
    recorder.log.clear()
    given = ["env", "FANOUT_RETRY_S=0", f"TMPDIR={recorder.folder.parent}"]
    return run_script(recorder, [*given, str(script), *map(str, arguments)])


def commands(output: str) -> Iterator[str]:
    """The commands that a run has printed, with what only a real run knows as a dry run names it."""
    for line in output.splitlines():
        if line.startswith("gcloud ") or " apply " in line:
            line = re.sub(r"us-central1-docker\.pkg\.dev/\S+?@sha256:[0-9a-f]{64}", "$IMAGE", line)
            line = re.sub(r"service-[0-9]+@", "service-$NUMBER@", line)
            yield re.sub(r"-[0-9]{12}\.us-central1\.run\.app", "-$NUMBER.us-central1.run.app", line).replace('"', "").replace("'", "")


def test_from_nothing_to_nothing(recorder: Recorder, checkout: Path, parameters: Path) -> None:
    deploy, teardown = checkout / "deploy" / "deploy.sh", checkout / "deploy" / "teardown.sh"
    recorder.resources.kept["secretmanager", SECRET.format(recorder.project)] = {"name": SECRET.format(recorder.project)}
    planned = run(recorder, deploy, "--dry-run", parameters)
    assert planned.code == 0, planned.messages
    assert not recorder.writes
    for method, pattern in FAULTS:
        recorder.fail(method, pattern)
    for method, pattern, status, message in SOON:
        recorder.fail(method, pattern, status=status, message=message)
    options: list[str] = []
    ran, failure_count = [], 0
    while (answer := run(recorder, deploy, *options, parameters)).code != 0:
        failure_count += 1
        assert failure_count <= len(FAULTS), answer.messages
        assert "injected by the test" in answer.messages, answer.messages
        ran += [*commands(answer.output)][:-1]
        (step,) = re.findall(r"go on with: '.*/a checkout/deploy/deploy.sh' --from (\S+) ", answer.messages)
        options = ["--from", step]
    ran += commands(answer.output)
    assert failure_count == len(FAULTS)
    assert all("--region=europe-west1" in one for one in ran if "builds submit" in one)
    assert all(fault.is_spent for fault in recorder.log.faults)
    assert set(ran) == set(commands(planned.output)), "the dry run prints what the real one does"
    assert not {one for one in ran if ran.count(one) > 1 and " identity create " not in one}, "what is done is not done again"

    check_subscriptions(recorder)
    again = run(recorder, deploy, parameters)
    assert again.code == 0, again.messages
    assert "no change" in again.output
    assert not recorder.writes
    check_release(recorder, deploy, parameters)
    check_doctor(recorder)

    refused = run_script(recorder, [str(teardown), str(parameters)], stdin="another-project\n")
    assert "nothing was removed" in refused.messages
    gone = run(recorder, teardown, "--yes", "--delete-data", parameters)
    assert gone.code == 0, gone.messages
    assert recorder.left() == [f"secretmanager {SECRET.format(recorder.project)}"], (
        "what deploy.sh did not make, and no right of one that is gone"
    )
    assert left_in_local_cloud(recorder) == []
    once_more = run(recorder, teardown, "--yes", parameters)
    assert "nothing of deploy.sh is left" in once_more.output
    assert not recorder.writes


def fetched(address: str, path: str) -> dict[str, list[dict[str, object]]]:
    with urllib.request.urlopen(f"{address}{path}", timeout=60) as answer:
        return dict(json.load(answer))


def check_release(recorder: Recorder, deploy: Path, parameters: Path) -> None:
    """A new release, by the deployer: new code, another schedule, and monitoring of which one thing is missing and one is old."""
    kept = recorder.resources.kept
    metrics = [name for _, name in kept if "/metrics/fanout_" in name]
    alert = next(key for key in kept if "/alertPolicies/" in key[1])
    del kept["logging", metrics[0]], kept[alert]
    kept["logging", metrics[1]]["description"] = "of an older release"
    changed = {"BASE_DIGEST": "sha256:" + "b" * 64, "NOTIFY_EMAIL": "night@example.com", "COST_A_DAY_USD": "5"}
    changed["DEAD_LETTERS_SCHEDULE"] = "9 * * * *"
    kept_lines = [line for line in parameters.read_text().splitlines() if line.partition("=")[0] not in changed]
    parameters.write_text("\n".join([*kept_lines, *(f"{key}={value}" for key, value in changed.items())]) + "\n")
    answer = run(recorder, deploy, parameters)
    assert answer.code == 0, answer.messages
    # The jobs, too, were created by the owner's first run.
    applied = {one for one in recorded(recorder.project) if one.role == "cli" and one.method != "run.jobs.create"}
    found, unknown = needs(recorder.log.requests, applied)
    assert not unknown, "add them to tests/deploy/permissions/deploying.csv"
    assert not lacking(found)
    assert not unused(found)


def check_subscriptions(recorder: Recorder) -> None:
    found = fetched(recorder.addresses.pubsub_http, f"/v1/projects/{recorder.project}/subscriptions")["subscriptions"]
    by_name = {str(one["name"]).rpartition("/")[2]: one for one in found}
    assert sorted(by_name) == ["dead-letters", "default", "urgent"]
    for name, one in by_name.items():
        assert (one["ackDeadlineSeconds"], one["messageRetentionDuration"], one["expirationPolicy"]) == (60, "604800s", {}), name
        assert "retryPolicy" not in one
        net = {"deadLetterTopic": f"projects/{recorder.project}/topics/dead-letters", "maxDeliveryAttempts": 100}
        assert one.get("deadLetterPolicy") == (None if name == "dead-letters" else net)
    (bucket,) = (
        one
        for one in fetched(recorder.addresses.storage, f"/storage/v1/b?project={recorder.project}")["items"]
        if one["name"] == f"{recorder.project}-fanout"
    )
    assert bucket["iamConfiguration"] == {"publicAccessPrevention": "enforced", "uniformBucketLevelAccess": {"enabled": True}}
    assert bucket["lifecycle"] == json.loads((ROOT / "deploy/lifecycle.json").read_text())


def check_doctor(recorder: Recorder) -> None:
    command = [sys.executable, "-m", "fanout", "doctor", "--project", recorder.project, "--bucket", f"{recorder.project}-fanout", "--json"]
    answer = run_script(recorder, command)
    found = json.loads(answer.output)["findings"]
    wrong = [one for one in found if one["verdict"] in ("wrong", "unreadable")]
    wrong += [one for one in found if one["check"] in ("lifecycle", "soft-delete", "uniform-access") and one["verdict"] != "fine"]
    assert not wrong, wrong


def left_in_local_cloud(recorder: Recorder) -> list[str]:
    project, run = recorder.project, f"/v2/projects/{recorder.project}/locations/us-central1/jobs"
    lists = (
        fetched(recorder.addresses.pubsub_http, f"/v1/projects/{project}/topics").get("topics", []),
        fetched(recorder.addresses.pubsub_http, f"/v1/projects/{project}/subscriptions").get("subscriptions", []),
        fetched(recorder.addresses.storage, f"/storage/v1/b?project={project}").get("items", []),
        fetched(recorder.addresses.run, run).get("jobs", []),
    )
    return [str(one["name"]) for found in lists for one in found]
