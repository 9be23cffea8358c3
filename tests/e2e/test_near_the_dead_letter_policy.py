"""Real workers under a dead-letter policy of few deliveries: a task that waits often succeeds, also when its worker is killed between the
publish and the acknowledgement."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.site import ROOT, Site
from tests.field import waiting_handlers
from tests.field.waiting_handlers import SNOOZERS
from tests.support import Service, start_service

LIMIT = 5
SETTINGS = {"MAX_MESSAGES": 10_000, "PROCESSES": 1, "FLUSH_INTERVAL_S": 0.05, "DRAIN_AFTER_S": 1}


@pytest.fixture(params=["local", pytest.param("google", marks=[pytest.mark.real, pytest.mark.slow])])
def strict(request: pytest.FixtureRequest, project: str, local_storage: Service) -> Iterator[Site]:
    """As `site`, where the policy allows few deliveries."""
    pubsub = request.getfixturevalue("local_pubsub").grpc if request.param == "local" else request.getfixturevalue("google_pubsub")
    made = Site(project, pubsub, local_storage.http, max_delivery_attempts=LIMIT)
    yield made
    made.close()


@pytest.mark.slow
def test_snoozing_for_nothing_a_dozen_times_in_each_kind_of_handler(strict: Site) -> None:
    strict.publish([{"task_id": kind, "task_type": task_type, "snoozes": 12} for kind, task_type in SNOOZERS.items()])
    end = strict.run(**SETTINGS, HANDLERS=waiting_handlers.__name__)
    assert (end.code, end.summary["exit_reason"]) == (0, "drained"), end.text
    assert strict.final() == Counter(succeeded=len(SNOOZERS)), end.text
    assert sorted(strict.names("out/")) == sorted(f"out/{kind}" for kind in SNOOZERS)
    assert (strict.pull("dead-letters"), strict.pull("lane")) == ([], [])
    assert end.events("republished"), "nothing was published again"
    assert end.events("republish_failed") == []
    assert end.summary["taken"] == end.summary["acked"] + end.summary["returned"]


DYING = '''
"""The process kills itself once the lane's topic has a message that is published again."""

import os
import signal

from batch.handling.registry import task
from batch.model.errors import Snooze
from batch.services.topic import GoogleTopic

publish = GoogleTopic.publish


def publish_and_die(self, messages):
    publish(self, messages)
    if os.environ.get("DIES") and self.name == "lane":
        os.kill(os.getpid(), signal.SIGKILL)


GoogleTopic.publish = publish_and_die


@task("work")
def work(task, ctx):
    if os.environ.get("DIES"):
        raise Snooze(0)
    ctx.write(f"out/{task.task_id}", b"done")
'''


@pytest.mark.slow
def test_a_kill_between_confirmation_and_acknowledgement_has_one_effect(project: str, local_storage: Service, tmp_path: Path) -> None:
    pubsub = start_service("pubsub", tmp_path / "pubsub", "--sample-period-s", "0", "--visibility-lag-s", "0")
    site = Site(project, pubsub.grpc, local_storage.http, max_delivery_attempts=LIMIT)
    try:
        (tmp_path / "dying.py").write_text(DYING)
        settings: dict[str, object] = {**SETTINGS, "HANDLERS": "dying", "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
        site.publish([{"task_id": "one", "task_type": "work"}])
        end = site.run(**settings, DIES=1)
        assert end.code == -signal.SIGKILL, end.text
        pubsub.advance(site.ack_deadline_s + 1)
        end = site.run(**settings, CLOUD_RUN_EXECUTION="lane-y")
        assert (end.code, end.summary["exit_reason"], end.summary["acked"]) == (0, "drained", 2), end.text
        assert site.final() == Counter(succeeded=1)
        assert [(item["name"], item["metageneration"]) for item in site.items("out/")] == [("out/one", "1")]
        assert (site.pull("dead-letters"), site.pull("lane"), site.names("attempts/")) == ([], [], [])
    finally:
        site.close()
        pubsub.stop()
