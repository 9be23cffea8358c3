"""The rules that a lane's job must keep, over the job as it is, whether it is deployed or stands in a manifest. Pure.

`fanout apply` refuses a manifest that breaks one, a tick launches nothing for such a lane, doctor and lanes say it: each rule in one
sentence with what to change.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from batch.prices import LIST_PERCENT
from batch.settings import WorkerSettings
from controller.lanes.annotations import MAX_MESSAGES
from controller.model.execution import count_in
from controller.model.lane import Policy
from controller.observe.jobs import LANE_LABEL, JobInfo


@dataclass(frozen=True, slots=True)
class Home:
    """Where the controller works; a lane's workers must work there too. Empty: not known, and not checked. Workers of a delayed job cost
    `delayed_price_percent` of the list price there."""

    project: str = ""
    bucket: str = ""
    delayed_price_percent: float = LIST_PERCENT


NOWHERE = Home()


def problems_of(job: JobInfo, policy: Policy, home: Home = NOWHERE) -> tuple[str, ...]:
    """Every rule that the job of a lane breaks. `policy` is what its annotations say."""
    where = f"job {job.name}"
    return tuple(f"{where}: {problem}" for problem in (*_shape(job), *_agreement(job, home), *_relations(job, policy)))


def _shape(job: JobInfo) -> Iterator[str]:
    if job.parallelism:
        why = "it cannot be changed at a launch, and Cloud Run refuses fewer workers than it"
        yield f"spec.template.spec.parallelism={job.parallelism}: must be 0 or absent; {why}"


def _agreement(job: JobInfo, home: Home) -> Iterator[str]:
    """Settings of the worker that repeat what the lane, or the controller, says."""
    worker, labels, annotations = job.worker, job.labels, job.annotations
    repeated = (
        ("SUBSCRIPTION_NAME", "the annotation fanout/subscription", annotations.get("fanout/subscription", ""), True),
        ("TOPIC_NAME", "the annotation fanout/topic", annotations.get("fanout/topic", ""), False),
        ("LANE", f"the label {LANE_LABEL}", labels.get(LANE_LABEL, ""), labels.get(LANE_LABEL, "") != job.name),
        ("GOOGLE_CLOUD_PROJECT", "the controller's project", home.project, False),
        ("BUCKET_NAME", "the controller's bucket", home.bucket, True),
    )
    for name, what, meant, is_needed in repeated:
        if meant and name not in worker.filled and worker.env.get(name, "" if is_needed else meant) != meant:
            given = f"={worker.env[name]!r} differs from" if name in worker.env else " is not set, and must be as"
            yield f"env {name}{given} {what}={meant!r}: make them equal"


def _relations(job: JobInfo, policy: Policy) -> Iterator[str]:
    if problem := in_flight_problem(policy, concurrency_of(job.env)):
        yield problem


def in_flight_problem(policy: Policy, concurrency: int) -> str:
    """Why a lane could never launch a worker; empty if it can."""
    if policy.max_in_flight is None or policy.max_in_flight >= concurrency:
        return ""
    few = f"fanout/max-in-flight={policy.max_in_flight} is less than a single worker runs at a time"
    return f"{few}: lower its CONCURRENCY={concurrency}"


def concurrency_of(env: Mapping[str, str]) -> int:
    """Tasks that a worker with this environment runs at a time; the default where the value is none that a worker would accept."""
    return count_in(env, "CONCURRENCY") or WorkerSettings.concurrency


def share_of(policy: Policy, job: JobInfo) -> int:
    """The most messages that one worker takes: what the annotation allows, and the job's own MAX_MESSAGES."""
    own = count_in(job.env, "MAX_MESSAGES")
    if not own:
        return policy.share
    return min(policy.share, own) if MAX_MESSAGES in job.annotations else own
