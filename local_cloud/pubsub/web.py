"""The HTTP side of the Pub/Sub process: a page of numbers for people and scripts.

Reads only; changing anything goes through the routes of the clock and the gauges.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from local_cloud.pubsub.model import PubSub


def health_route(model: PubSub) -> Route:
    """`GET /` answers `{"status": "ok", "subscriptions": [{"project", "subscription", "backlog", "outstanding", "oldest_age_s"}]}`."""

    def read(_request: Request) -> JSONResponse:
        subscriptions = [
            {
                "project": reading.project,
                "subscription": reading.subscription,
                "backlog": reading.undelivered_count,
                "outstanding": reading.outstanding_count,
                "oldest_age_s": reading.oldest_age_s,
            }
            for reading in model.readings()
        ]
        return JSONResponse({"status": "ok", "subscriptions": subscriptions})

    return Route("/", read, methods=["GET"])
