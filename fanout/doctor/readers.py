"""Who else reads a lane's topic: subscriptions that would get a replayed message as if it were new, or would not get it at all."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from batch.dead.lanes import LaneFacts
from batch.model.delayed import DELAYED, concerns_filter
from batch.model.errors import DependencyError, SettingsError
from fanout.doctor.services import Facts


def refuse_readers(facts: Facts, lanes: Sequence[LaneFacts], own: Collection[str], *, all_subscriptions: bool) -> None:
    """Before anything is published to these lanes; `own` are the subscriptions of all lanes. Raises SettingsError, DependencyError."""
    problems: list[str] = []
    for lane in lanes:
        if concerns_filter(facts.subscription(lane.subscription).message_filter):
            problems.append(
                f"the filter of subscription {lane.subscription} names the attribute {DELAYED!r}, which replayed messages carry: lane"
                f" {lane.name} would never get them: create the subscription without it"
            )
        others = list(others_unfiltered(facts, facts.subscriptions_of(lane.topic), own))
        if others and not all_subscriptions:
            problems.append(
                f"topic {lane.topic} has other subscriptions, which would get each message again: {', '.join(others)}; create them with the"
                f" filter `NOT attributes:{DELAYED}`, or add --all-subscriptions if their readers do not mind"
            )
    if problems:
        raise SettingsError(problems)


def others_unfiltered(facts: Facts, subscriptions: Sequence[str], own: Collection[str]) -> Iterator[str]:
    """Short names of a topic's subscriptions that are no lane's and get what is published again, or may: a filter that cannot be read is
    none."""
    for name in (one.rsplit("/", 1)[-1] for one in subscriptions):
        if name in own:
            continue
        try:
            excluded = concerns_filter(facts.subscription(name).message_filter)
        except DependencyError:
            excluded = False
        if not excluded:
            yield name
