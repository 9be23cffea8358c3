"""federation.sh with the real gcloud on the recording endpoint, and the example workflow read as text."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.deploy.recorder import Recorder
from tests.deploy.recorder.fixtures import Run, run_script
from tests.real_gcloud import Answer

ROOT = Path(__file__).resolve().parents[2]
WORKFLOW = ROOT / "deploy" / "github" / "deploy.yml"
DEPLOY = ("deploy", "my-team/fanout", "production")
SUBMIT = ("submit", "https://oidc.example.org", "system:serviceaccount:jobs:nightly")


def federation(recorder: Recorder, folder: Path, *arguments: str) -> Answer:
    recorder.log.clear()
    file = folder / "parameters.env"
    values = {"PROJECT": recorder.project, "REGION": "us-central1", "BUCKET": "my-bucket", "BASE_DIGEST": f"sha256:{'a' * 64}"}
    file.write_text("".join(f"{key}={value}\n" for key, value in {**values, "NOTIFY_EMAIL": "a@example.com"}.items()))
    words = [str(file) if word == "FILE" else word for word in arguments]
    return run_script(recorder, ["env", "-C", str(file.parent), "FANOUT_RETRY_S=0", str(ROOT / "deploy" / "federation.sh"), *words])


@pytest.mark.slow
@pytest.mark.real
def test_a_workflow_gets_in_and_a_second_run_changes_nothing(recorder: Recorder, tmp_path: Path) -> None:
    planned = federation(recorder, tmp_path, "--dry-run", "FILE", *DEPLOY)
    assert planned.code == 0, planned.messages
    assert not recorder.writes
    first = federation(recorder, tmp_path, "FILE", *DEPLOY)
    assert first.code == 0, first.messages
    said = json.dumps([one.body for one in recorder.requests if one.is_writing])
    assert "assertion.repository == 'my-team/fanout' && assertion.environment == 'production'" in said
    assert "/attribute.repository/my-team/fanout" in said
    assert "https://token.actions.githubusercontent.com" in said
    assert "WORKLOAD_IDENTITY_PROVIDER=projects/" in first.output
    again = federation(recorder, tmp_path, "FILE", *DEPLOY)
    assert again.code == 0, again.messages
    assert "no change" in again.output
    assert not recorder.writes
    other = federation(recorder, tmp_path, "FILE", "deploy", "my-team/other", "production")
    assert other.code == 0, other.messages
    assert "my-team/other" in json.dumps([one.body for one in recorder.requests if one.is_writing]), "what differs is changed"


@pytest.mark.slow
@pytest.mark.real
def test_clients_elsewhere_may_submit(recorder: Recorder, gcloud: Run, tmp_path: Path) -> None:
    made = gcloud("run", "deploy", "fanout-intake", "--image=example.org/fanout", "--region=us-central1", "--no-allow-unauthenticated")
    assert made.code == 0, made.messages
    done = federation(recorder, tmp_path, "FILE", *SUBMIT)
    assert done.code == 0, done.messages
    said = json.dumps([one.body for one in recorder.requests if one.is_writing])
    assert "assertion.sub == 'system:serviceaccount:jobs:nightly'" in said
    assert "workloadIdentityPools/fanout/subject/system:serviceaccount:jobs:nightly" in said
    assert f"serviceAccount:fanout-submitter@{recorder.project}.iam.gserviceaccount.com" in said
    written = json.loads((tmp_path / "fanout-submitter.json").read_text())
    assert written["type"] == "external_account"
    assert written["credential_source"]["file"] == "/var/run/secrets/fanout/token"
    assert "fanout-submitter@" in written["service_account_impersonation_url"]
    assert not {"private_key", "client_secret"} & set(written)


def test_who_deploys_can_neither_grant_rights_nor_delete_nor_read_tasks() -> None:
    role = yaml.safe_load((ROOT / "deploy" / "identity" / "roles" / "fanoutDeployer.yaml").read_text(encoding="utf-8"))
    verbs = {name.rpartition(".")[2] for name in role["includedPermissions"]}
    assert verbs == {"create", "get", "getIamPolicy", "list", "update"}
    changed = {name.rpartition(".")[0] for name in role["includedPermissions"] if name.endswith(("create", "update"))}
    assert not {one for one in changed if one.startswith(("iam.", "pubsub.", "storage.", "resourcemanager.", "secretmanager."))}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("deploy", "fanout", "production"), "the repository as OWNER/NAME"),
        (("deploy", "https://github.com/my-team/fanout", "production"), "the repository as OWNER/NAME"),
        (("deploy", "my-team/fan'out", "production"), "letters, digits"),
        (("submit", "oidc.example.org", "nightly"), "the issuer begins with https://"),
        (("enter", "my-team/fanout", "production"), "deploy or submit"),
        (("deploy", "my-team/fanout"), "federation.sh"),
    ],
)
def test_wrong_words_are_refused_before_anything_is_asked(arguments: tuple[str, ...], says: str) -> None:
    done = subprocess.run([ROOT / "deploy" / "federation.sh", "none.env", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert says in done.stderr


def test_the_workflow_holds_no_secret_and_only_pinned_actions() -> None:
    text = WORKFLOW.read_text(encoding="utf-8")
    workflow = yaml.safe_load(text)
    job = workflow["jobs"]["deploy"]
    assert "secrets." not in text
    assert workflow["permissions"] == {}
    assert job["permissions"] == {"contents": "read", "id-token": "write"}
    assert workflow["concurrency"]["cancel-in-progress"] is False
    uses = re.findall(r"uses: (\S+)@(\S+)( # v[\d.]+)?", text)
    assert {name for name, _, _ in uses} == {"actions/checkout", "google-github-actions/auth", "google-github-actions/setup-gcloud"}
    assert all(re.fullmatch("[0-9a-f]{40}", commit) and version for _, commit, version in uses)
    assert job["steps"][0]["with"] == {"persist-credentials": False}
    assert [step["run"] for step in job["steps"][-2:]] == ["deploy/deploy.sh --dry-run parameters.env", "deploy/deploy.sh parameters.env"]
