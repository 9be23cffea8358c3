"""The rules that a lane's job must keep, over the job as it is, whether it is deployed or stands in a manifest. Pure.

`fanout apply` refuses a manifest that breaks one, a tick launches nothing for such a lane, doctor and lanes say it: each rule in one
sentence with what to change. What Cloud Run itself refuses in a job is not among them (see `fields`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from batch.formats.kinds import CLOUD_EVENT, ENVELOPE, NOTIFICATION, RAW, untyped
from batch.prices import LIST_PERCENT
from batch.settings import WorkerSettings
from controller.lanes.annotations import MAX_MESSAGES, SCHEDULE
from controller.lanes.worker_rules import DEAD_LETTERS_WORKER, WORKER, process_problems, written
from controller.model.execution import count_in
from controller.model.lane import DELAYED_START_WITHIN_S, START_WITHIN_S, Policy
from controller.model.wording import spoken
from controller.observe.containers import DEAD_LETTERS
from controller.observe.jobs import LANE_LABEL, JobInfo

PARALLELISM = "spec.template.spec.parallelism"
RETRIES = 1
"""What a job's maxRetries should be: other numbers are advised against, and work."""
DAY_S = 86_400.0
FORMS = {"ACCEPT": "fanout/accept", "DEFAULT_TYPE": "fanout/default-type", "EVENT_TYPES": "fanout/event-types"}
"""Settings of a worker that repeat an annotation as it stands there."""


@dataclass(frozen=True, slots=True)
class Home:
    """Where the controller works; a lane's workers must work there too. Empty: not known, and not checked. Jobs are looked for in `region`
    alone. Workers of a delayed job cost `delayed_price_percent` of the list price there."""

    project: str = ""
    bucket: str = ""
    region: str = ""
    delayed_price_percent: float = LIST_PERCENT


NOWHERE = Home()


def problems_of(job: JobInfo, policy: Policy | None, home: Home = NOWHERE) -> tuple[str, ...]:
    """Every rule that the job of a lane breaks. `policy` is what its annotations say; None where they cannot be read."""
    agreement = {**dict(_agreement(job, home)), **dict(_forms(job, policy) if policy else ())}
    told = {*agreement}
    if policy and (untyped(policy.accept, policy.default_type) or told & {*FORMS}):
        told.add("DEFAULT_TYPE")  # a worker that lacks it follows from the problem of its lane
    worker = process_problems(WORKER, job.worker, job.task_timeout_s, told)
    found = (*_shape(job), *worker, *agreement.values(), *(_relations(job, policy) if policy else ()))
    return tuple(f"job {job.name}: {problem}" for problem in found)


def dead_letters_problems(job: JobInfo, home: Home = NOWHERE) -> tuple[str, ...]:
    """Every rule that the job `dead-letters` breaks; none for a job that is another."""
    if job.name != DEAD_LETTERS and DEAD_LETTERS not in job.worker.arguments:
        return ()
    agreement = dict(_differing(job, _of_home(home)))
    worker = process_problems(DEAD_LETTERS_WORKER, job.worker, job.task_timeout_s, agreement)
    return tuple(f"job {job.name}: {one}" for one in (*worker, *agreement.values()))


def retries_advice(max_retries: int | None) -> str:
    """Why another number of retries than 1 is unwise; empty for 1. None: the job does not say it."""
    if max_retries == RETRIES:
        return ""
    if max_retries == 0:
        return "maxRetries is 0: a worker that is killed is not replaced; 1 is recommended"
    said = "maxRetries is not set, and Cloud Run takes 3" if max_retries is None else f"maxRetries is {max_retries}"
    return f"{said}: retries of a worker that cannot work are paid for; 1 is recommended"


def _shape(job: JobInfo) -> Iterator[str]:
    if job.parallelism:
        why = "it cannot be changed at a launch, and Cloud Run refuses fewer workers than it"
        yield f"{PARALLELISM}={job.parallelism}: must be 0 or absent; {why}"
    names = [one.name for one in job.containers]
    if len(names) > 1:
        if "" in names or len({*names}) < len(names):
            yield "of several containers each needs a name of its own: a launch names the worker's"
        workers = [one.name or f"{at}" for at, one in enumerate(job.containers) if one.runs_worker]
        if len(workers) > 1:
            yield f"containers {', '.join(workers)} all run a worker: one may, with CONCURRENCY for more tasks at a time"


def _agreement(job: JobInfo, home: Home) -> Iterator[tuple[str, str]]:
    """Settings of the worker that repeat what the lane, or the controller, says; each with what is wrong."""
    labels, annotations = job.labels, job.annotations
    repeated = (
        ("SUBSCRIPTION_NAME", "the annotation fanout/subscription", annotations.get("fanout/subscription", ""), True),
        ("TOPIC_NAME", "the annotation fanout/topic", annotations.get("fanout/topic", ""), False),
        ("LANE", f"the label {LANE_LABEL}", labels.get(LANE_LABEL, ""), labels.get(LANE_LABEL, "") != job.name),
        *_of_home(home),
    )
    return _differing(job, repeated)


_Repeated = tuple[str, str, str, bool]
"""A setting, what it repeats and the value of that, and whether the setting is needed."""


def _of_home(home: Home) -> tuple[_Repeated, ...]:
    return (
        ("BUCKET_NAME", "the controller's bucket", home.bucket, True),
        ("GOOGLE_CLOUD_PROJECT", "the controller's project", home.project, False),
    )


def _differing(job: JobInfo, repeated: Iterable[_Repeated]) -> Iterator[tuple[str, str]]:
    for name, what, meant, is_needed in repeated:
        # One that is empty counts as absent.
        if meant and name not in job.worker.filled and (job.env.get(name) or ("" if is_needed else meant)) != meant:
            yield name, _differs(job, name, f"{what}={meant!r}")


def _forms(job: JobInfo, policy: Policy) -> Iterator[tuple[str, str]]:
    """The same for the forms of messages, compared by what they mean: an absent one is the default."""
    defaults = Policy()
    for name, annotation in FORMS.items():
        field, given = name.lower(), job.env.get(name, "")
        if name not in job.worker.filled and _parts(given or getattr(defaults, field)) != _parts(getattr(policy, field)):
            stands = job.annotations.get(annotation, "")
            yield name, _differs(job, name, f"the annotation {annotation}" + (f"={stands!r}" if stands else ", which is not set"))


def _differs(job: JobInfo, name: str, what: str) -> str:
    given = f"={job.env[name]!r} differs from" if job.env.get(name) else " is not set, and must be as"
    return f"{written(name, job.worker)}{given} {what}: make them equal"


def _parts(found: str | tuple[str, ...]) -> set[str]:
    parts = found.split(",") if isinstance(found, str) else found
    return {part.strip() for part in parts if part.strip()}


def _relations(job: JobInfo, policy: Policy) -> Iterator[str]:
    if problem := in_flight_problem(policy, concurrency_of(job.env)):
        yield problem
    most, own = policy.max_messages, count_in(job.env, "MAX_MESSAGES")
    if most is not None and own and own > most:
        yield f"{written('MAX_MESSAGES', job.worker)}={own} is above {MAX_MESSAGES}={most}, and has no effect in launches: make them equal"
    if lacking := untyped(policy.accept, policy.default_type):
        yield f"fanout/accept has {' and '.join(lacking)}, which name no task type: set fanout/default-type"
    if "fanout/event-types" in job.annotations and NOTIFICATION not in policy.accept:
        yield f"fanout/event-types does nothing while fanout/accept has no {NOTIFICATION}: add it, or leave the types out"
    if policy.default_type and not {RAW, NOTIFICATION, CLOUD_EVENT} & {*policy.accept}:
        yield f"fanout/default-type does nothing while fanout/accept has neither {RAW}, {NOTIFICATION} nor {CLOUD_EVENT}: add one"
    if policy.schedules and ENVELOPE not in policy.accept:
        named = f"{SCHEDULE}{policy.schedules[0].name}"
        yield f"{named} publishes an envelope, and fanout/accept has none: add {ENVELOPE}, or move the schedule to another lane"
    yield from _lateness(job, policy)


def _lateness(job: JobInfo, policy: Policy) -> Iterator[str]:
    if policy.start_within_s is not None and policy.start_within_s < START_WITHIN_S:
        least = "an execution that starts later would be launched twice"
        yield f"fanout/start-within={job.annotations.get('fanout/start-within', '')}: must be at least 10m; {least}"
    if not job.is_delayed:
        return
    if job.task_timeout_s > DELAYED_START_WITHIN_S:
        yield f"timeoutSeconds={job.task_timeout_s:g}: with delayExecution it must be at most {DELAYED_START_WITHIN_S:g}, 12 hours"
    if policy.drain_within_s < DAY_S:
        late = "with delayExecution a worker may start 12 hours late"
        yield f"fanout/drain-within is {spoken(policy.drain_within_s)}: {late}; set it to 1d or more, or take delayExecution away"


def in_flight_problem(policy: Policy, concurrency: int) -> str:
    """Why a lane could never launch a worker; empty if it can."""
    if policy.max_in_flight is None or policy.max_in_flight >= concurrency:
        return ""
    few = f"fanout/max-in-flight={policy.max_in_flight} is less than a single worker runs at a time"
    return f"{few}: lower its CONCURRENCY={concurrency}"


def concurrency_of(env: Mapping[str, str]) -> int:
    """Tasks that a worker with this environment runs at a time; the default where the value is none that a worker would accept."""
    return count_in(env, "CONCURRENCY") or WorkerSettings.concurrency
