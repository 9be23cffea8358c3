"""An error or a result whose class is odd is a failed attempt of its task, in every kind of handler; the worker goes on."""

from __future__ import annotations

import json
from typing import Any

import pytest

from batch.model.errors import MessageRefused
from batch.testing import run_handler
from tests.batch.worker.plant import SHARD, Plant
from tests.field import odd_classes
from tests.field.kinds import KINDS, ends, registry_of


@pytest.mark.parametrize("kind", KINDS)
def test_a_signal_that_cannot_be_asked_is_a_failed_attempt(kind: str) -> None:
    found, _ = ends("odd_classes", odd_classes.act, kind, list(odd_classes.CASES))
    for case, (_, (outcome, error_type, reason)) in odd_classes.CASES.items():
        assert found[case][:2] == (outcome, error_type), case
        assert found[case][2].startswith(reason), case


@pytest.mark.parametrize("kind", ["async", "group"])
def test_a_result_that_cannot_be_asked_is_a_failed_attempt(kind: str) -> None:
    found, _ = ends("odd_classes", odd_classes.act, kind, ["hidden", "good"])
    assert found["hidden"][:2] == odd_classes.HIDDEN[:2]
    assert found["hidden"][2].startswith(odd_classes.HIDDEN[2])
    assert found["good"][0] == "succeeded"


@pytest.mark.parametrize("kind", KINDS)
def test_a_validator_that_would_end_the_program_refuses_its_task_only(kind: str) -> None:
    plant = Plant(registry=odd_classes.PARSES)
    for command in (*odd_classes.ENDS, "good"):
        body = {"task_id": command, "task_type": f"parses-{kind}", "command": command}
        plant.publish(json.dumps(body).encode(), shard=SHARD)
    plant.worker(BACKLOG=len(odd_classes.ENDS) + 1, HANDLERS=odd_classes.__name__, PROCESSES=1).run()
    assert plant.final() == {**dict.fromkeys(odd_classes.ENDS, "dead"), "good": "succeeded"}
    reasons = {one.task_id: (one.error_type, one.reason) for one in plant.outcomes() if one.outcome == "dead"}
    assert reasons == {one: ("invalid", f"parses-{kind} task {one}: {one}: ") for one in odd_classes.ENDS}
    with pytest.raises(MessageRefused):
        run_handler(f"parses-{kind}", {"command": "SystemExit"}, registry=odd_classes.PARSES)


class Uncounted(list[Any]):
    def __len__(self) -> int:
        raise RuntimeError("how many?")


def test_a_list_of_results_that_cannot_be_counted_ends_no_worker() -> None:
    plant = Plant()
    plant.registry.task("write", retries=0, group=2)(lambda tasks, _ctxs: Uncounted(tasks))
    plant.submit(2)
    plant.worker(BACKLOG=2).run()
    assert plant.final() == {"task-0": "dead", "task-1": "dead"}
    assert {one.error_type for one in plant.outcomes()} == {"RuntimeError"}


@pytest.mark.parametrize("case", ["retry", "snooze", "wait", "unasked"])
def test_the_kit_raises_such_an_error_itself(case: str) -> None:
    with pytest.raises(BaseException) as caught:  # noqa: PT011 - each has a class of its own
        run_handler("plain", {"case": case}, registry=registry_of("odd_classes", odd_classes.act))
    assert type(caught.value).__name__ == odd_classes.CASES[case][1][1]
