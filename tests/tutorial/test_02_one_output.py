"""Pub/Sub delivers a message at least once. `ctx.write` writes the object of a task once, however often the task runs."""

from __future__ import annotations

from batch import Context, Task, task
from batch.testing import Rehearsal


@task("tutorial.copy")
def copy(task: Task, ctx: Context) -> None:
    ctx.write(f"copies/{task.fields['name']}", ctx.read(f"input/{task.fields['name']}"))


def test_a_task_that_runs_twice_writes_once() -> None:
    rehearsal = Rehearsal(copy, {"name": "a.txt"}, objects={"input/a.txt": b"text"})
    rehearsal.crash(after="write")  # the worker dies before it can acknowledge the message
    rehearsal.run()  # so the message is delivered again, to another worker
    assert rehearsal.outputs == {"copies/a.txt": b"text"}
    assert rehearsal.written == {"copies/a.txt": 1}
    rehearsal.check()  # and whatever else can happen: crashes, failures and second workers, at every request to the bucket
