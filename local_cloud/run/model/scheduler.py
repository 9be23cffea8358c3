"""What to do now: which tasks to give a slot, to start, to stop or to kill, and when to look again.

A pure function of the executions and the time. It never holds more than `max_process_count` slots over all executions,
nor more than its parallelism for one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

from local_cloud.run.model.execution import Execution
from local_cloud.run.model.task import Phase, Reason, Task

GRACE_S = 10.0  # between SIGTERM and SIGKILL, as the container contract says


class Do(Enum):
    """EXPIRE ends a try that has no process yet. MOVE is the next step of a migration. CANCEL is of a delayed execution at its limit."""

    RESERVE = "reserve"
    SPAWN = "spawn"
    TERMINATE = "terminate"
    KILL = "kill"
    EXPIRE = "expire"
    MOVE = "move"
    CANCEL = "cancel"


@dataclass(frozen=True)
class Action:
    """RESERVE is for the lowest pending index, whichever that is by then; `reason` says why a try is stopped."""

    do: Do
    execution: str
    index: int = -1
    reason: Reason | None = None


@dataclass
class Plan:
    """`wake_s`: the next time (Unix seconds) at which something falls due without an event; None when nothing will."""

    actions: list[Action] = field(default_factory=list)
    wake_s: float | None = None

    def wake_at(self, at_s: float) -> None:
        self.wake_s = at_s if self.wake_s is None else min(self.wake_s, at_s)


def plan(executions: Sequence[Execution], now_s: float, max_process_count: int) -> Plan:
    """`executions` in the order of their creation; finished ones are ignored."""
    made = Plan()
    for execution in executions:
        for task in execution.active.values():
            _look_at(task, execution, now_s, made)
        if execution.limit_s is not None and execution.cancel_s is None:
            _at(execution.limit_s, now_s, Action(Do.CANCEL, execution.name), made)
    _reserve([execution for execution in executions if _may_start(execution, now_s, made)], max_process_count, made)
    return made


def _may_start(execution: Execution, now_s: float, made: Plan) -> bool:
    if execution.not_before_s is not None and execution.not_before_s > now_s:
        made.wake_at(execution.not_before_s)
        return False
    return not execution.cannot_start


def _look_at(task: Task, execution: Execution, now_s: float, made: Plan) -> None:
    assert task.reserved_s is not None, "an active task has a slot"
    reason, due_s = _must_stop(task, execution, now_s)
    if task.stopping_s is not None:
        if not task.killed:
            _at(task.stopping_s + GRACE_S, now_s, Action(Do.KILL, execution.name, task.index), made)
    elif reason is not None:
        do = Do.EXPIRE if task.phase is Phase.STARTING else Do.TERMINATE
        made.actions.append(Action(do, execution.name, task.index, reason))
    else:
        made.wake_at(due_s)
        if task.phase is Phase.STARTING:
            _at(task.reserved_s + task.delay_s, now_s, Action(Do.SPAWN, execution.name, task.index), made)
        elif task.migration is not None:
            _at(task.migration.due_s, now_s, Action(Do.MOVE, execution.name, task.index), made)


def _must_stop(task: Task, execution: Execution, now_s: float) -> tuple[Reason | None, float]:
    """Why the try must stop now (None: it need not), and when its time is up. The time counts from before start-up."""
    due_s = (task.reserved_s or 0.0) + execution.template.timeout_s
    if execution.cancel_s is not None:
        return Reason.CANCEL, due_s
    return (Reason.TIMEOUT if now_s >= due_s else None), due_s


def _at(at_s: float, now_s: float, action: Action, made: Plan) -> None:
    if now_s >= at_s:
        made.actions.append(action)
    else:
        made.wake_at(at_s)


def _reserve(executions: Sequence[Execution], max_process_count: int, made: Plan) -> None:
    """Give the free slots one by one to the execution that holds fewest, so that a large one does not block the others."""
    free = max_process_count - sum(len(execution.active) for execution in executions)
    taken: dict[str, int] = {execution.name: 0 for execution in executions}
    able = [execution for execution in executions if _has_room(execution, 0)]
    while free > 0 and able:
        chosen = min(able, key=lambda execution: len(execution.active) + taken[execution.name])
        made.actions.append(Action(Do.RESERVE, chosen.name))
        taken[chosen.name] += 1
        free -= 1
        if not _has_room(chosen, taken[chosen.name]):
            able.remove(chosen)


def _has_room(execution: Execution, taken_count: int) -> bool:
    limit = execution.template.parallelism or execution.template.task_count
    return taken_count < min(len(execution.pending), limit - len(execution.active))
