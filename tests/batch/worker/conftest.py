"""Fixtures of the worker's tests."""

from __future__ import annotations

import pytest

from batch.worker.pulling import bounds


@pytest.fixture
def begun_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """What runs when a worker's time is over counts as begun late: none has had the whole of it, and failed."""
    monkeypatch.setattr(bounds, "WHOLE_PART", 2.0)
