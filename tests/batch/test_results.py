"""One output a task, whoever interrupts whom: the newest task's content stands at the end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch.handling.results import write_output
from batch.model.clock import iso
from batch.model.errors import DependencyUnavailable, Superseded
from batch.model.message import Task
from batch.services.ports import ObjectInfo
from batch.testing import MemoryObjectStore

NAME = "processed/a.csv"


def task(number: int, submitted_at: int) -> Task:
    return Task(f"task-{number}", "t", iso(submitted_at))


class InterruptedStore(MemoryObjectStore):
    """Before each request the `schedule` says whether another task writes first, from its beginning to its end."""

    def __init__(self, schedule: list[bool], waiting: list[Task]) -> None:
        super().__init__()
        self.schedule = schedule
        self.waiting = waiting
        self.ends: dict[str, list[str]] = {}

    def run(self, one: Task) -> None:
        try:
            written = write_output(self, one, NAME, one.task_id.encode(), "text/plain")
            end = "created" if written.created else "there"
        except Superseded:
            end = "superseded"
        self.ends.setdefault(one.task_id, []).append(end)

    def interrupt(self) -> None:
        if self.schedule and self.waiting and self.schedule.pop(0):
            self.run(self.waiting.pop(0))

    def write(self, *arguments: object, **options: object) -> ObjectInfo:
        self.interrupt()
        return super().write(*arguments, **options)  # type: ignore[arg-type]

    def info(self, name: str) -> ObjectInfo | None:
        self.interrupt()
        return super().info(name)


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=6),
    st.lists(st.booleans(), max_size=30),
)
def test_whatever_the_order_the_newest_task_owns_the_output(runs: list[tuple[int, int]], schedule: list[bool]) -> None:
    """A number that comes again is the same task redelivered, so it has the time it had before."""
    times: dict[int, int] = {}
    tasks = [task(number, times.setdefault(number, submitted_at)) for number, submitted_at in runs]
    store = InterruptedStore(schedule, list(tasks))
    while store.waiting:
        store.run(store.waiting.pop(0))
    newest = max(tasks, key=lambda one: one.age_key)
    data, info = store.read_with_info(NAME)
    assert data == newest.task_id.encode() == info.metadata["task_id"].encode()
    assert sum(map(len, store.ends.values())) == len(runs)
    for ends in store.ends.values():
        assert ends.count("created") <= 1
    assert "superseded" not in store.ends[newest.task_id]


def test_a_lost_response_counts_as_written_once() -> None:
    store = MemoryObjectStore()
    store.fail_next("write", DependencyUnavailable("lost"), after_effect=True)
    one = task(1, 1)
    with pytest.raises(DependencyUnavailable):
        write_output(store, one, NAME, b"x", "text/plain")
    again = write_output(store, one, NAME, b"x", "text/plain")
    assert not again.created
    info = store.info(NAME)
    assert info is not None
    assert info.generation == again.generation == 1


def test_what_a_person_put_there_is_replaced() -> None:
    store = MemoryObjectStore()
    store.write(NAME, b"by hand")
    assert write_output(store, task(1, 1), NAME, b"x", "text/plain").created
    assert store.read(NAME) == b"x"


@pytest.mark.parametrize(
    ("owner", "submitted_at", "created"),
    [(2, 5, False), (1, 5, True), (3, 5, None), (9, 4, True), (1, 6, None)],
)
def test_age_is_by_time_then_by_id(owner: int, submitted_at: int, created: bool | None) -> None:
    store, other = MemoryObjectStore(), task(owner, submitted_at)
    store.write(NAME, b"x", metadata={"task_id": other.task_id, "submitted_at": other.submitted_at})
    if created is None:
        with pytest.raises(Superseded):
            write_output(store, task(2, 5), NAME, b"y", "text/plain")
    else:
        assert write_output(store, task(2, 5), NAME, b"y", "text/plain").created is created
