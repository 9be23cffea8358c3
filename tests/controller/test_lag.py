"""A lagging gauge: the real tick, minute by minute, over a queue of 10,000 messages of 1 s. It must not pay for the lag."""

from __future__ import annotations

import pytest

from batch.progress import MARK_EVERY_S
from batch.shares import share
from controller.backlog import Value
from controller.tick import tick
from tests.controller.fakes import World, lane, progress, world, write_progress

BACKLOG = 10_000
START_UP_S = 10.0
TICK_S = 60.0


def acked_by(started_at: float, own_share: int, now: float) -> int:
    return max(0, min(own_share, int(now - started_at - START_UP_S)))


class Drain:
    """Workers that acknowledge one message a second until their share is done. Those launched once all is given out find nothing."""

    def __init__(self, here: World) -> None:
        self.here = here
        self.shares: dict[str, list[int]] = {}

    def adopt(self) -> None:
        """Give new executions what is left, worker by worker."""
        for name, info in self.here.runner.all.items():
            if name not in self.shares:
                self.shares[name] = []
                for index in range(info.task_count):
                    left = BACKLOG - sum(map(sum, self.shares.values()))
                    self.shares[name].append(min(left, share(int(info.env["BACKLOG"]), info.task_count, index)))

    def undelivered(self, now: float) -> int:
        workers = [(self.here.runner.all[name].created_at, one) for name, shares in self.shares.items() for one in shares]
        return BACKLOG - sum(acked_by(created, one, now) for created, one in workers)

    def write_progress(self, now: float) -> None:
        """What each worker has last written: every 15 s and at its end."""
        for name, shares in self.shares.items():
            created = self.here.runner.all[name].created_at
            ended_at = created + START_UP_S + max(shares)
            for index, own in enumerate(shares):
                end = created + START_UP_S + own
                written = end if now >= end else now - now % MARK_EVERY_S
                if written <= created:
                    continue
                acked = acked_by(created, own, written)
                grid = range(int(created - created % MARK_EVERY_S + MARK_EVERY_S), int(written) + 1, MARK_EVERY_S)
                one = progress(
                    share(int(self.here.runner.all[name].env["BACKLOG"]), len(shares), index),
                    created,
                    updated_at=written,
                    taken=acked,
                    acked=acked,
                    marks=tuple((at, acked_by(created, own, at)) for at in grid)[-40:],
                    exit_reason="share_done" if now >= end else "",
                )
                write_progress(self.here.store, name, index, one)
            if now >= ended_at and self.here.runner.all[name].live:
                self.here.runner.complete(name, ended_at)


@pytest.mark.parametrize("lag_s", [0.0, 60.0, 120.0, 180.0])
@pytest.mark.parametrize("phase_s", [0.0, 25.0])
def test_a_lagging_gauge_costs_no_extra_worker(lag_s: float, phase_s: float) -> None:
    here = world()
    drain = Drain(here)
    begin = here.clock.now()
    here.clock.advance(lag_s + TICK_S + phase_s)
    for _ in range(12):
        now = here.clock.now()
        drain.write_progress(now)
        sampled_at = begin + (now - lag_s - begin) // TICK_S * TICK_S
        here.backlog.reading = Value(drain.undelivered(sampled_at), sampled_at)
        tick(lane(), here.outside)
        drain.adopt()
        here.clock.advance(TICK_S)
    assert drain.undelivered(here.clock.now()) == 0
    assert sum(request.task_count for _, request in here.runner.requests) == 100
