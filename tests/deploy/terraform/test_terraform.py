"""deploy/terraform, carried out by the real terraform with a provider that has Google's schema and calls nobody (provider.py).

Where terraform is not installed these are skipped; test_names.py reads the files everywhere.
"""

from __future__ import annotations

import csv
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.terraform.provider import NUMBER
from tests.deploy.terraform.running import CHANNEL, DEPLOY, IMAGE, ROOT, SETTINGS, Terraform, needs_terraform

LANES = [job for job in yaml.safe_load_all((ROOT / "jobs.yaml").read_text()) if "fanout-lane" in job["metadata"].get("labels", {})]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("terraform"),
    needs_terraform,
]


def of(plan: list[dict[str, Any]], kind: str) -> dict[str, dict[str, Any]]:
    return {one["address"].removeprefix(f"{kind}."): one["values"] for one in plan if one["type"] == kind}


def filled(path: Path) -> str:
    """A file of deploy/monitoring with the settings in place of its placeholders."""
    text = path.read_text().replace("${CHANNEL}", CHANNEL).replace("${COST_A_DAY_USD}", "7.5").replace("${RUNBOOKS}", SETTINGS["runbooks"])
    assert not re.search(r"\$\{[A-Z_]+\}", text), "a placeholder that Terraform does not know"
    return text


def in_snake(value: Any) -> Any:
    """The API's words as Terraform's; of blocks it makes lists. What lies in a map keeps its keys, which are lower case here."""
    if isinstance(value, dict):
        return {re.sub("([A-Z])", r"_\1", key).lower(): in_snake(one) for key, one in value.items()}
    return [in_snake(one) for one in value] if isinstance(value, list) else value


def without_nulls(value: Any) -> Any:
    """A planned value without what is not set; a block of at most one element is that element."""
    if isinstance(value, dict):
        return {key: without_nulls(one) for key, one in value.items() if one not in (None, [])}
    return [without_nulls(one) for one in value] if isinstance(value, list) else value


def unwrapped(value: Any, like: Any) -> Any:
    """`value` with lists of one block as the block, where `like` has one."""
    if isinstance(like, dict) and isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(like, dict) and isinstance(value, dict):
        return {key: unwrapped(one, like.get(key)) for key, one in value.items()}
    return [unwrapped(*pair) for pair in zip(value, like, strict=True)] if isinstance(like, list) and isinstance(value, list) else value


def test_files_are_formatted() -> None:
    done = subprocess.run(["terraform", "fmt", "-check", "-diff", DEPLOY / "terraform"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_terraform_finds_it_valid(terraform: Terraform) -> None:
    assert json.loads(terraform("validate", "-json"))["valid"]


def test_a_second_apply_changes_nothing(terraform: Terraform, plan: list[dict[str, Any]]) -> None:
    state = f"-state={terraform.folder / 'second.tfstate'}"
    settings = {**SETTINGS, "image": IMAGE}
    terraform("apply", "-auto-approve", state, settings=settings)
    assert "No changes" in terraform("plan", "-detailed-exitcode", "-no-color", state, settings=settings)
    refused = terraform("destroy", "-auto-approve", "-no-color", state, settings=settings, code=1)
    assert "Instance cannot be destroyed" in refused, "bucket and subscriptions are kept"


def test_without_an_image_nothing_is_made_that_needs_one(terraform: Terraform, plan: list[dict[str, Any]]) -> None:
    first = {one["address"] for one in terraform.planned(**SETTINGS)}
    later = {one["address"] for one in plan} - first
    assert {address.split(".")[0] for address in later} == {
        "google_cloud_run_v2_service",
        "google_cloud_run_v2_service_iam_member",
        "google_cloud_run_v2_job_iam_member",
        "google_cloud_scheduler_job",
    }


def test_subscriptions_are_as_lanes_need_them(plan: list[dict[str, Any]]) -> None:
    found = {one["name"]: without_nulls(one) for one in of(plan, "google_pubsub_subscription").values()}
    lanes = {lane["metadata"]["annotations"]["fanout/subscription"]: lane["metadata"]["annotations"]["fanout/topic"] for lane in LANES}
    assert set(found) == {*lanes, "dead-letters"}
    for name, one in found.items():
        assert (one["ack_deadline_seconds"], one["message_retention_duration"]) == (60, "604800s")
        assert one["expiration_policy"] == [{"ttl": ""}]
        assert "retry_policy" not in one
        if name in lanes:
            assert one["topic"] == lanes[name]
            assert one["dead_letter_policy"] == [{"dead_letter_topic": "dead-letters", "max_delivery_attempts": 100}]


def test_grants_are_the_rows_of_the_table(plan: list[dict[str, Any]]) -> None:
    topics = [lane["metadata"]["annotations"]["fanout/topic"] for lane in LANES]
    subscriptions = [lane["metadata"]["annotations"]["fanout/subscription"] for lane in LANES]
    on = {"topics": topics, "subscriptions": subscriptions, "dead-letter-topic": ["dead-letters"]}
    on |= {"dead-letter-subscription": ["dead-letters"], "project": ["my-project"], "bucket": ["my-bucket"]}
    on |= {"repository": ["fanout"], "build-bucket": ["my-bucket-build"]}
    wanted = set()
    for row in csv.DictReader((DEPLOY / "identity" / "bindings.csv").read_text().splitlines()):
        agent = f"service-{NUMBER}@gcp-sa-pubsub.iam.gserviceaccount.com"
        email = agent if row["account"] == "pubsub-agent" else f"fanout-{row['account']}@my-project.iam.gserviceaccount.com"
        role = row["role"].replace("custom:", "projects/my-project/roles/")
        for name in on.get(row["on"]) or [row["on"].split(":")[1]]:
            wanted.add((f"serviceAccount:{email}", role, name))
    places = ("topic", "subscription", "bucket", "repository", "service_account_id", "name", "project")
    found = set()
    for one in plan:
        if one["type"].endswith("_iam_member"):
            values = one["values"]
            place = next(values[key] for key in places if values.get(key))
            found.add((values["member"], values["role"], place.split("/")[-1].split("@")[0]))
    assert found == wanted


def test_alerts_are_their_files_word_for_word(plan: list[dict[str, Any]]) -> None:
    planned = of(plan, "google_monitoring_alert_policy")
    files = sorted((DEPLOY / "monitoring" / "alerts").glob("*.json"))
    assert {f'fanout["{path.stem}"]' for path in files} == set(planned)
    for path in files:
        wanted = in_snake(json.loads(filled(path)))
        found = without_nulls({key: value for key, value in planned[f'fanout["{path.stem}"]'].items() if key not in ("id", "name")})
        assert unwrapped(found, wanted) == wanted, path.name


def test_metrics_are_their_files_word_for_word(plan: list[dict[str, Any]]) -> None:
    planned = of(plan, "google_logging_metric")
    files = sorted((DEPLOY / "monitoring" / "metrics").glob("*.yaml"))
    assert {f'fanout["{path.stem}"]' for path in files} == set(planned)
    for path in files:
        wanted = {"name": path.stem, **in_snake(yaml.safe_load(path.read_text()))}
        found = without_nulls({key: value for key, value in planned[f'fanout["{path.stem}"]'].items() if key != "id"})
        assert unwrapped(found, wanted) == wanted, path.name


def test_roles_and_lifecycle_are_their_files(plan: list[dict[str, Any]]) -> None:
    roles = {one["role_id"]: set(one["permissions"]) for one in of(plan, "google_project_iam_custom_role").values()}
    files = (DEPLOY / "identity" / "roles").glob("*.yaml")
    assert roles == {path.stem: set(yaml.safe_load(path.read_text())["includedPermissions"]) for path in files}
    bucket = of(plan, "google_storage_bucket")["fanout"]
    document = json.loads((DEPLOY / "lifecycle.json").read_text())
    wanted = in_snake(document.get("lifecycle", document)["rule"])
    assert unwrapped(without_nulls(bucket["lifecycle_rule"]), wanted) == wanted
    assert (bucket["uniform_bucket_level_access"], bucket["public_access_prevention"], bucket["force_destroy"]) == (True, "enforced", False)


def test_the_dashboard_is_its_file(plan: list[dict[str, Any]]) -> None:
    (found,) = of(plan, "google_monitoring_dashboard").values()
    assert json.loads(found["dashboard_json"]) == json.loads(filled(DEPLOY / "monitoring" / "dashboard.json"))


WRONG = {
    "project": ("123456789012", "nor its number"),
    "region": ("us-central1-a", "not a zone"),
    "bucket": ("gs://my-bucket", "without gs://"),
    "image": ("us-central1-docker.pkg.dev/my-project/fanout/fanout:latest", "By digest"),
    "jobs_file": ("../jobs.yaml", "There is no such file"),
    "channel": ("me@example.org", "gcloud beta monitoring channels list"),
    "cost_a_day_usd": ("0", "More than 0 dollars"),
    "runbooks": ("docs/runbooks.md", "An https address"),
    "ingress": ("public", "Write all, internal"),
    "handlers": ("app/handlers.py", "Names of Python modules"),
}
"""By variable: a value that is easily written, and words of what is said to it."""


def test_wrong_variables_are_refused_all_at_once_with_what_to_write(terraform: Terraform) -> None:
    said = terraform("plan", "-input=false", "-no-color", code=1, settings={name: value for name, (value, _) in WRONG.items()})
    said = re.sub(r"[\s│]+", " ", said)
    assert [name for name, (_, words) in WRONG.items() if words not in said] == []
