"""Launches an intent, and finds out what became of launches that gave no answer. Nothing unclear is ever tried again without looking.

Cloud Run's API has no request id. The decision id travels as an environment override instead: an execution that carries it
is the launch that took effect.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace

from batch.errors import DependencyError
from batch.fence import claim
from batch.objects import ObjectStore
from controller.intents import Intent, Part, PartState
from controller.jobs import ExecutionInfo, JobRunner, LaunchRefused, LaunchThrottled, LaunchUnclear, RunRequest
from controller.lanes import Lane
from controller.ledger import Unlisted
from controller.state import Backoff
from controller.survey import Survey

GRACE_S = 180.0
"""How long a launch may take to show in a listing before it counts as not having happened."""
KEPT_S = 900.0
CLOCKS_S = 60.0
"""Cloud Run's clock may be this far behind ours."""
FIRST_BACKOFF_S = 30.0
LONGEST_BACKOFF_S = 900.0
NOBODY = "nobody"
"""Holds the claim of an abandoned part. No execution has this name: theirs begin with the job's, and end in five more characters."""


@dataclass(frozen=True, slots=True)
class Launched:
    """The intent as it stands after its launch. `throttled` is what Cloud Run said when there were too many."""

    intent: Intent
    throttled: str = ""


def launch(lane: Lane, intent: Intent, runner: JobRunner, calling: Callable[[], None] = lambda: None) -> Launched:
    """Try each part once, in order; after one that failed the rest is not tried. `calling` is told before each call."""
    failed = throttled = ""
    for part in intent.parts:
        if failed:
            intent = intent.with_part(replace(part, state=PartState.REFUSED, reason=f"not tried: {failed}"))
            continue
        calling()
        try:
            done = _launch_part(lane, part, intent, runner)
        except LaunchThrottled as error:
            throttled = str(error)
            done = replace(part, state=PartState.REFUSED, reason=throttled)
        if done.state is not PartState.LAUNCHED:
            failed = f"part {part.decision_id} failed"
        intent = intent.with_part(done)
    return Launched(intent, throttled)


def backed_off(before: Backoff | None, throttled: str, now: float, chance: random.Random) -> Backoff | None:
    """None unless the launch was throttled. Twice as long each time in a row, up to a quarter longer by chance, so that lanes that were
    refused together do not come back together."""
    if not throttled:
        return None
    count = 1 if before is None else before.count + 1
    wait_s = min(FIRST_BACKOFF_S * 2.0 ** min(count - 1, 10), LONGEST_BACKOFF_S) * (1 + chance.random() / 4)
    return Backoff(round(now + wait_s, 3), count, throttled)


def backing_off(backoff: Backoff, now: float) -> bool:
    """Whether nothing is to be tried yet. One that would last longer than any was made by a clock that was wrong."""
    return now < backoff.until <= now + LONGEST_BACKOFF_S * 1.25 + CLOCKS_S


def unlaunchable(lane: Lane, parts: tuple[Part, ...]) -> str:
    """Why Cloud Run would refuse, where that can be seen beforehand; empty when it cannot."""
    fewest = min(part.workers for part in parts)
    if lane.parallelism <= fewest:
        return ""
    job = lane.job.rsplit("/", 1)[-1]
    return (
        f"job {job} has parallelism {lane.parallelism}, and Cloud Run refuses an execution of fewer workers, here {fewest}: set "
        f"`parallelism: 0` in its manifest and apply; fanout/max-workers limits how many run"
    )


def request_for(lane: Lane, part: Part) -> RunRequest:
    """What one part asks of Cloud Run."""
    timeout = f"{lane.task_timeout_s:.3f}".rstrip("0").rstrip(".")
    return RunRequest(part.workers, {"BACKLOG": str(part.backlog), "DECISION_ID": part.decision_id, "TASK_TIMEOUT_S": timeout})


def _launch_part(lane: Lane, part: Part, intent: Intent, runner: JobRunner) -> Part:
    """Raises LaunchThrottled."""
    try:
        execution = runner.run(lane.job, request_for(lane, part))
    except LaunchThrottled:
        raise
    except LaunchRefused as error:
        return replace(part, state=PartState.REFUSED, reason=str(error))
    except LaunchUnclear as error:
        return _looked_for(lane, part, intent.saved_at, runner, str(error))
    return replace(part, state=PartState.LAUNCHED, execution=execution.name)


def _looked_for(lane: Lane, part: Part, saved_at: float, runner: JobRunner, reason: str) -> Part:
    try:
        for info in runner.executions(lane.job):
            if info.decision_id == part.decision_id:
                return replace(part, state=PartState.LAUNCHED, execution=info.name, reason=f"found by listing after: {reason}")
            if info.created_at < saved_at - CLOCKS_S:
                break
    except DependencyError as error:
        return replace(part, reason=f"{reason}; nor could executions be listed: {error}")
    return replace(part, reason=f"{reason}; not listed (yet): the next tick looks again")


def settled(
    lane: Lane, intent: Intent, seen: Survey, store: ObjectStore, runner: JobRunner, now: float, *, give_up: bool = True
) -> tuple[Intent, list[ExecutionInfo]]:
    """The intent with pending parts resolved as far as can be known, and executions that only their claim told of.

    A part that is not listed in time is given up by taking its claim: if its execution appears later, its workers find the
    claim taken and end before they pull. Without `give_up` nothing is written, and such a part stays pending. Raises DependencyError.
    """
    found: list[ExecutionInfo] = []
    for part in intent.parts:
        if part.state is not PartState.PENDING:
            continue
        execution = seen.serving(part.decision_id)
        if execution is not None:
            intent = intent.with_part(replace(part, state=PartState.LAUNCHED, execution=execution.name))
        elif give_up and intent.age_s(now) > GRACE_S:
            holder = claim(store, part.decision_id, NOBODY)
            if holder == NOBODY:
                reason = f"no execution carried it within {GRACE_S:.0f} s; {part.reason}".rstrip("; ")
                intent = intent.with_part(replace(part, state=PartState.ABANDONED, reason=reason))
                continue
            intent = intent.with_part(replace(part, state=PartState.LAUNCHED, execution=holder))
            execution = runner.execution(f"{lane.job}/executions/{holder}")
            found += [] if execution is None else [execution]
    return intent, found


def unlisted(intents: tuple[Intent, ...], seen: Survey, now: float) -> list[Unlisted]:
    """What was launched, or may have been, and is not in the listing: it counts as assigned in full."""
    lines: list[Unlisted] = []
    for intent in intents:
        for part in intent.parts:
            if seen.serving(part.decision_id) is not None:
                continue
            if part.state is PartState.PENDING:
                lines.append(Unlisted(part.decision_id, part.workers, part.backlog, "launch not confirmed yet"))
            elif part.state is PartState.LAUNCHED and intent.age_s(now) <= GRACE_S:
                lines.append(Unlisted(part.decision_id, part.workers, part.backlog, f"launched as {part.execution}, not listed yet"))
    return lines


def kept(intents: tuple[Intent, ...], now: float) -> tuple[Intent, ...]:
    """Without intents that were resolved long ago."""
    return tuple(intent for intent in intents if intent.pending or intent.age_s(now) <= KEPT_S)
