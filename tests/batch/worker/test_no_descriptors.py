"""A worker that may open nothing more: no child can be made, which is nobody's fault among the tasks."""

from __future__ import annotations

import errno
import os
from typing import Any

import pytest

from batch.model.exit import ExitReason
from tests.batch.worker.isolated import plant_with, submit, worker


def full(*_: Any, **__: Any) -> Any:
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


@pytest.mark.parametrize("missing", ["socket.socketpair", "os.pipe", "subprocess.Popen"])
def test_isolated_tasks_go_back_and_the_worker_ends_broken(missing: str, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    plant = plant_with("child-write")
    for number in range(3):
        submit(plant, f"t-{number}", "child-write", name="out")
    made = worker(plant, BACKLOG=3)
    monkeypatch.setattr(missing, full)
    assert made.run() is ExitReason.BROKEN
    assert "Too many open files" in caplog.text
    assert plant.subscription.backlog == 3
    assert plant.store.names("attempts/") == ()
