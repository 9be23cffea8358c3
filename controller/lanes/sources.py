"""What keeps a lane from being drained although its job is right: its subscription, or the topic of that. Pure.

A tick launches nothing for such a lane, doctor, lanes and submit say it: each in one sentence with what to change. What could not be read
keeps nothing from being launched.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from batch.model.delayed import DELAYED, concerns_filter
from controller.model.lane import Lane
from controller.observe.sources import SubscriptionFacts

NEVER_COME = "tasks that are submitted to the lane never come to it"


@dataclass(frozen=True, slots=True)
class Trouble:
    """`check` is a word that stays the same between versions; `fix` a command, or a sentence where none does it. `loses`: what is
    submitted to the lane is lost to it, or goes to somebody else."""

    check: str
    what: str
    why: str
    fix: str
    loses: bool = False

    def sentence(self, subscription: str) -> str:
        """For a person who has not asked."""
        return f"subscription {subscription}: {self.what}: {self.why}; {self.fix}"


@dataclass(frozen=True, slots=True)
class Source:
    """What is known of what a lane drains: `troubles` keep it from being drained, `advice` does not."""

    troubles: tuple[Trouble, ...] = ()
    advice: tuple[str, ...] = ()

    def problems(self, subscription: str) -> tuple[str, ...]:
        """One sentence for each trouble."""
        return tuple(one.sentence(subscription) for one in self.troubles)


NOT_ASKED = Source()


def source_of(lane: Lane, found: Mapping[str, SubscriptionFacts], own: Collection[str], project: str = "") -> Source:
    """`found` are the subscriptions of the project, and `own` those of all lanes, by short names."""
    facts = found.get(lane.subscription)
    troubles = (missing(lane),) if facts is None else tuple(troubles_of(lane, facts, project))
    return Source(troubles, tuple(_advice(lane, found, own)))


def missing(lane: Lane) -> Trouble:
    fix = f"`fanout doctor {lane.name} --fix` creates it"
    return Trouble("exists", "it does not exist", "what is published to a topic without a subscription is lost", fix, loses=True)


def troubles_of(lane: Lane, facts: SubscriptionFacts, project: str = "") -> Iterator[Trouble]:
    """Of a subscription that exists."""
    if facts.is_detached:
        fix = "it cannot be attached again, and what it held is gone: delete it, create it, or name another one in jobs.yaml"
        yield Trouble("topic", "it was detached from its topic", NEVER_COME, fix, loses=True)
    elif not facts.topic:
        fix = f"drain it with `fanout launch {lane.name} --workers 1`, delete it and create it, or name another one in jobs.yaml"
        yield Trouble("topic", "its topic was deleted", NEVER_COME, f"a subscription cannot change its topic: {fix}", loses=True)
    elif facts.topic != lane.topic:
        fix = "a subscription cannot change its topic: drain it, delete it and create it, or name another one in jobs.yaml"
        yield Trouble("topic", f"it is of topic {facts.topic}, the lane's topic is {lane.topic}", NEVER_COME, fix, loses=True)
    update = f"gcloud pubsub subscriptions update {lane.subscription}{f' --project={project}' if project else ''}"
    if facts.push_endpoint:
        what, why = f"it pushes to {facts.push_endpoint}", "workers pull: what is pushed elsewhere they never see"
        yield Trouble("pull", what, why, f"{update} --push-endpoint=", loses=True)
    if facts.exports_to:
        clear = "--clear-bigquery-config" if "BigQuery" in facts.exports_to else "--clear-cloud-storage-config"
        what, why = f"it writes to {facts.exports_to}", "workers pull: what is written elsewhere they never see"
        yield Trouble("pull", what, why, f"{update} {clear}", loses=True)
    if facts.is_ordered:
        why = "workers run messages of one key at the same time and in any order; they refuse to begin"
        fix = "ordering cannot be turned off: create a subscription without it, and name that in jobs.yaml"
        yield Trouble("ordering", "it has message ordering enabled", why, fix)
    if concerns_filter(facts.message_filter):
        what = f"its filter names the attribute {DELAYED}: {facts.message_filter}"
        why = "messages that Fanout publishes again carry it, and would be lost"
        fix = f"a filter cannot be changed: create a subscription whose filter does not name {DELAYED}, and name that in jobs.yaml"
        yield Trouble("filter", what, why, fix)


def _advice(lane: Lane, found: Mapping[str, SubscriptionFacts], own: Collection[str]) -> Iterator[str]:
    others = sorted(
        name
        for name, one in found.items()
        if one.topic == lane.topic and name not in own and not one.is_detached and not concerns_filter(one.message_filter)
    )
    if others:
        mended = f"if their readers mind, create them with the filter `NOT attributes:{DELAYED}`"
        yield f"topic {lane.topic} has other subscriptions, which get again what is published again: {', '.join(others)}; {mended}"
