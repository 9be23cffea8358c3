"""An outcome is what became of a task. The proof compares the tasks that were submitted with the outcomes that workers wrote, by name."""

from __future__ import annotations

import random

from batch.client.proof import prove
from batch.client.submission import Submission
from batch.client.submit import NewTask
from batch.model.clock import SystemClock
from batch.model.names import outcome_object, writer_of
from batch.model.outcomes import Outcome, to_line
from batch.testing import MemoryBroker, MemoryObjectStore


def test_a_task_without_an_outcome_is_missing_by_name() -> None:
    store, topic = MemoryObjectStore(), MemoryBroker().topic("lane")
    submission = Submission(lane="default", topic=topic, store=store, clock=SystemClock(), rng=random.Random())
    submission.add([NewTask("hello", {"name": "Ada"}), NewTask("hello", {"name": "Grace"})])
    submission_id = submission.close().submission_id
    ada, grace = (message.attributes for _, message in topic.published)

    done = Outcome(ada["task_id"], "hello", "succeeded", "2026-01-31T03:10:00.000Z", execution="default-abcde", index=0)
    store.write(outcome_object(ada["shard"], 0.0, writer_of(done.execution, done.index, 0), 0), to_line(done))

    proof = prove(store, submission_id)
    assert (proof.submitted_count, proof.counts["succeeded"], proof.missing) == (2, 1, (grace["task_id"],))
    assert not proof.complete
