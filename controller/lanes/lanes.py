"""The lanes among the deployed jobs: which there are, what each of them is, and which jobs cannot be one.

A lane whose annotations cannot be read is refused. One that can be read and whose job breaks a rule is a lane with problems: it is shown,
paused and asked about like any other, and nothing is launched for it.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from batch.model.errors import SettingsError
from batch.prices import LIST_PERCENT
from controller.lanes.annotations import read_policy
from controller.lanes.rules import NOWHERE, Home, concurrency_of, problems_of
from controller.model.lane import DELAYED_START_WITHIN_S, START_WITHIN_S, Lane
from controller.observe.jobs import JobInfo


@dataclass(frozen=True, slots=True)
class LaneRefused:
    """A job with the label of a lane that cannot be one, and why."""

    job: str
    problems: tuple[str, ...]


def lane_of(job: JobInfo, home: Home = NOWHERE) -> Lane:
    """The lane of a job. Raises SettingsError with all problems of its annotations."""
    name, subscription, topic, policy = read_policy(f"job {job.name}: metadata", job.labels, job.annotations)
    start_within_s = DELAYED_START_WITHIN_S if job.is_delayed else START_WITHIN_S
    return Lane(
        name=name,
        job=job.full_name,
        subscription=subscription,
        topic=topic,
        policy=policy,
        task_timeout_s=job.task_timeout_s,
        max_retries=job.max_retries,
        container=job.worker.name if len(job.containers) > 1 else "",
        concurrency=concurrency_of(job.env),
        vcpu=job.vcpu,
        memory_gib=job.memory_gib,
        start_within_s=start_within_s if policy.start_within_s is None else policy.start_within_s,
        is_delayed=job.is_delayed,
        price_percent=home.delayed_price_percent if job.is_delayed else LIST_PERCENT,
        problems=problems_of(job, policy, home),
    )


def lanes_of(
    jobs: Sequence[JobInfo], home: Home = NOWHERE, judge: Callable[[JobInfo, Home], Lane] = lane_of
) -> tuple[list[Lane], list[LaneRefused]]:
    """All lanes, sorted by name, and the jobs that cannot be one. Two jobs of one lane, or of one subscription, are both refused: each
    would count the other's work as its own. `judge` does what `lane_of` does."""
    lanes: list[Lane] = []
    refused: list[LaneRefused] = []
    for job in jobs:
        try:
            lanes.append(judge(job, home))
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


def lanes_named(jobs: Sequence[JobInfo], names: Sequence[str], home: Home = NOWHERE) -> list[Lane]:
    """The lanes of these jobs that have these names, or all. Raises SettingsError with every name that is not a lane's."""
    lanes, refused = lanes_of(jobs, home)
    return chosen_lanes(lanes, refused, names)


def _no_lane(name: str, known: Sequence[str], refused: Sequence[LaneRefused]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"lanes are: {', '.join(known) or 'none'}"
    wrong = "".join(f"; job {one.job} is refused: {'; '.join(one.problems)}" for one in refused)
    return f"there is no lane {name!r}; {hint}{wrong}"
