"""The controller decides from values, without a clock or a network: a lane, a reading of its backlog, and the ledger."""

from __future__ import annotations

from controller.decide.decision import Kind
from controller.decide.explanation import explained_decision
from controller.decide.ledger import Ledger
from controller.decide.policy import decision_for
from controller.model.lane import Lane, Policy
from controller.model.reading import Unknown, Value

NOW = 1_000_000.0
LANE = Lane("default", "projects/p/locations/r/jobs/default", "default", "default", Policy(max_messages=100, max_workers=20))
NOTHING_ASSIGNED = Ledger(since=NOW - 60)


def test_a_backlog_becomes_workers_and_the_decision_says_why() -> None:
    decision = decision_for(LANE, Value(1000, sampled_at=NOW - 30), NOTHING_ASSIGNED, now=NOW)
    assert (decision.kind, decision.workers, decision.backlog) == (Kind.LAUNCH, 10, 1000)
    assert explained_decision(decision)[0] == "lane default: launch: 10 workers for 1000 of 1000 unassigned messages"

    unknown = decision_for(LANE, Unknown("Cloud Monitoring does not answer"), NOTHING_ASSIGNED, now=NOW)
    assert (unknown.kind, unknown.workers) == (Kind.HOLD, 0)  # on hold, which is not "nothing to do": unknown is never zero
