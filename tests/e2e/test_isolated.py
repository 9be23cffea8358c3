"""Isolated handlers under a real worker process, with the real clients on its side of the wire."""

from __future__ import annotations

import json
import os
from pathlib import Path

from tests.e2e.site import Site


def test_isolated_handlers_use_the_real_bucket_and_one_that_crashes_stops_nobody(local_site: Site, tmp_path: Path) -> None:
    data = os.urandom(3_000_000)
    local_site.upload("input/large", data)
    local_site.upload("in/modules", b"x")
    local_site.publish(
        [
            {"task_id": "copy", "task_type": "child-copy", "from": "input/large", "to": "out/large"},
            {"task_id": "crash", "task_type": "child-segfault"},
            {"task_id": "modules", "task_type": "child-modules"},
            {"task_id": "noise", "task_type": "child-noise"},
            {"task_id": "stream", "task_type": "child-stream", "from": "input/large", "to": "out/streamed"},
        ]
    )
    modules = "tests.batch.child.handlers,tests.batch.child.file_handlers"
    end = local_site.run(BACKLOG=5, HANDLERS=modules, PROCESSES=2, BILLING_FLOOR_S=0, TMPDIR=tmp_path)
    assert (end.code, end.summary["exit_reason"]) == (0, "share_done"), end.text
    outcomes = {one["task_id"]: one for one in local_site.outcomes()}
    assert {task_id: one["outcome"] for task_id, one in outcomes.items()} == {
        "copy": "succeeded",
        "crash": "dead",
        "modules": "succeeded",
        "noise": "succeeded",
        "stream": "succeeded",
    }
    assert local_site.read("out/large") == local_site.read("out/streamed") == data
    assert os.listdir(tmp_path) == [], "the folders of the children are gone with them"
    assert outcomes["modules"]["result"] == []
    assert "SIGSEGV" in outcomes["crash"]["reason"]
    assert [json.loads(line) for line in end.text.splitlines()] == end.lines, "what handlers print is never raw in the worker's log"
    (item,) = local_site.items("out/large")
    assert item["metadata"]["task_id"] == "copy"
