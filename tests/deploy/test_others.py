"""The scripts beside what others made or a person decided: a stand-in for gcloud answers with what there is, and notes what is asked."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.real_gcloud import Answer, run_group
from tests.support import clean_environment

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
IMAGE = f"a/fanout@sha256:{'c' * 64}"
GOOD = {"PROJECT": "my-project", "REGION": "us-central1", "BUCKET": "my-bucket", "IMAGE": IMAGE, "NOTIFY_EMAIL": "a@example.com"}
STAND_IN = """
import json, sys
words = sys.argv[1:]
with open({asked!r}, "a") as file:
    file.write(" ".join(words) + "\\n")
answers = json.load(open({answers!r}))
found = [text for start, text in answers.items() if " ".join(words).startswith(start)]
if found and found[0].startswith("refused: "):
    sys.exit(found[0])
sys.stdout.write(found[0] if found else "[]")
"""
BARE = {
    "name": "my-bucket",
    "iamConfiguration": {"uniformBucketLevelAccess": {"enabled": True}, "publicAccessPrevention": "enforced"},
    "softDeletePolicy": {"retentionDurationSeconds": "0"},
}


def run(
    folder: Path, answers: Mapping[str, str], script: str, *options: str, stdin: str = "", **parameters: str
) -> tuple[Answer, list[str]]:
    """What the script said, and which commands it gave."""
    asked, given = folder / "asked", folder / "answers.json"
    asked.write_text("")
    given.write_text(json.dumps(answers))
    gcloud = folder / "gcloud"
    gcloud.write_text(f"#!{sys.executable}\n" + STAND_IN.format(asked=str(asked), answers=str(given)))
    gcloud.chmod(0o755)
    file = folder / "parameters.env"
    file.write_text("".join(f"{key}={value}\n" for key, value in {**GOOD, **parameters}.items()))
    environment = {**clean_environment(), "PATH": f"{folder}:{os.environ['PATH']}", "TMPDIR": str(folder), "FANOUT_RETRY_S": "0"}
    answer = run_group([str(ROOT / "deploy" / script), *options, str(file)], environment, stdin)
    return answer, asked.read_text().splitlines()


@pytest.mark.parametrize(("objects", "is_taken"), [("gs://my-bucket/theirs", False), ("", True)])
def test_a_bucket_of_others_is_left_alone_and_one_that_is_half_made_is_finished(tmp_path: Path, objects: str, is_taken: bool) -> None:
    answers = {"storage buckets list": json.dumps([BARE]), "storage ls gs://my-bucket": objects}
    answer, asked = run(tmp_path, answers, "deploy.sh", "--only", "bucket")
    assert answer.code == 0, answer.messages
    assert any(one.startswith("storage buckets update gs://my-bucket ") for one in asked) is is_taken
    assert ("bucket my-bucket was not made here" in answer.messages) is not is_taken


NUMBER = {"projects describe": '{"projectNumber": "123456789012"}'}
SERVICES = ("deploy.sh", "--only", "services")


def invokers(*members: str) -> dict[str, str]:
    policy = {"bindings": [{"role": "roles/run.invoker", "members": members}]}
    return {"run services get-iam-policy fanout-intake": json.dumps(policy), **NUMBER}


def test_who_was_let_in_and_is_not_named_any_more_is_told(tmp_path: Path) -> None:
    answer, asked = run(tmp_path, invokers("user:bob@example.com", "user:ada@example.com"), *SERVICES, CALLERS="user:ada@example.com")
    assert answer.code == 0, answer.messages
    assert "user:bob@example.com may call the front door" in answer.messages
    assert "remove-iam-policy-binding fanout-intake" in answer.messages
    assert "ada" not in answer.messages
    assert not [one for one in asked if "remove-iam" in one]


@pytest.mark.parametrize(("option", "said"), [("--only", "--only apis"), ("--from", "--from apis")])
def test_the_line_to_go_on_with_can_be_copied_in_any_folder(tmp_path: Path, option: str, said: str) -> None:
    answer, _ = run(tmp_path, {"services enable": "refused: PERMISSION_DENIED: billing is disabled"}, "deploy.sh", option, "apis")
    assert answer.code != 0
    assert "PERMISSION_DENIED: billing is disabled" in answer.messages
    assert f"go on with: {ROOT}/deploy/deploy.sh {said} {tmp_path}/parameters.env" in answer.messages


def test_a_dry_run_that_cannot_look_says_why(tmp_path: Path) -> None:
    refused = {"projects describe": "refused: You do not currently have an active account selected."}
    answer, _ = run(tmp_path, refused, "deploy.sh", "--dry-run", "--only", "apis")
    assert answer.code == 0, answer.messages
    assert "gcloud says: refused: You do not currently have an active account" in answer.output


def test_a_door_that_is_open_to_everybody_is_not_left_without_keys(tmp_path: Path) -> None:
    answer, asked = run(tmp_path, invokers("allUsers"), *SERVICES)
    assert answer.code != 0
    assert "allUsers may call the front door, which would ask nobody for a key any more" in answer.messages
    assert "remove-iam-policy-binding fanout-intake" in answer.messages
    assert not [one for one in asked if "services replace" in one]


def test_keys_without_rights_are_refused_before_anything_is_made(tmp_path: Path) -> None:
    answer, asked = run(tmp_path, {}, "deploy.sh", API_KEYS_SECRET="keys", PUBLIC_INTAKE="yes")
    assert "Add ACCESS to deploy/services/fanout-intake.yaml" in answer.messages
    assert asked == []


def test_a_dry_run_that_stops_goes_on_as_one(tmp_path: Path) -> None:
    answer, _ = run(tmp_path, {"storage buckets list": "refused: an outage", **NUMBER}, "deploy.sh", "--dry-run")
    assert f"go on with: {ROOT}/deploy/deploy.sh --dry-run --from bucket {tmp_path}/parameters.env" in answer.messages


def deployed_service(folder: Path, ready: str) -> str:
    """What `gcloud run services list` says after a run whose newest revision is `ready`."""
    (folder / "made").mkdir()
    answer, _ = run(folder / "made", invokers(), *SERVICES)
    assert answer.code == 0, answer.messages
    services = [json.loads(path.read_text()) for path in sorted((folder / "made" / "fanout-my-project" / "services").glob("*.json"))]
    for one in services:
        one["status"] = {"conditions": [{"type": "Ready", "status": ready}]}
    return json.dumps(services)


@pytest.mark.parametrize("ready", ["True", "False", "Unknown"])
def test_a_service_that_did_not_become_ready_gets_another_revision(tmp_path: Path, ready: str) -> None:
    answers = {"run services list": deployed_service(tmp_path, ready), **invokers()}
    answer, asked = run(tmp_path, answers, *SERVICES)
    assert answer.code == 0, answer.messages
    replaced = [one for one in asked if "services replace" in one]
    assert len(replaced) == (2 if ready == "False" else 0)
    for one in replaced:
        template = json.loads(Path(one.split()[3]).read_text())["spec"]["template"]
        assert template["metadata"]["labels"]["client.knative.dev/nonce"].startswith("again-")


def test_a_lane_that_was_taken_out_is_told(tmp_path: Path) -> None:
    jobs = [{"metadata": {"name": one, "labels": {"fanout-lane": one}}} for one in ("default", "nightly")]
    answer, asked = run(tmp_path, {"run jobs list": json.dumps(jobs), **NUMBER}, "deploy.sh", "--dry-run", "--only", "jobs")
    assert answer.code == 0, answer.messages
    (warning,) = [line for line in answer.messages.splitlines() if line.startswith("warning")]
    assert "job nightly is no lane of" in warning
    assert not [one for one in asked if "delete" in one]


def test_lanes_without_the_job_that_drains_dead_letters_are_refused(tmp_path: Path) -> None:
    lane = (ROOT / "jobs.yaml").read_text().split("\n---\n")[1]
    (tmp_path / "one.yaml").write_text(lane)
    answer, asked = run(tmp_path, {}, "deploy.sh", JOBS_FILE="one.yaml")
    assert "one.yaml has no job dead-letters" in answer.messages
    assert asked == []


def test_with_an_image_given_nothing_is_wanted_of_a_bucket_for_builds(tmp_path: Path) -> None:
    answer, asked = run(tmp_path, NUMBER, "deploy.sh", "--only", "permissions")
    assert answer.code == 0, answer.messages
    assert not [one for one in asked if "my-bucket-build" in one]
    answer, asked = run(tmp_path, NUMBER, "deploy.sh", "--only", "permissions", IMAGE="", BASE_DIGEST=f"sha256:{'b' * 64}")
    assert [one for one in asked if "my-bucket-build" in one]
