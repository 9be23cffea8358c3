"""A handler is a function that takes a task and a context, and returns a small result."""

from __future__ import annotations

from batch import Context, Task, task
from batch.testing import run_handler


@task("tutorial.hello")
def hello(task: Task, ctx: Context) -> dict[str, str]:
    text = f"Hello {task.fields['name']}"
    written = ctx.write(f"hello/{task.task_id}.txt", text.encode(), "text/plain")
    return {"object": written.name}


def test_a_handler_runs_in_memory() -> None:
    run = run_handler(hello, {"name": "Ada"}, task_id="task-1")
    assert run.result == {"object": "hello/task-1.txt"}
    assert run.text() == "Hello Ada"
