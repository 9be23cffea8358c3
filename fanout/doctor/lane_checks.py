"""What a lane's job, its topic and its subscription, and where that dead-letters to, must be like. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from controller.lanes.annotations import LaneRefused
from controller.lanes.resources import ACK_DEADLINE_S, MAX_DELIVERY_ATTEMPTS, RETENTION_S
from controller.model.lane import Lane
from controller.model.wording import spoken
from controller.observe.jobs import JobInfo
from fanout.doctor.finding import Finding, Verdict, fine
from fanout.doctor.place import Place
from fanout.doctor.services import Fixer, SubscriptionFacts

RETRIES = 1
SETTINGS = {"SUBSCRIPTION_NAME": "subscription", "TOPIC_NAME": "topic", "LANE": "name"}
"""Settings of a worker that repeat what the lane says."""


def of_refused(refused: LaneRefused) -> Iterator[Finding]:
    for problem in refused.problems:
        why = "a lane with a problem is never ticked on a guess: nothing is launched for it"
        yield Finding(f"job {refused.job}", "annotations", Verdict.WRONG, problem, why, "edit jobs.yaml, then: fanout apply jobs.yaml")


def of_job(lane: Lane, job: JobInfo, place: Place) -> Iterator[Finding]:
    about = f"job {job.name}"
    yield fine(about, "annotations", f"its annotations make it lane {lane.name}")
    yield _parallelism(about, job, place)
    yield _retries(about, job, place)
    yield _timeout(about, job, place)
    yield from _settings(about, lane, job)


def _parallelism(about: str, job: JobInfo, place: Place) -> Finding:
    if job.parallelism == 0:
        return fine(about, "parallelism", "parallelism is 0: as many workers at a time as a launch asks for")
    return Finding(
        about,
        "parallelism",
        Verdict.WRONG,
        f"parallelism is {job.parallelism}, must be 0",
        "a launch cannot change it, Cloud Run refuses a launch of fewer workers, and runs no more than these at a time",
        place.update_job(job.name, "--parallelism=0"),
        lambda fixer: fixer.set_job(job.name, parallelism=0),
    )


def _retries(about: str, job: JobInfo, place: Place) -> Finding:
    if job.max_retries == RETRIES:
        return fine(about, "max-retries", "maxRetries is 1")
    return Finding(
        about,
        "max-retries",
        Verdict.WRONG,
        f"maxRetries is {job.max_retries}, must be 1",
        "a killed worker should be tried again once; more retries of a worker that cannot work are paid for and change nothing",
        place.update_job(job.name, f"--max-retries={RETRIES}"),
        lambda fixer: fixer.set_job(job.name, max_retries=RETRIES),
    )


def _timeout(about: str, job: JobInfo, place: Place) -> Finding:
    told, timeout = job.env.get("TASK_TIMEOUT_S", ""), f"{job.task_timeout_s:g}"
    try:
        same = float(told) == job.task_timeout_s
    except ValueError:
        same = False
    if same:
        return fine(about, "task-timeout", f"TASK_TIMEOUT_S says the task timeout, {timeout} s")
    return Finding(
        about,
        "task-timeout",
        Verdict.WRONG,
        f"the task timeout is {timeout} s, TASK_TIMEOUT_S is {told!r}"
        if told
        else f"the task timeout is {timeout} s, TASK_TIMEOUT_S is not set",
        "Cloud Run does not tell a worker its timeout: one that was launched by hand would be killed with outstanding messages",
        place.update_job(job.name, f"--update-env-vars=TASK_TIMEOUT_S={timeout}"),
        lambda fixer: fixer.set_job(job.name, env={"TASK_TIMEOUT_S": timeout}),
    )


def _settings(about: str, lane: Lane, job: JobInfo) -> Iterator[Finding]:
    wrong = [
        f"{name}={job.env[name]!r} but the lane's {attribute} is {getattr(lane, attribute)!r}"
        for name, attribute in SETTINGS.items()
        if name in job.env and job.env[name] != getattr(lane, attribute)
    ]
    if not wrong:
        yield fine(about, "settings", "its workers' settings agree with its annotations")
        return
    why = "the controller would size launches for one backlog, and the workers drain another"
    yield Finding(about, "settings", Verdict.WRONG, "; ".join(wrong), why, "edit jobs.yaml, then: fanout apply jobs.yaml")


def of_subscription(lane: Lane, facts: SubscriptionFacts, dead_letter_topic: str, place: Place) -> Iterator[Finding]:
    rules = _Rules(lane.subscription, facts, place)
    yield rules.topic(lane.topic)
    yield rules.pull()
    yield rules.ack_deadline()
    yield rules.retry_policy()
    yield rules.expiry()
    yield rules.retention()
    yield rules.dead_letters(dead_letter_topic)


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
    about = f"topic {name}"
    if subscriptions:
        return fine(about, "dead-letters-kept", f"its messages are kept by {', '.join(one.rsplit('/', 1)[-1] for one in subscriptions)}")
    return Finding(
        about,
        "dead-letters-kept",
        Verdict.WRONG,
        f"topic {name} has no subscription",
        "dead letters that are published to it are lost, with the only copy of their task",
        place.create_subscription(name, name, ""),
        lambda fixer: fixer.create_subscription(name, name, ""),
    )


class _Rules:
    """Of one subscription."""

    def __init__(self, name: str, facts: SubscriptionFacts, place: Place) -> None:
        self._name = name
        self._facts = facts
        self._place = place

    def topic(self, expected: str) -> Finding:
        found = self._facts.topic
        if found == expected:
            return fine(self._about, "topic", f"it is of topic {expected}")
        what = f"it is of topic {found}, the lane's topic is {expected}" if found else "its topic was deleted, or it was detached from it"
        why = "tasks that are submitted to the lane never come to this subscription"
        command = "a subscription cannot change its topic: drain it, delete it and create it, or name another one in jobs.yaml"
        return Finding(self._about, "topic", Verdict.WRONG, what, why, command)

    def pull(self) -> Finding:
        if not self._facts.push_endpoint:
            return fine(self._about, "pull", "it is pulled from")
        what = f"it pushes to {self._facts.push_endpoint}"
        why = "workers pull: what is pushed elsewhere they never see"
        return Finding(self._about, "pull", Verdict.WRONG, what, why, self._place.update_subscription(self._name, "--push-endpoint="))

    def ack_deadline(self) -> Finding:
        found = self._facts.ack_deadline_s
        if found == ACK_DEADLINE_S:
            return fine(self._about, "ack-deadline", f"its ack deadline is {ACK_DEADLINE_S} s")
        why = (
            "workers extend leases: a longer deadline only delays what a killed worker had outstanding, a shorter one costs more extensions"
        )
        what = f"its ack deadline is {found} s, should be {ACK_DEADLINE_S} s"
        return self._wrong("ack-deadline", what, why, f"--ack-deadline={ACK_DEADLINE_S}", {"ack_deadline_seconds": ACK_DEADLINE_S})

    def retry_policy(self) -> Finding:
        if not self._facts.has_retry_policy:
            return fine(self._about, "retry-policy", "it has no retry policy")
        why = "it would hold back messages that a worker nacks, against the backoff that their handler asked for"
        return self._wrong("retry-policy", "it has a retry policy, should have none", why, "--clear-retry-policy", {"retry_policy": None})

    def expiry(self) -> Finding:
        found = self._facts.expires_after_s
        if found is None:
            return fine(self._about, "expiry", "it never expires")
        what = f"it is deleted after {found / 86400:g} days without a pull, should never be"
        why = "a quiet lane would lose its subscription, and with it every task that is submitted after that"
        return self._wrong("expiry", what, why, "--expiration-period=never", {"expiration_policy": {}})

    def retention(self) -> Finding:
        found = self._facts.retention_s
        if found >= RETENTION_S:
            return fine(self._about, "retention", f"it keeps messages for {found / 86400:g} days")
        what = f"it keeps messages for {spoken(found)}, should be 7 days"
        why = "a message that is not drained by then is gone without a trace: that time is all there is to fix a broken lane"
        new = {"message_retention_duration": {"seconds": RETENTION_S}}
        return self._wrong("retention", what, why, "--message-retention-duration=7d", new)

    def dead_letters(self, topic: str) -> Finding:
        found, most = self._facts.dead_letter_topic, self._facts.max_delivery_attempts
        if found == topic and most == MAX_DELIVERY_ATTEMPTS:
            return fine(self._about, "dead-letter-policy", f"it dead-letters to {topic} after {most} deliveries")
        what = f"it dead-letters to {found} after {most} deliveries" if found else "it has no dead-letter policy"
        new = {
            "dead_letter_policy": {
                "dead_letter_topic": f"projects/{self._place.project}/topics/{topic}",
                "max_delivery_attempts": MAX_DELIVERY_ATTEMPTS,
            }
        }
        options = f"--dead-letter-topic={topic} --max-delivery-attempts={MAX_DELIVERY_ATTEMPTS}"
        net = "it is the net below the workers: without it a message that kills every worker comes back for ever"
        why = f"{net}; with fewer deliveries it catches tasks that were only nacked"
        return self._wrong("dead-letter-policy", f"{what}, should be {topic} after {MAX_DELIVERY_ATTEMPTS}", why, options, new)

    @property
    def _about(self) -> str:
        return f"subscription {self._name}"

    def _wrong(self, check: str, what: str, why: str, options: str, new: dict[str, Any]) -> Finding:
        command = self._place.update_subscription(self._name, options)
        return Finding(self._about, check, Verdict.WRONG, what, why, command, lambda fixer: fixer.set_subscription(self._name, new))
