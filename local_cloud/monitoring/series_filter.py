"""The filter of a `ListTimeSeries` request: which metric, and of which subscriptions.

The rule: a condition that is not understood is refused by name, never ignored: without it the filter would select too much.
Grammar: https://cloud.google.com/monitoring/api/v3/filters, of which this is the part that selects subscriptions.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

UNDELIVERED = "pubsub.googleapis.com/subscription/num_undelivered_messages"
OLDEST_AGE = "pubsub.googleapis.com/subscription/oldest_unacked_message_age"
ACKED = "pubsub.googleapis.com/subscription/ack_message_count"
RESOURCE = "pubsub_subscription"

_STRING = r'"((?:[^"\\]|\\.)*)"'
_CONDITION = re.compile(rf"\s*([\w.]+)\s*=\s*(?:{_STRING}|one_of\(\s*({_STRING}(?:\s*,\s*{_STRING})*)\s*\))\s*")
_AND = re.compile(r"AND\b")


@dataclass(frozen=True)
class SeriesFilter:
    """`subscriptions` are short ids; None selects every subscription."""

    metric_type: str
    subscriptions: frozenset[str] | None


def parse(text: str) -> SeriesFilter:
    """Read a filter; raises ValueError with the part that is not understood."""
    conditions: dict[str, frozenset[str]] = {}
    position = 0
    while True:
        condition = _CONDITION.match(text, position)
        if condition is None:
            raise ValueError(f'a condition like key = "value" is expected at: {_rest(text, position)}')
        key, values = _read(condition)
        # Two conditions on one key must both be true.
        conditions[key] = conditions[key] & values if key in conditions else values
        position = condition.end()
        if position == len(text):
            return _selected(conditions)
        joint = _AND.match(text, position)
        if joint is None:
            raise ValueError(f"only AND can join conditions, found: {_rest(text, position)}")
        position = joint.end()


def _rest(text: str, position: int) -> str:
    return text[position : position + 80].strip() or "the end of the filter"


def _read(condition: re.Match[str]) -> tuple[str, frozenset[str]]:
    key, single, several = condition.group(1), condition.group(2), condition.group(3)
    if single is not None:
        return key, frozenset({_unescaped(single)})
    if key != "resource.labels.subscription_id":
        raise ValueError(f"one_of is only supported for resource.labels.subscription_id, found: {condition.group(0).strip()}")
    return key, frozenset(_unescaped(value) for value in re.findall(_STRING, several))


def _unescaped(value: str) -> str:
    return re.sub(r"\\(.)", r"\1", value)


def _selected(conditions: dict[str, frozenset[str]]) -> SeriesFilter:
    for key in conditions:
        if key not in ("metric.type", "resource.type", "resource.labels.subscription_id"):
            raise ValueError(f"unknown key: {key}")
    metric_types = conditions.get("metric.type", frozenset())
    if len(metric_types) != 1:
        raise ValueError('exactly one metric.type = "…" is needed')
    (metric_type,) = metric_types
    if metric_type not in (UNDELIVERED, OLDEST_AGE, ACKED):
        raise ValueError(f"unknown metric.type: {metric_type}")
    if conditions.get("resource.type", frozenset({RESOURCE})) != frozenset({RESOURCE}):
        raise ValueError(f'only resource.type = "{RESOURCE}" is known, found: {", ".join(sorted(conditions["resource.type"]))}')
    return SeriesFilter(metric_type, conditions.get("resource.labels.subscription_id"))
