"""Half of a submission is cancelled while real workers drain it: every task ends as succeeded or cancelled, and the proof says how many."""

from __future__ import annotations

import json
import os
import threading
from collections import defaultdict
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from batch.handling.registry import task
from batch.model.message import Task
from fanout.commands import main
from tests.e2e.site import Site, ended
from tests.support import Service, wait_until

COUNT = 10_000
FIRST_COUNT = 500
"""What a worker does before the cancel is asked for, however long that takes."""
_numbers = count(1)


@task("pause-briefly")
def pause_briefly(_task: Task, _ctx: Any) -> None:
    if next(_numbers) > FIRST_COUNT:
        wait_until(Path(os.environ["CANCELLED"]).exists, 60, "the cancel")
    threading.Event().wait(0.004)


@pytest.mark.slow
def test_half_of_a_submission_is_cancelled_while_it_drains(
    local_site: Site, local_run: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts = {"CLOUD_RUN_EMULATOR_HOST": local_run.http, "CLOUD_MONITORING_EMULATOR_HOST": local_site.pubsub}
    for name, value in local_site.environment(**hosts).items():
        monkeypatch.setenv(name, value)

    def fanout(*arguments: str, lines: str = "") -> Any:
        result = CliRunner().invoke(main, [*arguments, "--json"], input=lines)
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    lines = '{"task_type": "pause-briefly"}\n' * COUNT
    submission_id = fanout("submit", "-", "--topic", "lane", "--lane", "lane", "--handlers", __name__, lines=lines)["submission_id"]
    manifests = [local_site.read(name) for name in local_site.names(f"submissions/{submission_id}/manifest-")]
    ids = [json.loads(line)["task_id"] for manifest in manifests for line in manifest.splitlines()]
    half = set(ids[1::2])
    (tmp_path / "ids.txt").write_text("\n".join(half))

    more = {
        "HANDLERS": __name__,
        "CANCELLED": str(tmp_path / "cancelled"),
        "BACKLOG": COUNT,
        "CONCURRENCY": 8,
        "PROGRESS_INTERVAL_S": 0.2,
        "FLUSH_INTERVAL_S": 0.2,
        "PREFETCH_S": 0.1,
    }
    workers = [local_site.start(**more, CLOUD_RUN_TASK_INDEX=index, CLOUD_RUN_TASK_COUNT=2, LANE="lane") for index in range(2)]
    wait_until(lambda: len(local_site.names("outcomes/")) >= 4, 60, "the first outcomes")
    told = fanout("cancel", "--from-file", str(tmp_path / "ids.txt"))
    (tmp_path / "cancelled").touch()
    assert [(one["lane"], len(one["ids"])) for one in told["lanes"]] == [("lane", len(half))]
    assert [ended(worker).code for worker in workers] == [0, 0]

    found = defaultdict(set)
    for one in local_site.outcomes():
        found[one["task_id"]].add(one["outcome"])
    cancelled = {task_id for task_id, outcomes in found.items() if "cancelled" in outcomes}
    assert (len(found), {len(outcomes) for outcomes in found.values()}) == (COUNT, {1})
    assert cancelled < half, "some of the half had run before"
    assert len(cancelled) > COUNT / 10
    proof = fanout("proof", submission_id)
    counts = (proof["succeeded_count"], proof["cancelled_count"], proof["missing_count"], proof["complete"])
    assert counts == (COUNT - len(cancelled), len(cancelled), 0, True)
