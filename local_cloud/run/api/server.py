"""The Cloud Run Jobs service: both versions of the API, the clock and a health check, on one port.

`stop` returns only when no worker is left.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import Route

from local_cloud.addresses import is_gcloud_host
from local_cloud.calls import Calls
from local_cloud.clock import Clock
from local_cloud.faults.routes import fault_routes
from local_cloud.faults.script import Script
from local_cloud.faults.timers import Later
from local_cloud.run.api import routes_local, routes_v1, routes_v2
from local_cloud.run.api.endpoint import AbsoluteTargets, Call, answer_unknown, route
from local_cloud.run.api.faults import Faulty
from local_cloud.run.model.cloud import DELAYED_START_S, Cloud
from local_cloud.run.model.store import Store
from local_cloud.run.runner.runner import Runner
from local_cloud.run.runner.settings import Settings
from local_cloud.web.service import HttpServer, clock_routes


class Server:
    """`cloud` is open to tests. `secrets`: as of `Store`. `on_crash` is called when executions can no longer be run."""

    def __init__(
        self,
        state_dir: Path,
        settings: Settings,
        clock: Clock,
        rng: random.Random,
        *,
        region: str = "us-central1",
        host: str = "127.0.0.1",
        port: int = 0,
        secrets: Path | None = None,
        delayed_start_s: float = DELAYED_START_S,
        on_crash: Callable[[], None] | None = None,
    ) -> None:
        self.cloud = Cloud(Store(state_dir, secrets), clock, rng, delayed_start_s=delayed_start_s)
        self._runner = Runner(self.cloud, settings, on_crash)
        script, calls, self._later = Script(), Calls(), Later(clock)
        application = _application(self.cloud, self._runner, clock, region, [*fault_routes(script), *calls.routes()])
        self._http = HttpServer(AbsoluteTargets(Faulty(application, script, self._later, calls)), host, port, is_gcloud_host)
        self.cloud.address = f"http://{self._http.address}"

    def start(self) -> str:
        """Serve and run what an earlier server left unfinished; returns `host:port`."""
        self._runner.start()
        self._later.start()
        return self._http.start()

    def stop(self) -> None:
        self._later.stop()
        self._http.stop()
        self._runner.stop()
        self.cloud.store.close()


def _application(cloud: Cloud, runner: Runner, clock: Clock, region: str, more_routes: Sequence[Route]) -> Starlette:
    routes: list[Route] = [
        route("GET", "/", _health),
        *clock_routes(clock),
        *more_routes,
        *routes_v2.routes(cloud),
        *routes_v1.routes(cloud, region),
        *routes_local.routes(cloud, runner),
    ]
    return Starlette(routes=routes, exception_handlers={HTTPException: answer_unknown})


def _health(call: Call) -> dict[str, object]:
    del call
    return {"service": "run", "status": "ok"}
