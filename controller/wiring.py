"""The real outside of a controller: Google's services, or the local cloud in their place. The one place that chooses."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

from batch.clock import SystemClock
from controller.config import ControllerSettings
from controller.tick import Outside

STORE_S = 10.0
"""For one call with its retries. The next tick comes in a minute and tries again; longer, one lane would hold up the others."""


@contextmanager
def connected(settings: ControllerSettings) -> Iterator[Outside]:
    """Clients for these settings, closed at the end."""
    from batch.google_objects import GoogleObjectStore
    from controller.backlog import GoogleBacklogReader
    from controller.google_jobs import GoogleJobRunner

    clock = SystemClock()
    store = GoogleObjectStore(settings.bucket_name, project=settings.project, timeout_s=STORE_S, request_timeout_s=STORE_S / 2)
    runner = GoogleJobRunner(settings.project, settings.region, emulator_url=settings.run_emulator)
    backlog = GoogleBacklogReader(settings.project, clock, emulator_host=settings.monitoring_emulator)
    try:
        yield Outside(store, runner, backlog, clock, random.SystemRandom())
    finally:
        backlog.close()
        runner.close()
        store.close()
