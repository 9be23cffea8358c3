"""What a lane's job must be like. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from controller.lanes.annotations import LaneRefused
from controller.model.lane import Lane
from controller.observe.jobs import JobInfo
from fanout.doctor.finding import Finding, Verdict, fine
from fanout.doctor.place import Place

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
        lambda hands: hands.set_job(job.name, parallelism=0),
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
        lambda hands: hands.set_job(job.name, max_retries=RETRIES),
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
        "Cloud Run does not tell a worker its timeout: one that was launched by hand would be killed with messages in its hands",
        place.update_job(job.name, f"--update-env-vars=TASK_TIMEOUT_S={timeout}"),
        lambda hands: hands.set_job(job.name, env={"TASK_TIMEOUT_S": timeout}),
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
