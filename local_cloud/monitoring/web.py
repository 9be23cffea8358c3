"""`PUT /gauges`: points, silence and errors by hand, also for subscriptions that this process does not have.

The rule: a request with anything unknown in it changes nothing, and the answer says what would be right.
"""

from __future__ import annotations

from typing import Any

import grpc
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from local_cloud.clock import Clock
from local_cloud.monitoring.gauges import Gauges, Point

# What fits into a point on the wire.
_GAUGE_MAX = 1e18
_TIME_MAX_S = 253_402_300_799.0
_COUNTS = ("num_undelivered_messages", "ack_message_count")
_POINT_KEYS = {"project", "subscription", *_COUNTS, "oldest_unacked_message_age", "sampled_at"}


def gauges_route(gauges: Gauges, clock: Clock) -> Route:
    """`PUT /gauges` with one JSON object, answered with `{}` or 400 `{"error": …}`:

    - `{"project", "subscription", "num_undelivered_messages": 12, "oldest_unacked_message_age": 3.5, "ack_message_count": 2,
      "sampled_at": <unix s>}` adds a point that can be read at once (age and acknowledged, in the minute before: default 0; sampled_at:
      default now);
    - `{"project", "subscription", "absent": true}` hides the series until `false`;
    - `{"project", "error": "UNAVAILABLE"}` lets reading fail for the project until `null`.
    """

    async def put(request: Request) -> JSONResponse:
        try:
            _apply(await request.json(), gauges, clock.now())
        except (ValueError, TypeError, KeyError) as error:
            text = f"PUT /gauges: {error!r}; see its three forms in the local cloud's documentation"
            return JSONResponse({"error": text}, status_code=400)
        return JSONResponse({})

    return Route("/gauges", put, methods=["PUT"])


def _apply(body: Any, gauges: Gauges, now_s: float) -> None:
    """Raises ValueError, TypeError or KeyError on a body of another form."""
    keys = set(body)
    project = _text(body, "project")
    if keys == {"project", "error"}:
        code = body["error"]
        if code is not None and (code == "OK" or code not in grpc.StatusCode.__members__):
            raise ValueError(f"error is null or a gRPC status name like UNAVAILABLE, got {code!r}")
        gauges.set_error(project, code)
        return
    subscription = _text(body, "subscription")
    if keys == {"project", "subscription", "absent"}:
        if not isinstance(body["absent"], bool):
            raise ValueError(f"absent is true or false, got {body['absent']!r}")
        gauges.set_absent(project, subscription, absent=body["absent"])
        return
    if keys - _POINT_KEYS:
        raise ValueError(f"unknown keys: {', '.join(sorted(keys - _POINT_KEYS))}")
    count, acked_count = (_whole(body, key) for key in _COUNTS)
    age_s = _number(body.get("oldest_unacked_message_age", 0.0), _GAUGE_MAX)
    sampled_s = _number(body.get("sampled_at", now_s), _TIME_MAX_S)
    gauges.add(project, subscription, Point(sampled_s, now_s, count, age_s, acked_count), now_s)


def _whole(body: Any, key: str) -> int:
    count = _number(body[key] if key == _COUNTS[0] else body.get(key, 0), _GAUGE_MAX)
    if count % 1:
        raise ValueError(f"{key} is a whole number, got {count!r}")
    return int(count)


def _number(value: Any, maximum: float) -> float:
    # Not `not 0 <= value`: NaN is neither.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= maximum:
        raise ValueError(f"a number from 0 to {maximum:g} is expected, got {value!r}")
    return value


def _text(body: Any, key: str) -> str:
    value = body[key]
    if not isinstance(value, str) or not value:
        raise ValueError(f"{key} is a name, got {value!r}")
    return value
