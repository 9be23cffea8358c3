"""A task that can never succeed ends `dead`: at once, or after its last attempt. It is kept as a dead letter, with the reason."""

from __future__ import annotations

from batch import Context, Permanent, Task
from batch.handling.registry import Registry
from batch.testing import drain

handlers = Registry()


@handlers.task("pay")
def pay(task: Task, ctx: Context) -> None:
    raise Permanent("the account is closed")


@handlers.task("divide", retries=2)
def divide(task: Task, ctx: Context) -> float:
    return 1 / 0


def test_dead_letters_say_why() -> None:
    drained = drain([{"task_type": "pay"}, {"task_type": "divide"}, {"task_type": "devide"}], handlers)
    assert {one.outcome for one in drained.outcomes.values()} == {"dead"}
    letters = {letter.task_id: letter for letter in drained.dead_letters}
    assert (letters["task-1"].reason, letters["task-1"].attempt_count) == ("the account is closed", 1)
    assert ("division by zero" in letters["task-2"].reason, letters["task-2"].attempt_count) == (True, 3)
    assert ("did you mean 'divide'?" in letters["task-3"].reason, letters["task-3"].attempt_count) == (True, 0)
