"""Log entries → points of log-based metrics → aligned and reduced series, as Cloud Monitoring makes them.

A log-based metric is DELTA: each matching entry adds 1, or its extracted value to a distribution. What a combination of metric, aligner
and reducer may be stands in Google's own descriptions of `Aggregation`; others are refused.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from google.cloud.logging_v2.types import LogMetric
from google.cloud.monitoring_v3.types import Aggregation

from tests.deploy.monitoring.filters import Comparison, extracted_field, logging_filter, monitoring_filter, value_at

USER = "logging.googleapis.com/user/"
NO_DATA_DAY_S = 86_400.0
Labels = tuple[tuple[str, str], ...]
Aligner, Reducer = Aggregation.Aligner, Aggregation.Reducer


@dataclass(frozen=True, slots=True)
class Kind:
    """What a metric's points are, and which labels it has."""

    kind: str
    value_type: str
    labels: frozenset[str]
    resource: str
    resource_labels: frozenset[str] = frozenset()


JOB, SUBSCRIPTION = frozenset({"job_name", "location"}), frozenset({"subscription_id"})
OF_SUBSCRIPTION = Kind("GAUGE", "INT64", frozenset(), "pubsub_subscription", SUBSCRIPTION)
GOOGLE_METRICS = {
    "pubsub.googleapis.com/subscription/oldest_unacked_message_age": OF_SUBSCRIPTION,
    "pubsub.googleapis.com/subscription/num_undelivered_messages": OF_SUBSCRIPTION,
    "run.googleapis.com/job/completed_execution_count": Kind("DELTA", "INT64", frozenset({"result"}), "cloud_run_job", JOB),
}
"""Of Google's own metrics those that our files use; cloud.google.com/monitoring/api/metrics_gcp_p_z (2026-08-31)."""
LOG_RESOURCES = {
    "cloud_run_revision": frozenset({"project_id", "service_name", "revision_name", "location", "configuration_name"}),
    "cloud_run_job": frozenset({"project_id", "job_name", "location"}),
}


@dataclass(slots=True)
class Series:
    """Points in the order of their times (Unix seconds)."""

    labels: Labels
    times: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    def add(self, at: float, value: float) -> None:
        assert not self.times or at >= self.times[-1], "entries come in the order of their times"
        self.times.append(at)
        self.values.append(value)

    def within(self, begin: float, end: float) -> list[float]:
        """Values later than `begin` and not later than `end`."""
        return self.values[bisect_right(self.times, begin) : bisect_right(self.times, end)]


@dataclass(slots=True)
class Store:
    """All series, by metric. `zeros`: a counter that has counted goes on with zeros where nothing is logged, as Google's documentation
    leaves open; without it there are gaps."""

    metrics: Mapping[str, LogMetric]
    zeros: bool = False
    series: dict[str, dict[Labels, Series]] = field(default_factory=dict)
    _rules: list[tuple[str, LogMetric, tuple[Comparison, ...]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._rules = [(USER + name, one, logging_filter(one.filter)) for name, one in self.metrics.items()]

    def take(self, entry: Mapping[str, Any], at: float) -> None:
        """One log entry: `resource` and `jsonPayload` as Cloud Logging has them."""
        for name, metric, comparisons in self._rules:
            if all(one.holds(value_at(entry, one.field)) for one in comparisons):
                value: float = 1
                if metric.value_extractor:
                    found = value_at(entry, extracted_field(metric.value_extractor))
                    if not isinstance(found, int | float):
                        continue
                    value = float(found)
                labels = {f"metric.{key}": value_at(entry, extracted_field(one)) for key, one in metric.label_extractors.items()}
                labels |= {f"resource.{key}": one for key, one in entry["resource"]["labels"].items()}
                labels["resource.type"] = entry["resource"]["type"]
                self.add(name, {key: "" if one is None else str(one) for key, one in labels.items()}, at, value)

    def add(self, metric: str, labels: Mapping[str, str], at: float, value: float) -> None:
        """One point."""
        key = tuple(sorted(labels.items()))
        self.series.setdefault(metric, {}).setdefault(key, Series(key)).add(at, value)

    def kind(self, metric: str) -> Kind:
        """Raises KeyError for a metric that is neither ours nor one of Google's that are known here."""
        if not metric.startswith(USER):
            return GOOGLE_METRICS[metric]
        one = self.metrics[metric.removeprefix(USER)]
        resource = next(part.texts[0] for part in logging_filter(one.filter) if part.field == "resource.type")
        descriptor = one.metric_descriptor
        value_type = descriptor.ValueType.Name(descriptor.value_type)
        labels = frozenset(label.key for label in descriptor.labels)
        return Kind(descriptor.MetricKind.Name(descriptor.metric_kind), value_type, labels, resource, LOG_RESOURCES[resource])


@dataclass(frozen=True, slots=True)
class Selected:
    """What a filter of Cloud Monitoring selects: one metric of one resource, by labels."""

    metric: str
    comparisons: tuple[Comparison, ...]

    def takes(self, labels: Labels) -> bool:
        known = dict(labels)
        return all(one.holds(known.get(_label(one.field))) for one in self.comparisons)


def selected(text: str, store: Store) -> Selected:
    """Raises ValueError for a filter that is not known here, or names a metric, resource or label that does not exist."""
    comparisons = monitoring_filter(text)
    types = [one for one in comparisons if one.field == "metric.type"]
    rest = tuple(one for one in comparisons if one.field != "metric.type")
    if len(types) != 1 or len(types[0].texts) != 1:
        raise ValueError(f"a filter names one metric: {text}")
    (metric,) = types[0].texts
    try:
        kind = store.kind(metric)
    except KeyError:
        raise ValueError(f"there is no metric {metric}") from None
    if ("resource.type", (kind.resource,)) not in [(one.field, one.texts) for one in rest]:
        raise ValueError(f"{metric} is written for {kind.resource}: {text}")
    for one in rest:
        if one.field != "resource.type":
            check_label(one.field, kind)
    return Selected(metric, rest)


def check_label(name: str, kind: Kind) -> None:
    """Raises ValueError for a label that series of this kind do not have."""
    where, _, key = _label(name).partition(".")
    if key not in {"metric": kind.labels, "resource": kind.resource_labels}.get(where, ()):
        raise ValueError(f"there is no label {name}")


def _label(name: str) -> str:
    return name.replace(".labels.", ".").replace(".label.", ".")


def check_aggregation(kind: Kind, one: Aggregation) -> None:
    """Raises ValueError for an aggregation that Google refuses for this kind, or that is not known here."""
    aligner, reducer, type_ = one.per_series_aligner, one.cross_series_reducer, kind.value_type
    if one.alignment_period.total_seconds() < 60 or one.alignment_period.total_seconds() % 60:
        raise ValueError(f"an alignment period is a number of minutes: {one.alignment_period}")
    fits = {Aligner.ALIGN_DELTA: kind.kind == "DELTA", Aligner.ALIGN_MAX: type_ != "DISTRIBUTION"}
    if not fits.get(aligner, False):
        raise ValueError(f"{aligner.name} does not fit {kind}")
    fits_reducer = {
        Reducer.REDUCE_SUM: type_ != "DISTRIBUTION",
        Reducer.REDUCE_MEAN: True,
        Reducer.REDUCE_MAX: type_ != "DISTRIBUTION",
    }
    if not fits_reducer.get(reducer, False):
        raise ValueError(f"{reducer.name} does not fit {kind}, or is not known here")
    for name in one.group_by_fields:
        check_label(name, kind)


def aligned(store: Store, which: Selected, one: Aggregation, now: float) -> dict[Labels, float | None]:
    """The value of each group at `now`; None for one whose series have no point in the period that ends then."""
    kind, period_s = store.kind(which.metric), one.alignment_period.total_seconds()
    check_aggregation(kind, one)
    groups: dict[Labels, list[list[float]]] = {}
    for labels, series in store.series.get(which.metric, {}).items():
        if which.takes(labels) and series.times[0] <= now:
            known = dict(labels)
            key = tuple((name, known.get(_label(name), "")) for name in one.group_by_fields)
            values = series.within(now - period_s, now)
            goes_on = store.zeros and kind.kind == "DELTA" and now - series.times[0] < NO_DATA_DAY_S
            groups.setdefault(key, []).append(values or ([0] if goes_on and kind.value_type != "DISTRIBUTION" else []))
    return {key: _reduced(kind, one, [values for values in several if values]) for key, several in groups.items()}


def _reduced(kind: Kind, one: Aggregation, several: list[list[float]]) -> float | None:
    if not several:
        return None
    if kind.value_type == "DISTRIBUTION":
        return _mean(value for values in several for value in values)
    aligner = sum if one.per_series_aligner == Aligner.ALIGN_DELTA else max
    values = [aligner(values) for values in several]
    if one.cross_series_reducer == Reducer.REDUCE_MEAN:
        return _mean(values)
    return sum(values) if one.cross_series_reducer == Reducer.REDUCE_SUM else max(values)


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found)
