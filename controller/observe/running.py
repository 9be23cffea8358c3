"""Which worker says that it runs a task: read from the progress of the workers that are alive."""

from __future__ import annotations

from collections.abc import Iterable

from batch.client.life import Running
from batch.model.progress import MARK_EVERY_S, interval_s
from batch.services.ports import ObjectStore
from controller.model.execution import ExecutionInfo
from controller.model.lane import Lane
from controller.observe.jobs import JobRunner
from controller.observe.listing import executions_since
from controller.observe.survey import oldest_of_interest, read_tries

INTERVALS = 3
"""A worker that has written no progress for so many intervals may have been killed."""


def running_worker(task_id: str, lanes: Iterable[Lane], runner: JobRunner, store: ObjectStore, now: float) -> Running | None:
    """The worker's try that names the task among those that it has been running longest; None if none does. Raises DependencyError."""
    for lane in lanes:
        for info in executions_since(runner, lane.job, oldest_of_interest(lane, now)):
            if info.live and (found := _in(info, task_id, store, now)) is not None:
                return found
    return None


def _in(info: ExecutionInfo, task_id: str, store: ObjectStore, now: float) -> Running | None:
    every_s = max(MARK_EVERY_S, info.count_setting("PROGRESS_INTERVAL_S") or 0)
    oldest = now - INTERVALS * interval_s(every_s, info.task_count)
    for (index, retry), progress in read_tries(store, info.name)[0].items():
        if progress.exit_reason or progress.updated_at < oldest:
            continue
        for task in progress.running:
            if task.task_id == task_id:
                return Running(info.name, index, retry, float(task.since), progress.updated_at)
    return None
