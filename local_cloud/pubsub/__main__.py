"""Runs Pub/Sub and Cloud Monitoring as one process: `python -m local_cloud.pubsub --state-dir D`.

Both services and the HTTP side share one model and one clock; the ready line names `grpc` and `http`.
"""

from __future__ import annotations

import gc
import random
import sys
from typing import Any

from google.cloud.monitoring_v3.types import ListTimeSeriesRequest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from local_cloud.calls import Calls
from local_cloud.clock import Clock
from local_cloud.faults.routes import fault_routes
from local_cloud.faults.script import Script
from local_cloud.faults.timers import Later
from local_cloud.monitoring.sampler import Sampler
from local_cloud.monitoring.server import SERVICE, Monitoring, NotListed
from local_cloud.monitoring.web import gauges_route
from local_cloud.pubsub.model.deadline_thread import DeadlineThread
from local_cloud.pubsub.model.pubsub import PubSub
from local_cloud.pubsub.model.refusal import Refusal
from local_cloud.pubsub.rest import rest_route
from local_cloud.pubsub.rpc.faults import RpcFaults
from local_cloud.pubsub.rpc.handlers import unary
from local_cloud.pubsub.rpc.recorded import recorded
from local_cloud.pubsub.rpc.server import GrpcServer
from local_cloud.pubsub.store import keep_state
from local_cloud.web.refused_start import port_number, told
from local_cloud.web.service import HttpServer, clock_routes, make_private, parser, serve_until_end


def _monitoring_handlers(monitoring: Monitoring) -> dict[str, Any]:
    def list_time_series(request: Any, _context: Any) -> Any:
        try:
            return monitoring.list_time_series(request)
        except NotListed as error:
            raise Refusal(error.code, str(error)) from error

    return {"ListTimeSeries": unary(list_time_series, ListTimeSeriesRequest)}


def _health_route(model: PubSub) -> Route:
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


def main(arguments: list[str]) -> None:
    """Serve until a signal, or the end of standard input, ends the process."""
    options = parser("pubsub")
    options.add_argument("--http-port", type=port_number, default=0, help="port of the HTTP side; 0 takes a free one")
    options.add_argument("--sample-period-s", type=float, default=60.0, help="seconds between two points of a gauge; 0: at every request")
    options.add_argument("--visibility-lag-s", type=float, default=120.0, help="seconds until a point can be read")
    options.add_argument("--in-memory", action="store_true", help="write nothing to the state folder: the end of the process loses all")
    chosen = options.parse_args(arguments)
    # A large backlog is many objects without a cycle among them: to collect garbage as often as by default costs a third of the speed.
    gc.set_threshold(100_000, 50, 1_000)
    make_private(chosen.state_dir)
    clock = Clock()
    model = PubSub(clock, random.Random())
    store = None if chosen.in_memory else keep_state(model, clock, chosen.state_dir)
    deadlines = DeadlineThread(model, clock)
    sampler = Sampler(model.readings, clock, period_s=chosen.sample_period_s, lag_s=chosen.visibility_lag_s)
    others = {SERVICE: _monitoring_handlers(Monitoring(sampler, clock))}
    script, later, calls = Script(), Later(clock), Calls()
    faults = RpcFaults(script, later)
    grpc_server = GrpcServer(
        model, clock, chosen.host, chosen.port, others, lambda service, handlers: recorded(calls, service, faults.wrap(service, handlers))
    )
    routes = [_health_route(model), gauges_route(sampler.gauges, clock), *clock_routes(clock), *fault_routes(script), *calls.routes()]
    routes.append(rest_route(grpc_server.handlers))
    http_server = HttpServer(Starlette(routes=routes), chosen.host, chosen.http_port)
    deadlines.start()
    later.start()
    sampler.start()
    grpc_server.start()
    http = http_server.start()

    def stop() -> None:
        later.stop()
        http_server.stop()
        grpc_server.stop()
        sampler.stop()
        deadlines.stop()
        if store is not None:
            store.close()

    addresses = {"grpc": grpc_server.address, "http": f"http://{http}"}
    serve_until_end(exit_with_stdin=chosen.exit_with_stdin, stop=stop, service="pubsub", **addresses)


if __name__ == "__main__":
    told("pubsub", lambda: main(sys.argv[1:]))
