"""`fanout local`: it starts, is found by the other commands, and ends with everything it started."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from fanout.local import command
from fanout.local.running import formatted
from local_cloud.supervisor import record
from tests.support import clean_environment, wait_until

FANOUT = [sys.executable, "-m", "fanout", "local"]


def invoke(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(command, list(arguments))
    return result.exit_code, result.output


@pytest.fixture
def up(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [*FANOUT, "up", "--quick", "--state-dir", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=clean_environment(),
        text=True,
    )
    with process:
        wait_until(lambda: process.poll() is not None or record.read(tmp_path), description="the local cloud is up")
        yield process
        process.terminate()
    wait_until(lambda: record.read(tmp_path) is None, description="its record is gone")


def test_up_env_status_down(up: subprocess.Popen[str], tmp_path: Path) -> None:
    folder = ("--state-dir", str(tmp_path))
    code, text = invoke("env", *folder, "--format", "json")
    environment = json.loads(text)
    assert code == 0
    assert environment["STORAGE_EMULATOR_HOST"].startswith("http://127.0.0.1:")
    code, text = invoke("status", *folder)
    assert (code, [line.split()[0] for line in text.splitlines()]) == (0, ["pubsub", "storage", "run"])
    code, text = invoke("up", *folder)
    assert code == 1
    assert "runs in" in text
    assert invoke("down", *folder)[0] == 0
    printed = up.communicate(timeout=60)[0]
    assert up.returncode == 0
    assert formatted(environment, "shell") in printed
    assert invoke("env", *folder)[0] == 1
    assert invoke("down", *folder) == (0, f"no local cloud runs in {tmp_path}\n")


@pytest.mark.slow
def test_ctrl_c_ends_it(up: subprocess.Popen[str], tmp_path: Path) -> None:
    up.send_signal(signal.SIGINT)
    up.communicate(timeout=60)
    assert up.returncode == 0
    assert not (tmp_path / record.FILE).exists()


@pytest.mark.slow
def test_it_ends_and_says_so_when_a_service_dies(up: subprocess.Popen[str], tmp_path: Path) -> None:
    found = record.read(tmp_path)
    assert found is not None
    os.kill(found.services["storage"], signal.SIGKILL)
    _, errors = up.communicate(timeout=60)
    assert up.returncode == 1
    assert "storage" in errors
    assert "signal 9" in errors


@pytest.mark.slow
def test_a_second_one_is_refused_and_leaves_the_first_one_s_record(up: subprocess.Popen[str], tmp_path: Path) -> None:
    """Also when it looks while the first one only starts, and has no record yet."""
    path = tmp_path / record.FILE
    text = path.read_text()
    path.unlink()
    for command_ in ("up", "reset"):
        code, said = invoke(command_, "--state-dir", str(tmp_path))
        assert (code, f"another local cloud uses {tmp_path} (process {up.pid})" in said) == (1, True), said
    path.write_text(text)
    code, said = invoke("up", "--state-dir", str(tmp_path), "--storage-port", "99999")
    assert (code, "not in the range" in said) == (2, True)
    record.remove(tmp_path)
    assert path.read_text() == text


def test_a_record_of_a_process_that_has_gone_does_not_count(tmp_path: Path) -> None:
    body = {"pid": os.getpid(), "started": "long ago", "addresses": dict.fromkeys(("pubsub", "pubsub_http", "storage", "run"), "x")}
    (tmp_path / record.FILE).write_text(json.dumps({**body, "services": {}}))
    assert record.read(tmp_path) is None
    (tmp_path / record.FILE).write_text("{}")
    with pytest.raises(ValueError, match="delete it"):
        record.read(tmp_path)


@pytest.mark.parametrize(
    ("style", "text"),
    [("shell", "export A=1\nexport B='two words'"), ("dotenv", "A=1\nB='two words'"), ("json", '{\n "A": "1",\n "B": "two words"\n}')],
)
def test_formats(style: str, text: str) -> None:
    assert formatted({"A": "1", "B": "two words"}, style) == text
