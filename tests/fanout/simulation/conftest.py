"""A file of few arrivals, and a lane with a past, in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import Result

from controller.config import ControllerSettings
from fanout import cloud
from fanout.simulation.simulate import command
from tests.controller.fakes import World

Simulate = Callable[..., Result]


@pytest.fixture
def few(tmp_path: Path) -> str:
    """80 messages within four minutes."""
    path = tmp_path / "few.csv"
    path.write_text("time,count\n0,40\n30,10\n200,30\n", encoding="utf-8")
    return str(path)


@pytest.fixture
def simulate(run: Callable[..., Result], few: str) -> Simulate:
    """The command on that file; what is given stands behind its usual options."""
    return lambda *more: run(command, "--arrivals", few, "--message-s", "1.5", *more)


class Past:
    """What Cloud Monitoring has of subscriptions, by name."""

    def __init__(self) -> None:
        self.points: dict[str, list[tuple[float, int]]] = {}
        self.asked: list[tuple[str, float, float]] = []

    def read(self, subscription: str, since: float, until: float) -> list[tuple[float, int]]:
        self.asked.append((subscription, since, until))
        return [(at, count) for at, count in self.points.get(subscription, []) if since < at <= until]


@pytest.fixture
def past(here: World, monkeypatch: pytest.MonkeyPatch) -> Past:
    """Of the lanes of `here`; now is its clock's."""
    found = Past()

    @contextmanager
    def open_arrivals(settings: ControllerSettings) -> Iterator[Past]:
        yield found

    monkeypatch.setattr(cloud, "open_arrivals", open_arrivals)
    monkeypatch.setattr("fanout.simulation.case.SystemClock", lambda: SimpleNamespace(now=here.clock.now))
    return found
