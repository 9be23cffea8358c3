"""`python -m controller`: serves the controller on PORT until a signal. A tick that runs then ends first, if it does in time."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Sequence

from batch.events import log
from batch.extras import needs_extra
from batch.logs import set_up_logging
from batch.model.clock import SystemClock
from batch.model.errors import DependencyError, SettingsError
from batch.services.calls import role
from batch.services.network import name_project
from batch.serving.listening import listening, usage
from batch.serving.oidc import Certificates, Verifier, fetched_from
from batch.telemetry.ports import ServiceWatch
from batch.telemetry.requests_seen import WatchedRequests
from batch.telemetry.starting import Watched, of_service, started
from controller.config import ControllerSettings, controller_settings
from controller.service.poked_lanes import PokedLanes
from controller.service.ticker import Ticker
from controller.tick.outside import Outside
from controller.wiring import connected

with needs_extra("python -m controller", "controller"):
    from batch.serving.server import Server
    from controller.service.service import Callers, create_app

EXIT_TROUBLE = 1
EXIT_SETTINGS = 2
ANSWER_S = 1.5
"""For the answers to callers of a tick that does not end in time. Cloud Run kills 10 s after SIGTERM."""
WATCH_S = 0.1
LEAVE_S = 0.5


def main(arguments: Sequence[str] = ()) -> int:
    """Serve until a signal. Exit code 2 if settings are wrong or the port is taken, 1 if no client could be made; problems are logged."""
    what = "Serve the controller: tick the lanes when it is called, answer what was decided and why."
    usage("python -m controller", what, ControllerSettings).parse_args(arguments)
    role.name = "controller"
    set_up_logging()
    name_project(os.environ)
    try:
        settings = controller_settings(os.environ)
        set_up_logging(settings.log_level)
        _serve(settings)
    except SettingsError as error:
        for problem in error.problems:
            log("settings_wrong", error=problem)
        return EXIT_SETTINGS
    except DependencyError as error:
        log("service_failed", f"the controller cannot begin: {error}", error=str(error))
        return EXIT_TROUBLE
    return 0


def _serve(settings: ControllerSettings) -> None:
    """Until a signal. Raises SettingsError, DependencyError."""
    with listening("127.0.0.1" if settings.run_emulator else "0.0.0.0", settings.port) as door:
        # The server puts its own handlers in front while it runs, then repeats the signal: an orderly end is no failure.
        signal.signal(signal.SIGTERM, _exit)
        signal.signal(signal.SIGINT, _exit)
        telemetry = started(settings.telemetry, of_service("fanout-controller", settings.project, os.environ), os.environ, SystemClock())
        watched = Watched(telemetry, SystemClock())
        try:
            with connected(settings, watched) as outside:
                _serve_on(door, settings, outside, watched.service())
        finally:
            if telemetry is not None:
                telemetry.end()


def _serve_on(door: socket.socket, settings: ControllerSettings, outside: Outside, watch: ServiceWatch | None) -> None:
    ticker = Ticker(outside, deadline_s=settings.tick_deadline_s)
    poked = PokedLanes(outside, ticker)
    app = create_app(outside, ticker=ticker, poked=poked, callers=_callers(settings))
    if watch is not None:
        app.add_middleware(WatchedRequests, watch=watch)
    server = Server(app, door, stop_timeout_s=settings.stop_timeout_s + ANSWER_S, local=bool(settings.run_emulator))
    end = threading.Thread(target=_end, args=(server, ticker, poked, settings.stop_timeout_s), name="end", daemon=True)
    end.start()
    _say_where(settings, door)
    try:
        server.serve_door()
    finally:
        server.should_exit = True
        end.join(settings.stop_timeout_s + WATCH_S)
        _leave(ticker)


def _callers(settings: ControllerSettings) -> Callers:
    """The callers that the settings allow."""
    if not settings.oidc_audience:
        return Callers()
    certificates = Certificates(fetched_from(settings.oidc_certs_url), SystemClock())
    return Callers(Verifier(settings.rules, certificates), frozenset(settings.poke_emails))


def _say_where(settings: ControllerSettings, door: socket.socket) -> None:
    host, port = door.getsockname()[:2]
    url = f"http://{host}:{port}"
    log("service_listening", f"controller for {settings.where}, bucket {settings.bucket_name}, listens on {url}", url=url)
    if settings.oidc_audience:
        emails = ", ".join(settings.oidc_emails) or "nobody but pokes"
        log("callers_checked", f"callers need a token for {settings.oidc_audience}, of {emails}")
    elif not settings.run_emulator:
        log("callers_unchecked", "OIDC_AUDIENCE is not set: Cloud Run's own check of callers (roles/run.invoker) must be on")


def _exit(_number: int, _frame: object) -> None:
    raise SystemExit(0)


def _leave(ticker: Ticker) -> None:
    """At once if something still waits for a service: its threads must not keep the process."""
    unfinished = ticker.running()
    for holder in unfinished:
        log("tick_cut_short", f"the controller ends in the middle of a tick, the next one repairs what it left: {holder.text}")
    others = [one for one in threading.enumerate() if one is not threading.main_thread() and not one.daemon]
    for thread in others:
        thread.join(LEAVE_S / len(others))
    if unfinished or any(thread.is_alive() for thread in others):
        os._exit(0)


def _end(server: Server, ticker: Ticker, poked: PokedLanes, finish_s: float) -> None:
    """Once the server must end: no tick begins for a poke that waits, running ticks may end, callers of longer ones are answered."""
    never, clock = threading.Event(), SystemClock()
    while not server.should_exit:
        clock.wait(never, WATCH_S)
    poked.stop()
    ticker.finish(finish_s)
    ticker.stop_waiting()


if __name__ == "__main__":
    with needs_extra("python -m controller", "controller"):  # Google's clients are imported when they are first used
        sys.exit(main(sys.argv[1:]))
