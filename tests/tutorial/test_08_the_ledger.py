"""The backlog's gauge is minutes late and still counts what workers hold. The ledger counts what is assigned, so that it is not launched
for twice."""

from __future__ import annotations

from batch.model.progress import Progress
from controller.decide.decision import Kind
from controller.decide.ledger import ledger_of
from controller.decide.policy import decision_for
from controller.model.execution import ExecutionInfo, Worked
from controller.model.reading import Value
from tests.tutorial.test_07_a_decision import LANE, NOW


def test_what_a_worker_still_has_to_do_is_not_assigned_again() -> None:
    execution = ExecutionInfo(f"{LANE.job}/executions/default-abcde", 1, NOW - 300, running_count=1, env={"BACKLOG": "100"})
    half_done = Progress(100, NOW - 290, NOW - 5, taken=60, acked=50, marks=((int(NOW) - 120, 50),))
    ledger = ledger_of(NOW - 60, [Worked(execution, {0: [half_done]})], now=NOW)
    assert ledger.total_count == 50  # its share of 100, less the 50 that the gauge has seen acknowledged

    covered = decision_for(LANE, Value(50, sampled_at=NOW - 60), ledger, now=NOW)
    assert covered.kind is Kind.NOTHING_TO_DO
    more = decision_for(LANE, Value(250, sampled_at=NOW - 60), ledger, now=NOW)
    assert (more.workers, more.backlog) == (2, 200)
