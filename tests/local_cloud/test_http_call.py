"""Calls to services that end in the middle of an answer: whatever a killed process left on the wire, the caller hears ServiceFailed."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from local_cloud.supervisor.child import ServiceFailed
from local_cloud.supervisor.http_call import call

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


@pytest.mark.parametrize(
    "left",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(HEAD[:20], id="a part of the head"),
        pytest.param(HEAD, id="a head without a body"),
        pytest.param(HEAD + b'{"a"', id="a part of the body"),
        pytest.param(b"HTTP/1.1 503 \r\nContent-Length: 9\r\n\r\n", id="the head of a refusal"),
        pytest.param(b"POST / HTTP/1.1\r\n\r\n", id="its own request"),  # from a port of the client's own that it connected to itself
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[}", id="no JSON"),
    ],
)
def test_an_answer_that_is_cut_off_is_a_service_that_failed(listener: socket.socket, left: bytes) -> None:
    def answer() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(left)

    answering = threading.Thread(target=answer)
    answering.start()
    with pytest.raises(ServiceFailed, match=r"run did not answer .* as it should"):
        call("run", f"http://127.0.0.1:{listener.getsockname()[1]}/", within_s=30)
    answering.join()
