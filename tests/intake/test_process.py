"""`python -m intake` as a process: its settings, its life, and a SIGTERM in the middle of a request."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import httpx
import pytest

from intake.__main__ import main
from intake.config import IntakeSettings
from tests.intake.publisher_server import WAIT_LIMIT_S, PublisherServer
from tests.support import clean_environment

ROOT = Path(__file__).resolve().parents[2]


class Intake:
    """A running front door; its standard error is read to its end."""

    def __init__(self, **environment: str) -> None:
        settings = {
            "GOOGLE_CLOUD_PROJECT": "p",
            "TOPIC_NAME": "tasks",
            "HANDLERS": "tests.intake.handlers",
            "HOST": "127.0.0.1",
            "PORT": "0",
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "intake"],
            cwd=ROOT,
            env={**clean_environment(), **settings, **environment},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.search(r"listens on (http://[^\s\"]+)", line)
        assert found, line
        self.url = found.group(1)
        self.log: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.log.extend(self.process.stdout)

    def end(self) -> int:
        code = self.process.wait(60)
        self._reader.join(60)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.end()


@pytest.fixture
def server() -> Iterator[PublisherServer]:
    one = PublisherServer()
    yield one
    one.stop()


@pytest.fixture
def intake(server: PublisherServer) -> Iterator[Intake]:
    one = Intake(PUBSUB_EMULATOR_HOST=server.address)
    yield one
    if one.process.poll() is None:
        one.stop()


def test_a_task_reaches_the_broker(intake: Intake, server: PublisherServer) -> None:
    answer = httpx.post(f"{intake.url}/submit-task", json={"task_type": "thumbnail", "size": 3})
    assert answer.status_code == 200
    assert answer.json()["message_id"] == "id-0"
    assert json.loads(server.data[0])["task_id"] == answer.json()["task_id"]
    assert server.topics == ["projects/p/topics/tasks"]
    assert httpx.get(f"{intake.url}/health").json()["status"] == "healthy"
    assert intake.stop() == 0


def test_a_missing_topic_says_what_to_do(intake: Intake, server: PublisherServer) -> None:
    server.statuses.append("NOT_FOUND")
    answer = httpx.post(f"{intake.url}/submit-task", json={"task_type": "thumbnail"})
    assert answer.status_code == 500
    assert "gcloud pubsub topics create tasks" in answer.json()["error"]


def test_a_broker_that_is_away_is_503(server: PublisherServer) -> None:
    server.stop()
    intake = Intake(PUBSUB_EMULATOR_HOST=server.address, PUBLISH_TIMEOUT_S="0.3")
    answer = httpx.post(f"{intake.url}/submit-task", json={"task_type": "thumbnail"})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert intake.stop() == 0


def test_after_sigterm_what_was_accepted_is_answered(intake: Intake, server: PublisherServer) -> None:
    server.hold()
    answers: list[httpx.Response] = []
    request = threading.Thread(
        target=lambda: answers.append(httpx.post(f"{intake.url}/submit-task", json={"task_type": "thumbnail"}, timeout=60))
    )
    request.start()
    assert server.waiting.acquire(timeout=WAIT_LIMIT_S)
    intake.process.send_signal(signal.SIGTERM)
    assert _refuses_connections(intake.url)
    server.release()
    request.join(60)
    assert [answer.status_code for answer in answers] == [200]
    assert intake.end() == 0
    assert len(server.data) == 1


def test_a_too_large_body_gets_its_answer_over_a_real_connection(intake: Intake, server: PublisherServer) -> None:
    body = b'{"task_type": "thumbnail", "a": "' + b"x" * 12_000_000 + b'"}'
    answer = httpx.post(f"{intake.url}/submit-task", content=body, timeout=60)
    assert answer.status_code == 413
    chunked = httpx.post(f"{intake.url}/submit-task", content=iter([body]), timeout=60)
    assert chunked.status_code == 413
    assert server.data == []


def test_all_wrong_settings_are_named_and_end_with_2() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "intake"],
        cwd=ROOT,
        env={**clean_environment(), "PORT": "http", "MAX_WAITING": "0"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stdout + done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["severity"] for line in lines] == ["WARNING"] + ["ERROR"] * 4
    assert "no metadata server names the project" in lines[0]["error"]
    assert [line["error"].split("=")[0].split()[0] for line in lines[1:]] == ["GOOGLE_CLOUD_PROJECT", "PORT", "MAX_WAITING", "neither"]


def test_help_names_every_setting_and_other_options_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert all(f"  {one.metadata['env']} " in text for one in fields(IntakeSettings))
    with pytest.raises(SystemExit) as ended:
        main(["--port", "80"])
    assert ended.value.code == 2


def test_without_credentials_it_says_what_to_do_and_ends_with_1(tmp_path: Path) -> None:
    nowhere = {"GOOGLE_APPLICATION_CREDENTIALS": str(tmp_path / "none.json")}
    done = subprocess.run(
        [sys.executable, "-m", "intake"],
        env={**clean_environment(), **nowhere, "GOOGLE_CLOUD_PROJECT": "p", "TOPIC_NAME": "tasks", "PORT": "0", "HOST": "127.0.0.1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    (line,) = [json.loads(line) for line in done.stdout.splitlines()]
    assert line["severity"] == "ERROR"
    assert "gcloud auth application-default login" in line["message"]


def _refuses_connections(url: str) -> bool:
    """Whether new connections are refused soon: the server has begun to end."""
    host, port = url.removeprefix("http://").split(":")
    for _ in range(10_000):
        try:
            socket.create_connection((host, int(port)), timeout=60).close()
        except ConnectionError:
            return True
    return False
