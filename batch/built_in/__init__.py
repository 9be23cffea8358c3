"""The task types that are Fanout's own, in every worker: `fanout.finish` and `fanout.webhook`. Their code is imported when one comes."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from batch.formats.kinds import ENVELOPE
from batch.handling.context import Context
from batch.handling.registry import Backoff, Handler, Registry
from batch.model.clock import Clock
from batch.model.errors import Permanent
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
    """The same handlers and those of Fanout's own task types. `topics` makes a topic by its name.

    Where strangers publish, a message may say of itself that it is one of these tasks. Fanout publishes each under a key, whose record is
    in the bucket first: what has none is refused.
    """

    def check(task: Task) -> None:
        if settings.accept != (ENVELOPE,):
            from batch.client.keys import is_recorded

            if not is_recorded(store, task):
                raise Permanent(f"nothing in the bucket says that Fanout has published this {task.task_type}, with these fields")

    def finish(task: Task, _ctx: Context) -> Any:
        check(task)
        from batch.built_in.finish import Finish

        return Finish(store, topics, clock, rng).run(task)

    def webhook(task: Task, ctx: Context) -> Any:
        check(task)
        from batch.built_in.webhook import Webhook

        return Webhook(settings.webhook_secrets, settings.webhook_allow_private).send(task, ctx.now())

    return registry.joined(
        Handler(FINISH_TYPE, finish), Handler(WEBHOOK_TYPE, webhook, WEBHOOK_TIMEOUT_S, WEBHOOK_RETRIES, backoff=WEBHOOK_BACKOFF)
    )
