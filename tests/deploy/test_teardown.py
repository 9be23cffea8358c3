"""The teardown beside what others made, what a person keeps, and what cannot be read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.deploy.test_others import NUMBER, run

pytestmark = pytest.mark.slow


def named(kind: str, *names: str, **more: object) -> list[dict[str, object]]:
    return [{"name": f"projects/my-project/{kind}/{one}", "labels": {"fanout": "lane"}, **more} for one in names]


def subscriptions(*names: str) -> str:
    return json.dumps([{**one, "topic": str(one["name"]).replace("subscriptions", "topics")} for one in named("subscriptions", *names)])


LEFT = {
    "projects describe": NUMBER["projects describe"],
    "pubsub subscriptions list": subscriptions("bulk", "dead-letters", "urgent"),
    "pubsub topics list": json.dumps(named("topics", "bulk", "dead-letters", "urgent")),
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


def test_a_removed_lane_keeps_the_topic_of_what_is_kept(tmp_path: Path) -> None:
    answers = {"pubsub subscriptions pull gone": "an-ack-id", **LEFT, "pubsub subscriptions list": subscriptions("gone", "dead-letters")}
    answers["pubsub topics list"] = json.dumps(named("topics", "gone", "dead-letters", "bulk"))
    answer, asked = run(tmp_path, answers, "teardown.sh", "--yes", "--keep-data")
    assert answer.code == 0, answer.messages
    assert deleted(asked) == ["pubsub topics delete bulk"]


def test_a_dry_run_takes_no_message_and_prints_nothing_that_deletes_data(tmp_path: Path) -> None:
    answers = {**LEFT, "storage buckets list": json.dumps([{"name": "my-bucket", "labels": {"fanout": "bucket"}}])}
    answer, asked = run(tmp_path, answers, "teardown.sh", "--dry-run")
    assert answer.code == 0, answer.messages
    assert not [one for one in asked if " pull " in one or " delete " in one]
    printed = [line for line in answer.output.splitlines() if line and not line.startswith("#")]
    assert not [one for one in printed if "subscriptions delete" in one or "storage rm" in one]
    answer, _ = run(tmp_path, answers, "teardown.sh", "--dry-run", "--delete-data")
    assert "gcloud storage rm --recursive gs://my-bucket" in answer.output


@pytest.mark.parametrize(
    ("project", "said"),
    [
        ("my-project", "The billing account for the owning project is disabled in state absent"),
        ("team-404-prod", "PERMISSION_DENIED: the caller lacks storage.buckets.list on projects/team-404-prod"),
        ("my-project", "env: python3: No such file or directory, or not found"),
    ],
)
def test_what_cannot_be_read_is_not_taken_for_nothing(tmp_path: Path, project: str, said: str) -> None:
    answer, _ = run(tmp_path, {"storage buckets list": f"refused: {said}", **NUMBER}, "teardown.sh", "--yes", PROJECT=project)
    assert answer.code != 0
    assert said in answer.messages
    refused = {"projects describe": "refused: You do not currently have an active account selected."}
    answer, _ = run(tmp_path, refused, "teardown.sh", "--yes", PROJECT=project)
    assert "active account" in answer.messages
    assert "nothing of deploy.sh is left" not in answer.output


def test_while_a_worker_holds_messages_nothing_is_called_empty(tmp_path: Path) -> None:
    executions = [{"metadata": {"name": "bulk-1"}, "status": {"completionTime": "2026-01-01T00:00:00Z"}}, {"metadata": {"name": "bulk-2"}}]
    answers = {
        **LEFT,
        "run jobs list": json.dumps([{"metadata": {"name": "bulk", "labels": {"fanout-lane": "bulk"}}}]),
        "run jobs executions list": json.dumps(executions),
    }
    answer, asked = run(tmp_path, answers, "teardown.sh", "--yes", "--keep-data")
    assert "execution bulk-2 runs, and holds messages" in answer.messages
    assert deleted(asked) == []
    answer, asked = run(tmp_path, answers, "teardown.sh", "--yes", "--delete-data")
    assert answer.code == 0, answer.messages
    assert "pubsub subscriptions delete bulk" in deleted(asked)


def service(name: str, region: str, label: str) -> dict[str, object]:
    return {"metadata": {"name": name, "labels": {"fanout": label, "cloud.googleapis.com/location": region}}}


def account(name: str, shown: str = "Fanout") -> dict[str, str]:
    email = f"{name}@my-project.iam.gserviceaccount.com"
    return {"name": f"projects/my-project/serviceAccounts/{email}", "email": email, "displayName": shown}


BUCKETS = [{"name": one, "labels": {"fanout": "bucket"}} for one in ("my-bucket", "my-bucket-build", "another-bucket")]


def test_another_regions_deployment_keeps_all_that_it_needs(tmp_path: Path) -> None:
    services = [service("fanout-controller", "us-east1", "controller"), service("fanout-intake", "us-central1", "intake")]
    answers = {
        **LEFT,
        "run services list": json.dumps(services),
        "storage buckets list": json.dumps(BUCKETS),
        "iam service-accounts list": json.dumps([account("fanout-worker")]),
    }
    answer, asked = run(tmp_path, answers, "teardown.sh", "--yes", "--delete-data")
    assert answer.code == 0, answer.messages
    assert deleted(asked) == ["run services delete fanout-intake"]
    removed = [one.split()[3] for one in asked if one.startswith("storage rm")]
    assert removed == ["gs://my-bucket", "gs://my-bucket-build"]
    assert "bucket another-bucket is not of these parameters, and stays" in answer.output
    assert "another region of this project has a controller, too" in answer.output


def test_what_others_call_or_label_alike_stays(tmp_path: Path) -> None:
    theirs = {"labels": {"fanout": "client"}}
    answers = {
        **NUMBER,
        "pubsub topics list": json.dumps([{"name": "projects/my-project/topics/orders", **theirs}]),
        "run services list": json.dumps([service("their-client", "us-central1", "client")]),
        "artifacts repositories list": json.dumps([{"name": "projects/my-project/locations/us-central1/repositories/fanout", **theirs}]),
        "alpha monitoring policies list": json.dumps([{"name": "projects/my-project/alertPolicies/1", "userLabels": {"fanout": "mine"}}]),
        "iam service-accounts list": json.dumps([account("fanout-worker", "Bob's"), account("fanout-worker-blue", "Blue")]),
    }
    answer, asked = run(tmp_path, answers, "teardown.sh", "--yes")
    assert "nothing of deploy.sh is left in project my-project" in answer.output
    assert deleted(asked) == []


def test_accounts_of_lanes_that_are_none_any_more_go_with_their_rights(tmp_path: Path) -> None:
    member = "serviceAccount:fanout-worker-gone@my-project.iam.gserviceaccount.com"
    policy = {"bindings": [{"role": "roles/storage.objectViewer", "members": [member, "user:ada@example.com"]}]}
    answers = {
        **NUMBER,
        "iam service-accounts list": json.dumps([account("fanout-worker-gone")]),
        "artifacts repositories get-iam-policy": json.dumps(policy),
    }
    answer, asked = run(tmp_path, answers, "teardown.sh", "--yes")
    assert answer.code == 0, answer.messages
    assert deleted(asked) == ["iam service-accounts delete fanout-worker-gone@my-project.iam.gserviceaccount.com"]
    (taken,) = [one for one in asked if "remove-iam-policy-binding" in one]
    assert taken.startswith("artifacts repositories remove-iam-policy-binding fanout")
    assert member in taken


@pytest.mark.parametrize(("options", "goes"), [((), True), (("--keep-roles",), False)])
def test_roles_may_stay_so_that_they_can_be_used_again(tmp_path: Path, options: tuple[str, ...], goes: bool) -> None:
    answers = {**NUMBER, "iam roles list": json.dumps([{"name": "projects/my-project/roles/fanoutConsumer"}])}
    answer, asked = run(tmp_path, answers, "teardown.sh", "--yes", *options)
    assert answer.code == 0, answer.messages
    assert deleted(asked) == (["iam roles delete fanoutConsumer"] if goes else [])
