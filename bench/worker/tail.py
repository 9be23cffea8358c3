"""Eight workers on one backlog: how long the last one is still there after half of them have ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from bench.worker.contenders import RUN_LIMIT_S, Site, last_flush, worker
from bench.worker.handlers import module_of
from bench.worker.lane import delete, fresh_lane, publish
from bench.worker.process import Program

WORKERS = 8


@dataclass(frozen=True, slots=True)
class Tail:
    """`drain_s` from the first worker's start of work to the last acknowledgement of all; `after_median_s` how long after the median
    worker the last one ended."""

    drain_s: float
    after_median_s: float


def tail(count: int, site: Site) -> Tail:
    """One drain of `count` tasks of 20 ms by eight processes that start together. Raises RuntimeError when tasks are missing."""
    lane = fresh_lane(site.pubsub, site.storage)
    programs: list[Program] = []
    try:
        publish(lane, site.pubsub, "wait", count)
        execution = {"CLOUD_RUN_EXECUTION": "bench", "CLOUD_RUN_TASK_COUNT": WORKERS}
        programs += [worker(lane, count, module_of("wait"), **execution, CLOUD_RUN_TASK_INDEX=index) for index in range(WORKERS)]
        for program in programs:
            program.wait(RUN_LIMIT_S)
        done = sum(program.wait_for("worker_ended", 0).body["succeeded"] for program in programs)
        if done != count:
            raise RuntimeError(f"eight workers did {done} of {count} tasks")
        first_s = min(program.wait_for("worker_started", 0).came_s for program in programs)
        last_s = max(last_flush(program).came_s for program in programs)
        return Tail(last_s - first_s, after_median_s([program.ended_s for program in programs]))
    finally:
        for program in programs:
            program.end()
        delete(lane, site.pubsub)


def after_median_s(ended_s: Sequence[float]) -> float:
    """From the median end to the last one."""
    return max(ended_s) - median(ended_s)
