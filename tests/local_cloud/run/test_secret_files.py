"""Secrets as files of the state folder: workers get their contents, both APIs show the reference, a missing one is told."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from google.api_core.exceptions import BadRequest
from google.cloud import run_v2

from local_cloud.run.spec.template import Overrides
from local_cloud.run.spec.validation import V1_RUN_PATHS

if TYPE_CHECKING:
    from tests.local_cloud.run.conftest import Service

V1 = "apis/run.googleapis.com/v1/namespaces/shop"
LANE = "projects/shop/locations/us-central1/jobs/lane"
REF = {"secretKeyRef": {"name": "key", "key": "latest"}}


@pytest.fixture
def secrets(service: Service) -> Path:
    made = service.state_dir / "secrets"
    made.mkdir()
    return made


def deploy(service: Service, ref: object = REF, status: int = 200) -> Any:
    env = [{"name": "OUT", "value": str(service.out)}, {"name": "KEY", "valueFrom": ref}]
    container = {"image": "example.com/worker", "command": ["sh", "-c", 'printf %s "$KEY" > "$OUT/said"'], "env": env}
    spec = {"template": {"spec": {"template": {"spec": {"containers": [container], "maxRetries": 0}}}}}
    return service.local(f"{V1}/jobs", {"metadata": {"name": "lane"}, "spec": spec}, status)


def test_a_worker_gets_the_content_and_both_apis_show_the_reference(service: Service, secrets: Path) -> None:
    (secrets / "key").write_text("geheim\n")
    shown = deploy(service)["spec"]["template"]["spec"]["template"]["spec"]["containers"][0]["env"][1]
    assert shown == {"name": "KEY", "valueFrom": REF}
    variable = service.jobs.get_job(name=LANE).template.template.containers[0].env[1]
    assert (variable.value_source.secret_key_ref.secret, variable.value_source.secret_key_ref.version) == ("key", "latest")
    name = service.run()
    assert service.finish(name).succeeded_count == 1
    assert (service.out / "said").read_text() == "geheim\n"
    assert "geheim" not in str(service.get(name))


def test_a_folder_holds_versions(service: Service, secrets: Path) -> None:
    (secrets / "key").mkdir()
    for number in (2, 10):
        (secrets / "key" / str(number)).write_text(f"v{number}")
    deploy(service)
    service.finish(service.run())
    assert (service.out / "said").read_text() == "v10"
    job = service.jobs.get_job(name=LANE)
    job.template.template.containers[0].env[1].value_source.secret_key_ref.version = "2"
    service.jobs.update_job(job=job).result()
    service.finish(service.run())
    assert (service.out / "said").read_text() == "v2"


def test_a_secret_that_does_not_exist_is_refused_when_the_job_is_deployed(service: Service) -> None:
    refused = deploy(service, status=400)["error"]
    assert refused["status"] == "INVALID_ARGUMENT"
    assert "Secret projects/shop/secrets/key/versions/latest was not found" in refused["message"]
    assert str(service.state_dir / "secrets" / "key") in refused["message"]
    source = run_v2.EnvVarSource(secret_key_ref={"secret": "key", "version": "3"})
    container = run_v2.Container(image="x", command=["true"], env=[run_v2.EnvVar(name="KEY", value_source=source)])
    with pytest.raises(BadRequest, match="versions/3 was not found"):
        service.jobs.create_job(parent=LANE[:-10], job_id="lane", job=run_v2.Job(template={"template": {"containers": [container]}}))


def test_a_name_leads_nowhere_else(service: Service, secrets: Path) -> None:
    (secrets.parent / "outside").write_text("x")
    for name, version in (("../outside", "latest"), ("key", "../../outside")):
        ref = {"secretKeyRef": {"name": name, "key": version}}
        assert "must be a secret" in deploy(service, ref, 400)["error"]["message"]


def test_a_secret_that_goes_between_the_run_and_the_start_fails_the_task(service: Service, secrets: Path) -> None:
    (secrets / "key").write_text("x")
    deploy(service)
    with service.cloud.condition:  # the runner cannot start the worker before the file is gone
        name = service.cloud.run_job(service.cloud.jobs("shop")[0].key, Overrides(), V1_RUN_PATHS).name
        (secrets / "key").unlink()
    execution = service.finish(f"{LANE}/executions/{name}")
    assert execution.failed_count == 1
    task = service.task_list(execution.name)[0]
    assert "was not found" in task.last_attempt_result.status.message
