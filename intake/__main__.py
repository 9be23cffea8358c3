"""`python -m intake`: the front door as a process. After SIGTERM it answers what it accepted, then ends with 0."""

from __future__ import annotations

import os
import random
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial

from batch.events import log
from batch.extras import needs_extra
from batch.handling.registry import load_handlers
from batch.logs import set_up_logging
from batch.model.clock import SystemClock
from batch.model.errors import DependencyError, SettingsError
from batch.services.async_topic import GooglePublisher, check_credentials
from batch.services.calls import role
from batch.services.network import name_project
from batch.services.ports import ObjectStore
from batch.serving.listening import listening, usage
from batch.telemetry.starting import Watched, of_service, started
from intake.collector import AsyncTopic
from intake.config import IntakeSettings, intake_settings
from intake.controller_link import ControllerLink

with needs_extra("python -m intake", "intake"):
    from batch.serving.server import Server
    from intake.service import create_app

BUCKET_WITHIN_S = 20.0
"""How long a request to the bucket is tried again: its client waits for an answer."""
EXIT_TROUBLE = 1
EXIT_SETTINGS = 2
OFF = Watched(None, SystemClock())


@asynccontextmanager
async def google_topics(settings: IntakeSettings, watched: Watched = OFF) -> AsyncIterator[Mapping[str, AsyncTopic]]:
    """The topic of each lane, over one channel."""
    publisher = GooglePublisher(settings.project, os.environ, random.Random(), timeout_s=settings.publish_timeout_s)
    try:
        yield {lane: watched.async_topic(publisher.topic(name)) for lane, name in settings.topics.items()}
    finally:
        await publisher.close()


def bucket_of(settings: IntakeSettings) -> ObjectStore | None:
    """Through Google's client; None where no bucket is set. Raises DependencyForbidden without credentials."""
    if not settings.bucket_name:
        return None
    from batch.services.objects import GoogleObjectStore

    return GoogleObjectStore(
        settings.bucket_name, project=settings.project, billing_project=settings.billing_project, timeout_s=BUCKET_WITHIN_S
    )


def main(arguments: Sequence[str] = ()) -> int:
    """The exit code: 0 after a signal, 2 when settings are wrong, a port that is taken among them, 1 without credentials."""
    what = "Serve the front door: validate tasks that come over HTTP, publish them, answer when the broker has them."
    usage("python -m intake", what, IntakeSettings).parse_args(arguments)
    role.name = "intake"
    set_up_logging()
    name_project(os.environ)
    try:
        settings = intake_settings(os.environ)
        registry = load_handlers(settings.handlers)
        set_up_logging(settings.log_level, settings.project)  # a module may have configured logging when it was imported
        check_credentials(os.environ)
        store = bucket_of(settings)
        telemetry = started(settings.telemetry, of_service("fanout-intake", settings.project, os.environ), os.environ, SystemClock())
        door = listening(settings.host, settings.port, backlog=2048)
    except SettingsError as error:
        for problem in error.problems:
            log("settings_wrong", error=problem)
        return EXIT_SETTINGS
    except DependencyError as error:
        log("service_failed", f"the front door cannot begin: {error}", error=str(error))
        return EXIT_TROUBLE
    controller = None
    if settings.controller_url:
        controller = ControllerLink(settings.controller_url, settings.controller_audience or settings.controller_url)
    servers: list[Server] = []
    watched = Watched(telemetry, SystemClock())
    app = create_app(
        settings,
        registry=registry,
        topics=partial(google_topics, watched=watched),
        clock=SystemClock(),
        rng=random.Random(),
        controller=controller,
        store=store,
        ending=lambda: any(server.should_exit for server in servers),
        watch=watched.service(),
    )
    local = bool(os.environ.get("PUBSUB_EMULATOR_HOST"))
    servers.append(Server(app, door, stop_timeout_s=settings.stop_timeout_s, host=settings.host, local=local))
    # The server puts its own handlers in front while it runs, then repeats the signal: an orderly end is no failure.
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGINT, _end)
    with door:
        host, port = door.getsockname()[:2]
        url = f"http://{host}:{port}"
        log("service_listening", f"front door for {', '.join(settings.topics)} listens on {url}", url=url)
        try:
            servers[0].serve_door()
        finally:
            if telemetry is not None:
                telemetry.end()
    return 0


def _end(_number: int, _frame: object) -> None:
    raise SystemExit(0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
