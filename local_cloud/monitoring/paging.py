"""Pages of points: a page ends after so many points, possibly in the middle of a series.

A token names the last point shown, not a number of points, so points that arrive between two pages shift nothing.
"""

from __future__ import annotations

import json

from local_cloud.monitoring.gauges import Point

MAX_COUNT = 100_000


def page(found: dict[str, list[Point]], size: int, token: str) -> tuple[dict[str, list[Point]], str]:
    """The part of `found` (points newest first, by subscription) after `token`, at most `size` points, and the next token.

    Size 0 means the maximum of 100,000 points. Raises ValueError on a token that was not made here or a negative size.
    """
    if size < 0:
        raise ValueError(f"page_size is 0 or more, got {size}")
    flat = [(subscription, -point.sampled_s, point) for subscription in sorted(found) for point in found[subscription]]
    if token:
        last = _read(token)
        flat = [entry for entry in flat if entry[:2] > last]
    count = min(size or MAX_COUNT, MAX_COUNT)
    shown: dict[str, list[Point]] = {}
    for subscription, _order, point in flat[:count]:
        shown.setdefault(subscription, []).append(point)
    return shown, json.dumps(flat[count - 1][:2]) if len(flat) > count else ""


def _read(token: str) -> tuple[str, float]:
    try:
        subscription, order = json.loads(token)
        return str(subscription), float(order)
    except (ValueError, TypeError) as error:
        raise ValueError(f"page_token was not given by this server: {token}") from error
