"""Launches an intent, and finds out what became of launches that gave no answer. Nothing unclear is ever tried again without looking.

Cloud Run's API has no request id. The decision id travels as an environment override instead: an execution that carries it
is the launch that took effect.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace

from batch.model.errors import DependencyError
from batch.services.claims import claim
from batch.services.ports import ObjectStore
from controller.act.intents import Intent, Part, PartState
from controller.act.state import Backoff
from controller.decide.ledger import Unlisted
from controller.model.execution import ExecutionInfo
from controller.model.lane import Lane
from controller.observe.jobs import JobRunner, LaunchRefused, LaunchThrottled, LaunchUnclear, RunRequest
from controller.observe.survey import Survey

BEGIN_S = 15.0
"""How long after its intent was saved the last part of a launch may be begun: whoever was held up for longer has lost the right to."""
GRACE_S = 45.0
"""From then on a launch that a complete listing does not show counts as not having happened: none is begun any more, each that was has
had its answer or its timeout, and Cloud Run takes seconds to show an execution. The tick after the next one at the latest finds it so.
Should it take effect yet, its workers end at the fence: a minute paid for each, and no message taken twice."""
LISTED_S = 180.0
"""How long the list may lag behind what Cloud Run has told of an execution, in an answer or in the job's count."""
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


def launch(lane: Lane, intent: Intent, runner: JobRunner, now: Callable[[], float], calling: Callable[[], None] = lambda: None) -> Launched:
    """Try each part once, in order; after one that failed, or `BEGIN_S` after the intent was saved, the rest is not tried. `now` gives
    Unix seconds; `calling` is told before each call."""
    failed = throttled = ""
    for part in intent.parts:
        if not failed and (late_s := intent.age_s(now())) > BEGIN_S:
            failed = f"{late_s:.0f} s went by since it was decided, at most {BEGIN_S:.0f} s may: the next tick decides anew"
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


def backed_off(before: Backoff | None, throttled: str, now: float, rng: random.Random) -> Backoff | None:
    """None unless the launch was throttled. Twice as long each time in a row, up to a quarter longer by chance, so that lanes that were
    refused together do not come back together."""
    if not throttled:
        return None
    count = 1 if before is None else before.count + 1
    wait_s = min(FIRST_BACKOFF_S * 2.0 ** min(count - 1, 10), LONGEST_BACKOFF_S) * (1 + rng.random() / 4)
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
    lane: Lane,
    intent: Intent,
    seen: Survey,
    store: ObjectStore,
    runner: JobRunner,
    now: float,
    *,
    short: bool = False,
    give_up: bool = True,
) -> tuple[Intent, list[ExecutionInfo]]:
    """The intent with pending parts resolved as far as can be known, and executions that only their claim told of.

    `seen` was listed at `now` or later. A part that is not in it in time is given up by taking its claim: if its execution appears later,
    its workers find the claim taken and end before they pull. Where the listing is `short` of executions that Cloud Run counts, one of
    them may be it. Without `give_up` nothing is written, and such a part stays pending. Raises DependencyError.
    """
    found: list[ExecutionInfo] = []
    for part in intent.parts:
        if part.state is not PartState.PENDING:
            continue
        execution = seen.serving(part.decision_id)
        if execution is not None:
            intent = intent.with_part(replace(part, state=PartState.LAUNCHED, execution=execution.name))
        elif give_up and intent.age_s(now) > (LISTED_S if short else GRACE_S):
            holder = claim(store, part.decision_id, NOBODY)
            if holder == NOBODY:
                reason = f"no execution carried it after {intent.age_s(now):.0f} s; {part.reason}".rstrip("; ")
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
            elif part.state is PartState.LAUNCHED and intent.age_s(now) <= LISTED_S:
                lines.append(Unlisted(part.decision_id, part.workers, part.backlog, f"launched as {part.execution}, not listed yet"))
    return lines


def given_up(intents: tuple[Intent, ...]) -> frozenset[str]:
    """The decision parts whose claim nobody has: an execution that carries one takes no message."""
    return frozenset(part.decision_id for intent in intents for part in intent.parts if part.state is PartState.ABANDONED)


def kept(intents: tuple[Intent, ...], now: float) -> tuple[Intent, ...]:
    """Without intents that were resolved long ago."""
    return tuple(intent for intent in intents if intent.pending or intent.age_s(now) <= KEPT_S)
