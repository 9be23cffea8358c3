"""Killing one worker in the middle of its share, without a warning, as a machine that fails would.

Only a worker that has finished some of its messages and has many left is chosen: anything else would prove nothing.
"""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Sequence
from pathlib import Path

from fanout.demo.scene import WorkerTry
from local_cloud.supervisor.workers import RunningWorker, running_workers

LANE = "default"
MOST_DONE = 0.7
"""A worker that has done more of its share than this is too near its end."""


def candidates(tries: Sequence[WorkerTry]) -> list[WorkerTry]:
    """Workers in the middle of their first try."""
    return [
        one
        for one in tries
        if one.lane == LANE and one.state == "running" and one.retry == 0 and one.acked > 0 and one.acked <= MOST_DONE * one.share
    ]


def kill_one(tries: Sequence[WorkerTry], state_dir: Path, rng: random.Random) -> RunningWorker | None:
    """SIGKILL to one candidate that has a process; None when there is none now."""
    wanted = {(one.execution, one.index, one.retry) for one in candidates(tries)}
    found = [one for one in running_workers(state_dir) if (one.execution, one.index, one.retry) in wanted]
    if not found:
        return None
    victim = rng.choice(found)
    try:
        os.kill(victim.pid, signal.SIGKILL)
    except ProcessLookupError:
        return None
    return victim
