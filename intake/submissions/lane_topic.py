"""A lane's topic for threads: who submits many tasks waits here until the event loop has published and reported them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import CancelledError

from batch.model.delivery import Outgoing
from batch.model.errors import DependencyUnavailable
from intake.collector import Collector, CollectorFull
from intake.request_ids import tagged_by, watch_here


class LaneTopic:
    """Implements `batch.services.ports.Topic` over the collector of a running event loop. Made by the task of a request, whose id and trace
    its messages carry."""

    def __init__(self, collector: Collector, loop: asyncio.AbstractEventLoop) -> None:
        self.name = collector.topic.name
        self._collector, self._loop, self._tagged, self._watch = collector, loop, tagged_by(), watch_here()

    def publish(self, messages: Sequence[Outgoing]) -> list[str]:
        """Never called by the event loop's own thread. With telemetry one span for all of them, under their request's."""
        if self._watch is None:
            return self._published(messages)
        with self._watch.sending(self.name, self._tagged(Outgoing(b"", {})).attributes, len(messages)):
            return self._published(messages)

    def _published(self, messages: Sequence[Outgoing]) -> list[str]:
        publishing = self._collector.publish_together([self._tagged(one) for one in messages])
        try:
            waiting = asyncio.run_coroutine_threadsafe(publishing, self._loop)
        except RuntimeError as error:  # the loop is closed
            publishing.close()
            raise DependencyUnavailable(f"the service ended before it published to topic {self.name}") from error
        try:
            return waiting.result()
        except CollectorFull as error:
            raise DependencyUnavailable(str(error)) from error
        except CancelledError as error:
            raise DependencyUnavailable(f"the service ended while it published to topic {self.name}") from error
