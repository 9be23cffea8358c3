"""The plainest deployment: a job that knows its subscription and its bucket, a service that knows its topic, curl, and gcloud.

What a person does who follows the first instructions: nothing is set that the system could know by itself.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from local_cloud.addresses import Addresses
from tests.batch.test_metadata import Server, serving
from tests.e2e.site import ROOT, Site
from tests.real_gcloud import Gcloud, find_gcloud
from tests.support import Service, clean_environment, start_service

pytestmark = [pytest.mark.slow, pytest.mark.real]


@pytest.fixture
def metadata() -> Iterator[Server]:
    yield from serving()


@pytest.fixture
def run(local_site: Site, metadata: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """Cloud Run, whose workers reach the local cloud, and the metadata server instead of GOOGLE_CLOUD_PROJECT."""
    metadata.answer = local_site.project
    given = {
        "PUBSUB_EMULATOR_HOST": local_site.pubsub,
        "STORAGE_EMULATOR_HOST": local_site.storage,
        "GCE_METADATA_HOST": metadata.address,
    }
    service = start_service("run", tmp_path / "run", "--pass-env", *given, environment=given)
    yield service
    service.stop()


@pytest.fixture
def api(local_site: Site) -> Iterator[str]:
    """The address of the front door, which knows its topic and its project."""
    yield from front_door(local_site)


def front_door(site: Site, **more: str) -> Iterator[str]:
    given = {"PUBSUB_EMULATOR_HOST": site.pubsub, "TOPIC_NAME": "lane", "GOOGLE_CLOUD_PROJECT": site.project, "PORT": "0", **more}
    command = [sys.executable, "-m", "intake"]
    with subprocess.Popen(command, cwd=ROOT, env={**clean_environment(), **given}, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        found = re.search(r"listens on (http://[^\s\"]+)", process.stdout.readline())
        assert found
        yield found[1]
        process.send_signal(signal.SIGTERM)
        process.stdout.read()
        assert process.wait(60) == 0


def curl(url: str, *options: str) -> Any:
    command = ["curl", "--silent", "--show-error", "--fail-with-body", "--max-time", "30", *options, url]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=clean_environment())
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return json.loads(ended.stdout)


def post(url: str, body: str | None = None) -> dict[str, Any]:
    options = ["-H", "Content-Type: application/json", "-d", body] if body is not None else []
    answer: dict[str, Any] = curl(url, "-X", "POST", *options)
    assert answer["status"] == "submitted", answer
    return answer


def test_what_curl_submits_is_in_the_bucket_after_gcloud_has_executed_the_job(
    local_site: Site, run: Service, api: str, metadata: Server, tmp_path: Path
) -> None:
    find_gcloud()
    if shutil.which("curl") is None:
        pytest.skip("`curl` is not installed")
    gcloud = Gcloud(
        Addresses(local_site.pubsub, "http://127.0.0.1:9", local_site.storage, run.http), tmp_path / "gcloud", local_site.project
    )
    bucket = f"gs://{local_site.bucket}"

    def storage(*arguments: str) -> str:
        answer = gcloud("storage", *arguments)
        assert answer.code == 0, answer.messages
        return answer.output

    job = ["--image=example.com/worker", f"--command={sys.executable}", "--args=-m,batch", "--parallelism=1"]
    env = f"--set-env-vars=SUBSCRIPTION_NAME=lane,BUCKET_NAME={local_site.bucket}"
    made = gcloud("run", "jobs", "create", "worker", *job, env)
    assert made.code == 0, made.messages

    assert curl(f"{api}/health")["status"] == "healthy"
    (tmp_path / "sample-data-1.csv").write_text("id,amount\n1,2.5\n2,4\n")
    storage("cp", str(tmp_path / "sample-data-1.csv"), f"{bucket}/input/sample-data-1.csv")
    files = [post(f"{api}/submit-file-task", '{"filename": "sample-data-1.csv", "processing_time": 2}')]
    files += [post(f"{api}/submit-task", '{"task_type": "file_processing", "filename": "sample-data-2.csv", "processing_time": 1}')]
    data = [post(f"{api}/submit-data-task", '{"transformation": "normalize", "dataset_size": 1000}')]
    data += [post(f"{api}/submit-data-task", '{"transformation": "aggregation", "dataset_size": 500}')]
    post(f"{api}/submit-file-task")
    data += [post(f"{api}/submit-data-task")]
    assert len({one["task_id"] for one in files + data}) == len(files + data)

    executed = gcloud.json("run", "jobs", "execute", "worker", "--tasks", "2", "--wait")
    assert executed["status"]["succeededCount"] == 2
    assert metadata.asked

    processed = [name.removeprefix(f"{bucket}/processed/") for name in storage("ls", f"{bucket}/processed/").split()]
    assert {"sample-data-1.csv", "sample-data-2.csv"} < set(processed)
    assert len(processed) == 3
    report = json.loads(storage("cat", f"{bucket}/processed/sample-data-1.csv"))
    assert (report["input_found"], report["row_count"]) == (True, 2)
    assert report["processing_time"] >= 2
    assert json.loads(storage("cat", f"{bucket}/processed/sample-data-2.csv"))["input_found"] is False
    results = storage("ls", f"{bucket}/results/").split()
    for one in data:
        assert f"{bucket}/results/{one['task_id']}.json" in results
    result = json.loads(storage("cat", f"{bucket}/results/{data[0]['task_id']}.json"))
    assert (result["transformation"], result["records_processed"]) == ("normalize", 1000)
    assert local_site.final() == {"succeeded": 6}
