"""A task that waits many times succeeds: it does not vanish into the dead-letter topic because its message was delivered often."""

from __future__ import annotations

from itertools import pairwise

import pytest

from batch.handling.registry import Registry, default_registry
from batch.model.exit import ExitReason
from batch.testing import drained
from batch.testing.drained import drain
from tests.batch.worker.plant import Plant
from tests.field import waiting_handlers
from tests.field.waiting_handlers import SNOOZERS
from tests.support import slow_but

SNOOZES = 100
LIMITS = pytest.mark.parametrize("limit", [5, pytest.param(100, marks=pytest.mark.slow)])
KINDS = pytest.mark.parametrize("kind", slow_but(["plain", "isolated"], SNOOZERS))


def registry_of(kind: str) -> Registry:
    registry = Registry()
    registry._handlers[SNOOZERS[kind]] = default_registry[SNOOZERS[kind]]
    return registry


@LIMITS
@KINDS
def test_snoozing_for_nothing_a_hundred_times(kind: str, limit: int) -> None:
    plant = Plant(registry=registry_of(kind), max_delivery_attempts=limit)
    ids = plant.submit(3, SNOOZERS[kind], snoozes=SNOOZES)
    worker = plant.worker(MAX_MESSAGES=10_000, HANDLERS=waiting_handlers.__name__, PROCESSES=1, FLUSH_INTERVAL_S=0.05)
    assert worker.run() is ExitReason.DRAINED
    assert plant.final() == dict.fromkeys(ids, "succeeded")
    assert plant.letters() == []
    assert plant.subscription.backlog == 0
    progress = plant.progress()
    assert progress.taken == progress.acked + progress.returned
    assert {one.message_id for one in plant.outcomes()} == {"1", "2", "3"}


@LIMITS
@KINDS
def test_polling_every_30_s_for_50_minutes(kind: str, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here an isolated handler runs in a thread."""
    monkeypatch.setattr(drained, "MAX_DELIVERY_ATTEMPTS", limit)
    task = {"task_type": SNOOZERS[kind], "snoozes": SNOOZES, "after_s": 30}
    found = drain([task], registry_of(kind), max_executions=1000)
    assert found.outcome() == "succeeded"
    assert found.dead_letters == []
    assert 50 * 60 <= found.elapsed_s < 51.5 * 60
    began_s = found.began_s()
    assert len(began_s) == SNOOZES + 1
    assert min(later - before for before, later in pairwise(began_s)) >= 29
