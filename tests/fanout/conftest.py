"""What the tests of the operator's commands share: a controller's world in memory, put where the commands look for Google's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click
import pytest
from click.testing import CliRunner, Result

from controller.config import ControllerSettings
from controller.observe.jobs import JobRunner
from controller.tick.outside import Outside
from fanout import cloud
from tests.controller.fakes import World, job, world

ENVIRONMENT = {"GOOGLE_CLOUD_PROJECT": "p", "BUCKET_NAME": "b"}


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> World:
    """The lanes `default` and `bulk`."""
    found = world([job(), job("bulk")])

    @contextmanager
    def connected(settings: ControllerSettings) -> Iterator[Outside]:
        yield found.outside

    @contextmanager
    def open_runner(project: str, region: str) -> Iterator[JobRunner]:
        yield found.runner

    monkeypatch.setattr(cloud, "connected", connected)
    monkeypatch.setattr(cloud, "open_runner", open_runner)
    return found


@pytest.fixture
def run() -> Callable[..., Result]:
    """Runs a command with arguments in an operator's environment."""

    def invoked(command: click.Command, *arguments: str, answer: str = "") -> Result:
        result = CliRunner().invoke(command, arguments, env=ENVIRONMENT, input=answer)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return invoked
