"""A record of attempts, damaged in any field, counts as none or is read: it never keeps its task from being done."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch.model.attempts import ERRORS_KEPT, NONE
from batch.model.exit import ExitReason
from batch.testing import MemoryObjectStore
from batch.worker.admission.records import read_attempts, write_attempts
from tests.batch.worker.plant import Plant, write

START = {"execution": "lane-q", "index": 0, "retry": 0, "at": "2026-01-01T00:00:00Z"}
ERROR = {"at": "", "error_type": "V", "reason": "r", "execution": "e", "index": 0, "traceback": "", "message_id": ""}
WHOLE = {"attempt_count": 1, "not_before": 0.0, "errors": [ERROR], "in_progress": START, "lost": [START]}
ODD = st.sampled_from([None, -1, 10**30, 1e308, float("inf"), float("nan"), "", "1", [], {}, [1], {"a": 1}, "\ud800", "a/../b", 3.5])


def damaged(where: str, name: str, value: Any) -> dict[str, Any]:
    """A record with one field of one of its parts replaced."""
    if where == "record":
        return {**WHOLE, name: value}
    part: dict[str, Any] = {**(ERROR if where == "errors" else START), name: value}
    return {**WHOLE, where: part if where == "in_progress" else [part]}


PLACES = [
    *(("record", name) for name in WHOLE),
    *(("errors", name) for name in ERROR),
    *((part, name) for part in ("in_progress", "lost") for name in START),
]


@given(st.sampled_from(PLACES), ODD)
def test_what_is_read_can_be_used_and_written_again(place: tuple[str, str], value: Any) -> None:
    store = MemoryObjectStore()
    generation = store.write("attempts/t.json", json.dumps(damaged(*place, value)).encode()).generation
    read, _ = read_attempts(store, "t")
    assert len(read.errors) <= ERRORS_KEPT
    for start in (*read.lost, *([read.in_progress] if read.in_progress else [])):
        assert isinstance(start.execution, str)
        assert isinstance(start.index, int)
        assert isinstance(start.retry, int)
    write_attempts(store, "t", read, generation)


@pytest.mark.parametrize(
    ("place", "value"), [(("record", "attempt_count"), float("inf")), (("in_progress", "execution"), 1), (("errors", "reason"), "\ud800")]
)
def test_a_task_with_a_damaged_record_is_done(place: tuple[str, str], value: Any) -> None:
    plant = Plant()
    plant.registry.task("write")(write)
    plant.store.write("attempts/task-0.json", json.dumps(damaged(*place, value)).encode())
    assert read_attempts(plant.store, "task-0")[0] == NONE
    plant.subscription.max_delivery_attempts = None  # without a count of deliveries every record is read
    plant.submit(1)
    assert plant.worker(BACKLOG=1).run() is ExitReason.SHARE_DONE
    assert plant.final() == {"task-0": "succeeded"}
