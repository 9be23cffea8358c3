"""A thousand good tasks among poison, by real workers: the good succeed, the poison is dead with its history."""

from __future__ import annotations

from pathlib import Path

import pytest

from batch.model.attempts import AttemptError, Attempts, Marker
from batch.model.outcomes import Outcome
from bench.poison import Mix, history_fault, run
from bench.servers import local_service


@pytest.mark.slow
@pytest.mark.timeout(300)  # the slower the machine, the more was under way in killed workers: some thirty of that in each half minute
def test_poison_costs_no_good_task_its_success(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "")
    with local_service("pubsub", tmp_path) as pubsub, local_service("storage", tmp_path) as storage:
        done = run(Mix(good=1000, raises=100, kills=3), pubsub.address, storage.address)
    assert done.wrong == []
    assert 1 <= done.deaths <= 2 * 3, "a killing task takes two workers along at most"
    assert done.broken == 0


def test_a_history_that_lacks_an_attempt_is_noticed() -> None:
    error = AttemptError("", "ValueError", "x", "e", 0)
    raising = Outcome("raises-1", "raises", "dead", "", error_type="ValueError", reason="x")
    assert history_fault(raising, Attempts(3, 0.0, (error, error, error))) == ""
    assert "raises-1" in history_fault(raising, Attempts(3, 0.0, (error, error)))
    killing = Outcome("kills-1", "kills", "dead", "", error_type="worker_died", reason="x")
    died = AttemptError("", "ProcessDied", "SIGKILL", "e", 0)
    assert history_fault(killing, Attempts(1, 0.0, (died,), None, (Marker("e", 0, 0, ""),))) == ""
    assert "kills-1" in history_fault(killing, Attempts(1, 0.0, (died,)))
    assert "without a reason" in history_fault(Outcome("kills-1", "kills", "dead", ""), Attempts())
