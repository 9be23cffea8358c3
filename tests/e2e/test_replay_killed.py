"""A replay that is killed in the middle by SIGKILL and resumed, on the local cloud: each of its tasks succeeds, once, and no other runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from batch.dead.lanes import LaneFacts, write_lanes
from batch.dead.rules import Rules
from batch.services.objects import GoogleObjectStore
from tests.batch.dead.log_of_letters import letter, write_log
from tests.e2e.site import ROOT, Site
from tests.support import wait_until

HANDLERS = """
from batch.handling.registry import task


@task("resize")
def resize(task, ctx):
    ctx.write(f"out/{task.task_id}", b"1")
"""
COUNT = 1000
A_SEGMENT = 200
RATE = 250
HALF = COUNT // 2


def command(site: Site, *arguments: str) -> subprocess.Popen[bytes]:
    environment = site.environment(CLOUD_RUN_EMULATOR_HOST="http://127.0.0.1:9")
    process = subprocess.Popen([sys.executable, "-m", "fanout", "dead", *arguments], cwd=ROOT, env=environment, stdout=subprocess.PIPE)
    site.processes.append(process)
    return process


def told(site: Site, *arguments: str) -> str:
    process = command(site, *arguments)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    return output.decode()


def noted(site: Site) -> int:
    """How many letters the log says were replayed."""
    return sum(int(item["metadata"].get("replayed_count", 0)) for item in site.items("dead/lane/") if "/claims/" not in item["name"])


@pytest.mark.slow
def test_a_replay_killed_in_the_middle_takes_effect_once(local_site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = local_site
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", site.storage)
    letters = [letter(number, "KeyError" if number % 2 else "ValueError", lane="lane") for number in range(COUNT)]
    with closing(GoogleObjectStore(site.bucket, project=site.project)) as store:
        write_lanes(store, {"lane": LaneFacts("lane", "lane", "lane", Rules())})
        write_log(store, letters, a_segment=A_SEGMENT)
    process = command(site, "replay", "--error", "KeyError", "--rate", str(RATE))
    wait_until(lambda: noted(site) >= 200, description="requests that were confirmed and noted")
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = noted(site)
    assert before < HALF, "it was not killed in the middle"
    (open_,) = json.loads(told(site, "replays", "--json"))["replays"]
    assert open_["closed"] is None
    shown = told(site, "replay", "--resume", open_["action_id"])
    assert f"{HALF} dead letters replayed" in shown
    (ended,) = json.loads(told(site, "replays", "--json"))["replays"]
    repeated = ended["closed"]["repeated_count"]
    assert repeated <= HALF - before
    assert noted(site) == HALF, "what was confirmed and noted was published again"

    (tmp_path / "own_handlers.py").write_text(HANDLERS)
    own = {"HANDLERS": "own_handlers", "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    end = site.run(**own, MAX_MESSAGES=10 * COUNT, CONCURRENCY=8, DRAIN_AFTER_S="0.5", BILLING_FLOOR_S=0)
    assert end.summary["taken"] <= HALF + repeated

    wanted = {one.task_id for one in letters[1::2]}
    outputs = site.items("out/")
    assert Counter(item["name"].removeprefix("out/") for item in outputs) == Counter(wanted)
    assert {(item["metadata"]["replay_number"], item.get("metageneration")) for item in outputs} == {("1", "1")}
    succeeded = Counter((one["task_id"], one["replay_number"]) for one in site.outcomes() if one["outcome"] == "succeeded")
    assert succeeded.keys() == {(task_id, 1) for task_id in wanted}
    assert f"{HALF} succeeded:" in told(site, "replays", open_["action_id"])
    (group,) = json.loads(told(site, "ls", "--json"))["groups"]
    assert (group["waiting_count"], group["error_type"]) == (HALF, "ValueError")
