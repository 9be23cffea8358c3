"""What a decision says to a person: the whole text of a realistic one, so that a change of it is seen."""

from __future__ import annotations

from dataclasses import replace

from controller.act.intents import Intent, PartState, parts_for
from controller.decide.caps import NO_LIMITS, Limits
from controller.decide.decision import Decision, from_json, to_json
from controller.decide.explanation import explained_decision
from controller.decide.ledger import Entry, Ledger
from controller.decide.policy import decision_for
from controller.decide.probe import Blind
from controller.decide.sizing import Rates
from controller.model.reading import Idle, Unknown, Value
from controller.tick.results import TickResult, explained
from tests.controller.fakes import lane

NOW = 1_000_000.0
LEDGER = Ledger(
    NOW - 120,
    (
        Entry("default-k7x2p", "20260131T115500000-5e11aa02.0", True, 10, 7, 870, pending_worker_count=0, recent_count=45),
        Entry("default-p9w4d", "", False, 4, 0, 400, deferred_count=150, outstanding_count=50),
    ),
    guard_count=30,
)
LANE = lane(max_messages=4000, min_workers=2, max_workers=60, max_in_flight=480, rate=400.0, drain_within_s=600.0, task_timeout_s=3600.0)
RATES = Rates(1.2, 11.0, 6.5, quick_message_s=0.6, basis="80 % quantile of 24 workers")


def realistic() -> Decision:
    limits = Limits(cpu_quota_vcpu=200.0, live_vcpu=64.0, run_calls_left=58, budget_workers=12)
    reading = Value(42_000, NOW - 120, 250.0)
    return decision_for(LANE, reading, LEDGER, now=NOW, rates=RATES, accepted_since_sample_count=500, limits=limits)


GOLDEN = """\
lane default: launch: 12 workers for 41000 of 41000 unassigned messages; budget decides: at most 12, where 14 were wanted
  reading: 42000 undelivered, the oldest 6 min 10 s old by now, sampled 2 min ago
  accepted: 500 messages published since the sample, which the gauge does not show yet
  ledger: 1500 of it assigned already, 30 of it perhaps: the gauge may count what was acknowledged in the 30 s before the sample
    default-k7x2p (7 of 10 workers alive): 870 by its workers, 45 acknowledged just before the sample
    default-p9w4d (ended, 4 workers): 400 by its workers, 150 deferred, 50 outstanding at killed workers
  unassigned: 42000 + 500 accepted - 1500 assigned = 41000
  learned: 1.2 s a message in a thread, 11 s until a worker pulls, 6.5 s from the last to its end (80 % quantile of 24 workers)
  workers: deadline: a thread does 390 messages of 1.2 s in the 8 min left after 11 s of start-up; ceil(41000 / (8 threads x 390)) = 14
    task-timeout: at least 3 (a worker does 19200 messages within its timeout): stays 14
    max-messages: at least 11 (4000 messages a worker): stays 14
    min-workers: at least 2: stays 14
    messages: at most 41000 (no more workers than messages): stays 14
    max-workers: at most 53 (60 - 7 alive): stays 14
    max-in-flight: at most 53 (480 messages at a time / 8 threads = 60, 60 - 7 alive): stays 14
    rate: at most 23 (400 a second / 13.3 a worker = 30, 30 - 7 alive): stays 14
    cpu-quota: at most 136 (200 vCPU - 64 in use, 1 a worker): stays 14
    run-calls: at most 580000 (58 run calls left this minute, 10000 workers each): stays 14
    budget: at most 12 (this lane's part of the budget of workers): 14 -> 12
  prediction: these 41000 are done 8 min 45 s after the launch (11 s + 428 x 1.2 s in a thread), 45 s late, for $0.1208 at list price
  launched default-00007"""


def test_a_realistic_decision_can_be_followed_by_hand() -> None:
    decision = replace(realistic(), decision_id="d")
    (part,) = parts_for("d", decision.workers, decision.backlog)
    launched = Intent("d", NOW, (replace(part, state=PartState.LAUNCHED, execution="default-00007"),))
    assert "\n".join(explained(TickResult(decision, launched))) == GOLDEN


def test_a_decision_of_the_history_reads_the_same() -> None:
    stored = explained_decision(from_json(to_json(realistic())))
    assert stored == GOLDEN.splitlines()[:-1]


def text(decision: Decision) -> str:
    return "\n".join(explained_decision(decision))


def test_what_is_not_launched_says_why() -> None:
    full = decision_for(lane(rate=20.0), Value(4000, NOW - 60), LEDGER, now=NOW, rates=RATES)
    assert text(full).startswith(
        "lane default: nothing to do: 2500 messages wait, but rate leaves no worker: 20 a second / 13.3 a worker = 1, 1 - 7 alive\n"
    )
    assert "rate: at most 0 (20 a second / 13.3 a worker = 1, 1 - 7 alive): 25 -> 0" in text(full)
    unknown = decision_for(lane(), Unknown("503"), None, now=NOW, blind=Blind(NOW - 240))
    assert text(unknown) == (
        "lane default: on hold: the backlog is unknown: 503; for 4 min now, one worker looks in 6 min\n  reading: unknown (503)"
    )


def test_the_first_launch_of_a_lane_says_that_nothing_is_learned() -> None:
    first = text(decision_for(lane(), Idle(), Ledger(NOW), now=NOW, accepted_since_sample_count=250))
    assert "accepted: 250 messages published lately, which the gauge does not show yet" in first
    assert (
        "workers: deadline: nothing is learned yet of how long a message takes, so by share: ceil(250 unassigned / 100 a worker) = 3"
        in first
    )
    assert "prediction: none yet" in first


def test_an_execution_that_never_started_is_told_of() -> None:
    stuck = Ledger(NOW, (Entry("default-k7x2p", "", True, 4, 4, 200, note="no worker has started in 5 min", pending_worker_count=4),))
    assert "default-k7x2p (no worker has started in 5 min): 200 by its workers" in text(
        decision_for(lane(), Value(200, NOW), stuck, now=NOW)
    )


def test_workers_that_have_yet_to_start_are_told_of() -> None:
    waiting = Ledger(NOW, (Entry("default-k7x2p", "", True, 4, 4, 200, pending_worker_count=3),))
    one = text(decision_for(lane(), Value(200, NOW), waiting, now=NOW))
    assert "default-k7x2p (4 of 4 workers alive, 3 yet to start): 200 by its workers" in one


def predicted(age_s: float, oldest_s: float | None = None, rates: Rates = RATES, **of: float) -> str:
    reading = Value(4000, NOW - age_s, oldest_s)
    decision = decision_for(lane(max_messages=4000, **of), reading, Ledger(NOW), now=NOW, rates=rates)
    return next(line for line in text(decision).splitlines() if line.startswith("  prediction: "))


def test_whether_messages_are_late_counts_from_when_they_came() -> None:
    """Half of drain-within is planned for where too little of it is left, so that a launch may keep its plan and its messages are late."""
    quick = Rates(0.1, 5.0)
    assert ", in time, for $" in predicted(60, 240, quick, drain_within_s=600.0)
    assert ", already 1 min 5 s late, 1 min 50 s late by then, for $" in predicted(60, 605, Rates(0.08, 5.0), drain_within_s=600.0)
    late = predicted(60, 535, Rates(0.08, 5.0), drain_within_s=600.0)
    assert ", 40 s late, for $" in late
    kept = to_json(realistic())
    assert ", 45 s late, for $" in text(from_json({name: value for name, value in kept.items() if name != "due_in_s"}))


def test_messages_that_are_not_equally_long_are_seen_in_the_numbers() -> None:
    uneven = replace(RATES, uneven_s=20.0)
    decision = decision_for(lane(max_messages=4000, drain_within_s=600.0), Value(4000, NOW - 60), Ledger(NOW), now=NOW, rates=uneven)
    told = text(decision)
    assert "11 s until a worker pulls, 6.5 s from the last to its end, 20 s in which its threads end apart (80 % quantile" in told
    assert "left after 11 s of start-up, 20 s kept for the longest; ceil(4000 / " in told
    assert "done 5 min 31 s after the launch (11 s + 250 x 1.2 s in a thread + 20 s)" in told


def test_a_plan_for_messages_that_are_late_already_says_what_it_plans_for() -> None:
    decision = decision_for(lane(drain_within_s=600.0), Value(4000, NOW - 60, 605.0), Ledger(NOW), now=NOW, rates=Rates(0.08, 5.0))
    assert "in the 5 min left (half of drain-within: these messages have waited 11 min 5 s of its 10 min)" in decision.formula


def test_a_launch_that_only_the_guard_keeps_back_says_so() -> None:
    ended = Ledger(NOW, (Entry("default-k7x2p", "d.0", False, 1, 0, 0, recent_count=13),), guard_count=1)
    one = decision_for(lane(), Value(1, NOW), ended, now=NOW).reason
    assert one == (
        "the only message is assigned already, counting 1 that may have been acknowledged 30 s before the sample; a later one tells"
    )
    sure = Ledger(NOW, (Entry("default-k7x2p", "d.0", True, 1, 1, 13, recent_count=3),))
    assert decision_for(lane(), Value(10, NOW), sure, now=NOW).reason == "all 10 messages are assigned already"


def test_the_cap_that_decides_is_named_first() -> None:
    def reason(count: int, limits: Limits = NO_LIMITS, **of: float) -> str:
        return decision_for(lane(**of), Value(count, NOW - 60), LEDGER, now=NOW, rates=Rates(0.001), limits=limits).reason

    assert reason(2500).endswith("for 1000 of 1000 unassigned messages; max-messages decides: at least 10, where 1 was wanted")
    assert reason(1510, max_workers=2000).endswith("1 worker for 10 of 10 unassigned messages")
    two = reason(2500, Limits(budget_workers=3), max_workers=11)
    assert two.endswith("; budget decides: at most 3, where 1 was wanted")
    none = reason(2500, Limits(budget_workers=0), max_workers=7, max_in_flight=28)
    assert none.startswith("1000 messages wait, but 7 workers are alive and the lane's limit is 7; ")
    assert none.endswith("; nor would max-in-flight, budget leave a worker")
