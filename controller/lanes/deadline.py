"""Whether a lane's deadline can be met by the gauge alone. Pure."""

from __future__ import annotations

from controller.decide.sizing import Rates
from controller.model.lane import Lane
from controller.model.reading import GAUGE_LATE_S
from controller.model.wording import spoken

START_UP_S = 10.0
"""What the start of a worker takes, about, where it is not learned."""
ENOUGH = "5m"
"""A `fanout/drain-within` that leaves a few messages their time: the gauge, the next tick, the start."""


def unmet_by_gauge(lane: Lane, rates: Rates | None, *, poked: bool) -> str:
    """Why no worker can be in time, and what to do, in one sentence; empty if one can. `poked`: a front door tells of the lane's tasks, so
    that they are known at once."""
    start_up_s = rates.start_up_s if rates is not None and rates.start_up_s else START_UP_S
    if poked or lane.policy.drain_within_s >= GAUGE_LATE_S + start_up_s:
        return ""
    late = f"the gauge may be {spoken(GAUGE_LATE_S)} late, and a worker takes {spoken(start_up_s)} to start"
    return (
        f"fanout/drain-within is {spoken(lane.policy.drain_within_s)} and cannot be met by the gauge alone: {late}; submit through a front "
        f"door with CONTROLLER_URL, which tells the controller at once, or set fanout/drain-within to {ENOUGH} or more"
    )
