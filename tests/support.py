"""What tests of several packages need: services of the local cloud as processes, and waiting for something to become true."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import urllib.request
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest

T = TypeVar("T")

SCRUBBED = ("GOOGLE_", "PUBSUB_", "STORAGE_", "CLOUD_RUN_", "CLOUD_MONITORING_", "CLOUDSDK_", "OTEL_")
SCRUBBED_NAMES = (
    "GCLOUD_PROJECT",
    "SUBSCRIPTION_NAME",
    "TOPIC_NAME",
    "BUCKET_NAME",
    "BILLING_PROJECT",
    "DEAD_LETTER_TOPIC",
    "MAX_MESSAGES",
    "BACKLOG",
    "DECISION_ID",
    "HANDLERS",
    "CONCURRENCY",
    "TASK_TIMEOUT_S",
    "LANE",
    "TELEMETRY",
    "CONTROLLER_URL",
    "CONTROLLER_AUDIENCE",
    "OIDC_AUDIENCE",
    "OIDC_EMAILS",
    "OIDC_ISSUER",
    "OIDC_CERTS_URL",
    "API_KEYS",
    "ACCESS",
    "POKE_EMAILS",
    "WORKER_BUDGET",
    "CPU_QUOTA_VCPU",
)
"""What would make a test on a machine of a user of the cloud behave differently, or reach the real one."""
STOP_LIMIT_S = 10.0
RUNNING: list[Service] = []
"""The services that this process has started and not stopped."""


def is_scrubbed(name: str) -> bool:
    return name.startswith(SCRUBBED) or name in SCRUBBED_NAMES


def clean_environment() -> dict[str, str]:
    """This process's environment without anything about the cloud, for child processes."""
    return {name: value for name, value in os.environ.items() if not is_scrubbed(name)}


@dataclass
class Service:
    """A running service of the local cloud. `addresses` is its ready line: `http` with its scheme, for Pub/Sub `grpc` as host:port."""

    process: subprocess.Popen[bytes]
    addresses: Mapping[str, str]
    state_dir: Path

    @property
    def http(self) -> str:
        return self.addresses["http"]

    @property
    def grpc(self) -> str:
        return self.addresses["grpc"]

    def advance(self, seconds: float) -> None:
        """Move the service's clock; all tests of the session share it."""
        body = json.dumps({"seconds": seconds}).encode()
        request = urllib.request.Request(f"{self.http}/clock/advance", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as response:
            response.read()

    def stop(self) -> None:
        """Close its standard input, which ends it; kill it when it does not end."""
        if self in RUNNING:
            RUNNING.remove(self)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        try:
            self.process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


def start_service(name: str, state_dir: Path, *options: str, environment: Mapping[str, str] | None = None) -> Service:
    """Run `python -m local_cloud.<name>` until `stop`; it also ends with this process. Raises RuntimeError when it does not get ready."""
    command = [sys.executable, "-m", f"local_cloud.{name}", "--state-dir", str(state_dir), "--exit-with-stdin", *options]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**clean_environment(), **(environment or {})})
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        code = process.wait()
        raise RuntimeError(f"`{' '.join(command)}` ended with code {code} before it was ready")
    service = Service(process, json.loads(line), state_dir)
    RUNNING.append(service)
    return service


def pulled_at_once(subscriber: Any, subscription: str, max_count: int = 1000) -> list[Any]:
    """What a subscription can give now, by Google's client, in one pull without a wait.

    A pull that waits is answered a second before its deadline at the earliest, and a busy machine may need more than that second.
    """
    request = {"subscription": subscription, "max_messages": max_count, "return_immediately": True}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The return_immediately flag is deprecated", DeprecationWarning)
        return list(subscriber.pull(request=request, timeout=60, retry=None).received_messages)


def wait_until(predicate: Callable[[], T], timeout_s: float = 60.0, description: str = "the condition") -> T:
    """Return the first true value of `predicate`, or fail with the last one it had."""
    never = threading.Event()
    until_s = time.monotonic() + timeout_s
    while not (value := predicate()):
        if time.monotonic() > until_s:
            raise AssertionError(f"{description} did not come true within {timeout_s:g} s; last seen: {value!r}")
        never.wait(0.01)
    return value


def slow_but(quick: Iterable[str | bool], values: Iterable[str | bool]) -> list[Any]:
    """Parameters of a test: those that are not `quick` belong to the slow tier."""
    always = set(quick)
    return [one if one in always else pytest.param(one, marks=pytest.mark.slow) for one in values]
