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
from controller.observe.listing import executions_since
from controller.observe.survey import Survey

BEGIN_S = 15.0
"""How long after its intent was saved the last part of a launch may be begun: a controller that was delayed for longer must not."""
GRACE_S = 45.0
"""From then on a launch that a complete listing does not show counts as not having happened: none may be begun any more, each that was
begun has had its answer or its timeout, and Cloud Run shows an execution within seconds. If it takes effect even later, its workers find
the claim taken and end: a minute is paid for each, and no message is taken twice."""
LISTED_S = 180.0
"""How long the list may lag behind an execution that an answer named, or that the job's count includes."""
KEPT_S = 900.0
CLOCKS_S = 60.0
"""Cloud Run's clock may be this far behind ours."""
FIRST_BACKOFF_S = 30.0
LONGEST_BACKOFF_S = 900.0
NOBODY = "nobody"
"""The holder of an abandoned part's claim. No execution has this name: it begins with its job's, and five more characters follow."""


@dataclass(frozen=True, slots=True)
class Launched:
    """The intent after its launch. `throttled` is Cloud Run's answer if there were too many launches, else empty."""

    intent: Intent
    throttled: str = ""


def launch(lane: Lane, intent: Intent, runner: JobRunner, now: Callable[[], float], calling: Callable[[], None] = lambda: None) -> Launched:
    """Try each part once, in order; after one that failed, or `BEGIN_S` after the intent was saved, the rest is not tried. `now` returns
    Unix seconds; `calling` is called before each call of Cloud Run."""
    failed = throttled = ""
    for part in intent.parts:
        if not failed and (late_s := intent.age_s(now())) > BEGIN_S:
            failed = f"{late_s:.0f} s went by since it was decided, at most {BEGIN_S:.0f} s may: the next tick decides anew"
        if failed:
            intent = intent.with_part(replace(part, state=PartState.REFUSED, reason=f"not tried: {failed}"))
            continue
        calling()
        try:
            execution = runner.run(lane.job, request_for(lane, part))
            done = replace(part, state=PartState.LAUNCHED, execution=execution.name)
        except LaunchRefused as error:
            throttled = str(error) if isinstance(error, LaunchThrottled) else ""
            done = replace(part, state=PartState.REFUSED, reason=str(error))
        except LaunchUnclear as error:
            done = _look_for(lane, part, intent.saved_at, runner, str(error))
        if done.state is not PartState.LAUNCHED:
            failed = f"part {part.decision_id} failed"
        intent = intent.with_part(done)
    return Launched(intent, throttled)


def backed_off(before: Backoff | None, done: Launched, now: float, rng: random.Random) -> Backoff | None:
    """How long to wait after this launch; None unless it was throttled. It doubles each time in a row, and is up to a quarter longer at
    random, so that lanes that were refused together do not try again together."""
    if not done.throttled:
        return None
    count = 1 if before is None else before.count + 1
    wait_s = min(FIRST_BACKOFF_S * 2.0 ** min(count - 1, 10), LONGEST_BACKOFF_S) * (1 + rng.random() / 4)
    refused = sum(part.workers for part in done.intent.parts if part.state is PartState.REFUSED)
    return Backoff(round(now + wait_s, 3), count, done.throttled, refused)


def backing_off(backoff: Backoff, now: float) -> bool:
    """Whether no launch may be tried yet. A backoff longer than any possible one was made by a clock that was wrong, and does not count."""
    return now < backoff.until <= now + LONGEST_BACKOFF_S * 1.25 + CLOCKS_S


def refused_count(backoff: Backoff | None, now: float) -> int | None:
    """How many workers Cloud Run refused to start, so that fewer are tried at first; None if it did not, or so long ago that it says
    nothing any more."""
    return backoff.workers if backoff is not None and backoff.workers and now < backoff.until + LONGEST_BACKOFF_S else None


def request_for(lane: Lane, part: Part) -> RunRequest:
    """What Cloud Run is asked for one part."""
    timeout = f"{lane.task_timeout_s:.3f}".rstrip("0").rstrip(".")
    env = {"BACKLOG": str(part.backlog), "DECISION_ID": part.decision_id, "TASK_TIMEOUT_S": timeout}
    if lane.policy.max_messages is not None:
        env["SHARE_LIMIT"] = str(lane.policy.max_messages)
    return RunRequest(part.workers, env, lane.container)


def _look_for(lane: Lane, part: Part, saved_at: float, runner: JobRunner, reason: str) -> Part:
    try:
        for info in executions_since(runner, lane.job, saved_at - CLOCKS_S):
            if info.decision_id == part.decision_id:
                return replace(part, state=PartState.LAUNCHED, execution=info.name, reason=f"found by listing after: {reason}")
    except DependencyError as error:
        return replace(part, reason=f"{reason}; nor could executions be listed: {error}")
    return replace(part, reason=f"{reason}; not listed (yet): the next tick looks again")


def settle(
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
    """Resolve pending parts as far as can be known. Returns the intent, and executions that were found by their claim alone.

    `seen` was listed at `now` or later. A part that is not in it in time is given up by taking its claim: if its execution appears later,
    its workers find the claim taken and end before they pull. If the listing is `short` of executions that Cloud Run counts, one of them
    may be this part's, and it has longer. Without `give_up` nothing is written, and such a part stays pending. Raises DependencyError.
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
    found: list[Unlisted] = []
    for intent in intents:
        for part in intent.parts:
            if seen.serving(part.decision_id) is not None:
                continue
            if part.state is PartState.PENDING:
                found.append(Unlisted(part.decision_id, part.workers, part.backlog, "launch not confirmed yet"))
            elif part.state is PartState.LAUNCHED and intent.age_s(now) <= LISTED_S:
                found.append(Unlisted(part.decision_id, part.workers, part.backlog, f"launched as {part.execution}, not listed yet"))
    return found


def given_up(intents: tuple[Intent, ...]) -> frozenset[str]:
    """The decision parts that were abandoned: an execution that carries one takes no message."""
    return frozenset(part.decision_id for intent in intents for part in intent.parts if part.state is PartState.ABANDONED)


def kept(intents: tuple[Intent, ...], now: float) -> tuple[Intent, ...]:
    """The intents without those that were resolved long ago."""
    return tuple(intent for intent in intents if intent.pending or intent.age_s(now) <= KEPT_S)
