"""JSON reports: how a handler writes one, and learns what stands. A task's facts are those of the report in the bucket, never others.

When an earlier run of the same task had written the report, its input may have changed since; then the earlier report counts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from batch.handling.context import Context


def write_report(ctx: Context, name: str, report: Mapping[str, Any]) -> Mapping[str, Any]:
    """Write `report`, which names its task as `task_id`, and return the one that stands.

    Raises Superseded when a newer task owns the name, DependencyError when the bucket fails.
    """
    data = json.dumps(report, ensure_ascii=False, allow_nan=False, indent=2).encode() + b"\n"
    written = ctx.write(name, data, "application/json")
    return report if written.created else _standing(ctx, name) or report


def _standing(ctx: Context, name: str) -> Mapping[str, Any] | None:
    """None when the object is a newer task's by now, or not a report (the task was edited and replayed under its id)."""
    try:
        body = json.loads(ctx.read(name))
    except ValueError:
        return None
    return body if isinstance(body, dict) and body.get("task_id") == ctx.task.task_id else None
