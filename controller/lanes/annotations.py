"""Lanes, read from the labels and annotations of Cloud Run Jobs. The manifest is the only place that an operator edits.

A job with the label `fanout-lane` is a lane. All its problems are reported at once; a lane with a problem is never ticked on a guess.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from batch.dead.rules import ANY, NO_RULES, SLOWEST_RATE
from batch.model.errors import SettingsError
from batch.model.names import RESERVED_LANES
from batch.settings import WorkerSettings, whole
from controller.model.execution import count_in
from controller.model.lane import Lane, Policy, Strategy
from controller.model.schedule import FORM, schedule_of
from controller.model.wording import duration
from controller.observe.jobs import LANE_LABEL, JobInfo

PREFIX = "fanout/"
SCHEDULE = "fanout/schedule-"
_RESOURCE = re.compile(r"[A-Za-z][A-Za-z0-9._~%+-]{2,254}")
_ERROR = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.]{0,254}")
_LANE = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class LaneRefused:
    """A job with the label of a lane that cannot be one, and why."""

    job: str
    problems: tuple[str, ...]


def resource_name(text: str) -> str:
    """A Pub/Sub name. Raises ValueError with the rule."""
    if not _RESOURCE.fullmatch(text) or text.startswith("goog"):
        raise ValueError("the short name of a Pub/Sub resource: a letter, then 2 to 254 letters, digits or ._~%+-")
    return text


def positive(text: str) -> float:
    """A number above 0. Raises ValueError with the rule."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise ValueError("a number above 0")
    return value


def lane_name(text: str) -> str:
    """Raises ValueError with the rule."""
    if not _LANE.fullmatch(text):
        raise ValueError("the name of a lane")
    return text


def replay_rate(text: str) -> float:
    """Raises ValueError with the rule."""
    if positive(text) < SLOWEST_RATE:
        raise ValueError(f"a number of at least {SLOWEST_RATE}: an execution of the dead-letters job must come to its first message")
    return float(text)


def flag(text: str) -> bool:
    """`true` or `false`. Raises ValueError with the rule."""
    if text not in ("true", "false"):
        raise ValueError('"true" or "false"')
    return text == "true"


def strategy(text: str) -> Strategy:
    """A strategy by its name. Raises ValueError with all names."""
    try:
        return Strategy(text)
    except ValueError:
        near = difflib.get_close_matches(text, list(Strategy), n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"one of {', '.join(Strategy)}{hint}") from None


def errors(text: str) -> tuple[str, ...]:
    """Types of errors and fingerprints. Raises ValueError with the rule."""
    found = tuple(part.strip() for part in text.split(","))
    if not all(part == ANY or _ERROR.fullmatch(part) for part in found):
        raise ValueError('types of errors, such as TimeoutError, or fingerprints, separated by commas; or "*" for all')
    return found


@dataclass(frozen=True, slots=True)
class Annotation:
    """How one annotation is read. `field` is the name in Policy, or in Lane where `required`."""

    field: str
    parse: Callable[[str], Any]
    help_text: str
    required: bool = False


ANNOTATIONS: Mapping[str, Annotation] = {
    "fanout/subscription": Annotation("subscription", resource_name, "the subscription to drain", required=True),
    "fanout/topic": Annotation("topic", resource_name, "the topic that clients' tasks are published to", required=True),
    "fanout/max-messages": Annotation("share", whole(1), "the most messages that one worker takes"),
    "fanout/min-workers": Annotation("min_workers", whole(0), "the fewest workers of a launch"),
    "fanout/max-workers": Annotation("max_workers", whole(1), "the most workers alive at a time"),
    "fanout/drain-within": Annotation("drain_within_s", duration, "how soon a backlog is to be drained"),
    "fanout/weight": Annotation("weight", positive, "the lane's part where lanes share a budget"),
    "fanout/paused": Annotation("paused", flag, "launch nothing; what runs goes on"),
    "fanout/strategy": Annotation(
        "strategy",
        strategy,
        "how a launch is sized: `deadline` (the cheapest number that drains in time), `share` (one worker for each share), `fixed`, or "
        "KEDA's `keda-default`, `keda-accurate`, `keda-eager`",
    ),
    "fanout/fixed-workers": Annotation("fixed_workers", whole(0), "workers alive at a time while there is work, with the strategy `fixed`"),
    "fanout/max-in-flight": Annotation("max_in_flight", whole(1), "the most messages in work at a time, over all workers"),
    "fanout/rate": Annotation("rate", positive, "messages a second that the handlers' dependencies can take, over all workers"),
    "fanout/min-backlog": Annotation(
        "min_backlog", whole(0), "fewer messages wait for more, to fill the minute that a worker is billed for"
    ),
    "fanout/max-wait": Annotation("max_wait_s", duration, "how long they wait at most"),
    "fanout/floor": Annotation("floor", whole(0), "workers kept for the lane where lanes share a budget"),
    "fanout/probe-after": Annotation("probe_after_s", duration, "how long the backlog may be unknown before one worker looks"),
    "fanout/replay-errors": Annotation(
        "replay_errors",
        errors,
        "which dead letters the `dead-letters` job replays by itself: types of errors or fingerprints, separated by commas, or `*`; none "
        "by default",
    ),
    "fanout/replay-after": Annotation(
        "replay_after_s", duration, "how long such a letter waits first, and up to as much again; twice as long after each replay"
    ),
    "fanout/replay-times": Annotation("replay_times", whole(1), "a task that was replayed so often waits for a person"),
    "fanout/replay-rate": Annotation("replay_rate", replay_rate, "replays a second"),
    "fanout/callbacks": Annotation("callbacks", lane_name, "the lane whose workers fire the ends of this lane's submissions"),
    f"{SCHEDULE}<name>": Annotation("schedules", str, f"a task that is submitted again and again: {FORM}"),
}


def read_policy(path: str, labels: Mapping[str, str], annotations: Mapping[str, str]) -> tuple[str, str, str, Policy]:
    """Name, subscription, topic and policy of a lane. Raises SettingsError with all problems, each beginning with `path`."""
    problems: list[str] = []
    name = labels.get(LANE_LABEL, "")
    if not _LANE.fullmatch(name):
        problems.append(f"{path}.labels[{LANE_LABEL}]={name!r}: the lane's name, lower-case letters, digits and hyphens, at most 63")
    if name in RESERVED_LANES:
        problems.append(f"{path}.labels[{LANE_LABEL}]={name!r}: no lane can be called {', '.join(sorted(RESERVED_LANES))}")
    values: dict[str, Any] = {}
    schedules = sorted(key for key in annotations if key.startswith(SCHEDULE))
    for key in schedules:
        try:
            values["schedules"] = (*values.get("schedules", ()), schedule_of(key.removeprefix(SCHEDULE), annotations[key]))
        except ValueError as error:
            problems.append(_wrong(path, key, annotations[key], error))
    for key, rule in ANNOTATIONS.items():
        if key in annotations and key not in schedules:
            try:
                values[rule.field] = rule.parse(annotations[key])
            except ValueError as error:
                problems.append(_wrong(path, key, annotations[key], error))
        elif rule.required:
            problems.append(f"{path}.annotations[{key}] is not set: {rule.help_text}")
    problems += [_unknown(path, key) for key in annotations if key.startswith(PREFIX) and key not in (*ANNOTATIONS, *schedules)]
    topic, subscription = str(values.pop("topic", "")), str(values.pop("subscription", ""))
    policy = Policy(**values)
    problems += _relation_problems(path, policy)
    if problems:
        raise SettingsError(problems)
    return name, subscription, topic, policy


def _relation_problems(path: str, policy: Policy) -> list[str]:
    most = policy.max_workers
    small = {"min-workers": policy.min_workers, "fixed-workers": policy.fixed_workers, "floor": policy.floor}
    problems = [
        f"{path}: fanout/{name}={value} must not be above fanout/max-workers={most}" for name, value in small.items() if value > most
    ]
    if policy.strategy is Strategy.FIXED and not policy.fixed_workers:
        problems.append(f"{path}: fanout/strategy=fixed needs fanout/fixed-workers: how many")
    if policy.rules != NO_RULES and not policy.replay_errors:
        problems.append(f"{path}: fanout/replay-after, -times and -rate do nothing without fanout/replay-errors: which errors")
    return problems


def _wrong(path: str, key: str, value: str, error: ValueError) -> str:
    return f"{path}.annotations[{key}]={value[:200]!r}: {error}"


def _unknown(path: str, key: str) -> str:
    near = difflib.get_close_matches(key, ANNOTATIONS, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(ANNOTATIONS)}"
    return f"{path}.annotations[{key}] is not an annotation of Fanout; {hint}"


def lane_of(job: JobInfo) -> Lane:
    """The lane of a job. Raises SettingsError with all problems."""
    path = f"job {job.name}: metadata"
    name, subscription, topic, policy = read_policy(path, job.labels, job.annotations)
    concurrency = concurrency_of(job.env)
    if problem := in_flight_problem(path, policy, concurrency):
        raise SettingsError([problem])
    return Lane(
        name=name,
        job=job.full_name,
        subscription=subscription,
        topic=topic,
        policy=policy,
        task_timeout_s=job.task_timeout_s,
        parallelism=job.parallelism,
        max_retries=job.max_retries,
        concurrency=concurrency,
        vcpu=job.vcpu,
        memory_gib=job.memory_gib,
    )


def in_flight_problem(path: str, policy: Policy, concurrency: int) -> str:
    """Why a lane could never launch a worker; empty if it can."""
    if policy.max_in_flight is None or policy.max_in_flight >= concurrency:
        return ""
    few = f"{path}: fanout/max-in-flight={policy.max_in_flight} is less than a single worker runs at a time"
    return f"{few}: lower its CONCURRENCY={concurrency}"


def concurrency_of(env: Mapping[str, str]) -> int:
    """Tasks that a worker with this environment runs at a time. A value that no worker would accept counts as the default: the worker
    itself reports it."""
    return count_in(env, "CONCURRENCY") or WorkerSettings.concurrency


def lanes_of(jobs: Sequence[JobInfo]) -> tuple[list[Lane], list[LaneRefused]]:
    """All lanes, sorted by name, and the jobs that cannot be one. Two jobs of one lane, or of one subscription, are both refused: each
    would count the other's work as its own."""
    lanes: list[Lane] = []
    refused: list[LaneRefused] = []
    for job in jobs:
        try:
            lanes.append(lane_of(job))
        except SettingsError as error:
            refused.append(LaneRefused(job.name, error.problems))
    clashes = {lane.job: _clashes(lane, lanes) for lane in lanes}
    refused += [LaneRefused(job.rsplit("/", 1)[-1], problems) for job, problems in clashes.items() if problems]
    return sorted((lane for lane in lanes if not clashes[lane.job]), key=lambda lane: lane.name), refused


def _clashes(lane: Lane, lanes: Sequence[Lane]) -> tuple[str, ...]:
    others = [other for other in lanes if other.job != lane.job]
    same_name = [
        f"lane {lane.name} is also claimed by {other.job}: give each job its own lane" for other in others if other.name == lane.name
    ]
    same_source = [
        f"subscription {lane.subscription} is also drained by {other.job}: give each lane its own"
        for other in others
        if other.subscription == lane.subscription
    ]
    return tuple(same_name + same_source)


def chosen_lanes(lanes: Sequence[Lane], refused: Sequence[LaneRefused], names: Sequence[str]) -> list[Lane]:
    """The lanes with these names, or all. Raises SettingsError with every name that is not a lane's."""
    known = {lane.name: lane for lane in lanes}
    problems = [_no_lane(name, list(known), refused) for name in names if name not in known]
    if problems:
        raise SettingsError(problems)
    return [known[name] for name in dict.fromkeys(names)] if names else list(lanes)


def lanes_named(jobs: Sequence[JobInfo], names: Sequence[str]) -> list[Lane]:
    """The lanes of these jobs that have these names, or all. Raises SettingsError with every name that is not a lane's."""
    lanes, refused = lanes_of(jobs)
    return chosen_lanes(lanes, refused, names)


def _no_lane(name: str, known: Sequence[str], refused: Sequence[LaneRefused]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"lanes are: {', '.join(known) or 'none'}"
    wrong = "".join(f"; job {one.job} is refused: {'; '.join(one.problems)}" for one in refused)
    return f"there is no lane {name!r}; {hint}{wrong}"
