"""What is in the way of a service is told in one line, with exit code 1; a fault of ours keeps its traceback."""

from __future__ import annotations

import argparse
import errno
import random
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from local_cloud.clock import Clock
from local_cloud.pubsub.model.pubsub import PubSub
from local_cloud.pubsub.rpc.server import GrpcServer
from local_cloud.run.model.store import Store
from local_cloud.web.refused_start import Damaged, PortTaken, bound, port_number, told
from tests.support import clean_environment


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as other:
        yield int(other.getsockname()[1])


def test_a_taken_port_ends_a_service_with_one_line(taken: int, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "local_cloud.storage", "--state-dir", str(tmp_path), "--port", str(taken)],
        capture_output=True,
        env=clean_environment(),
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"storage cannot run: cannot listen on 127.0.0.1:{taken} (Address already in use): end what listens")
    assert done.stderr.count("\n") == 1


def test_grpc_says_as_little(taken: int, capfd: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with pytest.raises(PortTaken, match=f"cannot listen on 127.0.0.1:{taken} "):
        GrpcServer(PubSub(clock, random.Random(1)), clock, "127.0.0.1", taken, {})
    assert capfd.readouterr().err == ""


def run_refused(error: Exception, capsys: pytest.CaptureFixture[str]) -> str:
    def main() -> None:
        raise error

    with pytest.raises(SystemExit) as ended:
        told("storage", main)
    assert ended.value.code == 1
    return capsys.readouterr().err


def test_what_a_user_can_mend_becomes_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    denied = PermissionError(errno.EACCES, "Permission denied", "/there")
    assert run_refused(denied, capsys) == "storage cannot run: /there: Permission denied\n"
    assert run_refused(OSError(errno.ENOSPC, "No space left on device"), capsys).endswith("No space left on device\n")
    assert run_refused(Damaged("line 1 is damaged"), capsys) == "storage cannot run: line 1 is damaged\n"


def test_a_fault_of_ours_is_raised_as_it_is() -> None:
    def main() -> None:
        raise ValueError("nobody foresaw this")

    with pytest.raises(ValueError, match="nobody"):
        told("storage", main)


def test_what_is_no_port() -> None:
    assert [port_number("0"), port_number("65535")] == [0, 65535]
    for text in ("65536", "-1", "http", "", "²"):
        with pytest.raises(argparse.ArgumentTypeError, match="is not a port"):
            port_number(text)


def test_an_address_of_somebody_else_is_refused() -> None:
    with pytest.raises(PortTaken, match=r"cannot listen on 203\.0\.113\.7:0 \("):
        bound("203.0.113.7", 0)


def test_a_damaged_state_of_cloud_run_is_named(tmp_path: Path) -> None:
    (tmp_path / "state.db").write_bytes(b"torn" * 5_000)
    with pytest.raises(Damaged, match=r"state\.db cannot be read .*move it away"):
        Store(tmp_path)
