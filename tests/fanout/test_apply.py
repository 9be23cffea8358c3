"""`fanout apply`, `render` and `launch` against the local cloud: difference first, then exactly what the file says."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import click
import pytest
import requests
import yaml
from click.testing import CliRunner, Result

from controller.lanes.resources import permission_hint
from controller.observe.google_jobs import GoogleJobRunner
from fanout import apply, launch
from fanout.commands import main
from tests.support import Service

JOBS_FILE = Path(__file__).parents[2] / "jobs.yaml"


@pytest.fixture
def cloud(local_run: Service, local_pubsub: Service, local_storage: Service, project: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The environment of an operator of the local cloud; the project's id."""
    for name, value in {
        "GOOGLE_CLOUD_PROJECT": project,
        "BUCKET_NAME": f"{project}-bucket",
        "CLOUD_RUN_EMULATOR_HOST": local_run.http,
        "PUBSUB_EMULATOR_HOST": local_pubsub.grpc,
        "STORAGE_EMULATOR_HOST": local_storage.http,
    }.items():
        monkeypatch.setenv(name, value)
    return project


@pytest.fixture
def jobs_file(tmp_path: Path) -> Path:
    """The project's own file, with workers that end at once."""
    found = tmp_path / "jobs.yaml"
    documents = list(yaml.safe_load_all(JOBS_FILE.read_text(encoding="utf-8")))
    for document in documents:
        container = document["spec"]["template"]["spec"]["template"]["spec"]["containers"][0]
        container["command"][1:1] = ["-c", "pass"]
    found.write_text(yaml.safe_dump_all(documents), encoding="utf-8")
    return found


def applied(*arguments: str, answer: str = "") -> Result:
    return CliRunner().invoke(apply.apply, arguments, input=answer)


def deployed(project: str, service: Service) -> dict[str, Any]:
    runner = GoogleJobRunner(project, "us-central1", emulator_url=service.http)
    try:
        return {one.name: one for one in runner.jobs()}
    finally:
        runner.close()


def test_apply_creates_what_the_file_says_and_then_finds_nothing_to_do(cloud: str, jobs_file: Path, local_run: Service) -> None:
    first = applied(str(jobs_file), "--yes")
    assert first.exit_code == 0, first.output
    assert "job urgent (lane urgent): new" in first.output
    jobs = deployed(cloud, local_run)
    assert sorted(jobs) == ["bulk", "default", "urgent"]
    assert jobs["bulk"].env["GOOGLE_CLOUD_PROJECT"] == cloud
    assert jobs["bulk"].env["BUCKET_NAME"] == f"{cloud}-bucket"
    assert jobs["bulk"].task_timeout_s == 14400
    second = applied(str(jobs_file))
    assert second.exit_code == 0, second.output
    as_they_are = [f"job {name} (lane {name}): as the file says" for name in ("urgent", "default", "bulk")]
    assert second.output.splitlines() == [*as_they_are, "job dead-letters: as the file says"]


def test_apply_shows_a_change_before_it_asks(cloud: str, jobs_file: Path, local_run: Service) -> None:
    applied(str(jobs_file), "--yes")
    text = jobs_file.read_text(encoding="utf-8")
    jobs_file.write_text(text.replace("fanout/max-workers: '100'", "fanout/max-workers: '7'"), encoding="utf-8")
    refused = applied(str(jobs_file), answer="n\n")
    assert refused.exit_code == 1
    assert "  ~ metadata.annotations[fanout/max-workers]: 100 -> 7" in refused.output.splitlines()
    assert deployed(cloud, local_run)["default"].annotations["fanout/max-workers"] == "100"
    agreed = applied(str(jobs_file), answer="y\n")
    assert "replaced job default" in agreed.output
    assert "replaced job bulk" not in agreed.output
    assert deployed(cloud, local_run)["default"].annotations["fanout/max-workers"] == "7"


def test_a_dry_run_changes_nothing(cloud: str, jobs_file: Path, local_run: Service) -> None:
    new = applied(str(jobs_file), "--dry-run", "--set-env", "LOG_LEVEL=debug", "--image", "an/image")
    assert new.exit_code == 0
    assert new.output.splitlines() == [
        "job urgent (lane urgent): new; up to 200 workers of 2 CPU, 2 GiB, 10 min, image an/image",
        "job default (lane default): new; up to 100 workers of 1 CPU, 1 GiB, 1 h, image an/image",
        "job bulk (lane bulk): new; up to 50 workers of 1 CPU, 0.5 GiB, 4 h, image an/image",
        "job dead-letters: new; 1 CPU, 0.5 GiB, 1 h, image an/image",
    ]
    assert deployed(cloud, local_run) == {}
    assert applied(str(jobs_file), "--yes").exit_code == 0
    assert "  + containers[0].env[LOG_LEVEL]: debug" in applied(str(jobs_file), "--dry-run", "--set-env", "LOG_LEVEL=debug").output
    assert "LOG_LEVEL" not in deployed(cloud, local_run)["default"].env


def test_every_problem_is_a_line(cloud: str, jobs_file: Path) -> None:
    text = jobs_file.read_text(encoding="utf-8").replace("fanout/weight: '4'", "fanout/weight: '-4'")
    jobs_file.write_text(text.replace("fanout/drain-within: 2h", "fanout/drain-in: 2h"), encoding="utf-8")
    result = applied(str(jobs_file), "--yes")
    assert result.exit_code == 2
    assert "job urgent: metadata.annotations[fanout/weight]='-4': a number above 0" in result.output
    assert "did you mean fanout/drain-within?" in result.output


WRONG_LINES = {
    "fanout/weight: '4'": ("fanout/callback: default", "did you mean fanout/callbacks?"),
    "fanout-lane: bulk": ("fanout_lane: bulk", "job bulk: metadata.labels[fanout-lane] is not set, and its annotations are a lane's"),
    "LANE\n              value: default": (
        "LANE\n              value: defualt",
        "env LANE='defualt' differs from the label fanout-lane",
    ),
    "name: HANDLER_TIMEOUT_S": ("name: HANDLER_TIMEOUT", "env HANDLER_TIMEOUT is no setting; did you mean HANDLER_TIMEOUT_S?"),
    "value: '16'": ("value: '1600'", "job urgent: env CONCURRENCY='1600': a whole number from 1 to 1000"),
    "name: LANE\n              value: urgent": (
        "name: BACKLOG\n              value: '5'",
        "job urgent: env BACKLOG is for one launch only, and is set by the controller",
    ),
    "name: DEAD_LETTER_SUBSCRIPTION": ("name: DEAD_LETTERS_SUBSCRIPTION", "job dead-letters: env DEAD_LETTERS_SUBSCRIPTION is no setting"),
    "- dead-letters": ("- dead_letters", "job dead-letters: command 'python -c pass -m batch dead_letters': did you mean dead-letters?"),
    "timeoutSeconds: 14400": ("timeoutSecond: 14400", "timeoutSecond is no field here; did you mean timeoutSeconds?"),
    "memory: 2Gi": ("memory: 2GiB", "limits.memory='2GiB': must be a number with Ki, Mi, Gi, k, M or G, such as 512Mi"),
    "cpu: '2'": ("cpu: 2", """limits.cpu=2: must be a text; write "2" in quotes"""),
    "maxRetries: 1": ("maxRetries: 11", "job urgent: spec.template.spec.template.spec.maxRetries=11: must be a whole number from 0 to 10"),
}


def test_wrong_lines_of_the_file_are_told_together_before_anything_is_sent(cloud: str, jobs_file: Path, local_run: Service) -> None:
    text = jobs_file.read_text(encoding="utf-8")
    for right, (wrong, _) in WRONG_LINES.items():
        assert right in text
        text = text.replace(right, wrong, 1)
    jobs_file.write_text(text, encoding="utf-8")
    result = applied(str(jobs_file), "--yes")
    assert (result.exit_code, deployed(cloud, local_run)) == (2, {})
    assert [said for _, said in WRONG_LINES.values() if said not in result.output] == []


def test_settings_of_the_command_line_are_checked_like_those_of_the_file(cloud: str, jobs_file: Path, local_run: Service) -> None:
    text = jobs_file.read_text(encoding="utf-8").replace("fanout/first-share: '100'", "fanout/max-messages: '100'")
    jobs_file.write_text(text, encoding="utf-8")
    options = ("--set-env", "MAX_MESSAGES=500", "--set-env", "CONCURENCY=8")
    result = applied(str(jobs_file), "--yes", *options)
    assert (result.exit_code, deployed(cloud, local_run)) == (2, {})
    assert "job urgent: env MAX_MESSAGES=500 is above fanout/max-messages=100" in result.output
    assert "job dead-letters: env CONCURENCY" not in result.output
    told = CliRunner().invoke(apply.render, ["urgent", str(jobs_file), "--project", "p", "--bucket", "bucket", "--image", "i", *options])
    assert (told.exit_code, yaml.safe_load(told.stdout)["metadata"]["name"]) == (0, "urgent")
    assert [line.split(" is ")[0] for line in told.stderr.splitlines()] == [
        "wrong: job urgent: env CONCURENCY",
        "wrong: job urgent: env MAX_MESSAGES=500",
    ]


def test_a_lane_of_another_place_is_refused(cloud: str, jobs_file: Path) -> None:
    """Its job would be held by the controller of this one."""
    result = applied(str(jobs_file), "--yes", "--set-env", "GOOGLE_CLOUD_PROJECT=elsewhere")
    assert result.exit_code == 2
    assert f"job urgent: env GOOGLE_CLOUD_PROJECT='elsewhere' differs from the controller's project='{cloud}'" in result.output


def test_an_edit_between_the_question_and_the_answer_is_told_and_kept(
    cloud: str, jobs_file: Path, local_run: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    applied(str(jobs_file), "--yes")

    def edited(*_: object, **__: object) -> bool:
        runner = GoogleJobRunner(cloud, "us-central1", emulator_url=local_run.http)
        runner.set_annotation(f"projects/{cloud}/locations/us-central1/jobs/urgent", "fanout/paused", "true")
        runner.close()
        return True

    monkeypatch.setattr(click, "confirm", edited)
    result = applied(str(jobs_file), "--set-env", "LOG_LEVEL=DEBUG")
    assert (result.exit_code, "cannot apply job urgent: somebody else changed it" in result.output) == (1, True)
    urgent = deployed(cloud, local_run)["urgent"]
    assert (urgent.annotations["fanout/paused"], "LOG_LEVEL" in urgent.env) == ("true", False)


def test_a_placeholder_is_never_applied(cloud: str, jobs_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BUCKET_NAME")
    result = applied(str(jobs_file), "--yes")
    assert result.exit_code == 2
    assert "env BUCKET_NAME='BUCKET' is a placeholder" in result.output
    assert applied(str(jobs_file), "--set-env", "no-value").exit_code == 2


def test_a_file_that_is_not_utf_8_is_one_line(cloud: str, jobs_file: Path) -> None:
    jobs_file.write_bytes(b"# \xe4\n")
    for command, arguments in ((apply.apply, [str(jobs_file)]), (apply.render, ["default", str(jobs_file)])):
        result = CliRunner().invoke(command, arguments)
        assert (result.exit_code, result.output) == (2, f"Error: {jobs_file}: not UTF-8 at byte 2: save it as UTF-8\n")


def test_a_cloud_run_that_does_not_answer_ends_with_1(cloud: str, jobs_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOUD_RUN_EMULATOR_HOST", "http://127.0.0.1:1")
    result = applied(str(jobs_file), "--yes")
    assert result.exit_code == 1
    assert "Cloud Run at http://127.0.0.1:1 does not answer (Connection refused)" in result.output


def test_a_page_of_a_load_balancer_is_told_as_words(cloud: str, jobs_file: Path, local_run: Service) -> None:
    order = {"project": cloud, "method": "jobs.get", "faults": ["http_503"]}
    requests.post(f"{local_run.http}/faults", json=order, timeout=60).raise_for_status()
    result = applied(str(jobs_file), "--dry-run")
    assert result.exit_code == 1
    assert "cannot read job urgent: HTTP 503: Error 503 (Server Error) The service is unavailable" in result.output


def test_missing_resources_are_created_once(cloud: str, jobs_file: Path) -> None:
    from google.cloud import pubsub_v1

    first = applied(str(jobs_file), "--yes", "--create-missing")
    assert first.exit_code == 0, first.output
    made = [line for line in first.output.splitlines() if line.startswith("created ") and "job" not in line]
    assert made == [
        f"created bucket {cloud}-bucket in us-central1",
        "created topics dead-letters, urgent, default, bulk",
        "created subscriptions dead-letters, urgent, default, bulk",
    ]
    with pubsub_v1.SubscriberClient() as client:
        found: Any = client.get_subscription(subscription=f"projects/{cloud}/subscriptions/bulk")
    assert found.ack_deadline_seconds == 60
    assert found.message_retention_duration.days == 7
    assert found.dead_letter_policy.max_delivery_attempts == 100
    assert found.dead_letter_policy.dead_letter_topic == f"projects/{cloud}/topics/dead-letters"
    assert not found.retry_policy
    assert "expiration_policy" in found
    assert not found.expiration_policy.ttl
    second = applied(str(jobs_file), "--yes", "--create-missing")
    assert [line for line in second.output.splitlines() if line.startswith("created ")] == []


def test_what_was_created_is_told_when_the_rest_fails(cloud: str, jobs_file: Path, local_pubsub: Service) -> None:
    order = {"project": cloud, "method": "CreateSubscription", "faults": ["ok", "permission_denied"]}
    requests.post(f"{local_pubsub.http}/faults", json=order, timeout=60).raise_for_status()
    failed = applied(str(jobs_file), "--yes", "--create-missing")
    assert failed.exit_code == 1
    assert "created topics dead-letters, urgent\ncreated subscription dead-letters\n" in failed.output
    assert "roles/pubsub.editor and roles/storage.admin are needed" in failed.output


def test_rights_of_pubsub_are_granted_in_three_lines_whatever_the_number_of_lanes() -> None:
    lines = permission_hint("p", ["urgent", "bulk"], "dead")
    assert lines[0].startswith('AGENT="serviceAccount:service-$(gcloud projects describe p ')
    said = subprocess.run(
        ["sh", "-c", "\n".join(["gcloud() { echo gcloud $*; }", *lines[1:]])],
        capture_output=True,
        text=True,
        check=True,
        env={"AGENT": "a"},
    ).stdout.splitlines()
    assert said == [
        "gcloud pubsub topics add-iam-policy-binding dead --project=p --member=a --role=roles/pubsub.publisher",
        "gcloud pubsub subscriptions add-iam-policy-binding urgent --project=p --member=a --role=roles/pubsub.subscriber",
        "gcloud pubsub subscriptions add-iam-policy-binding bulk --project=p --member=a --role=roles/pubsub.subscriber",
    ]


def test_render_prints_one_manifest_with_what_was_filled_in(jobs_file: Path) -> None:
    arguments = ["bulk", str(jobs_file), "--project", "p", "--bucket", "bucket", "--image", "i", "--set-env", "CONCURRENCY=3"]
    result = CliRunner().invoke(apply.render, arguments)
    document = yaml.safe_load(result.stdout)
    (container,) = document["spec"]["template"]["spec"]["template"]["spec"]["containers"]
    assert (document["metadata"]["name"], container["image"]) == ("bulk", "i")
    assert {"name": "CONCURRENCY", "value": "3"} in container["env"]
    assert result.stderr == ""
    unknown = CliRunner().invoke(apply.render, ["bulky", str(jobs_file)])
    assert (unknown.exit_code, "it has urgent, default, bulk" in unknown.output) == (2, True)


def test_launch_by_hand_has_no_decision(cloud: str, jobs_file: Path, local_run: Service) -> None:
    applied(str(jobs_file), "--yes")
    result = CliRunner().invoke(launch.command, ["default", "--tasks", "2", "--max-messages", "5"])
    assert result.exit_code == 0, result.output
    runner = GoogleJobRunner(cloud, "us-central1", emulator_url=local_run.http)
    (execution,) = runner.executions(f"projects/{cloud}/locations/us-central1/jobs/default")
    runner.close()
    assert f"launched {execution.name} with 2 workers" in result.output
    assert (execution.task_count, execution.env["MAX_MESSAGES"], execution.decision_id) == (2, "5", "")


def test_without_a_file_the_one_that_comes_with_fanout_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(apply.render, ["bulk"])
    assert (result.exit_code, yaml.safe_load(result.stdout)["metadata"]["name"]) == (0, "bulk")
    assert f"cp {apply.PACKAGED_JOBS_FILE} ." in result.stderr
    (tmp_path / "jobs.yaml").write_text(JOBS_FILE.read_text(encoding="utf-8").replace("name: bulk", "name: mine"), encoding="utf-8")
    result = CliRunner().invoke(apply.render, ["mine"])
    assert (result.exit_code, "comes with Fanout" in result.stderr) == (0, False)


def test_lanes_are_listed_for_scripts_a_line_each(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["render", "--lanes", str(Path(__file__).parents[2] / "jobs.yaml")])
    assert (done.exit_code, done.output) == (0, "urgent urgent urgent urgent\ndefault default default default\nbulk bulk bulk bulk\n")
    missing = CliRunner().invoke(main, ["render", "--lanes", str(tmp_path / "none.yaml")])
    assert missing.exit_code != 0
    assert "there is no such file" in missing.output
    assert "Missing argument 'LANE'" in CliRunner().invoke(main, ["render"]).output


def test_a_job_runs_as_the_account_that_the_file_names_or_as_the_given_one() -> None:
    given = ["--service-account", "default@p.iam", "--service-account", "bulk=bulk@p.iam"]
    names = {}
    for lane in ("default", "bulk"):
        done = CliRunner().invoke(main, ["render", lane, str(Path(__file__).parents[2] / "jobs.yaml"), "--json", *given])
        names[lane] = json.loads(done.stdout)["spec"]["template"]["spec"]["template"]["spec"]["serviceAccountName"]
    assert names == {"default": "default@p.iam", "bulk": "bulk@p.iam"}
