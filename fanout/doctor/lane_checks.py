"""What a lane's job, its topic and its subscription, and where that dead-letters to, must be like. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from functools import partial
from typing import Any

from batch.model.delayed import DELAYED
from batch.model.names import delayed_folder
from controller.lanes.lanes import LaneRefused
from controller.lanes.resources import ACK_DEADLINE_S, MAX_DELIVERY_ATTEMPTS, RETENTION_S
from controller.lanes.rules import PARALLELISM, RETRIES, Home, dead_letters_problems, retries_advice
from controller.lanes.sources import troubles_of
from controller.model.lane import Lane
from controller.model.reading import Reading, Value
from controller.model.wording import are, counted, spoken
from controller.observe.containers import DEAD_LETTERS
from controller.observe.jobs import JobInfo
from controller.observe.sources import SubscriptionFacts
from controller.observe.waiting import MAX_COUNTED, Waiting
from fanout.doctor.finding import Finding, Verdict, fine, judged
from fanout.doctor.place import Place
from fanout.doctor.services import Fixer

EDIT = "edit jobs.yaml, then: fanout apply jobs.yaml"


def of_deadline(lane: Lane, unmet: str) -> Finding:
    """Of a lane whose time to drain is shorter than the gauge may be late; `unmet` says why it cannot be met, empty if it can."""
    good = "a front door tells the controller of its tasks, so that it can drain in time"
    why = "its messages wait longer than its own setting says, whatever is launched"
    return judged(not unmet, f"lane {lane.name}", "drain-within", good, unmet, why, EDIT, verdict=Verdict.ADVICE)


def of_unreadable_state(lane: Lane, problem: str) -> Finding:
    """`problem` says what is wrong with what ticks keep of the lane, and what to do."""
    return Finding(f"lane {lane.name}", "state", Verdict.WRONG, problem, "nothing is launched for the lane until a tick can read it")


def of_refused(refused: LaneRefused) -> Iterator[Finding]:
    for problem in refused.problems:
        why = "a lane with a problem is never ticked on a guess: nothing is launched for it"
        yield Finding(f"job {refused.job}", "annotations", Verdict.WRONG, problem, why, EDIT)


def of_job(lane: Lane, job: JobInfo, place: Place) -> Iterator[Finding]:
    about, told, timeout = f"job {job.name}", job.env.get("TASK_TIMEOUT_S", ""), f"{job.task_timeout_s:g}"
    yield fine(about, "annotations", f"its annotations make it lane {lane.name}")
    yield judged(
        job.parallelism == 0,
        about,
        "parallelism",
        "parallelism is 0: as many workers at a time as a launch asks for",
        f"parallelism is {job.parallelism}, must be 0",
        "a launch cannot change it, Cloud Run refuses a launch of fewer workers, and runs no more than these at a time",
        place.update_job(job.name, "--parallelism=0"),
        lambda fixer: fixer.set_job(job.name, parallelism=0),
    )
    yield judged(
        job.max_retries == RETRIES,
        about,
        "max-retries",
        "maxRetries is 1",
        retries_advice(job.max_retries),
        "a worker that was killed should be tried again once, and one that cannot work should not be paid for again and again",
        place.update_job(job.name, f"--max-retries={RETRIES}"),
        lambda fixer: fixer.set_job(job.name, max_retries=RETRIES),
        verdict=Verdict.ADVICE,
    )
    yield judged(
        _same(told, job.task_timeout_s),
        about,
        "task-timeout",
        f"TASK_TIMEOUT_S says the task timeout, {timeout} s",
        f"the task timeout is {timeout} s, TASK_TIMEOUT_S is {repr(told) if told else 'not set'}",
        "Cloud Run does not tell a worker its timeout: one that was launched by hand would be killed with outstanding messages",
        place.update_job(job.name, f"--update-env-vars=TASK_TIMEOUT_S={timeout}"),
        lambda fixer: fixer.set_job(job.name, env={"TASK_TIMEOUT_S": timeout}),
    )
    # Of parallelism the check above has said it.
    problems = [one.removeprefix(f"{about}: ") for one in lane.problems if PARALLELISM not in one]
    if not problems:
        yield fine(about, "rules", "its command and settings keep the rules, and agree with its annotations")
    for problem in problems:
        yield Finding(about, "rules", Verdict.WRONG, problem, "nothing is launched for its lane until this is right", EDIT)


def of_dead_letters_job(job: JobInfo, home: Home) -> Iterator[Finding]:
    about = f"job {job.name}"
    problems = dead_letters_problems(job, home)
    if not problems:
        yield fine(about, "rules", "its command and settings keep the rules")
    for problem in problems:
        why = "it cannot work: dead letters stay where no command shows them, and no rule retries them"
        yield Finding(about, "rules", Verdict.WRONG, problem.removeprefix(f"{about}: "), why, EDIT)


def missing_dead_letters_job() -> Finding:
    what, why = (
        "there is no job of this name",
        "unless one of another name drains dead letters, no command shows them and no rule retries them",
    )
    return Finding(f"job {DEAD_LETTERS}", "rules", Verdict.ADVICE, what, why, "fanout apply jobs.yaml")


def of_callbacks(lanes: Sequence[Lane], names: Collection[str]) -> Iterator[Finding]:
    """`names` are those of all lanes."""
    why = "nobody fires the ends of its submissions: they wait"
    for lane in lanes:
        if (wanted := lane.policy.callbacks) not in names:
            what = f"there is no lane {wanted!r}, which fires its ends"
            command = "name a lane as fanout/callbacks in jobs.yaml, then: fanout apply jobs.yaml; nothing, if no submission has an end"
            yield Finding(f"lane {lane.name}", "callbacks", Verdict.ADVICE, what, why, command)


def _same(text: str, number: float) -> bool:
    try:
        return float(text) == number
    except ValueError:
        return False


def of_subscription(lane: Lane, facts: SubscriptionFacts, dead_letter_topic: str, place: Place) -> Iterator[Finding]:
    name, about = lane.subscription, f"subscription {lane.subscription}"
    troubles = list(troubles_of(lane, facts, place.project))
    yield from (Finding(about, one.check, Verdict.WRONG, one.what, one.why, one.fix) for one in troubles)
    right = {
        "topic": f"it is of topic {lane.topic}",
        "pull": "it is pulled from",
        "ordering": "it has no message ordering",
        "filter": "its filter lets messages through that are published again",
    }
    yield from (fine(about, check, what) for check, what in right.items() if check not in {one.check for one in troubles})
    for check, is_right, good, what, why, command, new in _settings(name, facts, dead_letter_topic, place):
        yield judged(is_right, about, check, good, what, why, command, partial(_set_subscription, name, new))


def _set_subscription(name: str, new: dict[str, Any], fixer: Fixer) -> None:
    fixer.set_subscription(name, new)


_Setting = tuple[str, bool, str, str, str, str, dict[str, Any]]
"""The check, whether it is right, then the texts of a finding, the command that sets it, and the fields of the API that do the same."""


def _settings(name: str, facts: SubscriptionFacts, dead_letter_topic: str, place: Place) -> Iterator[_Setting]:
    yield (
        "ack-deadline",
        facts.ack_deadline_s == ACK_DEADLINE_S,
        f"its ack deadline is {ACK_DEADLINE_S} s",
        f"its ack deadline is {facts.ack_deadline_s} s, should be {ACK_DEADLINE_S} s",
        "workers extend leases: a longer deadline only delays what a killed worker had outstanding, a shorter one costs more extensions",
        place.update_subscription(name, f"--ack-deadline={ACK_DEADLINE_S}"),
        {"ack_deadline_seconds": ACK_DEADLINE_S},
    )
    yield (
        "retry-policy",
        not facts.has_retry_policy,
        "it has no retry policy",
        "it has a retry policy, should have none",
        "it would hold back messages that a worker nacks, against the backoff that their handler asked for",
        place.update_subscription(name, "--clear-retry-policy"),
        {"retry_policy": None},
    )
    yield (
        "expiry",
        facts.expires_after_s is None,
        "it never expires",
        f"it is deleted after {(facts.expires_after_s or 0) / 86400:g} days without a pull, should never be",
        "a quiet lane would lose its subscription, and with it every task that is submitted after that",
        place.update_subscription(name, "--expiration-period=never"),
        {"expiration_policy": {}},
    )
    yield (
        "retention",
        facts.retention_s >= RETENTION_S,
        f"it keeps messages for {facts.retention_s / 86400:g} days",
        f"it keeps messages for {spoken(facts.retention_s)}, should be 7 days",
        "a message that is not drained by then is gone without a trace: that time is all there is to fix a broken lane",
        place.update_subscription(name, "--message-retention-duration=7d"),
        {"message_retention_duration": {"seconds": RETENTION_S}},
    )
    found, most, topic = facts.dead_letter_topic, facts.max_delivery_attempts, f"projects/{place.project}/topics/{dead_letter_topic}"
    what = f"it dead-letters to {found} after {most} deliveries" if found else "it has no dead-letter policy"
    policy = f"--dead-letter-topic={dead_letter_topic} --max-delivery-attempts={MAX_DELIVERY_ATTEMPTS}"
    net = "it is the net below the workers: without it a message that kills every worker comes back for ever"
    yield (
        "dead-letter-policy",
        found == dead_letter_topic and most == MAX_DELIVERY_ATTEMPTS,
        what,
        f"{what}, should be {dead_letter_topic} after {MAX_DELIVERY_ATTEMPTS}",
        f"{net}; with fewer deliveries it catches tasks that were only nacked",
        place.update_subscription(name, policy),
        {"dead_letter_policy": {"dead_letter_topic": topic, "max_delivery_attempts": MAX_DELIVERY_ATTEMPTS}},
    )


def of_other_subscriptions(topic: str, unfiltered: Sequence[str]) -> Finding:
    """`unfiltered` ones are no lane's, and get what is published again."""
    names = ", ".join(unfiltered)
    return judged(
        not unfiltered,
        f"topic {topic}",
        "other-subscriptions",
        "no other subscription gets tasks twice",
        f"subscriptions that are no lane's get each message, and again what is published again: {names}",
        "a task that waits long, or is replayed after it died, is published again; who reads these would take it for another one",
        f"nothing, if their readers do not mind; else create them with the filter: NOT attributes:{DELAYED}",
        verdict=Verdict.ADVICE,
    )


def missing_subscription(name: str, topic: str, dead_letter_topic: str, place: Place) -> Finding:
    return Finding(
        f"subscription {name}",
        "exists",
        Verdict.WRONG,
        f"subscription {name} does not exist in project {place.project}",
        "what is published to a topic without a subscription is lost",
        place.create_subscription(name, topic, dead_letter_topic),
        lambda fixer: fixer.create_subscription(name, topic, dead_letter_topic),
    )


def missing_topic(name: str, place: Place) -> Finding:
    return Finding(
        f"topic {name}",
        "exists",
        Verdict.WRONG,
        f"topic {name} does not exist in project {place.project}",
        "nothing can be published to it",
        place.create_topic(name),
        lambda fixer: fixer.create_topic(name),
    )


def missing_dead_letter_topic(name: str, place: Place) -> Finding:
    def fix(fixer: Fixer) -> None:
        fixer.create_topic(name)
        fixer.create_subscription(name, name, "")

    what = f"topic {name} does not exist in project {place.project}"
    why = "workers can put no dead letter anywhere: they end broken at the first task that can never succeed"
    command = f"{place.create_topic(name)} && {place.create_subscription(name, name, '')}"
    return Finding(f"topic {name}", "exists", Verdict.WRONG, what, why, command, fix)


def of_dead_letter_topic(name: str, subscriptions: Sequence[str], place: Place) -> Finding:
    return judged(
        bool(subscriptions),
        f"topic {name}",
        "dead-letters-kept",
        f"its messages are kept by {', '.join(one.rsplit('/', 1)[-1] for one in subscriptions)}",
        f"topic {name} has no subscription",
        "dead letters that are published to it are lost, with the only copy of their task",
        place.create_subscription(name, name, ""),
        lambda fixer: fixer.create_subscription(name, name, ""),
    )


def of_waiting(lane: Lane, waiting: Waiting, place: Place) -> Iterator[Finding]:
    """What waits for a person, or for its time: nothing is wrong with it."""

    def told(count: int) -> str:
        return f"{'at least ' if count == MAX_COUNTED else ''}{counted(count, 'task')} {are(count)}"

    about = f"lane {lane.name}"
    dead, delayed = waiting.dead_count, waiting.delayed_count
    if dead is not None:
        why, command = "they wait for a rule of the lane, or for a person", f"fanout dead ls --lane {lane.name}"
        yield _waits(dead, about, "dead-tasks", "none of its tasks is dead", f"{told(dead)} dead", why, command)
    if delayed is not None:
        why = "a tick publishes them again once they are due: a name begins with that time (Unix seconds)"
        command = f"gcloud storage ls gs://{place.bucket}/{delayed_folder(lane.subscription)}"
        yield _waits(delayed, about, "delayed-tasks", "none of its tasks is delayed", f"{told(delayed)} delayed", why, command)
    yield from (Finding(about, "waiting", Verdict.UNREADABLE, problem) for problem in waiting.problems)
    yield from (Finding(about, "ends", Verdict.WRONG, what) for what in waiting.overdue)


def of_undrained(name: str, reading: Reading, place: Place) -> Finding:
    """Of a subscription of a dead-letter topic."""
    count = reading.undelivered_count if isinstance(reading, Value) else 0
    command = f"gcloud run jobs execute dead-letters --project={place.project} --region={place.region}"
    what = f"{counted(count, 'dead letter')} {'waits' if count == 1 else 'wait'} in it"
    why = "until the dead-letters job has drained them no command shows them, and no rule retries them"
    return _waits(count, f"subscription {name}", "dead-letters-drained", "no dead letter waits in it", what, why, command)


def _waits(count: int, about: str, check: str, good: str, what: str, why: str, command: str) -> Finding:
    return judged(not count, about, check, good, what, why, command, verdict=Verdict.ADVICE)
