"""Conditions of alert policies over series, minute by minute, and the incidents that they open and close."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from google.cloud.monitoring_v3.types import AlertPolicy, ComparisonType

from tests.deploy.monitoring.series import Labels, Selected, Store, aligned, selected

EVERY_S = 60.0
Missing = AlertPolicy.Condition.EvaluationMissingData


@dataclass(slots=True)
class Incident:
    """Of one group of one condition. `closed_at` is None while it is open; times are Unix seconds."""

    policy: str
    condition: str
    labels: Labels
    opened_at: float
    closed_at: float | None = None


@dataclass(slots=True)
class _Watch:
    """A condition, with since when each of its groups violates it, or when it last had data."""

    policy: str
    condition: Any
    auto_close_s: float
    which: Selected
    since: dict[Labels, float] = field(default_factory=dict)
    seen_at: dict[Labels, float] = field(default_factory=dict)
    open: dict[Labels, Incident] = field(default_factory=dict)

    def met(self, store: Store, now: float) -> Iterator[tuple[Labels, bool]]:
        """Each group for which something can be said."""
        if "condition_absent" in self.condition:
            yield from self._absent(store, now)
        else:
            yield from self._threshold(store, now)

    def _absent(self, store: Store, now: float) -> Iterator[tuple[Labels, bool]]:
        absent = self.condition.condition_absent
        (aggregation,) = absent.aggregations
        for labels, value in aligned(store, self.which, aggregation, now).items():
            if value is not None:
                self.seen_at[labels] = now
            if labels in self.seen_at:
                yield labels, now - self.seen_at[labels] >= absent.duration.total_seconds()

    def _threshold(self, store: Store, now: float) -> Iterator[tuple[Labels, bool]]:
        limit = self.condition.condition_threshold
        (aggregation,) = limit.aggregations
        for labels, value in aligned(store, self.which, aggregation, now).items():
            violates = _violates(limit, value)
            if violates is None:
                if now - self.seen_at.get(labels, now) >= self.auto_close_s:
                    yield labels, False
                continue
            self.seen_at[labels] = now
            if not violates:
                self.since.pop(labels, None)
            yield labels, violates and now - self.since.setdefault(labels, now) >= limit.duration.total_seconds()


def _violates(limit: Any, value: float | None) -> bool | None:
    if value is None:
        known = {Missing.EVALUATION_MISSING_DATA_INACTIVE: False, Missing.EVALUATION_MISSING_DATA_ACTIVE: True}
        return known.get(limit.evaluation_missing_data)
    if limit.comparison == ComparisonType.COMPARISON_GT:
        return bool(value > limit.threshold_value)
    if limit.comparison == ComparisonType.COMPARISON_LT:
        return bool(value < limit.threshold_value)
    raise ValueError(f"only > and < are supported: {limit.comparison}")


def filter_of(condition: Any) -> str:
    """Raises ValueError for a kind of condition that is not known here."""
    if "condition_absent" in condition:
        return str(condition.condition_absent.filter)
    if "condition_threshold" in condition:
        return str(condition.condition_threshold.filter)
    raise ValueError(f"not a kind of condition that is known here: {condition.display_name}")


def incidents(policies: Mapping[str, AlertPolicy], store: Store, begin: float, end: float) -> list[Incident]:
    """All that open from `begin` to `end` (Unix seconds). Any condition that is met opens one of its own (the combiner is OR)."""
    watches = [
        _Watch(name, condition, policy.alert_strategy.auto_close.total_seconds(), selected(filter_of(condition), store))
        for name, policy in policies.items()
        for condition in policy.conditions
    ]
    found: list[Incident] = []
    now = begin
    while now <= end:
        for watch in watches:
            for labels, is_met in watch.met(store, now):
                if is_met and labels not in watch.open:
                    watch.open[labels] = Incident(watch.policy, watch.condition.display_name, labels, now)
                    found.append(watch.open[labels])
                elif not is_met and labels in watch.open:
                    watch.open.pop(labels).closed_at = now
        now += EVERY_S
    return found
