"""Settings: every problem is reported at once, and what is right is read exactly."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch.model.errors import SettingsError
from batch.settings import Parse, WorkerSettings, names, seconds, text, whole, worker_settings

GOOD = {"GOOGLE_CLOUD_PROJECT": "p", "SUBSCRIPTION_NAME": "lane", "BUCKET_NAME": "bucket"}
BAD = {
    "GOOGLE_CLOUD_PROJECT": " ",
    "SUBSCRIPTION_NAME": "",
    "MAX_MESSAGES": "0",
    "BACKLOG": "-1",
    "HANDLERS": ",",
    "CONCURRENCY": "1001",
    "TASK_TIMEOUT_S": "inf",
    "PROGRESS_INTERVAL_S": "nan",
    "BILLING_FLOOR_S": "a minute",
    "CLOUD_RUN_TASK_COUNT": "1.5",
}


@given(st.sets(st.sampled_from(sorted(BAD))))
def test_every_problem_is_reported_at_once(broken: set[str]) -> None:
    environment = {**GOOD, **{name: BAD[name] for name in broken}}
    if not broken:
        worker_settings(environment)
        return
    with pytest.raises(SettingsError) as raised:
        worker_settings(environment)
    assert len(raised.value.problems) == len(broken)
    for name in broken:
        assert any(problem.startswith(name) for problem in raised.value.problems)
        assert name in str(raised.value)


def test_a_missing_setting_says_what_it_is_and_what_was_meant() -> None:
    with pytest.raises(SettingsError) as raised:
        worker_settings({"GOOGLE_CLOUD_PROJECT": "p", "SUBSCRIPTION_NAM": "s"})
    subscription, bucket = raised.value.problems
    assert (
        subscription == "SUBSCRIPTION_NAME is not set: the subscription to drain (SUBSCRIPTION_NAM is set; did you mean SUBSCRIPTION_NAME?)"
    )
    assert bucket == "BUCKET_NAME is not set: the bucket for inputs, outputs and outcomes"


def test_defaults_are_those_of_a_manual_execution() -> None:
    settings = worker_settings(GOOD)
    assert (settings.share, settings.lane_name) == (1000, "local")
    assert (settings.handlers, settings.decision_id, settings.index, settings.count) == (("batch.handlers",), "", 0, 1)


def test_an_empty_value_is_the_default() -> None:
    assert worker_settings({**GOOD, "BACKLOG": "", "MAX_MESSAGES": ""}) == worker_settings(GOOD)


def test_a_very_long_value_is_shortened_in_the_message() -> None:
    with pytest.raises(SettingsError) as raised:
        worker_settings({**GOOD, "MAX_MESSAGES": "x" * 10_000})
    assert len(str(raised.value)) < 500


@given(st.integers(0, 10**6), st.integers(1, 50))
def test_the_shares_of_an_execution_sum_to_its_backlog(backlog: int, count: int) -> None:
    workers = [
        worker_settings({**GOOD, "BACKLOG": str(backlog), "CLOUD_RUN_TASK_COUNT": str(count), "CLOUD_RUN_TASK_INDEX": str(index)})
        for index in range(count)
    ]
    assert sum(one.share for one in workers) == backlog


def test_an_index_outside_the_count_is_an_error() -> None:
    with pytest.raises(SettingsError, match="CLOUD_RUN_TASK_INDEX='3': must be below CLOUD_RUN_TASK_COUNT=3"):
        worker_settings({**GOOD, "CLOUD_RUN_TASK_INDEX": "3", "CLOUD_RUN_TASK_COUNT": "3"})


CHECKS: list[tuple[Parse, Callable[[Any], bool]]] = [
    (whole(1, 9), lambda value: isinstance(value, int) and 1 <= value <= 9),
    (whole(0), lambda value: isinstance(value, int) and value >= 0),
    (seconds(0.5), lambda value: isinstance(value, float) and value >= 0.5 and math.isfinite(value)),
    (text, lambda value: bool(value) and value == value.strip()),
    (names, lambda value: bool(value) and all(one and "," not in one for one in value)),
]


@given(st.text(max_size=20) | st.floats().map(str) | st.integers(-20, 20).map(str))
def test_parsers_give_a_value_within_their_bounds_or_their_rule(given_text: str) -> None:
    for parse, holds in CHECKS:
        rule = ""
        try:
            assert holds(parse(given_text))
        except ValueError as error:
            rule = str(error) or "no rule was named"
        assert rule != "no rule was named"


def test_every_setting_has_a_variable_of_its_own_and_a_help() -> None:
    metadata = [one.metadata for one in WorkerSettings.__dataclass_fields__.values()]
    assert len({one["env"] for one in metadata}) == len(metadata)
    assert all(one["help"] for one in metadata)
