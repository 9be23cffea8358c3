"""What stands in the project before a tick looks at any lane: jobs, the lanes among them, lanes whose job is gone, and what each drains.

The subscriptions are read by one listing for all lanes, at most once in SOURCES_KEPT_S, also when it failed: a service that is slow must
not be asked by every poke.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from batch.dead.lanes import LaneFacts, read_lanes
from batch.model.errors import DependencyError, DependencyMissing, FanoutError
from controller.lanes.lanes import LaneRefused, lanes_of
from controller.lanes.rules import Home
from controller.lanes.sources import Source, source_of
from controller.model.lane import Lane
from controller.observe.jobs import LANE_LABEL, JobInfo
from controller.observe.sources import SourceReader
from controller.tick.outside import Outside, Subscriptions

SOURCES_KEPT_S = 50.0
"""Scheduler ticks every minute: each of its ticks sees what is, and those of pokes between them ask nobody."""


@dataclass(frozen=True, slots=True)
class Found:
    """`refused` are jobs that cannot be a lane, and lanes that have no job any more. `kept` are facts of lanes on record that are none now
    and stay on record; `sources` what lanes drain, by lane, as far as it was asked for; `unread` is why it could not be read."""

    jobs: Mapping[str, JobInfo]
    lanes: Sequence[Lane]
    refused: Sequence[LaneRefused]
    kept: Mapping[str, LaneFacts] = field(default_factory=dict)
    sources: Mapping[str, Source] = field(default_factory=dict)
    unread: str = ""


def find_lanes(outside: Outside) -> Found:
    """Raises DependencyError when the jobs cannot be listed. What else cannot be read refuses and holds nothing."""
    jobs = {job.full_name: job for job in outside.runner.jobs()}
    lanes, refused = lanes_of(list(jobs.values()), outside.home, outside.memory.lane_of)
    own = {lane.subscription for lane in lanes}
    before = {name: one for name, one in _on_record(outside).items() if name not in {lane.name for lane in lanes}}
    kept = {name: one for name, one in before.items() if _is_refused(one, lanes, jobs.values())}
    gone = {name: one for name, one in before.items() if name not in kept and one.subscription not in own}
    asked = _subscriptions(outside, [*own, *(one.subscription for one in gone.values())])
    if asked is None:
        return Found(jobs, lanes, refused, kept)
    if asked.unread:
        source = Source(advice=(f"what it drains was not checked: {asked.unread}",))
        return Found(jobs, lanes, refused, {**kept, **gone}, dict.fromkeys((lane.name for lane in lanes), source), asked.unread)
    gone = {name: one for name, one in gone.items() if one.subscription in asked.found}
    told = [LaneRefused(name, (_no_job(one, outside.home),)) for name, one in sorted(gone.items())]
    lanes_own = {job.annotations.get("fanout/subscription", "") for job in jobs.values()}  # also of those that are refused for now
    sources = {lane.name: source_of(lane, asked.found, lanes_own, outside.home.project) for lane in lanes}
    return Found(jobs, lanes, [*refused, *told], {**kept, **gone}, sources)


def _on_record(outside: Outside) -> Mapping[str, LaneFacts]:
    """The lanes that ticks have written down, as they are remembered, or read; none where they cannot be read."""
    now = outside.clock.now()
    known = outside.memory.lanes(now)
    if known is None:
        try:
            known = read_lanes(outside.store)
        except FanoutError:
            return {}  # a tick replaces what is damaged; what cannot be read now is read by the next one
        outside.memory.remember_lanes(known, now)
    return known


def _is_refused(lane: LaneFacts, lanes: Sequence[Lane], jobs: Iterable[JobInfo]) -> bool:
    """Whether it has a job that cannot be a lane for now, and may be one again."""
    fine = {one.job for one in lanes}
    others = [job for job in jobs if job.full_name not in fine]
    return any(one.labels.get(LANE_LABEL) == lane.name or one.annotations.get("fanout/subscription") == lane.subscription for one in others)


def _no_job(lane: LaneFacts, home: Home) -> str:
    """An operator who looks in the wrong region must not delete what the right one drains."""
    what = f"lane {lane.name} has no job any more: it was deleted, or lost its label {LANE_LABEL}"
    if home.region:
        what += f" (looked for in region {home.region}: if it is in another, set REGION to that, and change nothing)"
    delete = f"gcloud pubsub subscriptions delete {lane.subscription}{f' --project={home.project}' if home.project else ''}"
    ways = f"`fanout apply jobs.yaml` brings the job back, `{delete}` ends the lane, with all that waits"
    return f"{what}; nothing drains subscription {lane.subscription}: {ways}"


def _subscriptions(outside: Outside, names: Sequence[str]) -> Subscriptions | None:
    """None where there is no way to ask, or nothing to ask about."""
    if outside.sources is None or not names:
        return None
    memory, now = outside.memory, outside.clock.now()
    with memory.sources_lock:
        known = memory.sources
        if known is None or not 0 <= now - known.read_at <= SOURCES_KEPT_S or not known.knows(names):
            memory.sources = _read(outside.sources, names, now)
        return memory.sources


def _read(reader: SourceReader, names: Sequence[str], now: float) -> Subscriptions:
    """A listing may not show yet what was just created: that is asked for by name."""
    try:
        listed = dict(reader.subscriptions())
        missing: set[str] = set()
        for name in names:
            if name not in listed:
                try:
                    listed[name] = reader.subscription(name)
                except DependencyMissing:
                    missing.add(name)
    except DependencyError as error:
        return Subscriptions(now, unread=str(error))
    return Subscriptions(now, listed, frozenset(missing))
