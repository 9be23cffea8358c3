"""A call to a slow service, from a thread."""

from __future__ import annotations

import time

from batch.handling.registry import task
from bench.worker.handlers import WAIT_S


@task("wait")
def wait(_task: object, _ctx: object) -> None:
    """WAIT_S seconds."""
    time.sleep(WAIT_S)
