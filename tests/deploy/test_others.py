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


def test_who_was_let_in_and_is_not_named_any_more_is_told(tmp_path: Path) -> None:
    policy = {"bindings": [{"role": "roles/run.invoker", "members": ["allUsers", "user:ada@example.com"]}]}
    answers = {"run services get-iam-policy": json.dumps(policy), "projects describe": '{"projectNumber": "123456789012"}'}
    answer, asked = run(tmp_path, answers, "deploy.sh", "--only", "services", CALLERS="user:ada@example.com")
    assert answer.code == 0, answer.messages
    assert "allUsers may call the front door" in answer.messages
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


LABELED = {"labels": {"fanout": "lane"}}
LEFT = {
    "projects describe": '{"projectNumber": "123456789012"}',
    "pubsub subscriptions list": json.dumps(
        [{"name": f"projects/my-project/subscriptions/{one}", **LABELED} for one in ("bulk", "dead-letters", "urgent")]
    ),
    "pubsub topics list": json.dumps(
        [{"name": f"projects/my-project/topics/{one}", **LABELED} for one in ("bulk", "dead-letters", "urgent")]
    ),
    "pubsub subscriptions pull bulk": "an-ack-id",
    "pubsub subscriptions pull": "",
    "pubsub topics get-iam-policy dead-letters": json.dumps(
        {
            "bindings": [
                {"role": "roles/pubsub.publisher", "members": ["serviceAccount:service-123456789012@gcp-sa-pubsub.iam.gserviceaccount.com"]}
            ]
        }
    ),
    "run jobs list": json.dumps([{"metadata": {"name": "dead-letters"}, "spec": "somebody else's"}]),
    "scheduler jobs list": json.dumps([{"name": "projects/my-project/locations/us-central1/jobs/fanout-tick"}]),
    "logging metrics list": json.dumps([{"name": "fanout_of_somebody"}]),
}


def deleted(asked: list[str]) -> list[str]:
    return sorted(" ".join(one.split()[:4]) for one in asked if " delete " in one)


def test_kept_messages_keep_what_they_need_and_what_others_made_stays(tmp_path: Path) -> None:
    answer, asked = run(tmp_path, LEFT, "teardown.sh", "--yes", "--keep-data")
    assert answer.code == 0, answer.messages
    assert deleted(asked) == ["pubsub subscriptions delete urgent", "pubsub topics delete urgent"]
    assert not [one for one in asked if "remove-iam-policy-binding dead-letters" in one], "Pub/Sub still moves what bulk cannot deliver"
    assert [one for one in asked if "modify-message-ack-deadline bulk --ack-ids=an-ack-id --ack-deadline=0" in one]


@pytest.mark.parametrize(("typed", "bulk_goes"), [("my-project\nbulk\n", True), ("my-project\nno\n", False), ("my-project\n", False)])
def test_messages_are_deleted_only_where_a_person_types_the_name(tmp_path: Path, typed: str, bulk_goes: bool) -> None:
    answer, asked = run(tmp_path, LEFT, "teardown.sh", stdin=typed)
    assert answer.code == 0, answer.messages
    assert ("pubsub subscriptions delete bulk" in deleted(asked)) is bulk_goes


@pytest.mark.parametrize("typed", ["", "my-projec\n", "y\n"])
def test_nothing_is_removed_unless_the_project_is_typed(tmp_path: Path, typed: str) -> None:
    answer, asked = run(tmp_path, LEFT, "teardown.sh", stdin=typed)
    assert answer.code != 0
    assert deleted(asked) == []


def test_without_a_word_about_data_nothing_is_removed(tmp_path: Path) -> None:
    answer, asked = run(tmp_path, LEFT, "teardown.sh", "--yes")
    assert "subscription bulk is not empty: say --keep-data or --delete-data" in answer.messages
    assert deleted(asked) == []
