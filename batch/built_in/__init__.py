"""The task types that are Fanout's own, in every worker: `fanout.finish` and `fanout.webhook`. Their code is imported when one comes."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from batch.handling.context import Context
from batch.handling.registry import Backoff, Handler, Registry
from batch.model.clock import Clock
from batch.model.message import FINISH_TYPE, WEBHOOK_TYPE, Task
from batch.services.ports import ObjectStore, Topic
from batch.settings import WorkerSettings

WEBHOOK_TIMEOUT_S = 60.0
WEBHOOK_RETRIES = 8
WEBHOOK_BACKOFF = Backoff(first_s=10.0, factor=4.0, max_s=3600.0)
"""10 s, 40 s, 3 minutes, 11 minutes, 43 minutes, then an hour each: about five hours in all."""


def with_built_in(
    registry: Registry, settings: WorkerSettings, store: ObjectStore, topics: Callable[[str], Topic], clock: Clock, rng: random.Random
) -> Registry:
    """The same handlers and those of Fanout's own task types. `topics` makes a topic by its name."""

    def finish(task: Task, _ctx: Context) -> Any:
        from batch.built_in.finish import Finish

        return Finish(store, topics, clock, rng).run(task)

    def webhook(task: Task, ctx: Context) -> Any:
        from batch.built_in.webhook import Webhook

        return Webhook(settings.webhook_secrets, settings.webhook_allow_private).send(task, ctx.now())

    return registry.joined(
        Handler(FINISH_TYPE, finish), Handler(WEBHOOK_TYPE, webhook, WEBHOOK_TIMEOUT_S, WEBHOOK_RETRIES, backoff=WEBHOOK_BACKOFF)
    )
