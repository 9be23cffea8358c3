"""What deploy/terraform makes and what deploy.sh makes is the same: a dry run of the one beside a plan of the other."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.terraform.running import ROOT, Terraform, needs_terraform
from tests.support import clean_environment

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("terraform"), needs_terraform]

MADE_BY: dict[tuple[str, ...], str] = {
    ("artifacts", "repositories", "create"): "artifact_registry_repository",
    ("iam", "service-accounts", "create"): "service_account",
    ("iam", "roles", "create"): "project_iam_custom_role",
    ("pubsub", "topics", "create"): "pubsub_topic",
    ("pubsub", "subscriptions", "create"): "pubsub_subscription",
    ("storage", "buckets", "create"): "storage_bucket",
    ("logging", "metrics", "create"): "logging_metric",
    ("scheduler", "jobs", "create", "http"): "cloud_scheduler_job",
}
"""Commands of gcloud that make the resource which they name, and its type in Terraform."""
BY_FILE: dict[tuple[str, ...], str] = {
    ("monitoring", "policies", "create"): "monitoring_alert_policy",
    ("monitoring", "dashboards", "create"): "monitoring_dashboard",
}
GRANTS: dict[tuple[str, ...], str] = {
    ("projects",): "project",
    ("storage", "buckets"): "storage_bucket",
    ("artifacts", "repositories"): "artifact_registry_repository",
    ("pubsub", "topics"): "pubsub_topic",
    ("pubsub", "subscriptions"): "pubsub_subscription",
    ("run", "services"): "cloud_run_v2_service",
    ("run", "jobs"): "cloud_run_v2_job",
    ("iam", "service-accounts"): "service_account",
}
NOT_TERRAFORM = {
    "apply": "the lanes' jobs belong to `fanout apply`",
    "builds": "Cloud Build makes the image",
    "channels": "who is told by alerts is a variable",
    "identity": "Pub/Sub's own account is there once its API is on",
    "update": "labels and lifecycle of a bucket that was just made",
}
"""Commands of a first deployment that make nothing of Terraform's, by a word of theirs, with the reason."""
Made = tuple[str, ...]


def last(name: str) -> str:
    return name.removeprefix("gs://").rstrip("/").split("/")[-1]


def made_by_command(words: list[str]) -> Iterator[Made]:
    """The resources that a command makes: type and name; of a grant also role and member. Raises KeyError for one that is not known."""
    plain = [word for word in words[1:] if not word.startswith("-") and word not in ("alpha", "beta")]
    options = dict(word.split("=", 1) for word in words if word.startswith("--") and "=" in word)
    if "add-iam-policy-binding" in plain:
        at = plain.index("add-iam-policy-binding")
        yield f"{GRANTS[tuple(plain[:at])]}_iam_member", last(plain[at + 1]).split("@")[0], last(options["--role"]), options["--member"]
    elif plain[:2] == ["services", "enable"]:
        yield from (("project_service", name) for name in plain[2:])
    elif plain[:3] == ["run", "services", "replace"]:
        yield "cloud_run_v2_service", json.loads(Path(plain[3]).read_text())["metadata"]["name"]
    elif kind := BY_FILE.get(tuple(plain[:3])):
        file = options.get("--policy-from-file") or options["--config-from-file"]
        yield kind, json.loads(Path(file).read_text())["displayName"]
    elif not set(NOT_TERRAFORM) & set(plain):
        kind, length = next((MADE_BY[tuple(plain[:size])], size) for size in (3, 4) if tuple(plain[:size]) in MADE_BY)
        yield kind, last(plain[length])


def made_by_script(folder: Path) -> Counter[Made]:
    parameters = {"PROJECT": "my-project", "BUCKET": "my-bucket", "BASE_DIGEST": f"sha256:{'a' * 64}", "NOTIFY_EMAIL": "a@example.com"}
    file = folder / "parameters.env"
    file.write_text("".join(f"{key}={value}\n" for key, value in {**parameters, "REGION": "us-central1"}.items()))
    # A dry run looks at the project once; where it cannot, it prints what a new one needs.
    (folder / "gcloud").write_text("#!/bin/sh\nexit 1\n")
    (folder / "gcloud").chmod(0o755)
    environment = {**clean_environment(), "TMPDIR": str(folder), "PATH": f"{folder}:{os.environ['PATH']}"}
    command = [str(ROOT / "deploy" / "deploy.sh"), "--dry-run", str(file)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    # What it would deploy from files is made as it prints it.
    fills = "\n".join(line for line in done.stdout.splitlines() if line.startswith("mkdir ") or "files.py fill " in line)
    known = {"NUMBER": "123456789012", "IMAGE": "an-image", "CONTROLLER_URL": "https://a-controller", "CHANNEL": "a-channel"}
    subprocess.run(["bash", "-euc", fills], env={**environment, **known}, capture_output=True, timeout=100, check=True)
    lines = [line.replace("$NUMBER", "123456789012") for line in done.stdout.splitlines() if re.match(r"gcloud |\S+fanout apply ", line)]
    return Counter(made for line in lines for made in made_by_command(shlex.split(line)))


def made_by_terraform(plan: list[dict[str, Any]]) -> Iterator[Made]:
    names = ("account_id", "role_id", "service", "display_name", "name", "repository_id")
    places = ("topic", "subscription", "bucket", "repository", "service_account_id", "name", "project")
    for one in plan:
        kind, values = one["type"].removeprefix("google_"), one["values"]
        if kind.endswith("_iam_member"):
            place = next(values[key] for key in places if values.get(key))
            yield kind, last(place).split("@")[0], last(values["role"]), values["member"]
        elif kind == "monitoring_dashboard":
            yield kind, json.loads(values["dashboard_json"])["displayName"]
        else:
            yield kind, next(values[key] for key in names if values.get(key))


def test_the_script_and_terraform_make_the_same(terraform: Terraform, plan: list[dict[str, Any]], tmp_path: Path) -> None:
    script, module = made_by_script(tmp_path), Counter(made_by_terraform(plan))
    assert {"only by deploy.sh": sorted(script - module), "only by Terraform": sorted(module - script)} == {
        "only by deploy.sh": [],
        "only by Terraform": [],
    }
    assert sum(script.values()) > 80
