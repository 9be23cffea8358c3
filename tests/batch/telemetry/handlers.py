"""Handlers that children import."""

from __future__ import annotations

from typing import Any

from batch import task


@task("trace", isolation="process")
def trace(_task: Any, ctx: Any) -> str:
    return str(ctx.traceparent)
