"""`python -m bench.poison`: tasks that raise, and tasks that kill their worker, among many good ones, by real worker processes.

Looked at afterwards in the bucket, not asked of the workers: every good task has succeeded, all poison is dead, with every attempt of
the raising ones and the deaths of the killing ones on record. The time lost is what the same run takes longer than without poison.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from google.pubsub_v1 import types

from batch.model.attempts import Attempts
from batch.model.message import Task, encode
from batch.model.outcomes import Outcome, from_lines, merged
from batch.services.objects import GoogleObjectStore
from batch.worker.admission.records import read_attempts
from bench.machine import facts, load
from bench.page import RESULTS, ROOT
from bench.poison_handlers import RETRIES
from bench.pubsub_load import PER_CALL, raw_method
from bench.recording import Measure, Recording, write
from bench.servers import local_service
from bench.worker.lane import PROJECT, SUBMITTED_AT, Lane, fresh_lane

WORKERS = 2
DEADLINE_S = 10
"""What a killed worker held comes again after this time."""
LIMIT_S = 1200.0
DRAIN_AFTER_S = 2.0
PREFETCH_S = 0.25
"""What was outstanding at a killed worker costs several requests a message when it comes again."""


@dataclass(frozen=True, slots=True)
class Mix:
    """How many tasks of each kind."""

    good: int
    raises: int
    kills: int

    def tasks(self, rng: random.Random) -> list[tuple[str, int]]:
        """Kind and number of each, shuffled."""
        kinds = {"good": self.good, "raises": self.raises, "kills": self.kills}
        tasks = [(kind, number) for kind, count in kinds.items() for number in range(count)]
        rng.shuffle(tasks)
        return tasks


@dataclass(slots=True)
class Run:
    """What became of one mix. `wrong` says what is not as it should be; nothing, in a good run."""

    took_s: float
    deaths: int
    broken: int
    executions: int
    wrong: list[str] = field(default_factory=list)


def run(mix: Mix, pubsub: str, storage: str, seed: int = 1) -> Run:
    """Publish a mix, let workers do it until nothing is left, and look at what they left. Raises RuntimeError when that takes too long."""
    lane = fresh_lane(pubsub, storage)
    shorten(lane, pubsub)
    publish(lane, pubsub, mix.tasks(random.Random(seed)))
    os.environ["STORAGE_EMULATOR_HOST"] = storage
    store = GoogleObjectStore(lane.bucket, project=PROJECT)
    began_s = time.monotonic()
    deaths = broken = executions = 0
    while len(final := outcomes(store)) < mix.good + mix.raises + mix.kills:
        if time.monotonic() - began_s > LIMIT_S:
            raise RuntimeError(f"after {LIMIT_S:g} s {len(final)} tasks have an outcome: {Counter(one.outcome for one in final.values())}")
        codes = execution(lane, executions, mix.kills, began_s + LIMIT_S)
        deaths += codes[-signal.SIGKILL]
        broken += codes[3]
        executions += 1
    took_s = time.monotonic() - began_s
    return Run(took_s, deaths, broken, executions, faults_of(mix, final, store))


def shorten(lane: Lane, pubsub: str) -> None:
    """Lanes have an ack deadline of 60 s; nothing is shown by waiting for that one."""
    subscription = types.Subscription.pb()(name=lane.subscription, ack_deadline_seconds=DEADLINE_S)
    request = types.UpdateSubscriptionRequest.pb()(subscription=subscription)
    request.update_mask.paths.append("ack_deadline_seconds")
    raw_method(pubsub, "Subscriber/UpdateSubscription")(request.SerializeToString())


def publish(lane: Lane, pubsub: str, tasks: Sequence[tuple[str, int]]) -> None:
    send = raw_method(pubsub, "Publisher/Publish")
    for at in range(0, len(tasks), PER_CALL):
        request = types.PublishRequest.pb()(topic=lane.topic)
        for kind, number in tasks[at : at + PER_CALL]:
            task = Task(f"{kind}-{number}", kind, SUBMITTED_AT, {"number": number}, submission_id="bench", lane="bench", shard="bench")
            data, attributes = encode(task)
            request.messages.add(data=data, attributes=attributes)
        send(request.SerializeToString())


def execution(lane: Lane, number: int, most_deaths: int, until_s: float) -> Counter[int]:
    """One execution: a worker that is killed has a retry at once, as Cloud Run does it. The exit codes of all tries."""
    codes: Counter[int] = Counter()
    running = {index: (0, started(lane, number, index, 0)) for index in range(WORKERS)}
    try:
        while running:
            for index, (retry, process) in list(running.items()):
                code = process.poll()
                if code is None:
                    continue
                codes[code] += 1
                del running[index]
                if code == -signal.SIGKILL and retry < 2 * most_deaths:
                    running[index] = (retry + 1, started(lane, number, index, retry + 1))
            if time.monotonic() > until_s:
                break
            time.sleep(0.05)
    finally:
        for _, process in running.values():
            process.kill()
            process.wait()
    return codes


def started(lane: Lane, number: int, index: int, retry: int) -> subprocess.Popen[bytes]:
    environment: Mapping[str, object] = {
        **{name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ},
        **lane.environment(),
        "PYTHONPATH": ROOT,
        "SUBSCRIPTION_NAME": lane.name,
        "DEAD_LETTER_TOPIC": f"{lane.name}-dead",
        "BUCKET_NAME": lane.bucket,
        "HANDLERS": "bench.poison_handlers",
        "MAX_MESSAGES": 10_000_000,
        "DRAIN_AFTER_S": DRAIN_AFTER_S,
        "PREFETCH_S": PREFETCH_S,
        "CLOUD_RUN_JOB": "bench",
        "CLOUD_RUN_EXECUTION": f"bench-{number}",
        "CLOUD_RUN_TASK_INDEX": index,
        "CLOUD_RUN_TASK_COUNT": WORKERS,
        "CLOUD_RUN_TASK_ATTEMPT": retry,
    }
    silent = subprocess.DEVNULL
    text = {name: str(value) for name, value in environment.items()}
    return subprocess.Popen([sys.executable, "-m", "batch"], env=text, stdin=silent, stdout=silent)


def outcomes(store: GoogleObjectStore) -> dict[str, Outcome]:
    return merged(one for info in store.list("outcomes/") for one in from_lines(store.read(info.name)))


def faults_of(mix: Mix, final: Mapping[str, Outcome], store: GoogleObjectStore) -> list[str]:
    """What is not as it should be, by the outcomes and the records of attempts."""
    ended = Counter((task_id.split("-")[0], one.outcome) for task_id, one in final.items())
    wanted = Counter({("good", "succeeded"): mix.good, ("raises", "dead"): mix.raises, ("kills", "dead"): mix.kills})
    wrong = [] if ended == +wanted else [f"outcomes are {dict(ended)}"]
    poison = [one for one in final.values() if one.outcome == "dead"]
    with ThreadPoolExecutor(8) as pool:
        records = pool.map(lambda one: read_attempts(store, one.task_id)[0], poison)
        wrong += [fault for one, record in zip(poison, records, strict=True) if (fault := history_fault(one, record))]
    return wrong


def history_fault(outcome: Outcome, record: Attempts) -> str:
    """Empty when the record tells all that happened to a dead task."""
    told = [error.error_type for error in record.errors]
    if not outcome.reason:
        return f"{outcome.task_id} is dead without a reason"
    if outcome.task_id.startswith("kills"):
        whole = outcome.error_type == "worker_died" and record.lost and "ProcessDied" in told
        return "" if whole else f"{outcome.task_id} has died as {outcome.error_type}, on record: {told}, lost {record.lost}"
    return "" if len(told) == record.attempt_count == RETRIES + 1 else f"{outcome.task_id} has {told} on record"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.poison", description=__doc__)
    for kind, count in (("good", 90_000), ("raises", 10_000), ("kills", 20)):
        parser.add_argument(f"--{kind}", type=int, default=count, help=f"how many tasks of this kind (default: {count})")
    given = parser.parse_args()
    mix = Mix(given.good, given.raises, given.kills)
    taken, before = datetime.now(UTC).isoformat(timespec="seconds"), load()
    with (
        tempfile.TemporaryDirectory() as folder,
        local_service("pubsub", Path(folder)) as pubsub,
        local_service("storage", Path(folder)) as storage,
    ):
        clean = run(Mix(mix.good, 0, 0), pubsub.address, storage.address)
        poisoned = run(mix, pubsub.address, storage.address)
    for line in (*clean.wrong, *poisoned.wrong)[:20]:
        print(line)
    poison = f"{mix.raises} that raise and {mix.kills} that kill"
    print(f"without poison {clean.took_s:.1f} s; with {poison} {poisoned.took_s:.1f} s: {poisoned.deaths} deaths, {poisoned.broken} broken")
    if mix == Mix(90_000, 10_000, 20):
        write(recording(mix, taken, before, clean, poisoned), RESULTS / "poison.json")
    return 1 if clean.wrong or poisoned.wrong else 0


def recording(mix: Mix, taken: str, before: float, clean: Run, poisoned: Run) -> Recording:
    time_s = Measure("time until nothing is left", "s", "")
    time_s.add("without poison", clean.took_s)
    time_s.add("with poison", poisoned.took_s)
    measures = [time_s]
    for name, count in (
        ("workers that died", poisoned.deaths),
        ("workers that ended broken", poisoned.broken),
        ("executions", poisoned.executions),
        ("tasks that did not end as they should, or without their history", len(poisoned.wrong)),
    ):
        measures.append(Measure(name, "count", "0" if name.startswith("tasks") else ""))
        measures[-1].add("with poison", count)
    poison = f"{mix.raises:,} that raise ({RETRIES + 1} attempts each, 1 s and 2 s apart) and {mix.kills} that kill their worker"
    note = f"{mix.good:,} good tasks, {poison}; {WORKERS} workers, an ack deadline of {DEADLINE_S} s."
    return Recording("python -m bench.poison", taken, before, facts(), measures, [note])


if __name__ == "__main__":
    sys.exit(main())
