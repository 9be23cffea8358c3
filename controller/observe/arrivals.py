"""What came into a subscription, minute by minute, from what Cloud Monitoring keeps: six weeks.

No metric of a subscription counts that. A topic's count of published messages is another number: of several subscriptions, or one with a
filter, each gets its own part. What the backlog grew by and what was acknowledged is together what came, for every kind of subscription;
what retention or a seek removed is not seen as acknowledged, and lowers nothing for longer than SKEW_S.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from batch.model.errors import DependencyForbidden, DependencyUnavailable
from controller.observe.backlog import UNDELIVERED, monitoring_client, timestamp

ACKED = "pubsub.googleapis.com/subscription/ack_message_count"
KEPT_S = 42 * 86_400.0
"""How far back Cloud Monitoring keeps a point a minute."""
LATE_S = 300.0
"""Both series are complete up to so long ago."""
SKEW_S = 180.0
Series = Sequence[tuple[float, int]]
"""(Unix seconds at which a point's minute ends, its value)."""


def came_in(backlog: Series, acked: Series) -> list[tuple[float, int]]:
    """How many messages came, by the points of the gauge; what there was at the first of them came then. `acked` may have several points
    for a minute, one for each kind of delivery. Where the gauge has a gap, its end has what came in it; what was acknowledged after the
    last point came when it was acknowledged."""
    gauge, deltas = sorted(backlog), sorted(acked)
    if not gauge:
        return deltas
    found = [(gauge[0][0], gauge[0][1])]
    at = next((number for number, (end, _) in enumerate(deltas) if end > gauge[0][0]), len(deltas))
    owed_count, owed_at = 0, 0.0
    for (_, before), (end, count) in pairwise(gauge):
        done_count = 0
        while at < len(deltas) and deltas[at][0] <= end:
            done_count += deltas[at][1]
            at += 1
        if end - owed_at > SKEW_S:
            owed_count = 0
        came_count = count - before + done_count - owed_count
        if came_count < 0:
            # The gauge fell before the acknowledgements were counted: the next points have them.
            owed_count, owed_at = -came_count, owed_at if owed_count else end
        else:
            owed_count = 0
        found.append((end, max(0, came_count)))
    return found + list(deltas[at:])


class GoogleArrivalsReader:
    """Cloud Monitoring: two calls for a subscription."""

    def __init__(self, project: str, *, emulator_host: str = "", timeout_s: float = 60.0, retry_s: float = 60.0) -> None:
        """`emulator_host` (`host:port`) is called without TLS or credentials. An unavailable service is tried again for `retry_s`."""
        from google.api_core.exceptions import ServiceUnavailable
        from google.api_core.retry import Retry, if_exception_type

        self._project, self._timeout_s = project, timeout_s
        self._retry = Retry(predicate=if_exception_type(ServiceUnavailable), initial=0.2, maximum=4.0, timeout=retry_s)
        self._client = monitoring_client(emulator_host)

    def read(self, subscription: str, since: float, until: float) -> list[tuple[float, int]]:
        """(Unix seconds, count), in order, of points after `since` and up to `until`; nothing where there is no point. Raises
        DependencyForbidden, DependencyUnavailable."""
        return came_in(*(self._points(metric, subscription, since, until) for metric in (UNDELIVERED, ACKED)))

    def close(self) -> None:
        """End the connection."""
        self._client.transport.close()

    def _points(self, metric: str, subscription: str, since: float, until: float) -> list[tuple[float, int]]:
        from google.api_core.exceptions import Forbidden, GoogleAPIError
        from google.auth.exceptions import GoogleAuthError

        labels = f'resource.type="pubsub_subscription" AND resource.labels.subscription_id="{subscription}"'
        request = {
            "name": f"projects/{self._project}",
            "filter": f'metric.type="{metric}" AND {labels}',
            "interval": {"start_time": timestamp(since), "end_time": timestamp(until)},
            "view": 0,
        }
        try:
            series = list(self._client.list_time_series(request=request, timeout=self._timeout_s, retry=self._retry))
        except (GoogleAPIError, GoogleAuthError) as error:
            told = f"Cloud Monitoring did not give {metric.rsplit('/', 1)[-1]} of {subscription} of project {self._project}: "
            told += f"{type(error).__name__}: {str(error)[:300]}"
            if isinstance(error, Forbidden):
                raise DependencyForbidden(f"{told}; the custom role fanoutOperator, or roles/monitoring.viewer is needed") from error
            raise DependencyUnavailable(told) from error
        # A project that monitors others gets their series too; where `project` is a number, its id is not known.
        own = (one for one in series if self._project.isdecimal() or one.resource.labels["project_id"] == self._project)
        return [(float(point.interval.end_time.timestamp()), int(point.value.int64_value)) for one in own for point in one.points]
