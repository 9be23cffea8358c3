"""`fanout demo` as a person runs it: it proves what it did, survives a killed worker, and leaves no process behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from batch.model.errors import FanoutError
from fanout.demo.program import MARKER, command, replace_folder
from local_cloud.processes import start_mark
from local_cloud.supervisor import record
from local_cloud.supervisor.workers import running_workers
from tests.support import clean_environment, wait_until

ROOT = Path(__file__).resolve().parents[2]
PROVEN = re.compile(r"^proven: ([\d,]+) submitted = ([\d,]+) succeeded \+ 0 superseded \+ 0 cancelled \+ 1 dead, missing 0$", re.MULTILINE)
CHECKER = (
    f'cd {ROOT} && {sys.executable} -m tests.checker --storage "$STORAGE_EMULATOR_HOST" --bucket "$BUCKET_NAME" '
    "$(for one in $SUBMISSION_IDS; do echo --submission $one; done) "
    '--pubsub "$PUBSUB_EMULATOR_HOST" --project "$GOOGLE_CLOUD_PROJECT" --subscription default --dead-letter-subscription dead-letters'
)
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a demo in another folder than the repository's, as a process that is killed at the end if it still runs."""
    started: list[subprocess.Popen[str]] = []

    def run(*options: str) -> subprocess.Popen[str]:
        arguments = [sys.executable, "-m", "fanout", "demo", "--plain", "--seed", "7", "--state-dir", "state", *options]
        process = subprocess.Popen(
            arguments, cwd=tmp_path, env=clean_environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        started.append(process)
        return process

    yield run
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def everyone(state_dir: Path) -> list[int]:
    """The processes that a demo has running now."""
    found = record.read(state_dir)
    assert found is not None
    return [found.pid, *found.services.values(), *(worker.pid for worker in running_workers(state_dir))]


def assert_gone(pids: list[int]) -> None:
    wait_until(lambda: not [pid for pid in pids if start_mark(pid) is not None], description="all processes of the demo are gone")


@pytest.mark.slow
def test_the_demo_proves_every_task(start: Start, tmp_path: Path) -> None:
    demo = start("--files", "60", "--after", CHECKER)
    text, _ = demo.communicate(timeout=100)
    assert demo.returncode == 0, text
    proven = PROVEN.search(text)
    assert proven, text
    assert int(proven[1]) == int(proven[2]) + 1 > 60
    assert "lane default: launch: 5 workers for 60 of 60 unassigned messages" in text
    assert re.search(r"shares of default-\w+: 12 \+ 12 \+ 12 \+ 12 \+ 12 = 60, assigned 60", text)
    assert "uploading 60 files of the Python standard library ..." in text
    assert "one is wrong on purpose: no handler knows its task_type 'file_procesing'" in text.partition("lane default: launch")[0]
    assert re.search(r"^dead on purpose: 1 × unknown_task_type: ", text, re.MULTILINE)
    assert text.count("share_done") == 8
    assert "ok   " in text
    assert "FAIL" not in text
    outputs = [path.read_bytes() for path in (tmp_path / "state/storage/buckets/fanout-demo/processed/stdlib").rglob("*.py")]
    reports = [json.loads(output) for output in outputs if output.startswith(b"{")]
    assert (len(outputs), len(reports), all(report["input_found"] for report in reports)) == (60, 54, True)
    assert not (tmp_path / "state" / record.FILE).exists()


@pytest.mark.slow
def test_a_killed_worker_loses_nothing(start: Start) -> None:
    demo = start("--files", "120", "--kill-worker", "--after", f"{CHECKER} --paid-minute")
    text, _ = demo.communicate(timeout=110)
    assert demo.returncode == 0, text
    killed = re.search(r"^killed worker (\d) of (default-\w+) \(process \d+, SIGKILL\)", text, re.MULTILINE)
    assert killed, text
    tries = re.findall(rf"^{killed[2]} +{killed[1]} +(\d) +(\d+) +(\d+) +(\d+) .* (\w+) *$", text, re.MULTILINE)
    (_, share, _, acked, state), (retry, left, *_, ended) = tries
    assert (share, state, retry) == ("24", "killed", "1")
    assert 0 < int(acked) < 24
    assert int(left) == 24 - int(acked)
    assert ended in ("share_done", "drained")
    assert PROVEN.search(text), text


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_ctrl_c_in_the_middle_leaves_nothing(start: Start, tmp_path: Path, number: signal.Signals) -> None:
    demo = start("--files", "60", "--kill-worker")
    state_dir = tmp_path / "state"
    wait_until(lambda: demo.poll() is not None or running_workers(state_dir), timeout_s=60, description="workers run")
    pids = everyone(state_dir)
    assert len(pids) > 4
    demo.send_signal(number)
    text, _ = demo.communicate(timeout=30)
    assert demo.returncode == 130, text
    assert "interrupted" in text
    assert "Traceback" not in text
    assert_gone(pids)
    assert running_workers(state_dir) == []


@pytest.mark.slow
def test_a_killed_demo_leaves_nothing(start: Start, tmp_path: Path) -> None:
    demo = start("--files", "60", "--kill-worker")
    state_dir = tmp_path / "state"
    wait_until(lambda: demo.poll() is not None or running_workers(state_dir), timeout_s=60, description="workers run")
    pids = everyone(state_dir)
    demo.kill()
    demo.communicate(timeout=60)
    assert_gone(pids)


@pytest.mark.slow
def test_it_fails_when_a_service_dies(start: Start, tmp_path: Path) -> None:
    demo = start("--files", "60", "--kill-worker")
    state_dir = tmp_path / "state"
    wait_until(lambda: demo.poll() is not None or running_workers(state_dir), timeout_s=60, description="workers run")
    pids = everyone(state_dir)
    found = record.read(state_dir)
    assert found is not None
    os.kill(found.services["run"], signal.SIGKILL)
    text, _ = demo.communicate(timeout=60)
    assert demo.returncode == 1, text
    assert re.search(r"run \(process \d+\) was killed by signal 9", text), text
    assert_gone(pids)


@pytest.mark.slow
def test_the_limit_and_a_failing_command_are_failures(start: Start) -> None:
    demo = start("--files", "30", "--kill-worker", "--keep-going-s", "1", "--after", "exit 3")
    text, _ = demo.communicate(timeout=60)
    assert demo.returncode == 1, text
    assert "NOT proven" in text
    assert "has no outcome" in text
    assert "the command of --after ended with exit code 3" in text


def test_a_folder_that_no_demo_has_made_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years")
    with pytest.raises(FanoutError, match="no demo has put there"):
        replace_folder(tmp_path)
    result = CliRunner().invoke(command, ["--state-dir", str(tmp_path)])
    assert (result.exit_code, (tmp_path / "thesis.tex").read_text()) == (1, "years")


def test_the_folder_of_an_earlier_demo_is_replaced(tmp_path: Path) -> None:
    replace_folder(tmp_path / "state")
    (tmp_path / "state" / "old").write_text("")
    replace_folder(tmp_path / "state")
    assert [path.name for path in (tmp_path / "state").iterdir()] == [MARKER]
