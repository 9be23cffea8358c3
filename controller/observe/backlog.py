"""The backlog of subscriptions, read from Cloud Monitoring. Unknown is never zero.

The gauge is sampled every 60 s and seen up to 2 minutes later, and it counts leased messages too; so a value is worth
nothing without the time it was sampled at.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from batch.model.clock import Clock
from batch.services.calls import client_info
from controller.model.reading import FUTURE_S, Idle, Reading, Unknown, Value

WINDOW_S = 300.0
"""How old a sample may be. Shorter windows are sometimes empty even for a busy subscription."""
LONGEST_WINDOW_S = 540.0
"""Workers' progress reaches back ten minutes: of an older sample it would not be known what was acknowledged since."""
UNDELIVERED = "pubsub.googleapis.com/subscription/num_undelivered_messages"
OLDEST_AGE = "pubsub.googleapis.com/subscription/oldest_unacked_message_age"


class BacklogReader(Protocol):
    """Reads the backlog of subscriptions of one project, given by their short names."""

    def read(self, subscriptions: Sequence[str]) -> dict[str, Reading]:
        """A reading for each subscription. Errors of the service are not raised; the readings are then `Unknown`."""


@dataclass(frozen=True, slots=True)
class Sample:
    """The newest point of one series."""

    value: int
    sampled_at: float


def judged(
    counts: Mapping[str, Sample | None] | str, ages: Mapping[str, Sample | None] | str, name: str, now: float, window_s: float = WINDOW_S
) -> Reading:
    """The reading of one subscription from the newest samples by subscription, None for a series without points; a text instead says why
    the call failed. Samples older than `window_s` are not accepted."""
    if isinstance(counts, str):
        return Unknown(counts)
    if name not in counts:
        return Idle()
    sample = counts[name]
    if sample is None:
        return Unknown(f"the backlog series of {name} came without points")
    if now - sample.sampled_at > window_s:
        return Unknown(f"the newest sample of {name} is {now - sample.sampled_at:.0f} s old, at most {window_s:.0f} s is usable")
    if sample.sampled_at - now > FUTURE_S:
        return Unknown(f"the newest sample of {name} lies {sample.sampled_at - now:.0f} s in the future: compare the clocks")
    if sample.value < 0:
        return Unknown(f"the backlog of {name} was given as {sample.value}")
    age = None if isinstance(ages, str) else ages.get(name)
    return Value(sample.value, sample.sampled_at, None if age is None else float(age.value))


class GoogleBacklogReader:
    """Cloud Monitoring. One call per metric for all subscriptions of the project: selecting ours here costs less than a filter that
    lists them, and does not grow with the number of lanes."""

    def __init__(
        self,
        project: str,
        clock: Clock,
        *,
        emulator_host: str = "",
        timeout_s: float = 10.0,
        retry_s: float = 20.0,
        window_s: float = WINDOW_S,
    ) -> None:
        """`emulator_host` (`host:port`) is called without TLS or credentials. An unavailable service is tried again for `retry_s`: less
        than a tick's minute, where Google's own default is more."""
        from google.api_core.exceptions import ServiceUnavailable
        from google.api_core.retry import Retry, if_exception_type

        self._project = project
        self._clock = clock
        self._window_s = window_s
        self._timeout_s = timeout_s
        self._retry = Retry(predicate=if_exception_type(ServiceUnavailable), initial=0.2, maximum=4.0, timeout=retry_s)
        self._client = monitoring_client(emulator_host)

    def read(self, subscriptions: Sequence[str]) -> dict[str, Reading]:
        now = self._clock.now()
        counts = self._newest(UNDELIVERED, now)
        ages = counts if isinstance(counts, str) else self._newest(OLDEST_AGE, now)
        return {name: judged(counts, ages, name, now, self._window_s) for name in subscriptions}

    def close(self) -> None:
        self._client.transport.close()

    def _newest(self, metric: str, now: float) -> dict[str, Sample | None] | str:
        from google.api_core.exceptions import Forbidden, GoogleAPIError
        from google.auth.exceptions import GoogleAuthError

        request = {
            "name": f"projects/{self._project}",
            "filter": f'metric.type="{metric}" AND resource.type="pubsub_subscription"',
            "interval": {"start_time": timestamp(now - self._window_s), "end_time": timestamp(now)},
            "view": 0,
        }
        try:
            series = list(self._client.list_time_series(request=request, timeout=self._timeout_s, retry=self._retry))
        except (GoogleAPIError, GoogleAuthError) as error:
            name = metric.rsplit("/", 1)[-1]
            fix = "; the custom role fanoutController, or roles/monitoring.viewer is needed" if isinstance(error, Forbidden) else ""
            return f"Cloud Monitoring did not give {name} of project {self._project}: {type(error).__name__}: {str(error)[:300]}{fix}"
        return newest_of(self._project, series)


def newest_of(project: str, series: Iterable[Any]) -> dict[str, Sample | None]:
    """The newest sample by subscription. A project that monitors others gets their series too, which may have the same names. If
    `project` is a number, its id is not known, and all series count."""
    own = [one for one in series if project.isdecimal() or one.resource.labels["project_id"] == project]
    return {str(one.resource.labels["subscription_id"]): _first(one) for one in own}


def _first(series: Any) -> Sample | None:
    """Points come newest first. An INT64 series fills `int64_value`."""
    for point in series.points:
        return Sample(int(point.value.int64_value), float(point.interval.end_time.timestamp()))
    return None


def timestamp(unix_s: float) -> dict[str, int]:
    """As a request takes it."""
    return {"seconds": int(unix_s), "nanos": int(unix_s % 1 * 1e9)}


def monitoring_client(emulator_host: str) -> Any:
    """A client of Cloud Monitoring; of a local one, where its host is given, without TLS or credentials."""
    from google.cloud import monitoring_v3

    if not emulator_host:
        return monitoring_v3.MetricServiceClient(client_info=client_info())
    import grpc
    from google.cloud.monitoring_v3.services.metric_service.transports import MetricServiceGrpcTransport

    channel = grpc.insecure_channel(emulator_host)
    return monitoring_v3.MetricServiceClient(transport=MetricServiceGrpcTransport(channel=channel, client_info=client_info()))
