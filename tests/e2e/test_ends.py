"""The end of a submission with real worker processes: a failure is told, a retry completes it in a round of its own."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from batch.client.submission import Submission
from batch.client.submit import NewTask
from batch.dead.lanes import LaneFacts, write_lanes
from batch.dead.rules import Rules
from batch.ends.options import Ends
from batch.model.clock import SystemClock
from batch.services.objects import GoogleObjectStore
from batch.services.topic import GoogleTopic
from controller.act.endings import Endings, EndingsLook
from controller.model.lane import Lane, Policy
from tests.batch.built_in.receiver import Receiver, is_from
from tests.e2e.site import ROOT, Ended, Site, ended

HANDLERS = """
from batch.handling.registry import task
from batch.model.errors import ObjectMissing, Permanent


@task("work")
def work(task, ctx):
    try:
        ctx.read("input/broken")
    except ObjectMissing:
        return
    raise Permanent("the input is broken")


@task("told")
def told(task, ctx):
    one = task.fields["submission"]
    ctx.write(f"out/{one['round']}-{one['end']}-{one['counts']['succeeded']}-{one['dead']}", task.task_id.encode())
"""
COUNT = 30


class Ending:
    """A submission at a site, and the processes that end it."""

    def __init__(self, site: Site, folder: Path, receiver: Receiver) -> None:
        self.site, self.receiver, self.execution = site, receiver, 0
        (folder / "own_handlers.py").write_text(HANDLERS)
        self.own = {
            "HANDLERS": "own_handlers",
            "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}",
            "DRAIN_AFTER_S": "0.5",
            "BILLING_FLOOR_S": 0,
            "WEBHOOK_ALLOW_PRIVATE": "1",
            "WEBHOOK_SECRETS": "hush",
        }
        self.store = GoogleObjectStore(site.bucket, project=site.project)
        write_lanes(self.store, {"lane": LaneFacts("lane", "lane", "lane", Rules())})

    def submit(self, ends: Ends) -> str:
        clock, rng = SystemClock(), random.Random()
        with closing(GoogleTopic(self.site.project, "lane")) as topic:
            submission = Submission(lane="lane", topic=topic, store=self.store, clock=clock, rng=rng, ends=ends)
            submission.add(NewTask("work") for _ in range(COUNT))
            submission.close()
        return submission.submission_id

    def tick(self) -> Endings:
        with closing(GoogleTopic(self.site.project, "lane")) as topic:
            lane = Lane("lane", "jobs/lane", "lane", "lane", Policy(callbacks="lane"))
            return EndingsLook([lane], lambda _: topic, self.store, SystemClock(), random.Random(), {}).run()

    def work(self) -> Ended:
        self.execution += 1
        return self.site.run(**self.own, CLOUD_RUN_EXECUTION=f"lane-{self.execution}")

    def command(self, *arguments: str, **settings: Any) -> None:
        environment = self.site.environment(CLOUD_RUN_EMULATOR_HOST="http://127.0.0.1:9", **settings)
        process = subprocess.Popen([sys.executable, "-m", *arguments], cwd=ROOT, env=environment, stdout=subprocess.PIPE)
        self.site.processes.append(process)
        assert ended(process).code == 0


@pytest.fixture
def ending(local_site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ending]:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", local_site.storage)
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", local_site.pubsub)
    receiver = Receiver()
    made = Ending(local_site, tmp_path, receiver)
    yield made
    made.store.close()
    receiver.server.shutdown()
    receiver.server.server_close()


@pytest.mark.slow
def test_a_failure_is_told_and_a_retry_completes_in_its_own_round(ending: Ending) -> None:
    site = ending.site
    site.upload("input/broken", b"x")
    submission_id = ending.submit(Ends({"webhook": ending.receiver.url, "team": "ops"}, {"task_type": "told"}))
    assert ending.tick().sent == {}
    ending.work()
    assert ending.tick().sent == {"lane": 1}
    ending.work()
    assert site.names("out/") == [f"out/0-on_failure-0-{COUNT}"]
    assert site.names("open/") == []
    assert ending.tick().open_count == 0

    ending.command("batch", "dead-letters", CLOUD_RUN_JOB="dead-letters", CLOUD_RUN_EXECUTION="dead-x", DRAIN_AFTER_S="0.5")
    with closing(GoogleObjectStore(site.bucket, project=site.project)) as store:
        store.delete("input/broken")
    ending.command("fanout", "dead", "replay", "--lane", "lane", "--yes")
    assert site.names("open/") == [f"open/lane/{submission_id}"]
    assert ending.tick().sent == {}
    ending.work()
    assert ending.tick().sent == {"lane": 1}
    end = ending.work()
    assert end.code == 0, end.text
    ((_, headers, body),) = ending.receiver.came
    assert is_from(b"hush", headers, body)
    told = json.loads(body)
    counts = {"succeeded": COUNT, "superseded": 0, "cancelled": 0, "dead": 0}
    facts = {"submission_id": submission_id, "lane": "lane", "round": 1, "end": "on_complete", "task_count": COUNT, "dead": 0}
    assert told == {"team": "ops", "submission": {**facts, "counts": counts}}
    assert site.names("open/") == []
    assert "hush" not in end.text
    assert "token=secret" not in end.text


@pytest.mark.slow
def test_a_submission_that_completes_is_told_once(ending: Ending) -> None:
    submission_id = ending.submit(Ends({"task_type": "told"}))
    ending.work()
    for _ in range(3):
        ending.tick()
        ending.work()
    assert ending.site.names("out/") == [f"out/0-on_complete-{COUNT}-0"]
    assert json.loads(ending.site.read(f"submissions/{submission_id}/ended.json")) == {"round": 0, "end": "on_complete"}
