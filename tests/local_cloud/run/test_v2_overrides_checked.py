"""A run's overrides are checked together with the job: what cannot start is refused at the door, not found out by the runner."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

import pytest

from tests.support import Service

JOBS = "/v2/projects/{project}/locations/us-central1/jobs"


def post(service: Service, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    request = urllib.request.Request(f"{service.http}{path}", json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


@pytest.mark.parametrize(
    ("container", "override"),
    [
        ({"image": "x", "args": ["sleep", "0"]}, {"clearArgs": True}),
        ({"image": "x", "command": ["sleep"], "args": ["0"]}, {"args": ["\0"]}),
    ],
)
def test_a_run_that_leaves_nothing_to_start_is_refused(
    local_run: Service, project: str, container: dict[str, Any], override: dict[str, Any]
) -> None:
    jobs = JOBS.format(project=project)
    assert post(local_run, f"{jobs}?jobId=a", {"template": {"template": {"containers": [container]}}})[0] == 200
    status, body = post(local_run, f"{jobs}/a:run", {"overrides": {"containerOverrides": [override]}})
    assert status == 400
    assert "command" in body["error"]["message"]
    assert post(local_run, f"{jobs}/a:run", {})[0] == 200
