"""Readings: three states, and a sample is judged by its age."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from controller.backlog import Idle, Reading, Sample, Unknown, Value, judged

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
