"""Filters of time series: what is understood, and that the rest is refused by name."""

from __future__ import annotations

import pytest

from local_cloud.monitoring.series_filter import OLDEST_AGE, UNDELIVERED, parse

METRIC = f'metric.type="{UNDELIVERED}"'


@pytest.mark.parametrize(
    ("text", "subscriptions"),
    [
        (METRIC, None),
        (f'{METRIC} AND resource.type="pubsub_subscription"', None),
        (f'{METRIC} AND resource.labels.subscription_id="a"', {"a"}),
        (f'resource.labels.subscription_id = one_of("a", "b") AND {METRIC}', {"a", "b"}),
        (f'  resource.labels.subscription_id=one_of( "a","b" )   AND resource.type = "pubsub_subscription" AND {METRIC} ', {"a", "b"}),
        (f'{METRIC} AND resource.labels.subscription_id="a\\"b"', {'a"b'}),
        (f'{METRIC} AND resource.labels.subscription_id="a AND b"', {"a AND b"}),
        (f'{METRIC} AND resource.labels.subscription_id="a" AND resource.labels.subscription_id=one_of("a","b")', {"a"}),
        (f'{METRIC} AND resource.labels.subscription_id="a" AND resource.labels.subscription_id="b"', set()),
    ],
)
def test_understood(text: str, subscriptions: set[str] | None) -> None:
    selected = parse(text)
    assert selected.metric_type == UNDELIVERED
    assert selected.subscriptions == subscriptions


def test_the_other_gauge() -> None:
    assert parse(f'metric.type = "{OLDEST_AGE}"').metric_type == OLDEST_AGE


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "the end of the filter"),
        ('resource.type="pubsub_subscription"', "metric.type"),
        ('metric.type="pubsub.googleapis.com/topic/byte_cost"', "topic/byte_cost"),
        (f'{METRIC} AND resource.type="gce_instance"', "gce_instance"),
        (f'{METRIC} AND metric.labels.code="1"', "metric.labels.code"),
        (f'{METRIC} OR resource.type="pubsub_subscription"', "OR resource"),
        (f'{METRIC} AND resource.labels.subscription_id!="a"', "!="),
        (f'{METRIC} AND resource.labels.subscription_id=starts_with("a")', "starts_with"),
        (f'{METRIC} AND resource.type=one_of("pubsub_subscription")', "one_of"),
        (f'{METRIC} AND resource.labels.subscription_id="a', '"a'),
        (f"{METRIC} AND ", "the end of the filter"),
        (f"({METRIC})", "(metric"),
        (f'{METRIC} AND metric.type="{OLDEST_AGE}"', "exactly one metric.type"),
    ],
)
def test_refused_with_the_part_that_is_wrong(text: str, part: str) -> None:
    with pytest.raises(ValueError, match=r".") as refusal:
        parse(text)
    assert part in str(refusal.value)
