"""A subscription that counts no deliveries: it works, at the price of a request a message, and the worker says so once."""

from __future__ import annotations

import logging

import pytest

from tests.batch.worker.plant import Plant, write


@pytest.mark.parametrize(("max_delivery_attempts", "expected"), [(100, 0), (None, 1)])
def test_it_is_said_once(caplog: pytest.LogCaptureFixture, max_delivery_attempts: int | None, expected: int) -> None:
    plant = Plant()
    plant.registry.task("write")(write)
    plant.subscription = plant.broker.subscription("uncounted", "lane", 60.0, max_delivery_attempts=max_delivery_attempts)
    ids = plant.submit(30)
    with caplog.at_level(logging.INFO, logger="fanout"):
        plant.worker(MAX_MESSAGES=30).run()
    said = [record for record in caplog.records if getattr(record, "event", "") == "deliveries_not_counted"]
    assert len(said) == expected
    assert plant.final() == dict.fromkeys(ids, "succeeded")
