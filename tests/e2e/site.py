"""A place where real worker processes do real work: a bucket, a lane and its dead letters, on the local cloud or Google's emulator.

What the tests look at is read with Google's own clients or plain HTTP, never with Fanout's code.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import sysconfig
import urllib.parse
import urllib.request
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from google.pubsub_v1 import PublisherClient, SubscriberClient
from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport

from tests.support import clean_environment, pulled_at_once

ROOT = Path(__file__).resolve().parents[2]


def standard_library(count: int) -> list[Path]:
    """Real files: the first `count` sources of the running Python's standard library."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    files = (path for path in sorted(folder.rglob("*.py")) if not {"site-packages", "test", "tests"} & set(path.relative_to(folder).parts))
    return [path for path, _ in zip((path for path in files if path.stat().st_size), range(count), strict=False)]


@dataclass
class Site:
    """One lane in one project. `worker` starts processes that `close` has seen end."""

    project: str
    pubsub: str
    storage: str
    ack_deadline_s: int = 10
    max_delivery_attempts: int = 100
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.bucket = f"bucket-{self.project}"
        self._channel = grpc.insecure_channel(self.pubsub)
        self.publisher: Any = PublisherClient(transport=PublisherGrpcTransport(channel=self._channel))
        self.subscriber: Any = SubscriberClient(transport=SubscriberGrpcTransport(channel=self._channel))
        self.post(f"/storage/v1/b?project={self.project}", {"name": self.bucket})
        for topic in ("lane", "dead-letters"):
            self.publisher.create_topic(name=f"projects/{self.project}/topics/{topic}")
        policy = {"dead_letter_topic": f"projects/{self.project}/topics/dead-letters", "max_delivery_attempts": self.max_delivery_attempts}
        self._subscribe("lane", "lane", self.ack_deadline_s, dead_letter_policy=policy)
        self._subscribe("dead-letters", "dead-letters", 600)

    def _subscribe(self, name: str, topic: str, deadline_s: int, **settings: Any) -> None:
        self.subscriber.create_subscription(
            request={
                "name": f"projects/{self.project}/subscriptions/{name}",
                "topic": f"projects/{self.project}/topics/{topic}",
                "ack_deadline_seconds": deadline_s,
                **settings,
            }
        )

    # --- what a client does

    def post(self, path: str, body: Any, content_type: str = "application/json") -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.storage}{path}", data, {"Content-Type": content_type})
        with urllib.request.urlopen(request, timeout=60) as response:
            response.read()

    def upload(self, name: str, data: bytes) -> None:
        quoted = urllib.parse.quote(name, safe="")
        self.post(f"/upload/storage/v1/b/{self.bucket}/o?uploadType=media&name={quoted}", data, "application/octet-stream")

    def upload_encoded(self, name: str, data: bytes, encoding: str) -> None:
        """With `Content-Encoding` in its metadata: readers get what it decodes to."""
        boundary = "part-of-this-upload"
        head = json.dumps({"name": name, "contentEncoding": encoding}).encode()
        parts = (b"Content-Type: application/json\r\n\r\n" + head, b"Content-Type: application/octet-stream\r\n\r\n" + data)
        body = b"".join(b"--" + boundary.encode() + b"\r\n" + part + b"\r\n" for part in parts) + f"--{boundary}--\r\n".encode()
        self.post(f"/upload/storage/v1/b/{self.bucket}/o?uploadType=multipart", body, f"multipart/related; boundary={boundary}")

    def publish(self, bodies: list[dict[str, Any]], shard: str = "s-1") -> None:
        """Messages as a plain client writes them."""
        messages = [
            {"data": json.dumps(body).encode(), "attributes": {"shard": shard, "task_id": body.get("task_id", "")}} for body in bodies
        ]
        for at in range(0, len(messages), 500):
            self.publisher.publish(topic=f"projects/{self.project}/topics/lane", messages=messages[at : at + 500])

    def publish_raw(self, data: bytes, **attributes: str) -> None:
        self.publisher.publish(topic=f"projects/{self.project}/topics/lane", messages=[{"data": data, "attributes": attributes}])

    # --- workers

    def environment(self, **settings: object) -> dict[str, str]:
        return {
            **clean_environment(),
            "PUBSUB_EMULATOR_HOST": self.pubsub,
            "STORAGE_EMULATOR_HOST": self.storage,
            "GOOGLE_CLOUD_PROJECT": self.project,
            "SUBSCRIPTION_NAME": "lane",
            "BUCKET_NAME": self.bucket,
            "CLOUD_RUN_JOB": "lane",
            "CLOUD_RUN_EXECUTION": "lane-x",
            "DRAIN_AFTER_S": "2",
            "PYTHONUNBUFFERED": "1",
            **{name: str(value) for name, value in settings.items()},
        }

    def start(self, **settings: object) -> subprocess.Popen[bytes]:
        return self.start_with(self.environment(**settings))

    def start_with(self, environment: dict[str, str]) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-W", "error", "-m", "batch"]
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        self.processes.append(process)
        return process

    def run(self, **settings: object) -> Ended:
        return ended(self.start(**settings))

    def run_with(self, environment: dict[str, str]) -> Ended:
        return ended(self.start_with(environment))

    def close(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
        self._channel.close()

    # --- what a person looks at

    def names(self, prefix: str = "") -> list[str]:
        return [item["name"] for item in self.items(prefix)]

    def items(self, prefix: str = "") -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        token = ""
        while True:
            query = urllib.parse.urlencode({"prefix": prefix, "pageToken": token} if token else {"prefix": prefix})
            with urllib.request.urlopen(f"{self.storage}/storage/v1/b/{self.bucket}/o?{query}", timeout=60) as response:
                page = json.load(response)
            found += page.get("items", [])
            token = page.get("nextPageToken", "")
            if not token:
                return found

    def read(self, name: str) -> bytes:
        quoted = urllib.parse.quote(name, safe="")
        with urllib.request.urlopen(f"{self.storage}/storage/v1/b/{self.bucket}/o/{quoted}?alt=media", timeout=60) as response:
            data: bytes = response.read()
            return data

    def outcomes(self) -> list[dict[str, Any]]:
        return [json.loads(line) for name in self.names("outcomes/") for line in self.read(name).splitlines()]

    def final(self) -> Counter[str]:
        """How many tasks have which outcome, the strongest of each."""
        order = ["succeeded", "superseded", "cancelled", "dead"]
        best: dict[str, str] = {}
        for one in self.outcomes():
            best[one["task_id"]] = min(best.get(one["task_id"], "dead"), one["outcome"], key=order.index)
        return Counter(best.values())

    def pull(self, subscription: str) -> list[Any]:
        """All messages that can be had now; they are not acknowledged."""
        got: list[Any] = []
        path = f"projects/{self.project}/subscriptions/{subscription}"
        while more := pulled_at_once(self.subscriber, path):
            got += more
        return got

    def progress(self) -> dict[str, dict[str, str]]:
        return {item["name"].split("/", 2)[2]: item["metadata"] for item in self.items("workers/")}


@dataclass(frozen=True)
class Ended:
    """A worker process that has ended: its exit code and its log."""

    code: int
    lines: list[dict[str, Any]]
    text: str

    @property
    def summary(self) -> dict[str, Any]:
        """The one summary line; it must be the last."""
        assert self.lines, self.text
        assert self.lines[-1].get("event") == "worker_ended", self.text
        return self.lines[-1]

    def events(self, name: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line.get("event") == name]


def ended(process: subprocess.Popen[bytes], limit_s: float = 60.0) -> Ended:
    output, _ = process.communicate(timeout=limit_s)
    text = output.decode()
    return Ended(process.returncode, [json.loads(line) for line in text.splitlines() if line.startswith("{")], text)


def wait_for_event(process: subprocess.Popen[bytes], event: str) -> list[dict[str, Any]]:
    """Read a worker's log until a line with this event; returns the lines so far."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        if line.startswith(b"{"):
            lines.append(json.loads(line))
            if lines[-1].get("event") == event:
                return lines
    raise AssertionError(f"the worker ended without {event}; its log: {lines}")
