"""The method ListTimeSeries of google.monitoring.v3.MetricService, for the backlog gauges and for what was acknowledged.

It knows no transport. Points come newest first, each with its own sample time, so that a reader can tell how old they are.
"""

from __future__ import annotations

import re
from typing import Any

from google.cloud.monitoring_v3.types import metric, metric_service

from local_cloud.clock import Clock
from local_cloud.monitoring import paging
from local_cloud.monitoring.gauges import Point
from local_cloud.monitoring.sampler import Sampler
from local_cloud.monitoring.series_filter import ACKED, RESOURCE, UNDELIVERED, SeriesFilter, parse

SERVICE = "google.monitoring.v3.MetricService"

_RESPONSE = metric_service.ListTimeSeriesResponse.pb()
_POINT = metric.Point.pb()
# google.api.MetricDescriptor: MetricKind.GAUGE and .DELTA, ValueType.INT64; ListTimeSeriesRequest.TimeSeriesView.HEADERS.
_GAUGE = 1
_DELTA = 2
_INT64 = 2
_HEADERS = 1


class NotListed(Exception):
    """The request is answered with an error. `code` is a canonical gRPC status name."""

    def __init__(self, text: str, code: str = "INVALID_ARGUMENT") -> None:
        super().__init__(text)
        self.code = code


class Monitoring:
    def __init__(self, sampler: Sampler, clock: Clock) -> None:
        self._sampler = sampler
        self._clock = clock

    def list_time_series(self, request: Any) -> Any:
        """The raw ListTimeSeriesResponse to a raw request. Raises NotListed."""
        project = _project(request.name)
        code = self._sampler.gauges.error(project)
        if code is not None:
            raise NotListed(f"Reading time series of project {project} fails, as it was asked to (PUT /gauges).", code)
        selection = _selection(request)
        start_s, end_s = _interval(request.interval)
        self._sampler.prepare_reading(end_s)
        found = self._sampler.gauges.read(project, start_s, end_s, self._clock.now())
        if selection.subscriptions is not None:
            found = {subscription: found[subscription] for subscription in found if subscription in selection.subscriptions}
        if request.view == _HEADERS:
            found = {subscription: points[:1] for subscription, points in found.items()}
        try:
            shown, token = paging.page(found, request.page_size, request.page_token)
        except ValueError as error:
            raise NotListed(str(error)) from error
        response = _RESPONSE(next_page_token=token)
        for subscription, points in shown.items():
            series = response.time_series.add()
            _describe(series, selection.metric_type, project, subscription)
            if request.view != _HEADERS:
                series.points.extend(_raw_point(point, selection.metric_type) for point in points)
        return response


def _project(name: str) -> str:
    match = re.fullmatch(r"projects/([^/\s]+)", name)
    if match is None:
        raise NotListed(f"Name must be like projects/PROJECT, got: {name}")
    return match.group(1)


def _selection(request: Any) -> SeriesFilter:
    for field in ("aggregation", "secondary_aggregation", "order_by"):
        if field in {descriptor.name for descriptor, _value in request.ListFields()}:
            raise NotListed(f"The local Monitoring does not support {field}.")
    try:
        return parse(request.filter)
    except ValueError as error:
        raise NotListed(f"The filter cannot be used: {error}") from error


def _interval(interval: Any) -> tuple[float, float]:
    """Start and end in unix seconds; a gauge without a start time is read at the end time."""
    if not interval.HasField("end_time"):
        raise NotListed("Field interval.end_time is needed.")
    end_s = interval.end_time.ToNanoseconds() / 1e9
    start_s = interval.start_time.ToNanoseconds() / 1e9 if interval.HasField("start_time") else end_s
    if start_s > end_s:
        raise NotListed(f"Field interval.start_time ({start_s}) is later than interval.end_time ({end_s}).")
    return start_s, end_s


def _describe(series: Any, metric_type: str, project: str, subscription: str) -> None:
    series.metric.type = metric_type
    series.resource.type = RESOURCE
    series.resource.labels["project_id"] = project
    series.resource.labels["subscription_id"] = subscription
    series.metric_kind = _DELTA if metric_type == ACKED else _GAUGE
    series.value_type = _INT64


def _raw_point(point: Point, metric_type: str) -> Any:
    raw = _POINT()
    # Whole microseconds: the same float gives the same time in every answer.
    time_ns = round(point.sampled_s * 1_000_000) * 1000
    covered_ns = round(point.covered_s * 1_000_000) * 1000 if metric_type == ACKED else 0
    raw.interval.start_time.FromNanoseconds(time_ns - covered_ns)
    raw.interval.end_time.FromNanoseconds(time_ns)
    raw.value.int64_value = {UNDELIVERED: point.undelivered_count, ACKED: point.acked_count}.get(metric_type, int(point.oldest_age_s))
    return raw
