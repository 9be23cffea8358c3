"""When workers of a lane start for tasks that were just submitted, as far as its policy tells: what holds a lane only a tick knows."""

from __future__ import annotations

from math import ceil

from batch.model.clock import iso
from controller.decide.waits import TICK_EVERY_S, longest_wait_s
from controller.model.lane import Lane
from controller.model.reading import GAUGE_LATE_S
from controller.model.wording import spoken


def starts(lane: Lane, now: float) -> str:
    """One line about tasks that were submitted at `now` (Unix seconds) to a lane that launches."""
    late = f"the gauge shows them up to {spoken(GAUGE_LATE_S)} late"
    text = f"lane {lane.name} starts workers for these at the first tick that knows of them: {late}"
    if wait_s := longest_wait_s(lane):
        until = iso(60.0 * ceil((now + max(wait_s, GAUGE_LATE_S + TICK_EVERY_S)) / 60))[: len("2026-01-31T12:00")]
        text += f"; a few may wait for more, until {until}Z at the latest (fanout/max-wait {spoken(wait_s)})"
        text += f"; `fanout tick {lane.name} --now` does not wait"
    if lane.is_delayed:
        text += f"; Cloud Run may start them up to {spoken(lane.start_within_s)} after that"
    return text
