"""Publishers that never heard of Fanout, with Google's own client, and real workers with the handlers of docs/handlers.md."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from batch.testing import cloud_event, notification, raw, structured
from tests.e2e.site import ROOT, Ended, Site
from tests.support import clean_environment

pytestmark = pytest.mark.slow

PAGE = (ROOT / "docs" / "handlers.md").read_text(encoding="utf-8")
MODULES = dict(re.findall(r"^```python\n# my_team/(notes|uploads|orders)\.py\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))
BY_FORM = """
from batch import task


@task("any", isolation="process")
def by_form(task, ctx):
    return task.form
"""
PUBLISHER = """
import sys

from google.cloud import pubsub_v1

publisher = pubsub_v1.PublisherClient()
topic_path = publisher.topic_path(sys.argv[1], "lane")

for n in range(1, 10):
    data = f"Message number {n}".encode("utf-8")
    future = publisher.publish(topic_path, data)
    print(future.result())
"""


@pytest.fixture
def own(tmp_path: Path) -> dict[str, object]:
    """Settings of workers whose handlers are those of the page."""
    folder = tmp_path / "my_team"
    folder.mkdir()
    (folder / "__init__.py").touch()
    programs = MODULES | {"by_form": BY_FORM}
    for name, program in programs.items():
        (folder / f"{name}.py").write_text(program, encoding="utf-8")
    return {"HANDLERS": ",".join(f"my_team.{name}" for name in programs), "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}


def publish(site: Site, *messages: Any) -> None:
    for one in messages:
        site.publish_raw(one.data, **one.attributes)


def drained(site: Site, own: dict[str, object], accept: str, default_type: str = "") -> Ended:
    forms = {"ACCEPT": accept, **({"DEFAULT_TYPE": default_type} if default_type else {})}
    end = site.run(**own, **forms, MAX_MESSAGES=1000)
    assert (end.code, end.summary["exit_reason"]) == (0, "drained"), end.text
    assert site.pull("lane") == []
    return end


def letters(site: Site) -> dict[bytes, str]:
    return {one.message.data: dict(one.message.attributes)["dead_reason"] for one in site.pull("dead-letters")}


def test_the_page_has_a_handler_for_each_form() -> None:
    assert sorted(MODULES) == ["notes", "orders", "uploads"]


def test_plain_text_of_a_publisher_that_somebody_copied_from_a_tutorial(local_site: Site, own: dict[str, object]) -> None:
    environment = {**clean_environment(), "PUBSUB_EMULATOR_HOST": local_site.pubsub}
    command = [sys.executable, "-c", PUBLISHER, local_site.project]
    published = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True).stdout.split()
    assert len(published) == 9
    drained(local_site, own, "raw", "note")
    assert local_site.final() == {"succeeded": 9}
    texts = {local_site.read(name) for name in local_site.names("notes/")}
    assert texts == {f"Message number {number}".encode() for number in range(1, 10)}
    assert {one["message_id"] for one in local_site.outcomes()} == set(published)
    assert letters(local_site) == {}


def test_notifications_of_a_bucket(local_site: Site, own: dict[str, object]) -> None:
    wanted = [notification("uploads", f"a/{number}.csv", size=number, content_type="text/csv") for number in range(20)]
    publish(local_site, *wanted, wanted[0], notification("uploads", "a/0.csv", event_type="OBJECT_DELETE"), raw(b"by hand"))
    drained(local_site, own, "gcs-notification", "upload")
    assert local_site.final() == {"succeeded": 20, "cancelled": 1, "dead": 1}
    assert Counter(one["outcome"] for one in local_site.outcomes())["succeeded"] == 21, "one came twice"
    results = {one["result"]["object"]: one["result"]["bytes"] for one in local_site.outcomes() if one["outcome"] == "succeeded"}
    assert results == {f"gs://uploads/a/{number}.csv": number for number in range(20)}
    (reason,) = {one["reason"] for one in local_site.outcomes() if one["outcome"] == "cancelled"}
    assert "'OBJECT_DELETE' is none that this lane runs" in reason
    assert "the message has not the attributes of a bucket's notification" in letters(local_site)[b"by hand"]


def test_cloud_events_in_both_modes(local_site: Site, own: dict[str, object]) -> None:
    context = {"type": "com.example.order.placed", "source": "//shop"}
    publish(
        local_site,
        *[cloud_event(json.dumps({"number": number}).encode(), **context, id=f"b-{number}") for number in range(5)],
        *[structured({**context, "id": f"s-{number}", "data": {"number": number}}) for number in range(5, 10)],
        cloud_event(b'{"number": "seven"}', **context, id="wrong"),
        structured({**context, "id": "old", "specversion": "0.3"}),
        cloud_event(b"{}", type="com.example.order.lost"),
    )
    drained(local_site, own, "cloudevents")
    assert local_site.final() == {"succeeded": 10, "dead": 3}
    assert sorted(one["result"]["order"] for one in local_site.outcomes() if one["outcome"] == "succeeded") == list(range(10))
    reasons = "\n".join(letters(local_site).values())
    assert "number: Input should be a valid integer" in reasons
    assert "specversion must be 1.x, got '0.3'" in reasons
    assert "no handler is registered for task_type 'com.example.order.lost'" in reasons


def test_a_mixed_lane_does_all_of_it(local_site: Site, own: dict[str, object]) -> None:
    local_site.publish([{"task_id": "t-1", "task_type": "upload", "bucket": "b", "name": "n", "size": 1}])
    publish(
        local_site,
        notification("uploads", "a.csv", size=5),
        raw(b"Message number 1", sender="Ada"),
        raw(b'{"task_type": "fanout.webhook", "webhook": "https://example.com"}'),
        cloud_event(b'{"number": 1}', type="t", source="s"),
    )
    drained(local_site, own, "envelope,gcs-notification,cloudevents,raw", "any")
    found = {json.dumps(one["result"]): one for one in local_site.outcomes() if one["outcome"] == "succeeded"}
    assert sorted(found) == ['"cloudevents"', '"gcs-notification"', '"raw"', '{"object": "gs://b/n", "bytes": 1}']
    assert local_site.final() == {"succeeded": 4, "dead": 1}
    assert "only Fanout publishes" in next(iter(letters(local_site).values()))
