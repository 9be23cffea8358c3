"""Nothing, for hundreds of tasks at a time."""

from __future__ import annotations

from collections.abc import Sequence

from batch.handling.registry import task
from bench.worker.handlers import GROUP


@task("grouped", group=GROUP)
def grouped(tasks: Sequence[object], _ctxs: Sequence[object]) -> list[None]:
    """Nothing, for each of them."""
    return [None] * len(tasks)
