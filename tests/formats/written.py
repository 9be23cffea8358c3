"""One of each message and stored object, as today's code writes it, by file name. `python -m tests.formats.written` adds those that
are not there yet: what is there is frozen.

Everything comes from the product's own functions with a fixed clock and rng. A Pub/Sub message is kept as JSON with its data as text.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from batch.client.submission import Submission
from batch.client.submit import NewTask, submit_one
from batch.model.attempts import AttemptError, Attempts, Marker
from batch.model.deadletters import dead_letter, referring
from batch.model.delayed import DelayedMessage, as_outgoing, to_object
from batch.model.delivery import Outgoing
from batch.model.names import (
    attempts_object,
    claim_object,
    damaged_object,
    dead_raw_object,
    delayed_object,
    history_end_object,
    history_object,
    input_object,
    lane_state_object,
    manifest_object,
    outcome_object,
    processed_object,
    progress_object,
    result_data_object,
    result_object,
    submission_object,
    writer_of,
)
from batch.model.outcomes import Outcome, to_line
from batch.model.progress import Progress, RunningTask, to_metadata
from batch.services.claims import claim
from batch.testing import ManualClock, MemoryBroker, MemoryObjectStore
from batch.worker.admission.records import write_attempts
from controller.act.history import write_history
from controller.act.intents import Intent, Part, PartState
from controller.act.state import Backoff, LaneState, Unwritten, save
from controller.decide import decision
from controller.decide.caps import Limits
from controller.decide.ledger import ledger_of
from controller.decide.policy import decision_for
from controller.decide.probe import Blind
from controller.decide.rates import Learned, Sample
from controller.decide.sizing import Rates
from controller.decide.unassigned.since import Group, Waiting
from controller.model.execution import ExecutionInfo, Worked
from controller.model.lane import Lane, Policy
from controller.model.reading import Value
from controller.observe.listing import Observed, Seen

FOLDER = Path(__file__).resolve().parent / "0.1"
LANE = "default"
TASK_ID = "8b0f7d3e-5c1a-4f0e-9d2b-6a7c8e9f0a1b"
EXECUTION = "default-x7k2p"
FIELDS = {"filename": "reports/2026.csv", "note": "größer"}
FAILURE = AttemptError(
    "2026-01-01T00:00:01.000000Z", "ValueError", "no such column", EXECUTION, 3, "Traceback (most recent call last): …", "1001"
)
MARKER = Marker(EXECUTION, 3, 1, "2026-01-01T00:00:02.000000Z")
FAILED = Attempts(1, 1_767_225_700.25, (FAILURE,))
IN_PROGRESS = Attempts(0, 0.0, (), MARKER, (Marker(EXECUTION, 2, 0, "2026-01-01T00:00:00.000000Z"),))
DELAYED = DelayedMessage(TASK_ID, "1001", 1_767_225_600.5, {"task_id": TASK_ID, "lane": LANE}, b'{"task_id":"\xc3\xa4"}\n\x00\xff')
PROGRESS = Progress(
    share=500,
    started_at=1_767_225_600.0,
    updated_at=1_767_225_660.5,
    taken=420,
    acked=400,
    returned=7,
    succeeded=390,
    superseded=2,
    cancelled=1,
    dead=4,
    handler_s=81.25,
    marks=((1_767_225_615, 120), (1_767_225_630, 260)),
    deferred=((1_767_226_200, 5),),
    exit_reason="out_of_time",
    handled=405,
    delayed=3,
    last_acked_at=1_767_225_659.75,
    longest_s=1.25,
    running=(RunningTask(TASK_ID, "file_processing", 1_767_225_601),),
    shards=("s-20260101-000000-2265b1f5", f"rolling-{LANE}-2026010100"),
)
JOB = f"projects/p/locations/us-central1/jobs/{LANE}"
PART = "20260101T000100000-9f2c04d1.0"
WORKED = Worked(ExecutionInfo(f"{JOB}/executions/{EXECUTION}", 4, 1_767_225_540.0, running_count=4), {3: (PROGRESS,)})
LANE_OF_TESTS = Lane(LANE, JOB, "default-sub", "default", Policy(max_messages=1000, max_wait_s=0.0))
DECISION = replace(
    decision_for(
        LANE_OF_TESTS,
        Value(5000, 1_767_225_600.0, 12.5),
        ledger_of(1_767_225_600.0, [WORKED], now=1_767_225_660.0),
        now=1_767_225_660.0,
        rates=Rates(0.25, 8.0, 1.5, 0.125, "80 % quantile of 4 workers"),
        accepted_since_sample_count=20,
        limits=Limits(cpu_quota_vcpu=100.0, live_vcpu=4.0, run_calls_left=59, budget_workers=40),
    ),
    decision_id=PART.removesuffix(".0"),
)
ENDED = Worked(
    ExecutionInfo(
        f"{JOB}/executions/{EXECUTION}",
        DECISION.workers,
        1_767_225_661.0,
        completed_at=1_767_225_760.0,
        succeeded_count=DECISION.workers,
        env={"DECISION_ID": PART},
    ),
    {3: (replace(PROGRESS, exit_reason="share_done", updated_at=1_767_225_750.0, last_acked_at=1_767_225_749.5),)},
)
STATE = LaneState(
    LANE,
    intents=(
        Intent(DECISION.decision_id, 1_767_225_660.0, (Part(PART, DECISION.workers, DECISION.backlog, PartState.LAUNCHED, EXECUTION),)),
    ),
    last=decision.last_of(DECISION),
    launches=(decision.open_launch(DECISION),),
    launched_at=1_767_225_300.0,
    unwritten=(Unwritten(history_object(LANE, DECISION.decided_at, DECISION.decision_id), decision.to_json(DECISION)),),
    observed=Observed("uid-1", 7, EXECUTION, 1, 1_767_225_600.0, 1_767_225_630.0, (Seen(f"{JOB}/executions/{EXECUTION}", 4, True),)),
    accepted=((1_767_225_650.0, 20),),
    pokes=("0123456789abcdef01234567",),
    backoff=Backoff(1_767_225_700.5, 2, "429 quota of job run requests"),
    waiting=Waiting((Group(1_767_225_640.0, 3),)),
    learned=Learned((Sample(0.25, 400, 8.0, 1.5), Sample(0.5, 10)), (EXECUTION,)),
    blind=Blind(1_767_225_000.0, 1, 1_767_225_300.0),
)


def all_written() -> dict[str, bytes]:
    """Content by file name."""
    return _messages() | _stored() | {"names.json": _json(names())}


def names() -> dict[str, str]:
    """One name of each kind of object."""
    delayed = delayed_object("default-sub", 1_767_226_400.2, TASK_ID, "1001")
    return {
        "input": input_object("reports/2026.csv"),
        "processed": processed_object("reports/2026.csv"),
        "result": result_object(TASK_ID),
        "result data": result_data_object(TASK_ID, 2, "csv"),
        "manifest": manifest_object("s-20260101-000000-0000002a", 0),
        "submission": submission_object("s-20260101-000000-0000002a"),
        "outcomes": outcome_object(f"rolling-{LANE}-2026010100", 0.0, writer_of(EXECUTION, 3, 1), 12),
        "progress": progress_object(EXECUTION, 3, 1),
        "attempts": attempts_object(TASK_ID),
        "raw dead letter": dead_raw_object(TASK_ID, "1001"),
        "delayed": delayed,
        "damaged": damaged_object(delayed),
        "claim": claim_object("d-0123456789ab"),
        "lane state": lane_state_object(LANE),
        "decision": history_object(LANE, DECISION.decided_at, DECISION.decision_id),
        "what became of a launch": history_end_object(LANE, DECISION.decided_at, DECISION.decision_id),
    }


def _messages() -> dict[str, bytes]:
    clock, rng = ManualClock(), random.Random(1)
    topic = MemoryBroker(clock).topic(LANE)
    submit_one(topic, NewTask("file_processing", FIELDS), lane=LANE, clock=clock, rng=rng)
    submit_one(topic, NewTask("file_processing", FIELDS, idempotency_key="order-7"), lane=LANE, clock=clock, rng=rng)
    single, keyed = (message for _, message in topic.published)
    facts = {"task_id": TASK_ID, "error_type": "unknown_task_type", "reason": "no handler is registered", "attempt_count": 0}
    letter = dead_letter(single.data, single.attributes, **facts, execution=EXECUTION, index=3)  # type: ignore[arg-type]
    return {
        "message-single.json": _message(single),
        "message-single-keyed.json": _message(keyed),
        "dead-letter.json": _message(letter),
        "dead-letter-raw.json": _message(referring(letter, dead_raw_object(TASK_ID, "1001"))),
        # As 0.1 wrote it first; count and record follow now.
        "message-delayed.json": _message(Outgoing(b"{}", {**single.attributes, "delayed": "1767226401 1767225600.500000 1001"})),
        "message-republished.json": _message(
            as_outgoing(DelayedMessage("a", "1001", 1_767_225_600.5, single.attributes, b"{}"), 1_767_226_401)
        ),
    }


def _stored() -> dict[str, bytes]:
    store, clock = MemoryObjectStore("bucket"), ManualClock()
    topic = MemoryBroker(clock).topic(LANE)
    submission = Submission(lane=LANE, topic=topic, store=store, clock=clock, rng=random.Random(1))
    submission.add(NewTask("file_processing", {"filename": f"{number}.csv"}) for number in range(2))
    submission.close()
    claim(store, "d-0123456789ab", EXECUTION)
    write_attempts(store, "failed", FAILED, 0)
    write_attempts(store, "in-progress", IN_PROGRESS, 0)
    save(store, STATE, 0, "token")
    write_history(
        store,
        replace(STATE, unwritten=()).with_decision(DECISION, DECISION.decision_id).compared([ENDED], LANE_OF_TESTS, DECISION.decided_at),
    )
    worker: dict[str, Any] = {"finished_at": "2026-01-01T00:00:05.000000Z", "execution": EXECUTION, "index": 3, "retry": 1}
    ended: list[dict[str, Any]] = [
        {"task_id": "a", "outcome": "succeeded", "duration_s": 0.25, "output": "processed/a.csv", "result": {"size": 3, "note": "größer"}},
        {"task_id": "b", "outcome": "superseded", "attempt_count": 2, "reason": "processed/b.csv belongs to the newer task c"},
        {"task_id": "c", "outcome": "cancelled", "attempt_count": 0},
        {"task_id": "d", "outcome": "dead", "attempt_count": 6, "error_type": "ValueError", "reason": "ValueError: no such column"},
    ]
    outcomes = [Outcome(task_type="file_processing", message_id=f"100{at}", **worker, **one) for at, one in enumerate(ended, 1)]
    return {
        "message-submission.json": _message(topic.published[0][1]),
        "manifest-000000.jsonl": store.read(manifest_object(submission.submission_id, 0)),
        "submission.json": store.read(submission_object(submission.submission_id)),
        "claim.json": store.read(claim_object("d-0123456789ab")),
        "attempts-failed.json": store.read(attempts_object("failed")),
        "attempts-in-progress.json": store.read(attempts_object("in-progress")),
        "outcomes.jsonl": b"".join(map(to_line, outcomes)),
        "progress-metadata.json": _json(to_metadata(PROGRESS)),
        "delayed.bin": to_object(DELAYED),
        "lane-state.json": store.read(lane_state_object(LANE)),
        "decision.json": store.read(history_object(LANE, DECISION.decided_at, DECISION.decision_id)),
        "decision-end.json": store.read(history_end_object(LANE, DECISION.decided_at, DECISION.decision_id)),
    }


def _message(message: Outgoing) -> bytes:
    return _json({"data": message.data.decode(), "attributes": dict(message.attributes)})


def _json(body: Mapping[str, object]) -> bytes:
    return json.dumps(body, indent=1, ensure_ascii=False).encode() + b"\n"


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, content in all_written().items():
        if not (FOLDER / name).exists():
            (FOLDER / name).write_bytes(content)
