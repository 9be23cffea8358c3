"""Jobs of two regions that share a name are two jobs, in v1 by the region in the host's name as in v2 by the path."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.local_cloud.run.conftest import Service

REGIONS = ("europe-west1", "us-central1")


class Regional:
    """The v1 API of one region, through the service as a proxy, as gcloud and Fanout call it."""

    def __init__(self, service: Service, region: str) -> None:
        self._service, self.region = service, region

    def __call__(self, method: str, path: str, body: Any = None, status: int = 200) -> Any:
        url = f"http://{self.region}-run.local/apis/run.googleapis.com/v1/namespaces/shop/{path}"
        answer = self._service.http.request(method, url, json=body, proxies={"http": self._service.url})
        assert answer.status_code == status, answer.text
        return answer.json()


def manifest(command: str, tasks: int, region: str = "") -> dict[str, Any]:
    task = {"containers": [{"image": "example.com/worker", "command": [command]}], "maxRetries": 0}
    labels = {"cloud.googleapis.com/location": region} if region else {}
    spec = {"template": {"spec": {"taskCount": tasks, "template": {"spec": task}}}}
    return {"metadata": {"name": "lane", "labels": labels}, "spec": spec}


def test_a_name_in_two_regions_is_two_jobs(service: Service) -> None:
    europe, america = (Regional(service, region) for region in REGIONS)
    europe("POST", "jobs", manifest("true", 1))
    america("GET", "jobs/lane", status=404)
    america("POST", "jobs", manifest("false", 2))
    for tasks, api in ((1, europe), (2, america)):
        (listed,) = api("GET", "jobs")["items"]
        assert listed == api("GET", "jobs/lane")
        assert (listed["metadata"]["labels"]["cloud.googleapis.com/location"], listed["spec"]["template"]["spec"]["taskCount"]) == (
            api.region,
            tasks,
        )
    europe("PUT", "jobs/lane", manifest("true", 3))
    assert america("GET", "jobs/lane")["spec"]["template"]["spec"]["taskCount"] == 2
    ran = {api.region: api("POST", "jobs/lane:run", {})["metadata"]["name"] for api in (europe, america)}
    for api, other in ((europe, america), (america, europe)):
        assert [one["metadata"]["name"] for one in api("GET", "executions")["items"]] == [ran[api.region]]
        other("GET", f"executions/{ran[api.region]}", status=404)
        other("POST", f"executions/{ran[api.region]}:cancel", status=404)
        job = f"projects/shop/locations/{api.region}/jobs/lane"
        assert [one.name for one in service.executions.list_executions(parent=job)] == [f"{job}/executions/{ran[api.region]}"]
        assert service.jobs.get_job(name=job).execution_count == 1
    america("DELETE", "jobs/lane")
    assert europe("GET", "jobs/lane")["status"]["executionCount"] == 1


def test_the_region_of_the_address_counts_and_not_a_label_of_the_manifest(service: Service) -> None:
    europe, america = (Regional(service, region) for region in REGIONS)
    europe("POST", "jobs", manifest("true", 1, region="us-central1"))
    america("GET", "jobs/lane", status=404)
    assert europe("GET", "jobs/lane")["metadata"]["labels"]["cloud.googleapis.com/location"] == "europe-west1"
