"""Jobs of several containers: what is refused, what a run's overrides reach, and which container runs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from google.api_core.exceptions import BadRequest

if TYPE_CHECKING:
    from tests.local_cloud.run.conftest import Service

V1 = "apis/run.googleapis.com/v1/namespaces/shop"
PROXY = {"name": "proxy", "image": "example.com/proxy", "args": ["--port=1"], "volumeMounts": [{"name": "v", "mountPath": "/v"}]}
WORKER = {"name": "worker", "image": "example.com/worker", "command": ["sh", "-c", "echo $A > $OUT/said"]}


def deploy(service: Service, *containers: dict[str, Any], status: int = 200) -> Any:
    env = [{"name": "OUT", "value": str(service.out)}, {"name": "A", "value": "own"}]
    task = {"containers": [{**one, "env": env} for one in containers], "maxRetries": 0, "volumes": [{"name": "v", "emptyDir": {}}]}
    spec = {"template": {"metadata": {"annotations": {"a": "b"}}, "spec": {"template": {"spec": task}}}}
    return service.local(f"{V1}/jobs", {"metadata": {"name": "lane"}, "spec": spec}, status)


def overrides(*containers: dict[str, Any]) -> dict[str, Any]:
    return {"overrides": {"containerOverrides": list(containers)}}


def test_the_named_container_runs_with_what_the_run_overrides(service: Service) -> None:
    made = deploy(service, {**PROXY, "command": ["false"]}, WORKER)
    shown = made["spec"]["template"]["spec"]["template"]["spec"]
    assert [one["name"] for one in shown["containers"]] == ["proxy", "worker"]
    assert shown["containers"][0]["volumeMounts"] == PROXY["volumeMounts"]
    assert shown["volumes"] == [{"name": "v", "emptyDir": {}}]
    name = service.run(container_overrides=[{"name": "worker", "env": [{"name": "A", "value": "given"}]}])
    execution = service.finish(name)
    assert execution.succeeded_count == 1
    assert (service.out / "said").read_text() == "given\n"
    env = [{one.name: one.value for one in container.env}["A"] for container in execution.template.containers]
    assert env == ["own", "given"]


def test_without_overrides_the_first_with_a_command_runs_and_the_job_says_so(service: Service) -> None:
    sidecar = {key: value for key, value in PROXY.items() if key != "args"}
    ready = deploy(service, sidecar, WORKER)["status"]["conditions"][0]
    assert "runs the container worker" in ready["message"]
    assert ready["message"].endswith("It does not run beside it: proxy.")
    assert service.finish(service.run()).succeeded_count == 1
    assert (service.out / "said").read_text() == "own\n"


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_an_override_must_name_one_of_several_containers(service: Service, version: str) -> None:
    deploy(service, PROXY, WORKER)
    path = f"{V1}/jobs/lane:run" if version == "v1" else "v2/projects/shop/locations/us-central1/jobs/lane:run"
    nameless = service.local(path, overrides({"env": [{"name": "A", "value": "1"}]}), 400)["error"]
    assert nameless["status"] == "INVALID_ARGUMENT"
    assert "containerOverrides[0].name: got '', must name one of the job's containers, which are proxy, worker" in nameless["message"]
    unknown = service.local(path, overrides({"name": "other"}), 400)["error"]
    assert "containerOverrides[0].name: got 'other', the job has no such container" in unknown["message"]
    assert service.local(f"{V1}/jobs/lane")["status"]["executionCount"] == 0


def test_the_client_sees_the_refusal(service: Service) -> None:
    deploy(service, PROXY, WORKER)
    with pytest.raises(BadRequest, match="must name one of the job's containers"):
        service.run(container_overrides=[{"env": [{"name": "A", "value": "1"}]}])


@pytest.mark.parametrize(
    ("containers", "rule"),
    [
        (({**PROXY, "name": ""}, WORKER), "containers[0].name: got '', must be set, as the job has several containers"),
        (({**PROXY, "name": "worker"}, WORKER), "containers[1].name: got 'worker', must be unique within the job"),
        (({**PROXY, "name": "Pro xy"}, WORKER), "containers[0].name: got 'Pro xy', must be lower-case"),
    ],
)
def test_several_containers_need_names_of_their_own(service: Service, containers: tuple[dict[str, Any], ...], rule: str) -> None:
    assert rule in deploy(service, *containers, status=400)["error"]["message"]


def test_a_run_of_a_container_without_a_command_is_refused(service: Service) -> None:
    deploy(service, {"name": "proxy", "image": "example.com/proxy"}, WORKER)
    refused = service.local(f"{V1}/jobs/lane:run", overrides({"name": "proxy"}), 400)
    assert "this container has none" in json.dumps(refused)
