"""A handler that raises has failed one attempt: the task runs again later. No worker waits for it meanwhile."""

from __future__ import annotations

from batch import Backoff, Context, Retry, Snooze, Task
from batch.handling.registry import Registry
from batch.testing import drain

handlers = Registry()


@handlers.task("flaky", backoff=Backoff(first_s=30, factor=2))
def flaky(task: Task, ctx: Context) -> None:
    if ctx.attempt < 3:
        raise RuntimeError("not this time")


@handlers.task("ask again")
def ask_again(task: Task, ctx: Context) -> None:
    if ctx.attempt == 1:
        raise Retry("the report is not there yet", after_s=3600)


@handlers.task("wait for the file")
def wait_for_the_file(task: Task, ctx: Context) -> None:
    if not ctx.exists("input/report.csv"):
        ctx.write("input/report.csv", b"")  # somebody else would do this meanwhile
        raise Snooze(600)


def test_three_ways_to_run_again() -> None:
    drained = drain([{"task_type": "flaky"}, {"task_type": "ask again"}, {"task_type": "wait for the file"}], handlers)
    assert {one.outcome for one in drained.outcomes.values()} == {"succeeded"}
    runs = {task_id: [(one.at_s, one.attempt) for one in began] for task_id, began in drained.runs.items()}
    assert runs == {
        "task-1": [(0, 1), (30, 2), (90, 3)],  # an exception: by the backoff, 30 s and then 60 s
        "task-2": [(0, 1), (3600, 2)],  # Retry: after the time that the handler names
        "task-3": [(0, 1), (600, 1)],  # Snooze: the same, and no attempt is spent
    }
