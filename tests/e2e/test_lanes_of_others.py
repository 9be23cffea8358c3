"""Lanes whose messages come from the publishers of others, from `fanout apply` of an annotated manifest to the tick that launches workers
for them: a bucket's own notifications, plain text, and a lane of several forms.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage
from google.cloud.storage.notification import JSON_API_V1_PAYLOAD_FORMAT
from google.pubsub_v1 import SubscriberClient

from fanout import apply, tick
from fanout.submission import submit
from local_cloud.supervisor.supervisor import LocalCloud, Options
from tests.e2e.site import ROOT
from tests.e2e.test_messages_of_others import BY_FORM, MODULES, PUBLISHER
from tests.support import clean_environment, pulled_at_once, wait_until

pytestmark = pytest.mark.slow

OWN = "fanout-own"
LANE = "lane"


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCloud]:
    folder = tmp_path_factory.mktemp("handlers")
    package = folder / "my_team"
    package.mkdir()
    (package / "__init__.py").touch()
    for name, program in {**MODULES, "by_form": BY_FORM}.items():
        (package / f"{name}.py").write_text(program, encoding="utf-8")
    environment = {**clean_environment(), "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}
    options = Options(sample_period_s=0, visibility_lag_s=0)
    with LocalCloud(tmp_path_factory.mktemp("cloud"), options, environment) as cloud:
        yield cloud


class Lanes:
    """An operator who applies manifests and ticks, in a project of its own."""

    def __init__(self, cloud: LocalCloud, project: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.project, self.file = project, folder / "jobs.yaml"
        self.bucket_name = f"{OWN}-{project}"
        self.environment = {**cloud.environment, "GOOGLE_CLOUD_PROJECT": project, "BUCKET_NAME": self.bucket_name}
        for name, value in self.environment.items():
            monkeypatch.setenv(name, value)
        self.client = storage.Client(project, AnonymousCredentials(), client_options={"api_endpoint": cloud.addresses.storage})
        self.bucket = self.client.bucket(self.bucket_name)

    def apply(self, **annotations: str) -> None:
        """A lane with these of the annotations, and nothing of them in its environment: that is for `apply` to fill in."""
        forms = {f"fanout/{name.replace('_', '-')}": value for name, value in annotations.items()}
        env = {
            "SUBSCRIPTION_NAME": LANE,
            "TOPIC_NAME": LANE,
            "HANDLERS": ",".join(f"my_team.{name}" for name in (*MODULES, "by_form")),
            "DRAIN_AFTER_S": "1",
        }
        container = {
            "image": "any",
            "command": [sys.executable, "-W", "error", "-m", "batch"],
            "env": [{"name": name, "value": value} for name, value in env.items()],
        }
        worker = {"maxRetries": 1, "timeoutSeconds": 600, "containers": [container]}
        document = {
            "apiVersion": "run.googleapis.com/v1",
            "kind": "Job",
            "metadata": {
                "name": LANE,
                "labels": {"fanout-lane": LANE},
                "annotations": {"fanout/subscription": LANE, "fanout/topic": LANE, "fanout/max-wait": "0s", **forms},
            },
            "spec": {"template": {"spec": {"template": {"spec": worker}}}},
        }
        self.file.write_text(yaml.safe_dump(document), encoding="utf-8")
        result = CliRunner().invoke(apply.apply, [str(self.file), "--yes", "--create-missing"])
        assert result.exit_code == 0, result.output

    def drain(self, count: int) -> Counter[str]:
        """Ticks as Cloud Scheduler would, until so many tasks have ended; how many ended how."""
        said: list[str] = []

        def ended() -> bool:
            result = CliRunner().invoke(tick.tick)
            said[:] = [result.output]
            return len(self.final()) >= count

        try:
            wait_until(ended, 120, f"{count} tasks have ended")
        except AssertionError as error:
            raise AssertionError(f"{error}; outcomes {self.final()}; the last tick: {said[0]}") from error
        return Counter(self.final().values())

    def outcomes(self) -> list[dict[str, Any]]:
        blobs = self.client.list_blobs(self.bucket_name, prefix="outcomes/")
        return [json.loads(line) for blob in blobs for line in blob.download_as_bytes().splitlines()]

    def final(self) -> dict[str, str]:
        return {one["task_id"]: one["outcome"] for one in self.outcomes()}

    def run(self, program: str, *arguments: str) -> str:
        """A program of somebody else's, which knows the local cloud by Google's variables only."""
        theirs = {name: value for name, value in self.environment.items() if "EMULATOR" in name}
        command = [sys.executable, "-c", program, self.project, *arguments]
        return subprocess.run(command, env={**clean_environment(), **theirs}, capture_output=True, text=True, timeout=60, check=True).stdout

    def pull(self) -> int:
        """How many messages the lane's subscription has."""
        with SubscriberClient() as client:
            return len(pulled_at_once(client, f"projects/{self.project}/subscriptions/{LANE}"))

    def close(self) -> None:
        self.client.close()


@pytest.fixture
def lanes(cloud: LocalCloud, project: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lanes]:
    made = Lanes(cloud, project, tmp_path, monkeypatch)
    yield made
    made.close()


@pytest.fixture
def uploads(lanes: Lanes) -> Callable[[], Any]:
    """Makes a bucket of somebody else that tells the lane's topic of everything."""

    def make() -> Any:
        bucket = lanes.client.create_bucket(f"uploads-{lanes.project}")
        bucket.notification(LANE, topic_project=lanes.project, payload_format=JSON_API_V1_PAYLOAD_FORMAT).create()
        return bucket

    return make


EVENTS = """
import json
import sys

from google.cloud import pubsub_v1

publisher = pubsub_v1.PublisherClient()
topic_path = publisher.topic_path(sys.argv[1], "lane")
context = {"specversion": "1.0", "source": "//shop", "type": "placed"}
binary = {f"ce-{name}": value for name, value in {**context, "id": "1"}.items()}
publisher.publish(topic_path, b"{}", **binary, **{"content-type": "application/json"}).result()
whole = json.dumps({**context, "id": "2", "data": {}}).encode()
publisher.publish(topic_path, whole, **{"content-type": "application/cloudevents+json; charset=utf-8"}).result()
"""
ODD_NAMES = ("a/b.csv", "x#1#2#OBJECT_FINALIZE", "ünï/cödé ☃.csv", "two\tparts", "a//b/../c", "%2e%2e?q=1&r", "n" * 1000)


def test_a_buckets_own_notifications(lanes: Lanes, uploads: Callable[[], Any]) -> None:
    lanes.apply(accept="gcs-notification", default_type="upload")
    bucket = uploads()
    for size, name in enumerate(ODD_NAMES):
        bucket.blob(name).upload_from_string(b"x" * size)
    blob = bucket.blob(ODD_NAMES[0])
    blob.upload_from_string(b"again")
    blob.metadata = {"seen": "yes"}
    blob.patch()
    blob.delete()
    # An object that is written over is deleted too: of nine uploads and deletes in all two are deletes.
    assert lanes.drain(len(ODD_NAMES) + 4) == {"succeeded": len(ODD_NAMES) + 1, "cancelled": 3}
    results = Counter((one["result"]["object"], one["result"]["bytes"]) for one in lanes.outcomes() if one["outcome"] == "succeeded")
    uploaded = [(f"gs://{bucket.name}/{name}", size) for size, name in enumerate(ODD_NAMES)]
    assert results == Counter([*uploaded, (f"gs://{bucket.name}/{ODD_NAMES[0]}", 5)])
    reasons = Counter(one["reason"].split("'")[1] for one in lanes.outcomes() if one["outcome"] == "cancelled")
    assert reasons == {"OBJECT_DELETE": 2, "OBJECT_METADATA_UPDATE": 1}


def test_only_the_events_that_the_lane_names_are_run(lanes: Lanes, uploads: Callable[[], Any]) -> None:
    lanes.apply(accept="gcs-notification", default_type="any", event_types="OBJECT_DELETE,OBJECT_METADATA_UPDATE")
    blob = uploads().blob("a")
    blob.upload_from_string(b"x")
    blob.metadata = {"seen": "yes"}
    blob.patch()
    blob.delete()
    assert lanes.drain(3) == {"succeeded": 2, "cancelled": 1}


def test_plain_text_of_a_tutorials_publisher(lanes: Lanes) -> None:
    lanes.apply(accept="raw", default_type="note")
    published = lanes.run(PUBLISHER).split()
    assert lanes.drain(9) == {"succeeded": 9}
    assert {one["message_id"] for one in lanes.outcomes()} == set(published)
    texts = {blob.download_as_bytes() for blob in lanes.client.list_blobs(lanes.bucket_name, prefix="notes/")}
    assert texts == {f"Message number {number}".encode() for number in range(1, 10)}


def test_a_lane_of_several_forms(lanes: Lanes, uploads: Callable[[], Any]) -> None:
    lanes.apply(accept="gcs-notification, raw,cloudevents,envelope", default_type="any")
    lanes.run(PUBLISHER)
    lanes.run(EVENTS)
    uploads().blob("a").upload_from_string(b"x")
    submitted = CliRunner().invoke(submit.command, ["--lane", LANE, "--task-type", "any", "--any-type"])
    said = "lane lane starts workers for these at the first tick that knows of them: the gauge shows them up to 3 min late\n"
    assert (submitted.exit_code, submitted.stderr) == (0, said)
    assert lanes.drain(13) == {"succeeded": 13}
    by_form = {"raw": 9, "cloudevents": 2, "gcs-notification": 1, "envelope": 1}
    assert Counter(one["result"] for one in lanes.outcomes()) == by_form


def test_nothing_is_submitted_to_a_lane_that_takes_no_envelope(lanes: Lanes) -> None:
    lanes.apply(accept="raw", default_type="note")
    submitted = CliRunner().invoke(submit.command, ["--lane", LANE, "--task-type", "any", "--any-type"])
    assert submitted.exit_code == 1
    assert "lane lane takes raw and no envelope" in submitted.stderr
    assert lanes.pull() == 0
