"""`POST /submissions` to a process: a real bucket beside a broker that waits, a SIGTERM in the middle, and a client that leaves."""

from __future__ import annotations

import json
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.intake.publisher_server import WAIT_LIMIT_S, PublisherServer
from tests.intake.test_process import Intake
from tests.intake.test_submissions import lines
from tests.support import Service, wait_until

COUNT = 9000
"""Three parts."""
KEY = {"Idempotency-Key": "nightly"}


@pytest.fixture
def server() -> Iterator[PublisherServer]:
    one = PublisherServer()
    yield one
    one.stop()


@pytest.fixture
def bucket(project: str, local_storage: Service) -> str:
    name = f"bucket-{project}"
    httpx.post(f"{local_storage.http}/storage/v1/b?project={project}", json={"name": name}).raise_for_status()
    return name


def door(server: PublisherServer, storage: Service, bucket: str) -> Intake:
    return Intake(PUBSUB_EMULATOR_HOST=server.address, STORAGE_EMULATOR_HOST=storage.http, BUCKET_NAME=bucket)


@pytest.mark.slow
def test_after_sigterm_a_submission_is_told_and_a_repeat_completes_it(server: PublisherServer, local_storage: Service, bucket: str) -> None:
    intake = door(server, local_storage, bucket)
    server.hold()
    answers: list[httpx.Response] = []

    def post() -> None:
        answers.append(httpx.post(f"{intake.url}/submissions", content=lines(COUNT), headers=KEY, timeout=60))

    request = threading.Thread(target=post)
    request.start()
    assert server.waiting.acquire(timeout=WAIT_LIMIT_S)
    intake.process.terminate()
    wait_until(lambda: refuses(intake.url), description="the process takes no connection")
    server.release()
    request.join(60)
    (told,) = answers
    assert (told.status_code, told.headers["retry-after"]) == (503, "2")
    assert "the service is about to end" in told.json()["error"]
    assert told.json()["accepted_count"] == len(server.data) == 4000
    assert intake.end() == 0
    again = door(server, local_storage, bucket)
    answer = httpx.post(f"{again.url}/submissions", content=lines(COUNT), headers=KEY, timeout=60)
    assert answer.json()["accepted_count"] == COUNT
    assert len({json.loads(data)["task_id"] for data in server.data}) == COUNT
    assert again.stop() == 0


def test_what_a_client_left_behind_is_known_by_its_key(server: PublisherServer, local_storage: Service, bucket: str) -> None:
    intake = door(server, local_storage, bucket)
    host, port = intake.url.removeprefix("http://").split(":")
    body = lines(COUNT)
    head = f"POST /submissions HTTP/1.1\r\nHost: {host}\r\nIdempotency-Key: nightly\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    server.hold()
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(head + body[: len(body) // 2])
    assert httpx.get(f"{intake.url}/health").status_code == 200, "half a body: nothing began"
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(head + body)
        assert server.waiting.acquire(timeout=WAIT_LIMIT_S)
    told = httpx.post(f"{intake.url}/submissions", content=body, headers=KEY, timeout=60)
    assert told.status_code == 409
    server.release()
    answer = wait_until(lambda: done(intake.url, body), description="the receipt")
    assert answer is not None
    assert answer.headers["idempotent-replayed"] == "true"
    assert (answer.json()["accepted_count"], len(server.data)) == (COUNT, COUNT)
    assert intake.stop() == 0


def done(url: str, body: bytes) -> httpx.Response | None:
    answer = httpx.post(f"{url}/submissions", content=body, headers=KEY, timeout=60)
    return answer if answer.status_code == 200 else None


def refuses(url: str) -> bool:
    host, port = url.removeprefix("http://").split(":")
    try:
        socket.create_connection((host, int(port)), timeout=60).close()
    except ConnectionError:
        return True
    return False


@pytest.mark.slow
def test_a_hundred_thousand_lines_a_request_cost_no_more_memory_the_second_time(
    server: PublisherServer, local_storage: Service, bucket: str
) -> None:
    intake = door(server, local_storage, bucket)
    most = [0]
    for number in range(2):
        answer = httpx.post(f"{intake.url}/submissions", content=lines(100_000), timeout=120)
        assert answer.json()["accepted_count"] == 100_000
        assert len(server.data) == 100_000 * (number + 1)
        most.append(memory_mb(intake.process.pid))
    assert httpx.post(f"{intake.url}/submissions", content=lines(100_001), timeout=120).status_code == 413
    assert most[-1] < 200
    assert most[-1] < most[1] + 15, most
    assert intake.stop() == 0


def memory_mb(pid: int) -> int:
    """The most that it has had so far."""
    if sys.platform != "linux":
        pytest.skip("reads /proc")
    text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return int(text.partition("VmHWM:")[2].split()[0]) // 1024
