"""The points of all gauges: when they were sampled, when they become visible, and what was set by hand.

The rule: a point never changes. Safe to use from any thread; all times are unix seconds.
"""

from __future__ import annotations

import bisect
import threading
from dataclasses import dataclass

KEPT_S = 7 * 86_400.0
POINTS_KEPT = 20_000
"""Of one subscription, where points are so close together that a week has more."""


@dataclass(frozen=True)
class QueueState:
    """The backlog of a subscription (by short id) at one moment. Leased messages, the outstanding ones, count as undelivered too.
    `acked_count` were acknowledged since the subscription is here."""

    project: str
    subscription: str
    undelivered_count: int
    outstanding_count: int
    oldest_age_s: float
    acked_count: int = 0


@dataclass(frozen=True, slots=True)
class Point:
    """One sample of both gauges, and what was acknowledged in the `covered_s` seconds before it; no reader sees it before `visible_s`."""

    sampled_s: float
    visible_s: float
    undelivered_count: int
    oldest_age_s: float
    acked_count: int = 0
    covered_s: float = 60.0


def _sampled_s(point: Point) -> float:
    return point.sampled_s


class Gauges:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._points: dict[tuple[str, str], list[Point]] = {}
        self._absent: set[tuple[str, str]] = set()
        self._errors: dict[str, str] = {}

    def add(self, project: str, subscription: str, point: Point, now_s: float) -> None:
        """Add a point, in the place of one of the same moment; forget those of its gauge that are older than a week, or too many."""
        with self._lock:
            points = self._points.setdefault((project, subscription), [])
            at = bisect.bisect_left(points, point.sampled_s, key=_sampled_s)
            is_there = at < len(points) and points[at].sampled_s == point.sampled_s
            points[at : at + is_there] = [point]
            del points[: max(bisect.bisect_left(points, now_s - KEPT_S, key=_sampled_s), len(points) - POINTS_KEPT)]

    def set_absent(self, project: str, subscription: str, *, absent: bool) -> None:
        """Hide or show the series; points go on being taken. A quiet real subscription sometimes has no series at all."""
        with self._lock:
            (self._absent.add if absent else self._absent.discard)((project, subscription))

    def set_error(self, project: str, code: str | None) -> None:
        """Make reading fail for `project` with a gRPC status name; None ends that."""
        with self._lock:
            if code is None:
                self._errors.pop(project, None)
            else:
                self._errors[project] = code

    def error(self, project: str) -> str | None:
        with self._lock:
            return self._errors.get(project)

    def read(self, project: str, start_s: float, end_s: float, now_s: float) -> dict[str, list[Point]]:
        """Visible points sampled after `start_s` until `end_s`, newest first, by subscription in order; those without any are left out.

        If both are the same moment, points of that moment count:
        https://cloud.google.com/monitoring/api/ref_v3/rest/v3/TimeInterval
        """
        found: dict[str, list[Point]] = {}
        with self._lock:
            for (owner, subscription), points in sorted(self._points.items()):
                if owner != project or (owner, subscription) in self._absent:
                    continue
                first = bisect.bisect_left if start_s == end_s else bisect.bisect_right
                begin = max(first(points, start_s, key=_sampled_s), bisect.bisect_left(points, now_s - KEPT_S, key=_sampled_s))
                end = bisect.bisect_right(points, end_s, key=_sampled_s)
                shown = [point for point in reversed(points[begin:end]) if point.visible_s <= now_s]
                if shown:
                    found[subscription] = shown
        return found
