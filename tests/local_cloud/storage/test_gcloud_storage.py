"""`gcloud storage` as people use it, run by the real gcloud: each command with its exit code and what it did."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import requests

from local_cloud.addresses import Addresses
from tests.real_gcloud import Gcloud, find_gcloud
from tests.support import Service

pytestmark = pytest.mark.real
NOWHERE = "http://127.0.0.1:9"


@pytest.fixture
def gcloud(server: Any, tmp_path: Path, project: str) -> Gcloud:
    find_gcloud()
    addresses = Addresses(pubsub="127.0.0.1:9", pubsub_http=NOWHERE, storage=server.url, run=NOWHERE)
    return Gcloud(addresses, tmp_path / "gcloud", project)


def succeeds(gcloud: Gcloud, *arguments: str) -> str:
    answer = gcloud("storage", *arguments)
    assert answer.code == 0, answer.messages
    return answer.output


def names(bucket: Any) -> list[str]:
    return [blob.name for blob in bucket.list_blobs()]


@pytest.mark.slow
def test_files_go_up_are_read_listed_and_come_down(gcloud: Gcloud, bucket: Any, tmp_path: Path) -> None:
    text = tmp_path / "täglich.txt"
    text.write_text("grüße\n", encoding="utf-8")
    succeeds(gcloud, "cp", str(text), f"gs://{bucket.name}/ordner/täglich.txt", "--content-type=text/x", "--custom-metadata=task=t-1")
    blob = bucket.get_blob("ordner/täglich.txt")
    assert (blob.content_type, blob.metadata["task"]) == ("text/x", "t-1")
    assert succeeds(gcloud, "cat", f"gs://{bucket.name}/ordner/täglich.txt") == "grüße\n"
    assert succeeds(gcloud, "cat", "--range=1-3", f"gs://{bucket.name}/ordner/täglich.txt") == "rü"
    assert succeeds(gcloud, "ls", f"gs://{bucket.name}").split() == [f"gs://{bucket.name}/ordner/"]
    listed = gcloud("storage", "ls", "--json", f"gs://{bucket.name}/ordner/*").json
    assert [(one["metadata"]["name"], one["metadata"]["size"]) for one in listed] == [("ordner/täglich.txt", "8")]
    succeeds(gcloud, "cp", f"gs://{bucket.name}/ordner/*", str(tmp_path / "back.txt"))
    assert (tmp_path / "back.txt").read_text(encoding="utf-8") == "grüße\n"


@pytest.mark.slow
def test_a_large_file_goes_up_in_a_resumable_upload_and_comes_down_whole(gcloud: Gcloud, bucket: Any, tmp_path: Path) -> None:
    content = random.Random(8).randbytes(20_000_000)
    (tmp_path / "large").write_bytes(content)
    succeeds(gcloud, "cp", str(tmp_path / "large"), f"gs://{bucket.name}/large")
    assert bucket.blob("large").download_as_bytes(checksum="crc32c") == content
    succeeds(gcloud, "cp", f"gs://{bucket.name}/large", str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == content


@pytest.mark.slow
def test_folders_are_copied_synchronised_moved_and_removed(gcloud: Gcloud, client: Any, bucket: Any, tmp_path: Path) -> None:
    for name in ("folder/one", "folder/deep/two"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    url = f"gs://{bucket.name}"
    succeeds(gcloud, "cp", "-r", str(tmp_path / "folder"), url)
    assert names(bucket) == ["folder/deep/two", "folder/one"]
    (tmp_path / "folder/one").unlink()
    succeeds(gcloud, "rsync", "-r", "--delete-unmatched-destination-objects", str(tmp_path / "folder"), f"{url}/folder")
    assert names(bucket) == ["folder/deep/two"]
    succeeds(gcloud, "mv", f"{url}/folder/deep/two", f"{url}/moved")
    assert names(bucket) == ["moved"]
    assert bucket.blob("moved").download_as_bytes() == b"folder/deep/two"
    succeeds(gcloud, "cp", f"{url}/moved", f"{url}/copy")
    succeeds(gcloud, "rm", f"{url}/moved")
    assert names(bucket) == ["copy"]
    succeeds(gcloud, "rm", "-r", url)
    assert client.lookup_bucket(bucket.name) is None


@pytest.mark.slow
def test_what_does_not_work_fails_with_the_reason(gcloud: Gcloud, bucket: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("second")
    bucket.blob("taken").upload_from_string("first")
    lost = gcloud("storage", "cp", "--if-generation-match=0", str(tmp_path / "file"), f"gs://{bucket.name}/taken")
    assert lost.code == 1
    assert "HTTPError 412: At least one of the pre-conditions you specified did not hold." in lost.messages
    assert bucket.blob("taken").download_as_bytes() == b"first"
    missing = gcloud("storage", "cat", f"gs://{bucket.name}/missing")
    assert missing.code == 1
    assert "matched no objects" in missing.messages
    made = gcloud("storage", "buckets", "create", f"gs://{bucket.name}")
    assert made.code == 1
    assert "HTTPError 409" in made.messages


@pytest.mark.slow
def test_notifications_are_created_listed_and_deleted(
    gcloud: Gcloud, bucket: Any, server: Any, local_pubsub: Service, project: str
) -> None:
    requests.post(f"{server.url}/pubsub", json={"url": local_pubsub.http}, timeout=60).raise_for_status()
    url, topic = f"gs://{bucket.name}", f"projects/{project}/topics/files"
    create = ("buckets", "notifications", "create", url, f"--topic={topic}", "--skip-topic-setup", "--event-types=OBJECT_FINALIZE")
    hindered = gcloud("storage", *(word for word in create if word != "--skip-topic-setup"))
    assert (hindered.code, "give gcloud --skip-topic-setup" in hindered.messages) == (1, True), hindered.messages
    missing = gcloud("storage", *create)
    assert (missing.code, f"{topic} does not exist" in missing.messages) == (1, True), missing.messages
    requests.put(f"{local_pubsub.http}/v1/{topic}", json={}, timeout=60).raise_for_status()
    succeeds(gcloud, *create, "--custom-attributes=lane=bulk", "--object-prefix=in/")
    (listed,) = gcloud.json("storage", "buckets", "notifications", "list", url)
    shown = listed["Notification Configuration"]
    assert (shown["topic"], shown["payload_format"]) == (f"//pubsub.googleapis.com/{topic}", "JSON_API_V1")
    assert (shown["event_types"], shown["object_name_prefix"]) == (["OBJECT_FINALIZE"], "in/")
    assert shown["custom_attributes"] == {"lane": "bulk"}
    succeeds(gcloud, "buckets", "notifications", "delete", f"projects/_/buckets/{bucket.name}/notificationConfigs/{shown['id']}")
    assert list(bucket.list_notifications()) == []
