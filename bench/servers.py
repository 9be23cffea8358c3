"""The servers that are measured: services of the local cloud, and Google's Pub/Sub emulator, each a process on loopback.

Every one ends with the block that started it, also when the measurement fails.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc

_START_LIMIT_S = 30
_STOP_LIMIT_S = 10


class NotInstalled(Exception):
    """Google's emulator is not on this machine; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class Server:
    """`address` is `host:port` for Pub/Sub, a URL for Storage."""

    address: str
    pid: int


@contextmanager
def local_service(name: str, folder: Path) -> Iterator[Server]:
    """`python -m local_cloud.<name>`, with its state in a new folder below `folder`."""
    state = folder / f"{name}-{len(list(folder.iterdir()))}"
    command = [sys.executable, "-m", f"local_cloud.{name}", "--state-dir", str(state), "--exit-with-stdin"]
    with _ended(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"`{' '.join(command)}` ended with code {process.wait()} before it was ready")
        addresses = json.loads(line)
        yield Server(addresses.get("grpc") or addresses["http"], process.pid)


@contextmanager
def google_pubsub() -> Iterator[Server]:
    """Google's emulator. Raises NotInstalled."""
    program = launcher()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    host, port = address.split(":")
    command = [str(program), f"--host={host}", f"--port={port}"]
    silent = subprocess.DEVNULL
    with _ended(subprocess.Popen(command, stdin=silent, stdout=silent, stderr=silent, start_new_session=True)) as process:
        with grpc.insecure_channel(address) as channel:
            grpc.channel_ready_future(channel).result(timeout=_START_LIMIT_S)
        yield Server(address, process.pid)


def launcher() -> Path:
    """The program that starts Google's emulator. Raises NotInstalled."""
    for program in ("gcloud", "java"):
        if shutil.which(program) is None:
            raise NotInstalled(f"`{program}` is not installed")
    asked = subprocess.run(["gcloud", "info", "--format=value(installation.sdk_root)"], capture_output=True, text=True, check=False)
    found = Path(asked.stdout.strip(), "platform/pubsub-emulator/bin/cloud-pubsub-emulator")
    if not found.is_file():
        raise NotInstalled(f"the Cloud SDK has no Pub/Sub emulator at {found}: gcloud components install pubsub-emulator")
    return found


@contextmanager
def _ended(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """End the whole process group of `process` after the block."""
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(_STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()
