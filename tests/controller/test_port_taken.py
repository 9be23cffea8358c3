"""A service whose port is taken says so in one line and ends; nobody has to read a traceback."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator

import pytest

import controller.__main__
import intake.__main__
from batch.model.errors import SettingsError
from batch.serving.listening import listening

NOWHERE = "127.0.0.1:1"


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The port, set for both services; none of their clients has anybody to speak to."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = int(other.getsockname()[1])
        environment = {
            "GOOGLE_CLOUD_PROJECT": "p",
            "BUCKET_NAME": "b",
            "TOPIC_NAME": "tasks",
            "HOST": "127.0.0.1",
            "PORT": str(port),
            "CLOUD_RUN_EMULATOR_HOST": f"http://{NOWHERE}",
            "CLOUD_MONITORING_EMULATOR_HOST": NOWHERE,
            "PUBSUB_EMULATOR_HOST": NOWHERE,
            "STORAGE_EMULATOR_HOST": f"http://{NOWHERE}",
        }
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        yield port


@pytest.mark.parametrize("main", [controller.__main__.main, intake.__main__.main], ids=["controller", "front door"])
def test_a_service_tells_of_a_port_that_is_taken(main: Callable[[], int], taken: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main() == 2
    (line,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert (line["event"], line["severity"]) == ("settings_wrong", "ERROR")
    assert line["error"].startswith(f"cannot listen on 127.0.0.1:{taken} (Address already in use): end what listens there")


@pytest.mark.parametrize(("host", "port"), [("203.0.113.7", 0), ("no such name.invalid", 0)])
def test_an_address_that_is_not_ours_is_told_of(host: str, port: int) -> None:
    with pytest.raises(SettingsError, match=f"cannot listen on {host}:{port} "):
        listening(host, port)
