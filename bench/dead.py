"""A log of 100,000 dead letters on the local cloud: how long `fanout dead ls` takes, and how fast a filtered half is replayed.

    python -m bench.dead

takes about two minutes a round; client and servers share the cores of the machine. It writes bench/results/dead.json and its block of
docs/benchmarks.md. Each measurement is a command of its own, as an operator runs it: its seconds and its memory count from its start to its
end. A rate is told by the entries that it left in the log, from the first confirmed request to the last.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

import grpc
from google.pubsub_v1 import PublisherClient, SubscriberClient
from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport

from batch.dead import segments
from batch.dead.lanes import LaneFacts, write_lanes
from batch.dead.letters import Letter
from batch.dead.log import MAX_LINES, Act, Entry
from batch.dead.rules import Rules
from batch.model.attempts import AttemptError
from batch.model.clock import from_iso, iso
from batch.model.deadletters import fingerprint_of
from batch.model.message import Task, encode, new_task_id
from batch.model.names import dead_segment_object, outcome_object
from batch.model.outcomes import Outcome, to_line
from batch.services.objects import GoogleObjectStore
from batch.services.ports import ObjectStore
from bench.machine import facts, load
from bench.page import PAGE, RESULTS, cell, conditions, grid, put_into, taken
from bench.recording import Measure, Recording, write
from bench.servers import local_service

NAME = "dead"
WORKERS = 8
GROUPS = 20
SHARDS = 10
LANE = LaneFacts("default", "default", "default", Rules())
TRACEBACK = "Traceback (most recent call last):\n" + "".join(
    f'  File "/app/handlers/{name}.py", line {number}, in {name}\n    return {name}(task, ctx)\n'
    for number, name in enumerate("abcdef", 10)
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.dead", description="The log of dead letters: listed and replayed.")
    parser.add_argument("--letters", type=int, default=100_000)
    parser.add_argument("--rate", type=float, default=2000.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=RESULTS / "dead.json")
    parser.add_argument("--page", type=lambda given: Path(given) if given else None, default=PAGE, help="page to update; empty: none")
    options = parser.parse_args()
    ls, replay = Measure("grouped ls", "s", "<= 5"), Measure("replay of half", "letters/s", ">= 5,000 without a rate")
    memory = Measure("memory", "MB", "<= 200 of ls")
    recording = Recording("python -m bench.dead", f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}", load(), facts(), [ls, memory, replay])
    with (
        tempfile.TemporaryDirectory() as name,
        local_service("pubsub", Path(name)) as pubsub,
        local_service("storage", Path(name)) as storage,
    ):
        for round_number, rate in itertools.product(range(options.rounds), (None, options.rate)):
            environment, store = _filled(f"p-{round_number}-{int(rate or 0)}", pubsub.address, storage.address, options.letters)
            if rate is None:
                for who, arguments in (("from metadata", ()), ("from contents", ("--error", "KeyError"))):
                    seconds, megabytes = _measured(environment, "ls", *arguments)
                    ls.add(who, seconds)
                    memory.add(f"ls {who}", megabytes)
            given = ("--rate", str(rate)) if rate else ()
            seconds, megabytes = _measured(environment, "replay", "--error", "KeyError", *given)
            memory.add("replay" if rate is None else "replay at a rate", megabytes)
            named = f"at --rate {rate:g}" if rate else "without a rate"
            replay.add(f"{named}, the whole command", options.letters / 2 / seconds)
            replay.add(f"{named}, from the first confirmed request to the last", _rate(store, options.letters // 2))
            if rate is None:
                ls.add("from metadata, after the replay", _measured(environment, "ls")[0])
            store.close()
    write(recording, options.output)
    shown = text(recording)
    print(shown)
    if options.page:
        options.page.write_text(put_into(options.page.read_text(encoding="utf-8"), NAME, shown), encoding="utf-8")


def text(recording: Recording) -> str:
    """As it stands in the page."""
    body = [
        [measure.name, who, cell(runs), measure.unit, measure.aim] for measure in recording.measures for who, runs in measure.runs.items()
    ]
    return "\n".join([taken(recording), "", *grid(["what", "how", "seen", "unit", "wanted"], body), "", *conditions(recording)])


def _filled(project: str, pubsub: str, storage: str, count: int) -> tuple[dict[str, str], GoogleObjectStore]:
    """A project with a lane whose log holds so many letters, half of them KeyErrors."""
    emulators = {"PUBSUB_EMULATOR_HOST": pubsub, "STORAGE_EMULATOR_HOST": storage, "CLOUD_RUN_EMULATOR_HOST": "http://127.0.0.1:9"}
    os.environ.update(emulators)
    body = f'{{"name": "bucket-{project}"}}'.encode()
    made = urllib.request.Request(f"{storage}/storage/v1/b?project={project}", body, {"Content-Type": "application/json"})
    urllib.request.urlopen(made, timeout=30).close()
    with grpc.insecure_channel(pubsub) as channel:
        topic = f"projects/{project}/topics/default"
        PublisherClient(transport=PublisherGrpcTransport(channel=channel)).create_topic(name=topic)
        subscription = {"name": f"projects/{project}/subscriptions/default", "topic": topic}
        SubscriberClient(transport=SubscriberGrpcTransport(channel=channel)).create_subscription(request=subscription)
    store = GoogleObjectStore(f"bucket-{project}", project=project)
    write_lanes(store, {"default": LANE})
    _write_letters(store, count)
    environment = {**os.environ, **emulators, "GOOGLE_CLOUD_PROJECT": project, "BUCKET_NAME": store.bucket_name}
    return environment, store


def _write_letters(store: ObjectStore, count: int) -> None:
    """As eight workers of the dead-letters job leave them, over six hours."""
    rng, now = random.Random(1), time.time()
    outcomes: dict[str, list[bytes]] = {}
    for at in range(0, count, MAX_LINES):
        number = at // MAX_LINES
        died_s = now - 6 * 3600 + number * 6 * 3600 * MAX_LINES / count
        letters = [_letter(rng, at + one, died_s) for one in range(min(MAX_LINES, count - at))]
        segments.write(store, dead_segment_object("default", died_s + 60, f"dead-letters-x-{number % WORKERS}-0", number), letters)
        for letter in letters:
            line = to_line(Outcome(letter.task_id, letter.task_type, "dead", letter.died_at, error_type=letter.error_type))
            outcomes.setdefault(letter.shard, []).append(line)
    for shard, lines in outcomes.items():
        for at in range(0, len(lines), 1000):
            store.write(outcome_object(shard, now, "default-x-0-0", at), b"".join(lines[at : at + 1000]))


def _letter(rng: random.Random, number: int, died_s: float) -> Letter:
    shard = f"s-20260131-120000-{number % SHARDS:08x}"
    task = Task(new_task_id(rng, shard), f"type{number % GROUPS}", iso(died_s - 60), {"filename": f"{number}.csv"}, shard, "default", shard)
    data, attributes = encode(task)
    error_type, reason = (
        ("KeyError" if number % 2 else "ValueError"),
        f"column {number} of the {number % GROUPS}th kind: {'x' * (number % GROUPS)}",
    )
    error = AttemptError(iso(died_s), error_type, reason, "default-x", number % WORKERS, TRACEBACK, str(number))
    return Letter(
        task.task_id,
        task.task_type,
        "default",
        shard,
        iso(died_s),
        iso(died_s - 60),
        error_type,
        reason,
        fingerprint_of(error_type, reason, TRACEBACK),
        shard,
        attempt_count=1,
        first_message_id=str(number),
        attributes=attributes,
        errors=(error,),
        data=data,
    )


def _measured(environment: Mapping[str, str], *arguments: str) -> tuple[float, float]:
    """Seconds and peak megabytes of `fanout dead`."""
    begin = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", "fanout", "dead", *arguments], env=dict(environment))
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"fanout dead {' '.join(arguments)} ended with {process.returncode}")
    return time.monotonic() - begin, usage.ru_maxrss / 1024


def _rate(store: ObjectStore, expected: int) -> float:
    """Letters a second."""
    times = Counter(_replayed_at(store))
    if times.total() != expected:
        raise RuntimeError(f"{times.total()} letters were replayed, not {expected}")
    first, last = min(times), max(times)
    return (expected - times[first]) / (from_iso(last) - from_iso(first))


def _replayed_at(store: ObjectStore) -> Iterator[str]:
    """When the request of each letter was confirmed: letters of one segment of the log were in one request."""
    for info in filter(segments.has_acts, segments.listed(store, "default")):
        acts = [line.what for line in segments.lines(store, [info]) if isinstance(line.what, Entry) and line.what.act is Act.REPLAYED]
        yield from [max(one.at for one in acts)] * len(acts) if acts else []


if __name__ == "__main__":
    main()
