"""Readings: three states, and a sample is judged by its age."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
import requests

from batch.model.clock import SystemClock
from batch.model.errors import SettingsError
from batch.model.progress import MARK_EVERY_S, MARKS_KEPT
from controller.config import controller_settings
from controller.decide.ledger import GUARD_S
from controller.model.reading import Idle, Reading, Unknown, Value
from controller.observe.backlog import LONGEST_WINDOW_S, GoogleBacklogReader, Sample, judged, newest_of
from tests.support import Service

NOW = 5000.0
Samples = Mapping[str, Sample | None] | str


@pytest.mark.parametrize(
    ("counts", "ages", "expected"),
    [
        ({"s": Sample(7, NOW - 90)}, {"s": Sample(33, NOW - 90)}, Value(7, NOW - 90, 33.0)),
        ({"s": Sample(0, NOW - 90)}, {}, Value(0, NOW - 90, None)),
        ({"s": Sample(7, NOW - 90)}, "no ages", Value(7, NOW - 90, None)),
        ({}, {}, Idle()),
        ({"other": Sample(7, NOW)}, {}, Idle()),
    ],
)
def test_a_known_backlog_and_an_idle_one(counts: Samples, ages: Samples, expected: Reading) -> None:
    assert judged(counts, ages, "s", NOW) == expected


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ("503 from Cloud Monitoring", "503"),
        ({"s": None}, "without points"),
        ({"s": Sample(7, NOW - 301)}, "301 s old"),
        ({"s": Sample(7, NOW + 61)}, "future"),
        ({"s": Sample(-1, NOW)}, "-1"),
    ],
)
def test_what_is_not_known_says_why(counts: Samples, said: str) -> None:
    reading = judged(counts, {}, "s", NOW)
    assert isinstance(reading, Unknown)
    assert said in reading.reason


def test_how_old_a_sample_may_be_is_a_setting_within_what_progress_can_tell() -> None:
    assert isinstance(judged({"s": Sample(7, NOW - 301)}, {}, "s", NOW, window_s=400), Value)
    assert isinstance(judged({"s": Sample(7, NOW - 200)}, {}, "s", NOW, window_s=150), Unknown)
    assert LONGEST_WINDOW_S + GUARD_S + MARK_EVERY_S <= MARKS_KEPT * MARK_EVERY_S
    known = {"GOOGLE_CLOUD_PROJECT": "p", "BUCKET_NAME": "b-ucket"}
    assert controller_settings({**known, "READING_WINDOW_S": "400"}).reading_window_s == 400
    for wrong in ("0", "541", "x", "nan"):
        with pytest.raises(SettingsError, match="from 120 to 540"):
            controller_settings({**known, "READING_WINDOW_S": wrong})


def series(project: str, name: str, *values: int) -> SimpleNamespace:
    points = [SimpleNamespace(value=SimpleNamespace(int64_value=value), interval=INTERVAL) for value in values]
    return SimpleNamespace(resource=SimpleNamespace(labels={"project_id": project, "subscription_id": name}), points=points)


INTERVAL = SimpleNamespace(end_time=datetime.fromtimestamp(NOW, UTC))


def test_a_project_that_monitors_others_does_not_take_their_subscriptions_for_its_own() -> None:
    found = newest_of(
        "mine", [series("mine", "tasks", 7, 9), series("other", "tasks", 5000), series("other", "bulk", 1), series("mine", "x")]
    )
    assert found == {"tasks": Sample(7, NOW), "x": None}
    assert newest_of("123456", [series("mine", "tasks", 7)]) == {"tasks": Sample(7, NOW)}, "a project's number says nothing of its id"


def test_a_refusal_names_the_role_that_is_missing(local_pubsub: Service, project: str) -> None:
    order = {"project": project, "method": "ListTimeSeries", "faults": ["permission_denied"]}
    requests.post(f"{local_pubsub.http}/faults", json=order, timeout=60).raise_for_status()
    with closing(GoogleBacklogReader(project, SystemClock(), emulator_host=local_pubsub.grpc)) as reader:
        refused = reader.read(["s"])["s"]
    assert isinstance(refused, Unknown)
    assert refused.reason.endswith("; the custom role fanoutController, or roles/monitoring.viewer is needed")
