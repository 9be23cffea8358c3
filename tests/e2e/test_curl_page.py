"""The page of plain curl: each command runs against a front door, and answers what the page says; and so does the client."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from batch.client.http import Client
from batch.dead.lanes import LaneFacts, write_lanes
from batch.dead.rules import NO_RULES
from batch.model.names import LANES
from batch.testing import MemoryObjectStore
from tests.e2e.site import ROOT, Site
from tests.e2e.test_first_recipe import front_door
from tests.support import clean_environment

pytestmark = pytest.mark.slow
PAGE = (ROOT / "docs" / "curl.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(sh|json)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture
def api(local_site: Site) -> Iterator[str]:
    yield from front_door(local_site, STORAGE_EMULATOR_HOST=local_site.storage, BUCKET_NAME=local_site.bucket)


def work(site: Site) -> None:
    """What a worker of the lane does meanwhile; and the controller, which writes down the lanes."""
    store = MemoryObjectStore()
    write_lanes(store, {"default": LaneFacts("default", "lane", "lane", NO_RULES)}, keep_others=False)
    site.upload(LANES, store.read(LANES))
    ended = site.run(LANE="default", BILLING_FLOOR_S=0, DRAIN_AFTER_S="0.5")
    assert ended.code == 0, ended.text


def is_like(said: Any, found: Any) -> bool:
    """Whether an answer has the form that the page shows: the same names, and the same values but for those that it leaves open."""
    if isinstance(said, dict):
        return isinstance(found, dict) and said.keys() == found.keys() and all(is_like(one, found[name]) for name, one in said.items())
    return said == found or (isinstance(said, str) and "…" in said and isinstance(found, str))


def test_every_command_of_the_page_answers_what_it_says(local_site: Site, api: str) -> None:
    if shutil.which("curl") is None:
        pytest.skip("`curl` is not installed")
    local_site.upload("input/tasks.jsonl", b'{"task_type": "file_processing", "filename": "g.csv"}\n')
    names = {"DOOR": api, "BUCKET_NAME": local_site.bucket}
    answer: Any = None
    has_worked = False
    for kind, text in BLOCKS:
        if kind == "json":
            assert is_like(json.loads(text), answer), f"{answer} is not {text}"
            continue
        if "/proof" in text:
            work(local_site)
            has_worked = True
        script = text.replace("curl -s", "curl --silent --show-error --fail-with-body --max-time 30 --write-out '\\n'")
        environment = {**clean_environment(), **names}
        ended = subprocess.run(["sh", "-e", "-c", script], env=environment, capture_output=True, text=True, timeout=100, check=False)
        assert ended.returncode == 0, text + ended.stdout + ended.stderr
        answer = json.loads([line for line in ended.stdout.splitlines() if line][-1])
        if not has_worked:
            names |= {"TASK": answer["task_id"]} if "task_id" in answer else {}
            names |= {"SUBMISSION": answer["submission_id"]} if "source=" not in text and "submission_id" in answer else {}
    assert has_worked


def test_every_endpoint_is_on_the_page(local_site: Site, api: str) -> None:
    import urllib.request

    with urllib.request.urlopen(f"{api}/openapi.json", timeout=30) as response:
        paths = json.load(response)["paths"]
    asked = {re.sub(r"\$\w+", "{}", path) for path in re.findall(r"\$DOOR(/[^\"?]*)", PAGE)}
    assert {re.sub(r"{\w+}", "{}", path) for path in paths} <= asked


def test_the_client_of_python_submits_waits_and_reads(local_site: Site, api: str) -> None:
    names = [f"{number}.csv" for number in range(150)]
    with Client(api) as door:
        receipt = door.submit_many(({"task_type": "file_processing", "filename": name} for name in names), key="nightly")
        again = door.submit_many(({"task_type": "file_processing", "filename": name} for name in names), key="nightly")
        assert (receipt.accepted_count, again.submission_id, again.replayed) == (150, receipt.submission_id, True)
        assert door.status(receipt.submission_id)["state"] == "running"
        work(local_site)
        assert door.wait(receipt.submission_id, timeout_s=60)["state"] == "complete"
        outcomes = list(door.outcomes(receipt.submission_id))
        assert len({one["task_id"] for one in outcomes}) == 150
        assert door.task(outcomes[0]["task_id"])["task_id"] == outcomes[0]["task_id"]
        assert door.proof(receipt.submission_id)["complete"] is True
