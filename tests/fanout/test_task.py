"""`fanout task`: what a person reads of one task in each of its states, which worker runs it, and what the answer costs."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from click.testing import CliRunner, Result

from batch.client.counting import Requests
from batch.client.life import Running
from batch.client.submission import Submission
from batch.client.submit import NewTask, submit_one
from batch.dead.lanes import LaneFacts, write_lanes
from batch.dead.rules import NO_RULES
from batch.model.attempts import Marker
from batch.model.clock import SystemClock, iso
from batch.model.errors import DependencyUnavailable
from batch.model.message import rolling_shard
from batch.model.names import outcome_object, processed_object, writer_of
from batch.model.outcomes import Outcome, merged, to_line
from batch.model.progress import RunningTask
from batch.services.objects import GoogleObjectStore
from batch.services.ports import ObjectStore
from batch.testing import ManualClock, MemoryBroker
from controller.config import ControllerSettings
from controller.lanes.lanes import lanes_of
from controller.observe.running import running_worker
from controller.tick.outside import Outside
from fanout import cloud, task
from tests.batch.traces import ERROR, Bucket
from tests.controller.fakes import World, job, progress, world, write_progress
from tests.fanout.test_commands import documented, keys
from tests.support import Service

Run = Callable[..., Result]


@pytest.fixture
def bucket(here: World) -> Bucket:
    return Bucket(here.store, here.clock)


def told(result: Result) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(result.stdout)
    assert keys(body) - documented(task.command) == set()
    return body


def test_a_task_that_succeeded(here: World, run: Run, bucket: Bucket) -> None:
    task_id = bucket.new_id()
    bucket.store.write(processed_object("a.csv"), b"abc", metadata={"task_id": task_id})
    bucket.ended(task_id, "succeeded", output="processed/a.csv", result={"rows": 3}, attempt_count=2, retry=1)
    result = run(task.command, task_id)
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        f"task {task_id}: succeeded",
        "  type      work",
        "  finished  2026-01-01T00:00:00.000000Z, 0.500 s in attempt 2",
        "  worker    default-x/3, try 1: `fanout execution default-x`",
        '  result    {"rows": 3}',
        "  output    processed/a.csv",
        "            generation 1, 3 bytes",
        "  lane      default",
        f"  shard     {bucket.shard}",
        f"  log       gcloud logging read 'jsonPayload.task_id=\"{task_id}\"' --freshness=30d --project=p",
        "requests to the bucket: 5 (0.0 s)",
    ]
    body = told(run(task.command, task_id, "--json"))
    assert (body["state"], body["outcome"]["result"], body["request_count"], body["shards"]) == (
        "succeeded",
        {"rows": 3},
        5,
        [bucket.shard],
    )
    assert body["outputs"] == [{"name": "processed/a.csv", "generation": 1, "size": 3, "task_id": task_id}]


def test_a_raw_message_is_found_by_the_id_that_its_publisher_was_told(here: World, run: Run, bucket: Bucket) -> None:
    facts = LaneFacts("default", "tasks-sub", "tasks", NO_RULES, accept=("raw",), default_type="note")
    write_lanes(bucket.store, {"default": facts})
    task_id = facts.forms.id_of_message("8811")
    bucket.ended(task_id, "succeeded")
    where = ("--lane", "default", "--at", iso(bucket.clock.now()))
    for name in ("message-8811", task_id):
        assert run(task.command, name, *where).stdout.splitlines()[0] == f"task {task_id}: succeeded"
    write_lanes(bucket.store, {"default": replace(facts, accept=("raw", "envelope"))})
    assert "not known" in run(task.command, "message-8811", *where).output


def test_an_output_that_a_newer_task_has_replaced(here: World, run: Run, bucket: Bucket) -> None:
    task_id = bucket.new_id()
    bucket.store.write(processed_object("a.csv"), b"abc", metadata={"task_id": "newer"})
    bucket.ended(task_id, "superseded", output="processed/a.csv", reason="belongs to the newer task newer")
    lines = run(task.command, task_id).stdout.splitlines()
    assert lines[0] == f"task {task_id}: superseded, belongs to the newer task newer"
    assert "            generation 1, 3 bytes; by now it is of task newer" in lines


def test_a_dead_task_with_payload_and_tracebacks(here: World, run: Run, bucket: Bucket) -> None:
    task_id = bucket.new_id()
    bucket.ended(task_id, "dead", error_type="KeyError", reason="'lines'", fingerprint="f00d", replay_number=1)
    bucket.letters(bucket.letter(task_id, replay_number=1))
    text = run(task.command, task_id).stdout
    assert text.startswith(f"task {task_id}: dead, in replay 1, KeyError: 'lines'\n")
    for line in ("  base64    /yByYXc=", "  group     f00d", "  failure   1 of 1, ", "      Traceback", "        File ..."):
        assert f"\n{line}" in text
    body = told(run(task.command, task_id, "--json"))
    assert (body["payload"], body["payload_encoding"]) == ("/yByYXc=", "base64")
    assert (body["attempts"][0]["traceback"], body["replay_number"]) == (ERROR.traceback, 1)
    assert body["letter"]["event"] == "died"


def test_a_payload_that_lies_in_an_object_is_named(here: World, run: Run, bucket: Bucket) -> None:
    task_id = bucket.new_id()
    bucket.ended(task_id, "dead")
    bucket.letters(replace(bucket.letter(task_id), data=b"", raw_object="dead/raw/x"))
    assert "  payload   object dead/raw/x\n" in run(task.command, task_id).stdout
    assert told(run(task.command, task_id, "--json"))["payload"] is None


def test_a_task_that_runs(here: World, run: Run, bucket: Bucket) -> None:
    task_id, now = bucket.new_id(), here.clock.now()
    info = here.runner.add(2, {})
    one = progress(updated_at=now, running=(RunningTask("x", "work", 0), RunningTask(task_id, "work", int(now) - 90)))
    write_progress(here.store, info.name, 1, one, retry=1)
    text = run(task.command, task_id).stdout
    assert text.startswith(f"task {task_id}: running at worker {info.name}/1 (try 1) since {iso(now - 90)}\n")
    body = told(run(task.command, task_id, "--json"))
    assert (body["running"]["execution"], body["running"]["since"], body["outcome"]) == (info.name, iso(now - 90), None)


def test_only_a_live_worker_that_was_heard_of_runs_a_task(here: World) -> None:
    now = here.clock.now()
    lanes = lanes_of(here.runner.jobs())[0]

    def found() -> Running | None:
        return running_worker("a", lanes, here.runner, here.store, here.clock.now())

    info = here.runner.add(1, {}, job="projects/p/locations/r/jobs/bulk")
    one = progress(updated_at=now, running=(RunningTask("a", "work", 5),))
    write_progress(here.store, info.name, 0, replace(one, exit_reason="stopped"))
    assert found() is None
    write_progress(here.store, info.name, 0, one)
    assert found() == Running(info.name, 0, 0, 5.0, now)
    here.clock.advance(45)
    assert found() is not None
    here.clock.advance(1)
    assert found() is None, "it may have been killed"
    here.runner.all[info.name] = replace(info, env={"PROGRESS_INTERVAL_S": "60"})
    assert found() is not None
    here.runner.complete(info.name, here.clock.now())
    assert found() is None


def test_what_a_task_waits_for(here: World, run: Run, bucket: Bucket) -> None:
    now = here.clock.now()
    delayed, retrying, again, waiting = (bucket.new_id() for _ in range(4))
    bucket.delay(delayed, now + 4000)
    bucket.attempts(delayed, attempt_count=1, not_before=now + 4000, errors=(ERROR,))
    bucket.attempts(retrying, attempt_count=2, not_before=now + 30, errors=(ERROR, ERROR), in_progress=Marker("default-x", 2, 0, ERROR.at))
    bucket.ended(again, "dead")
    bucket.flush([bucket.line(again, "replayed", replay_number=2)])
    texts = {one: run(task.command, one).stdout for one in (delayed, retrying, again, waiting)}
    heads = {one: text.splitlines()[0].removeprefix(f"task {one}: ") for one, text in texts.items()}
    assert heads == {
        delayed: f"delayed until {iso(now + 4000)}, after 1 failure",
        retrying: f"retrying, after 2 failures; not before {iso(now + 30)}",
        again: "pending again, by replay 2",
        waiting: "waiting or running: it has left no trace yet, as any task before its first failure or its end",
    }
    assert '  payload   {"n":1}\n' in texts[delayed]
    assert "  begun     worker default-x/2, try 0, at " in texts[retrying]
    assert told(run(task.command, delayed, "--json"))["payload"] == '{"n":1}'
    assert told(run(task.command, again, "--json"))["outcome"] is None


def test_an_unknown_task_ends_with_1_and_an_id_without_a_shard_asks_for_more(here: World, run: Run, bucket: Bucket) -> None:
    result = run(task.command, "0123456789abcdef-s-1")
    assert (result.exit_code, "not known" in result.stdout) == (1, True)
    result = run(task.command, "theirs")
    assert (result.exit_code, "give --lane and --at" in result.output) == (2, True)
    bucket.ended("theirs", "succeeded")
    assert run(task.command, "theirs", "--lane", "default", "--at", "30m").exit_code == 0
    assert run(task.command, "theirs", "--shard", bucket.shard).exit_code == 0
    result = run(task.command, "theirs", "--lane", "default", "--at", "noon")
    assert (result.exit_code, "2h (that long ago)" in result.output) == (2, True)


def test_a_time_that_hides_the_outcome_is_admitted(here: World, run: Run, bucket: Bucket) -> None:
    task_id = bucket.new_id()
    bucket.ended(task_id, "succeeded")
    here.clock.advance(3000)
    bucket.attempts(task_id, attempt_count=1, errors=(ERROR,))
    text = run(task.command, task_id, "--at", "10m").stdout
    assert text.startswith(f"task {task_id}: retrying")
    assert "problem: of what was written before 202601010035 (UTC, --at) nothing was read" in text
    assert run(task.command, task_id, "--at", "55m").stdout.startswith(f"task {task_id}: succeeded\n")


def test_without_cloud_run_the_bucket_still_tells(here: World, run: Run, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    task_id = bucket.new_id()
    bucket.delay(task_id, here.clock.now() + 4000)
    here.runner.list_errors = [DependencyUnavailable("503")]
    text = run(task.command, task_id).stdout
    assert "delayed until" in text
    assert "problem: whether a worker runs it is unknown: 503" in text

    def down() -> Any:
        raise DependencyUnavailable("no answer")

    monkeypatch.setattr(here.runner, "jobs", down)
    text = run(task.command, task_id).stdout
    assert "delayed until" in text
    assert text.count("problem: the lanes are unknown: no answer") == 1


def test_more_than_a_thousand_requests_are_asked_for(here: World, run: Run, bucket: Bucket) -> None:
    task_id = bucket.new_id()
    bucket.ended(task_id, "dead")
    for _ in range(1000):
        here.clock.advance(1)
        bucket.flush([bucket.line("x", "dead")])
    result = run(task.command, task_id, "--json", answer="n\n")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "it may take 1,003 requests" in result.stderr
    assert told(run(task.command, task_id, "--json", answer="y\n"))["state"] == "dead"
    assert told(run(task.command, task_id, "--json", "--yes"))["request_count"] > 1000
    assert "it may take" not in run(task.command, task_id, "--at", "10m").output


class Drained:
    """Submissions and single tasks of three hours, with what workers write of their ends: several lines of one task, deaths, replays."""

    WORKERS = 8

    def __init__(self, store: ObjectStore, clock: ManualClock, task_count: int, single_count: int, lines_per_object: int) -> None:
        self.store, self.clock, self.rng = store, clock, random.Random(11)
        self.topic = MemoryBroker(clock).topic("default")
        self.lines: dict[str, list[Outcome]] = {}
        self._numbers = dict.fromkeys(range(self.WORKERS), 0)
        submission = Submission(lane="default", topic=self.topic, store=store, clock=clock, rng=self.rng)
        submission.add(NewTask("work", {"n": number}) for number in range(task_count))
        submission.close()
        self.shards = {message.attributes["task_id"]: message.attributes["shard"] for _, message in self.topic.published}
        self.submitted, self.singles = list(self.shards), []
        self._end(self.submitted, lines_per_object)
        for _ in range(single_count):
            task_id, _ = submit_one(self.topic, NewTask("work"), lane="default", clock=clock, rng=self.rng)
            self.singles.append(task_id)
            self.shards[task_id] = rolling_shard("default", clock.now())
            clock.advance(3 * 3600 / single_count)
        self._end(self.singles, lines_per_object)

    def _end(self, ids: list[str], lines_per_object: int) -> None:
        waiting = self.rng.sample(ids, len(ids))
        while waiting:
            taken, waiting = waiting[:lines_per_object], waiting[lines_per_object:]
            lines = [
                self._line(one, self.rng.choices(("succeeded", "dead", "superseded", "cancelled"), (90, 6, 2, 2))[0], 0) for one in taken
            ]
            lines += [self._line(one.task_id, "replayed", 1) for one in lines if one.outcome == "dead" and self.rng.random() < 0.5]
            self._flush(lines)
            again = [self._line(one.task_id, self.rng.choice(("succeeded", "dead")), 1) for one in lines if one.outcome == "replayed"]
            late = [self._line(one.task_id, "succeeded", 0) for one in lines if self.rng.random() < 0.02]
            self._flush([*again[::2], *late])
            self.clock.advance(self.rng.uniform(0, 30))

    def _line(self, task_id: str, outcome: str, number: int) -> Outcome:
        replayed = outcome == "replayed"
        by = {} if replayed else {"execution": "default-x", "index": self.rng.randrange(self.WORKERS)}
        return Outcome(task_id, "work", outcome, iso(self.clock.now()), 0.1, replay_number=number, **by)  # type: ignore[arg-type]

    def _flush(self, lines: list[Outcome]) -> None:
        for shard in {self.shards[one.task_id] for one in lines}:
            of_shard = [one for one in lines if self.shards[one.task_id] == shard]
            worker = self.rng.randrange(self.WORKERS)
            self._numbers[worker] += 1
            name = outcome_object(shard, self.clock.now(), writer_of("default-x", worker, 0), self._numbers[worker])
            counts = {one.outcome: str(sum(other.outcome == one.outcome for other in of_shard)) for one in of_shard}
            self.store.write(name, b"".join(map(to_line, of_shard)), metadata=counts, if_generation=0)
            for one in of_shard:
                self.lines.setdefault(one.task_id, []).append(one)

    def check(self, outside: Outside, ids: list[str]) -> str:
        """Ask for each of these tasks; what it cost."""
        counts, began_at = [], time.monotonic()
        for task_id in ids:
            requests = Requests(self.store)
            life = task.traced(outside, requests, task_id, "", None, "", lambda _count: None)
            expected = merged(self.lines[task_id])[task_id]
            assert (life.outcome, life.problems) == (expected, ()), task_id
            assert life.state.value == ("pending again" if expected.outcome == "replayed" else expected.outcome)
            counts.append(requests.count)
        seconds = time.monotonic() - began_at
        cost = f"{len(ids):,} tasks in {seconds:.1f} s, {1000 * seconds / len(ids):.1f} ms each"
        return f"{cost}; requests: {sum(counts) / len(counts):.0f} in the mean, {max(counts)} at most"


def sampled(drained: Drained, count: int) -> list[str]:
    return [*drained.rng.sample(drained.submitted, count // 2), *drained.rng.sample(drained.singles, count // 2)]


def drained_world(task_count: int, single_count: int, lines_per_object: int) -> tuple[World, Drained]:
    here = world([job()])
    return here, Drained(here.store, here.clock, task_count, single_count, lines_per_object)


def test_every_answer_is_right_whatever_the_workers_wrote() -> None:
    here, drained = drained_world(1200, 120, 40)
    print(drained.check(here.outside, sampled(drained, 60)))


@pytest.mark.slow
def test_a_thousand_random_ids_of_a_hundred_thousand(capsys: pytest.CaptureFixture[str]) -> None:
    here, drained = drained_world(100_000, 3000, 500)
    line = drained.check(here.outside, sampled(drained, 1000))
    with capsys.disabled():
        print(f"\nfanout task, in memory: {line}")


@pytest.mark.slow
def test_random_ids_through_the_real_client(local_storage: Service, project: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command itself, and what it says of its cost."""
    from google.cloud.storage import Client

    monkeypatch.setenv("STORAGE_EMULATOR_HOST", local_storage.http)
    Client(project=project).create_bucket(f"b-{project}")
    here = world([job()])
    store = GoogleObjectStore(f"b-{project}", project=project)

    @contextmanager
    def connected(_settings: ControllerSettings) -> Iterator[Outside]:
        yield replace(here.outside, store=store, clock=SystemClock())

    monkeypatch.setattr(cloud, "connected", connected)
    drained = Drained(store, here.clock, 20_000, 300, 500)
    for task_id in sampled(drained, 40):
        result = CliRunner().invoke(task.command, [task_id], env={"GOOGLE_CLOUD_PROJECT": "p", "BUCKET_NAME": f"b-{project}"})
        assert result.exit_code == 0, result.output
        expected = merged(drained.lines[task_id])[task_id].outcome
        assert result.stdout.startswith(f"task {task_id}: {'pending again' if expected == 'replayed' else expected}")
        print(result.stdout.splitlines()[-1])
    store.close()
