"""Handlers whose objects refer to each other, as those of parsers do: they take not much more memory than with Python's own settings."""

from __future__ import annotations

import gc
import os
import subprocess
import sys

import pytest

from batch.memory import COLLECT_AFTER, DOUBLED_BYTES, GROWTH_BYTES, REST, Growth, is_due, rest_until_s
from batch.model.clock import SystemClock
from tests.clocks import JumpingClock
from tests.e2e.site import ROOT
from tests.support import slow_but

MB = 1024 * 1024
linux = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the system does not tell how large a process is")


def peak_mb(kind: str, tuned: str, tasks: int, documents: int) -> int:
    command = [sys.executable, "-m", "tests.field.drains_cycles", kind, tuned, str(tasks), str(documents)]
    done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, timeout=100, check=True)
    return int(done.stdout.split()[-1])


@linux
@pytest.mark.parametrize("kind", slow_but(["plain"], ["plain", "async", "group"]))
@pytest.mark.slow
def test_tasks_of_ten_megabytes_with_cycles_take_no_more_than_a_few_of_them(kind: str) -> None:
    tuned, default = peak_mb(kind, "tuned", 120, 1), peak_mb(kind, "default", 120, 1)
    assert tuned <= max(1.3 * default, default + 80), f"{tuned} MB, with Python's own settings {default} MB"


@pytest.mark.slow
@linux
def test_one_task_of_many_documents_does_not_keep_them_all() -> None:
    tuned, default = peak_mb("plain", "tuned", 2, 60), peak_mb("plain", "default", 2, 60)
    assert tuned <= max(1.3 * default, default + 80), f"{tuned} MB, with Python's own settings {default} MB"


@pytest.mark.parametrize("own", [True, False])
def test_what_a_module_of_handlers_has_set_stays(own: bool) -> None:
    code = "import gc; from batch import memory; {}memory.collect_seldom(); print(gc.get_threshold()[:2])"
    command = [sys.executable, "-c", code.format("gc.set_threshold(1_000, 7); " if own else "")]
    done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == str((1_000, 7) if own else COLLECT_AFTER[:2])


@pytest.fixture
def collections(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """Has an item for each time that all objects were looked at."""
    made: list[None] = []
    monkeypatch.setattr(gc, "collect", lambda: made.append(None))
    return made


class Sized(Growth):
    """A process of the size that a test gives."""

    def __init__(self) -> None:
        super().__init__()
        self._file, self.size = 0, 100 * MB
        self._size = self.size

    def _resident(self) -> int:
        return self.size


def test_a_process_that_is_large_by_right_is_left_alone(collections: list[None]) -> None:
    growth, clock = Sized(), JumpingClock()
    for _ in range(1000):
        growth.look(clock)
        clock.advance(1)
    assert not collections
    for _ in range(40):
        growth.size += 10 * MB
        clock.advance(1)
        growth.look(clock)
    assert 3 <= len(collections) <= 5, "more and more seldom, the larger it is"


def test_between_two_looks_there_is_rest_unless_the_process_doubles() -> None:
    assert not is_due(100 * MB, 100 * MB + GROWTH_BYTES - 1, resting=False)
    assert is_due(100 * MB, 100 * MB + GROWTH_BYTES, resting=False)
    assert not is_due(1000 * MB, 1249 * MB, resting=False)
    assert is_due(1000 * MB, 1250 * MB, resting=False)
    assert not is_due(1000 * MB, 2000 * MB, resting=True)
    assert is_due(1000 * MB, 2000 * MB + DOUBLED_BYTES, resting=True)
    assert rest_until_s(10.0, 12.0, 0) == 12.0 + REST * 2.0
    assert rest_until_s(10.0, 10.1, 1000 * MB) == 10.1, "it took no longer than freeing so much takes"


def test_nobody_looks_while_the_collector_is_off(collections: list[None]) -> None:
    """It is, for a moment, when stacks are taken."""
    growth, clock = Sized(), JumpingClock()
    growth.size += 1000 * MB
    was_on = gc.isenabled()
    gc.disable()
    try:
        growth.look(clock)
    finally:
        if was_on:
            gc.enable()
    assert not collections
    clock.advance(1)
    growth.look(clock)
    assert collections


@linux
def test_the_size_is_that_of_this_process() -> None:
    growth = Growth()
    growth._page_bytes = os.sysconf("SC_PAGE_SIZE")
    growth._file = os.open("/proc/self/statm", os.O_RDONLY)
    try:
        before = growth._resident()
        block = b"x" * (100 * MB)
        assert growth._resident() - before >= 90 * MB, len(block)
        growth.look(SystemClock())
    finally:
        os.close(growth._file)
