"""What people do in handlers, all of it in one lane, and what must become of each task: `EXPECTED` is the table. A worker loads this
module with HANDLERS."""

from __future__ import annotations

import asyncio
import contextvars
import ctypes
import gzip
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from batch import Backoff, Permanent, Retry, Snooze, task
from batch.model.errors import DependencyUnavailable

warnings.simplefilter("ignore")  # newer versions of Python warn of a fork beside threads
SOON = Backoff(first_s=1.0, max_s=1.0)
SNOOZES = 150
HALF = "half \ud83d"
"""Half a surrogate pair, as JSON can carry it."""
_seen: contextvars.ContextVar[str] = contextvars.ContextVar("seen", default="")
_logger = logging.getLogger("team.handlers")


@dataclass(frozen=True)
class Kind:
    """One kind of task: how many of them, what becomes of each, and, of a dead one, its error type and what its reason says. `fields` are
    made from a task's number."""

    count: int
    outcome: str = "succeeded"
    error_type: str = ""
    reason: str = ""
    fields: Callable[[int], dict[str, Any]] = lambda _number: {}


EXPECTED: dict[str, Kind] = {}
DATA = gzip.compress(os.urandom(20_000) + b"x" * 20_000)
OBJECTS = {"input/whole.gz": DATA, "input/damaged.gz": DATA[:-12]}
"""Both are put into the bucket with `Content-Encoding: gzip`."""


def ugly(name: str, kind: Kind, **options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A handler, and what its tasks become."""
    EXPECTED[name] = kind
    return task(name, **{"retries": 0, "backoff": SOON, **options})


def clean() -> None:
    """Raises when another task has left something here."""
    if _seen.get():
        raise AssertionError(f"the context of task {_seen.get()} is still here")


# --- good ones, in each kind of handler


@ugly("good-plain", Kind(480))
def good_plain(task: Any, ctx: Any) -> dict[str, str]:
    clean()
    _seen.set(task.task_id)
    _logger.info("a plain task says something")
    return {"object": ctx.write(f"out/{task.task_id}", b"1").name}


@ugly("good-async", Kind(480))
async def good_async(task: Any, ctx: Any) -> dict[str, str]:
    clean()
    _seen.set(task.task_id)
    await asyncio.sleep(0.001)
    return {"object": (await ctx.write(f"out/{task.task_id}", b"1")).name}


@ugly("good-group", Kind(480), group=16)
def good_group(tasks: list[Any], ctxs: list[Any]) -> list[str]:
    clean()
    _seen.set("a group")
    return [ctx.write(f"out/{one.task_id}", b"1").name for one, ctx in zip(tasks, ctxs, strict=True)]


@ugly("good-isolated", Kind(160), isolation="process")
def good_isolated(task: Any, ctx: Any) -> str:
    clean()
    _seen.set(task.task_id)
    print("an isolated task prints")
    return str(ctx.write(f"out/{task.task_id}", bytearray(b"1")).name)


# --- processes


def _square(number: int) -> int:
    return number * number


@ugly("forks-a-pool", Kind(6))
def forks_a_pool(task: Any, ctx: Any) -> int:
    del task, ctx
    with multiprocessing.get_context("fork").Pool(2) as pool:
        return sum(pool.map(_square, range(10)))


@ugly("ends-its-fork", Kind(4))
def ends_its_fork(task: Any, ctx: Any) -> int:
    del task, ctx
    copy = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,))
    copy.start()
    copy.terminate()
    copy.join(30)
    return -(copy.exitcode or 0)


@ugly("leaves-a-fork", Kind(2))
def leaves_a_fork(task: Any, ctx: Any) -> None:
    del task, ctx
    multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,), daemon=False).start()


@ugly("leaves-a-program", Kind(2), retries=5, timeout_s=10.0)
def leaves_a_program(task: Any, ctx: Any) -> None:
    """`Popen` waits until nobody can write into its error pipe any more. A copy that another thread forks in that moment can, as long as it
    lives: a race of Python's own, which a time limit ends."""
    del task, ctx
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)


@ugly("segfaults", Kind(1, "dead", "worker_died", r"SIGSEGV"))
def segfaults(task: Any, ctx: Any) -> None:
    del task, ctx
    ctypes.string_at(0)


@ugly("segfaults-isolated", Kind(2, "dead", "", r"SIGSEGV"), isolation="process")
def segfaults_isolated(task: Any, ctx: Any) -> None:
    del task, ctx
    ctypes.string_at(0)


@ugly("exits", Kind(2, "dead", "SystemExit"))
def exits(task: Any, ctx: Any) -> None:
    del task, ctx
    sys.exit(3)


@ugly("hangs", Kind(2, "dead", "TimeoutError", r"of 1 s"), timeout_s=1.0)
def hangs(task: Any, ctx: Any) -> None:
    del task, ctx
    time.sleep(10_000)


@ugly("hangs-async", Kind(2, "dead", "TimeoutError", r"of 1 s"), timeout_s=1.0)
async def hangs_async(task: Any, ctx: Any) -> None:
    del task, ctx
    await asyncio.sleep(10_000)


@ugly("hangs-isolated", Kind(2, "dead", "TimeoutError", r"of 1 s"), timeout_s=1.0, isolation="process")
def hangs_isolated(task: Any, ctx: Any) -> None:
    del task, ctx
    signal.pause()


@ugly("makes-cycles", Kind(60))
def makes_cycles(task: Any, ctx: Any) -> int:
    del task, ctx
    tree: dict[str, Any] = {"data": bytearray(5_000_000)}
    tree["children"] = [{"parent": tree, "leaf": str(number)} for number in range(200)]
    return len(tree["children"])


# --- wrong arguments

WRONG_DATA: dict[str, Any] = {"dict": {"a": 1}, "None": None, "int": 5, "text": "text"}


@ugly("writes-wrong-data", Kind(40, "dead", "TypeError", r"bytes", lambda number: {"what": list(WRONG_DATA)[number % 4]}))
def writes_wrong_data(task: Any, ctx: Any) -> None:
    ctx.write(f"out/{task.task_id}", WRONG_DATA[task.fields["what"]])


@ugly("writes-wrong-data-async", Kind(40, "dead", "TypeError", r"bytes", lambda number: {"what": list(WRONG_DATA)[number % 4]}))
async def writes_wrong_data_async(task: Any, ctx: Any) -> None:
    await ctx.write(f"out/{task.task_id}", WRONG_DATA[task.fields["what"]])


@ugly(
    "writes-wrong-data-isolated",
    Kind(8, "dead", "TypeError", r"bytes", lambda number: {"what": list(WRONG_DATA)[number % 4]}),
    isolation="process",
)
def writes_wrong_data_isolated(task: Any, ctx: Any) -> None:
    writes_wrong_data(task, ctx)


@ugly("reads-no-name", Kind(30, "dead", "ValueError", r"name"))
def reads_no_name(task: Any, ctx: Any) -> None:
    del task
    ctx.read("")


@ugly("reads-damaged", Kind(4, "dead", "", r"damaged|truncated|gzip"))
def reads_damaged(task: Any, ctx: Any) -> int:
    del task
    return len(ctx.read("input/damaged.gz"))


@ugly("reads-whole", Kind(4))
def reads_whole(task: Any, ctx: Any) -> None:
    del task
    if len(ctx.read("input/whole.gz")) != 40_000:
        raise AssertionError("read short")


# --- signals


@ugly("snoozes", Kind(1))
def snoozes(task: Any, ctx: Any) -> None:
    _snoozed(task)


@ugly("snoozes-async", Kind(1))
async def snoozes_async(task: Any, ctx: Any) -> None:
    _snoozed(task)


@ugly("snoozes-group", Kind(1), group=2, group_wait_s=0.0)
def snoozes_group(tasks: list[Any], ctxs: list[Any]) -> list[Exception | None]:
    del ctxs
    return [_error_of(partial(_snoozed, one)) for one in tasks]


@ugly("snoozes-isolated", Kind(1), isolation="process")
def snoozes_isolated(task: Any, ctx: Any) -> None:
    _snoozed(task)


def _snoozed(task: Any) -> None:
    """SNOOZES times; its rounds stand in a file, for its process may change."""
    path = os.path.join(os.environ["TEST_FOLDER"], f"rounds-{task.task_id}")
    with open(path, "a+b") as file:
        file.write(b".")
        file.flush()
        rounds = os.fstat(file.fileno()).st_size
    if rounds <= SNOOZES:
        raise Snooze(0)


def _error_of(step: Callable[[], None]) -> Exception | None:
    try:
        step()
    except Exception as error:  # noqa: BLE001 - it is the task's answer
        return error
    return None


@ugly("polls", Kind(10))
def polls(task: Any, ctx: Any) -> None:
    del ctx
    _once(task, lambda: Snooze(30, "not yet there"))


@ugly("group-of-a-dependency", Kind(6))
async def group_of_a_dependency(task: Any, ctx: Any) -> None:
    """The bucket is down once, in a task of a TaskGroup."""
    del ctx

    async def step() -> None:
        _once(task, lambda: DependencyUnavailable("the other bucket does not answer"))

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(step())
        tasks.create_task(asyncio.sleep(0))


@ugly("group-of-permanent", Kind(6, "dead", "permanent", r"^no such customer"))
async def group_of_permanent(task: Any, ctx: Any) -> None:
    del task, ctx

    async def step() -> None:
        raise Permanent("no such customer")

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(step())


@ugly("group-of-failures", Kind(6, "dead", "ConnectionError", r"refused by the other side"))
async def group_of_failures(task: Any, ctx: Any) -> None:
    del task, ctx

    async def step() -> None:
        raise ConnectionError("refused by the other side")

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(step())


def _once(task: Any, error: Callable[[], Exception]) -> None:
    """Raise this the first time that this task runs."""
    path = os.path.join(os.environ["TEST_FOLDER"], f"once-{task.task_id}")
    if not os.path.exists(path):
        with open(path, "wb"):
            raise error()


# --- texts and results


@ugly("half-a-character", Kind(20, "dead", "ValueError", r"half", lambda number: {"text": HALF, "number": number}))
def half_a_character(task: Any, ctx: Any) -> None:
    ctx.log.warning("about to fail: %s", task.fields["text"], extra={"message": "odd", "name": HALF})
    raise ValueError(task.fields["text"])


@ugly("half-a-character-isolated", Kind(4, "dead", "permanent", r"half", lambda _number: {"text": HALF}), isolation="process")
def half_a_character_isolated(task: Any, ctx: Any) -> None:
    print(task.fields["text"])
    ctx.progress(1, 2, task.fields["text"])
    raise Permanent(task.fields["text"])


@ugly("half-a-character-returned", Kind(10, fields=lambda _number: {"text": HALF}))
def half_a_character_returned(task: Any, ctx: Any) -> dict[str, str]:
    del ctx
    return {"text": task.fields["text"]}


def _rows() -> Any:
    yield 1


@ugly("returns-a-generator", Kind(10, "dead", "TypeError", r"generator"))
def returns_a_generator(task: Any, ctx: Any) -> Any:
    del task, ctx
    return _rows()


@ugly("returns-an-object", Kind(10, "dead", "TypeError", r"object"))
def returns_an_object(task: Any, ctx: Any) -> Any:
    del task, ctx
    return {"answer": object()}


@ugly("returns-an-object-in-a-group", Kind(8, "dead", "TypeError", r"a lock"), group=4)
def returns_an_object_in_a_group(tasks: list[Any], ctxs: list[Any]) -> list[Any]:
    del ctxs
    return [threading.Lock() for _ in tasks]


# --- one client's bad input beside others


@ugly(
    "source-not-there",
    Kind(80, "dead", "Retry", r"is not in the bucket yet", lambda number: {"source": "" if number % 4 else "x", "number": number}),
    retries=1,
)
def source_not_there(task: Any, ctx: Any) -> str:
    if task.fields["source"]:
        return str(ctx.write(f"out/{task.task_id}", b"1").name)
    raise Retry(f"source {task.fields['number']} is not in the bucket yet", after_s=1)


@ugly("same-output", Kind(20, fields=lambda number: {"submitted_at": "2031-01-01T00:00:00Z" if number == 0 else "", "number": number}))
def same_output(task: Any, ctx: Any) -> None:
    """The first one's client lives in 2031; the others are published later, and the second writes over what it wrote."""
    ctx.write("out/same" if task.fields["number"] < 2 else f"out/{task.task_id}", b"now")


def expected_of(name: str, number: int) -> Kind:
    """What becomes of one task."""
    if name == "source-not-there" and number % 4 == 0:
        return Kind(1)
    return EXPECTED[name]
