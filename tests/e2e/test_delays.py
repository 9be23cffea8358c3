"""Tasks that are retried after minutes and hours, on the local cloud with its clock advanced: reported as deferred or delayed, run again
once, never before their time, and paid for once."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from batch.client.proof import prove
from batch.client.submission import Submission
from batch.client.submit import NewTask
from batch.handling.registry import Registry
from batch.model.errors import Retry, Snooze
from batch.model.exit import ExitReason
from batch.model.message import Task
from batch.model.progress import Progress, from_metadata
from batch.services.objects import GoogleObjectStore
from batch.services.pubsub import GoogleSubscription
from batch.services.topic import GoogleTopic
from batch.settings import worker_settings
from batch.worker.life import Worker
from controller.decide.decision import Kind
from controller.observe.backlog import GoogleBacklogReader
from controller.tick.outside import Outside
from controller.tick.results import TickResult
from fanout.submission.proof import as_text
from tests.clocks import ShiftedClock
from tests.controller.fakes import FakeRunner, lane, tick
from tests.e2e.site import Site
from tests.support import Service, start_service

COUNT = 100
DEFERRED = range(0, COUNT, 10)
DELAYED = (11, 12, 13)
SNOOZED = (14, 15)
WAITS_S = {**dict.fromkeys(DEFERRED, 600.0), **dict.fromkeys((*DELAYED, *SNOOZED), 3600.0)}


@pytest.fixture
def pubsub(tmp_path: Path) -> Iterator[Service]:
    """One of our own, for its clock is moved."""
    service = start_service("pubsub", tmp_path / "pubsub", "--sample-period-s", "0", "--visibility-lag-s", "0")
    yield service
    service.stop()


@dataclass
class Drain:
    """Workers and ticks in this process, with Google's clients, and one clock for them and the broker."""

    site: Site
    pubsub: Service
    clock: ShiftedClock
    store: GoogleObjectStore
    subscription: GoogleSubscription
    topic: GoogleTopic
    dead: GoogleTopic
    backlog: GoogleBacklogReader
    runs: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        self.runner = FakeRunner(self.clock)
        self.outside = Outside(self.store, self.runner, self.backlog, self.clock, random.Random(1), lambda _name: self.topic)
        self.registry = Registry()
        self.registry.task("wait")(self.wait)

    def wait(self, task: Task, ctx: Any) -> None:
        number = int(task.fields["number"])
        self.runs[number].append(ctx.now())
        if len(self.runs[number]) == 1 and number in WAITS_S:
            raise Snooze(WAITS_S[number]) if number in SNOOZED else Retry("not yet", WAITS_S[number])
        ctx.write(f"out/{number}", b"done")

    def advance(self, seconds: float) -> None:
        self.pubsub.advance(seconds)
        self.clock.advance(seconds)

    def tick(self) -> TickResult:
        return tick(lane(subscription="lane", topic="lane", max_messages=COUNT), self.outside)

    def launched(self, result: TickResult) -> Progress:
        """Let the one worker of this launch do its share, and tell what it reported."""
        (name,) = result.launched
        settings = {
            "GOOGLE_CLOUD_PROJECT": self.site.project,
            "SUBSCRIPTION_NAME": "lane",
            "BUCKET_NAME": self.site.bucket,
            "CLOUD_RUN_EXECUTION": name,
            "BILLING_FLOOR_S": "0",
            "FLUSH_INTERVAL_S": "0.1",
            **self.runner.all[name].env,
        }
        worker = Worker(worker_settings(settings), self.registry, self.subscription, self.dead, self.store, self.clock, random.Random(1))
        assert worker.run() is ExitReason.SHARE_DONE
        self.runner.complete(name, self.clock.now())
        return from_metadata(self.site.progress()[f"{name}/0-0"])


@pytest.fixture
def drain(project: str, local_storage: Service, pubsub: Service, monkeypatch: pytest.MonkeyPatch) -> Iterator[Drain]:
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", pubsub.grpc)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", local_storage.http)
    clock = ShiftedClock()
    with ExitStack() as stack:
        site = stack.enter_context(closing(Site(project, pubsub.grpc, local_storage.http, ack_deadline_s=60)))
        yield Drain(
            site,
            pubsub,
            clock,
            stack.enter_context(closing(GoogleObjectStore(site.bucket, project=project))),
            stack.enter_context(closing(GoogleSubscription(project, "lane"))),
            stack.enter_context(closing(GoogleTopic(project, "lane"))),
            stack.enter_context(closing(GoogleTopic(project, "dead-letters"))),
            stack.enter_context(closing(GoogleBacklogReader(project, clock, emulator_host=pubsub.grpc))),
        )


@pytest.mark.slow
def test_delayed_tasks_are_reported_run_again_once_and_never_early(drain: Drain) -> None:
    submission = Submission(lane="lane", topic=drain.topic, store=drain.store, clock=drain.clock, rng=random.Random(1))
    submission.add(NewTask("wait", {"number": number}) for number in range(COUNT))
    submission.close()

    first = drain.launched(drain.tick())
    assert (first.taken, first.delayed, first.returned) == (COUNT, 5, 10)
    assert first.acked == COUNT - 10
    assert sum(count for _, count in first.deferred) == 10
    waiting = drain.tick()
    assert waiting.decision.kind is Kind.NOTHING_TO_DO
    assert waiting.decision.ledger is not None
    assert sum(line.deferred_count for line in waiting.decision.ledger.entries) == 10
    proof = prove(drain.store, submission.submission_id)
    assert (len(proof.missing), len(proof.delayed)) == (15, 5)
    assert "5 of them are delayed until" in as_text(proof)

    drain.advance(590)
    assert drain.tick().decision.kind is Kind.NOTHING_TO_DO
    assert drain.site.pull("lane") == []
    drain.advance(15)
    second = drain.launched(drain.tick())
    assert (second.taken, second.acked, second.delayed) == (10, 10, 0)

    drain.advance(2980)
    early = drain.tick()
    assert (early.delayed.count, early.decision.kind) == (0, Kind.NOTHING_TO_DO)
    drain.advance(60)
    back = drain.tick()
    assert (back.delayed.count, back.delayed.problems, back.decision.backlog) == (5, (), 5)
    third = drain.launched(back)
    assert (third.taken, third.acked) == (5, 5)

    proof = prove(drain.store, submission.submission_id)
    assert proof.complete, as_text(proof)
    assert proof.counts["succeeded"] == COUNT
    for number in range(COUNT):
        times = drain.runs[number]
        assert len(times) == 1 + (number in WAITS_S), number
        assert times[-1] - times[0] >= WAITS_S.get(number, 0.0) - 1.0
    outputs = drain.site.items("out/")
    assert len(outputs) == COUNT
    assert {item["metageneration"] for item in outputs} == {"1"}
    assert drain.site.names("delayed/") == []
    attempts = {one["task_id"]: one["attempt_count"] for one in drain.site.outcomes()}
    assert sorted(attempts.values()) == [1] * (COUNT - 13) + [2] * 13
