"""The real `Outside` of a controller: Google's services, or the local cloud in their place. Nothing else chooses."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from batch.model.clock import SystemClock
from batch.services.ports import Topic
from batch.telemetry.starting import Watched
from controller.config import ControllerSettings
from controller.lanes.rules import Home
from controller.tick.outside import Outside

if TYPE_CHECKING:
    from batch.services.topic import GoogleTopic

STORE_S = 10.0
"""For one call with its retries. The next tick comes in a minute and tries again; longer, one lane would hold up the others."""
PUBLISH_S = 10.0


@contextmanager
def connected(settings: ControllerSettings, watched: Watched | None = None) -> Iterator[Outside]:
    """Clients for these settings, closed at the end; `watched` measures what they publish."""
    from batch.services.objects import GoogleObjectStore
    from controller.observe.backlog import GoogleBacklogReader
    from controller.observe.google_jobs import GoogleJobRunner
    from controller.observe.sources import GoogleSources

    clock = SystemClock()
    store = GoogleObjectStore(
        settings.bucket_name,
        project=settings.project,
        timeout_s=STORE_S,
        request_timeout_s=STORE_S / 2,
        billing_project=settings.billing_project,
    )
    topics = Topics(settings.project, watched or Watched(None, clock))
    runner = GoogleJobRunner(settings.project, settings.region, emulator_url=settings.run_emulator)
    backlog = GoogleBacklogReader(settings.project, clock, emulator_host=settings.monitoring_emulator, window_s=settings.reading_window_s)
    sources = GoogleSources(settings.project)
    try:
        home = Home(settings.project, settings.bucket_name, settings.region, settings.delayed_price_percent)
        yield Outside(
            store,
            runner,
            backlog,
            clock,
            random.SystemRandom(),
            topics,
            settings.quotas,
            home=home,
            sources=sources,
            tick_every_s=settings.tick_every_s,
        )
    finally:
        sources.close()
        topics.close()
        backlog.close()
        runner.close()
        store.close()


@dataclass(slots=True)
class Topics:
    """A client for each topic, made when it is first needed: most ticks publish nothing. Safe from any thread."""

    project: str
    watched: Watched
    _made: dict[str, GoogleTopic] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, name: str) -> Topic:
        """Raises DependencyForbidden when there are no credentials."""
        from batch.services.topic import GoogleTopic

        with self._lock:
            if name not in self._made:
                self._made[name] = GoogleTopic(self.project, name, retry_within_s=PUBLISH_S, request_timeout_s=PUBLISH_S)
            return self.watched.topic(self._made[name])

    def close(self) -> None:
        for topic in self._made.values():
            topic.close()
