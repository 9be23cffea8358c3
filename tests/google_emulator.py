"""Google's own Pub/Sub emulator as a fixture, so that one test can hold for it and for the local cloud alike.

The rule: a machine without the Cloud SDK skips with the reason; where REQUIRE_REAL=1 it fails instead.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

_LAUNCHER = "platform/pubsub-emulator/bin/cloud-pubsub-emulator"
_START_LIMIT_S = 60
_STOP_LIMIT_S = 10


def _unavailable(reason: str) -> None:
    if os.environ.get("REQUIRE_REAL") == "1":
        pytest.fail(f"REQUIRE_REAL=1, but {reason}")
    pytest.skip(reason)


def _launcher() -> Path:
    for program in ("gcloud", "java"):
        if shutil.which(program) is None:
            _unavailable(f"`{program}` is not installed")
    launcher = Path(shutil.which("gcloud") or "").resolve().parents[1] / _LAUNCHER
    if not launcher.is_file():  # not where it is usually: gcloud knows, and takes a second to say so
        asked = subprocess.run(["gcloud", "info", "--format=value(installation.sdk_root)"], capture_output=True, text=True, check=False)
        launcher = Path(asked.stdout.strip(), _LAUNCHER)
    if not launcher.is_file():
        _unavailable(f"the Cloud SDK has no Pub/Sub emulator at {launcher}: gcloud components install pubsub-emulator")
    return launcher


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="session")
def google_pubsub() -> Iterator[str]:
    """`host:port` of a running emulator of Google's, which all tests of the session share: use a project of your own."""
    launcher = _launcher()
    address = f"127.0.0.1:{_free_port()}"
    host, port = address.split(":")
    process = subprocess.Popen(
        [str(launcher), f"--host={host}", f"--port={port}"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        with grpc.insecure_channel(address) as channel:
            grpc.channel_ready_future(channel).result(timeout=_START_LIMIT_S)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(_STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(_STOP_LIMIT_S)
