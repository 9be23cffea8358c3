"""The evaluator itself: what it does not know it refuses, and conditions hold as Google describes them."""

from __future__ import annotations

from typing import Any

import pytest
from google.cloud.logging_v2.types import LogMetric
from google.cloud.monitoring_v3.types import AlertPolicy

from tests.deploy.monitoring.definitions import parsed
from tests.deploy.monitoring.filters import extracted_field, logging_filter, monitoring_filter, value_at
from tests.deploy.monitoring.incidents import incidents
from tests.deploy.monitoring.series import USER, Store, selected

COUNTER = {
    "filter": 'resource.type="cloud_run_job" AND jsonPayload.event=("a" OR "b")',
    "metricDescriptor": {"metricKind": "DELTA", "valueType": "INT64", "labels": [{"key": "lane"}]},
    "labelExtractors": {"lane": "EXTRACT(jsonPayload.lane)"},
}
VALUES = {
    "filter": 'resource.type="cloud_run_job"',
    "metricDescriptor": {"metricKind": "DELTA", "valueType": "DISTRIBUTION"},
    "valueExtractor": "EXTRACT(jsonPayload.value)",
}
METRICS = {"count": parsed(COUNTER, LogMetric), "values": parsed(VALUES, LogMetric)}
SUM = {
    "alignmentPeriod": "120s",
    "perSeriesAligner": "ALIGN_DELTA",
    "crossSeriesReducer": "REDUCE_SUM",
    "groupByFields": ["metric.label.lane"],
}
OF_COUNT = f'metric.type="{USER}count" AND resource.type="cloud_run_job"'


def store(*at_s: float, zeros: bool = False, event: str = "a") -> Store:
    """Entries of one lane at these seconds."""
    made = Store(METRICS, zeros=zeros)
    for at in at_s:
        made.take({"resource": {"type": "cloud_run_job", "labels": {}}, "jsonPayload": {"event": event, "lane": "x", "value": at}}, at)
    return made


def policy(kind: str = "conditionThreshold", **condition: Any) -> dict[str, AlertPolicy]:
    usual = {"filter": OF_COUNT, "aggregations": [SUM], "duration": "180s"}
    if kind == "conditionThreshold":
        usual |= {"comparison": "COMPARISON_GT", "evaluationMissingData": "EVALUATION_MISSING_DATA_INACTIVE"}
    body = {"conditions": [{"displayName": "it", kind: {**usual, **condition}}], "alertStrategy": {"autoClose": "1800s"}}
    return {"p": parsed(body, AlertPolicy)}


def opened(policies: dict[str, AlertPolicy], here: Store, end_s: float = 3600.0) -> list[tuple[float, float | None]]:
    return [(one.opened_at, one.closed_at) for one in incidents(policies, here, 0.0, end_s)]


@pytest.mark.parametrize(
    "text",
    ['a!="x"', 'a>"x"', "a=x", 'a="x" OR b="y"', 'NOT a="x"', 'a=~"x"', "severity>=ERROR", '"words"', 'a="x\\"y"', 'a=("x" AND "y")', ""],
)
def test_what_is_not_known_of_the_languages_is_refused(text: str) -> None:
    for language in (logging_filter, monitoring_filter):
        with pytest.raises(ValueError, match="known here"):
            language(text)


def test_each_language_has_its_own() -> None:
    with pytest.raises(ValueError, match="not in the part"):
        monitoring_filter('a=("x" OR "y")')
    with pytest.raises(ValueError, match="not in the part"):
        logging_filter('a=monitoring.regex.full_match("x|y")')
    (several,) = logging_filter('a.b=("x" OR "y")')
    (matched,) = monitoring_filter('a.b = monitoring.regex.full_match("x|y")')
    for one in (several, matched):
        assert [one.holds(value) for value in ("x", "y", "xy", None)] == [True, True, False, False]


def test_fields_are_paths() -> None:
    assert extracted_field("EXTRACT(jsonPayload.health.day_usd)") == "jsonPayload.health.day_usd"
    with pytest.raises(ValueError, match="EXTRACT"):
        extracted_field('REGEXP_EXTRACT(jsonPayload.a, "(.*)")')
    assert value_at({"a": {"b": 0}}, "a.b") == 0
    assert value_at({"a": "text"}, "a.b") is None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (f'metric.type="{USER}other" AND resource.type="cloud_run_job"', "there is no metric"),
        ('metric.type="custom.googleapis.com/x" AND resource.type="cloud_run_job"', "there is no metric"),
        (f'metric.type="{USER}count"', "is written for cloud_run_job"),
        (f'metric.type="{USER}count" AND resource.type="cloud_run_revision"', "is written for cloud_run_job"),
        (f'{OF_COUNT} AND metric.labels.other="x"', "there is no label"),
        ('resource.type="cloud_run_job"', "names one metric"),
    ],
)
def test_a_filter_of_what_does_not_exist_is_refused(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        selected(text, store())


@pytest.mark.parametrize(
    ("filter_", "aggregation"),
    [
        ("count", {**SUM, "perSeriesAligner": "ALIGN_RATE"}),
        ("count", {**SUM, "crossSeriesReducer": "REDUCE_COUNT"}),
        ("count", {**SUM, "groupByFields": ["metric.label.other"]}),
        ("count", {**SUM, "alignmentPeriod": "30s"}),
        ("values", {**SUM, "groupByFields": []}),
        ("values", {**SUM, "groupByFields": [], "perSeriesAligner": "ALIGN_MAX"}),
    ],
)
def test_an_aggregation_that_does_not_fit_is_refused(filter_: str, aggregation: dict[str, Any]) -> None:
    here = policy(filter=f'metric.type="{USER}{filter_}" AND resource.type="cloud_run_job"', aggregations=[aggregation])
    with pytest.raises(ValueError, match=r"fit|there is no label|number of minutes"):
        opened(here, store(10.0))


def test_a_threshold_holds_for_its_whole_duration() -> None:
    steady = [10.0 + 60 * number for number in range(10)]
    assert opened(policy(), store(*steady)) == [(240.0, 720.0)]  # first seen at 60, for three minutes; last entry at 550
    assert opened(policy(), store(*steady[:2])) == []
    assert opened(policy(), store(*steady, event="c")) == []  # its filter does not take them


def test_a_hole_begins_the_duration_anew() -> None:
    assert opened(policy(), store(10.0, 70.0, 400.0, 460.0)) == []


def test_with_no_operation_for_missing_data_an_incident_stays_until_it_closes_by_itself() -> None:
    keeps = policy(evaluationMissingData="EVALUATION_MISSING_DATA_NO_OP")
    steady = [10.0 + 60 * number for number in range(10)]
    ((at, closed_at),) = opened(keeps, store(*steady))
    assert at == 240.0
    assert closed_at is not None
    assert closed_at >= 1800 + steady[-1]


def test_absence_needs_data_first() -> None:
    absent = policy("conditionAbsent", duration="600s")
    assert opened(absent, store()) == []
    assert opened(absent, store(10.0, 70.0, 2400.0), 2700.0) == [(780.0, 2400.0)]
    assert opened(absent, store(10.0, 70.0, zeros=True)) == []  # a counter that goes on with zeros is never absent


def test_a_distribution_has_the_mean_of_what_was_extracted() -> None:
    mean = {"alignmentPeriod": "120s", "perSeriesAligner": "ALIGN_DELTA", "crossSeriesReducer": "REDUCE_MEAN"}
    filter_ = f'metric.type="{USER}values" AND resource.type="cloud_run_job"'
    times = (100.0, 110.0)
    for limit, found in ((104.0, 1), (106.0, 0)):
        here = policy(filter=filter_, aggregations=[mean], thresholdValue=limit, duration="60s")
        assert len(opened(here, store(*times))) == found
