"""The real outside: a service that is down costs a tick seconds, not a minute a lane."""

from __future__ import annotations

from typing import Any

import pytest

from controller import wiring
from controller.config import controller_settings


def test_the_store_gives_up_long_before_the_next_tick(cloud: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    import batch.services.objects

    given: dict[str, Any] = {}
    real = batch.services.objects.GoogleObjectStore

    def store(*arguments: Any, **options: Any) -> object:
        given.update(options)
        return real(*arguments, **options)

    monkeypatch.setattr(batch.services.objects, "GoogleObjectStore", store)
    with wiring.connected(controller_settings(cloud)):
        assert 0 < given["request_timeout_s"] < given["timeout_s"] <= 10
