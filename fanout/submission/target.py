"""Where tasks are about to go: what would lose them is told before anything is published, and what lets them wait.

It is a look, and no more: who may only publish may not look, and submits as before.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

from batch.formats.kinds import no_envelopes
from batch.model.errors import DependencyError, DependencyMissing, FanoutError
from controller.config import RUN_EMULATOR
from controller.lanes.lanes import LaneRefused, lanes_of
from controller.lanes.rules import Home
from controller.lanes.sources import missing, troubles_of
from controller.model.lane import Lane
from controller.observe.jobs import JobInfo
from controller.observe.sources import SourceReader

TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Target:
    """`lost`: why tasks would never come to a worker of the lane; `told`: why they wait, or what else is not as it should be. `lane` is the
    one that takes them, where it is known and nothing is in its way."""

    lost: tuple[str, ...] = ()
    told: tuple[str, ...] = ()
    lane: Lane | None = None


def look_at(project: str, region: str, lane: str, topic: str) -> Target:
    """Through Google's clients. Raises nothing: what cannot be asked is not told."""
    from controller.observe.deployed import DeployedJobs
    from controller.observe.job_documents import job_info
    from controller.observe.sources import GoogleSources

    parent, emulator = f"projects/{project}/locations/{region}", os.environ.get(RUN_EMULATOR, "")
    jobs: list[JobInfo] = []
    # Beside an emulator of Pub/Sub alone there are no jobs, and no credentials to ask with.
    if emulator or not os.environ.get("PUBSUB_EMULATOR_HOST"):
        try:
            with closing(DeployedJobs(project, region, emulator_url=emulator, timeout_s=TIMEOUT_S)) as deployed:
                jobs = [job_info(document, parent) for document in deployed.list()]
        except FanoutError:
            jobs = []
    with closing(GoogleSources(project, TIMEOUT_S)) as sources:
        return target_of(lane, topic, jobs, sources, project)


def target_of(lane: str, topic: str, jobs: list[JobInfo], sources: SourceReader, project: str = "") -> Target:
    """What is wrong with a lane that tasks are submitted to by `topic`. Raises nothing."""
    lanes, refused = lanes_of([job for job in jobs if job.is_lane], Home(project))
    found = next((one for one in lanes if one.name == lane), None)
    lost = tuple(_lost(found, topic, sources, project))
    if found is not None and (untaken := no_envelopes(found.name, found.policy.accept)):
        lost = (untaken, *lost)
    told: tuple[str, ...] = ()
    if found is not None:
        told = tuple(_told(found, topic))
    elif lanes or refused:  # else the lanes are in another region, or nobody may list them
        told = (_no_lane(lane, refused),)
    others = (no_envelopes(one.name, one.policy.accept) for one in lanes if one is not found and one.topic == topic)
    told += tuple(f"topic {topic} is also that of another lane: {why}" for why in others if why)
    return Target(lost, told, None if lost or told else found)


def _lost(lane: Lane | None, topic: str, sources: SourceReader, project: str) -> Iterator[str]:
    try:
        if lane is not None and lane.topic == topic:
            try:
                facts = sources.subscription(lane.subscription)
            except DependencyMissing:
                yield missing(lane).sentence(lane.subscription)
            else:
                yield from (one.sentence(lane.subscription) for one in troubles_of(lane, facts, project) if one.loses)
        elif not sources.subscriptions_of(topic):
            yield f"topic {topic} has no subscription: what is published to it is lost; `fanout apply jobs.yaml --create-missing`"
    except DependencyError:
        return  # who may publish may not be allowed to look; a topic that does not exist is told by the publish


def _told(lane: Lane, topic: str) -> Iterator[str]:
    if lane.topic != topic:
        yield f"the topic of lane {lane.name} is {lane.topic}, these go to topic {topic}: name one of them, or the other lane"
    if lane.policy.paused:
        yield f"lane {lane.name} is paused: its tasks wait until `fanout resume {lane.name}`"
    yield from (f"nothing is launched for lane {lane.name}: {problem}" for problem in lane.problems)


def _no_lane(lane: str, refused: list[LaneRefused]) -> str:
    why = "; ".join(f"job {one.job}: {problem}" for one in refused for problem in one.problems)
    return f"no job drains lane {lane}: its tasks wait until `fanout apply jobs.yaml`{f' ({why})' if why else ''}"
