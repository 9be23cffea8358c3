"""Handlers that make copies of their process in every way Python offers, in each kind of handler, and some that leave processes behind."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Any

from batch.handling.context import AsyncContext, Context
from batch.handling.registry import task
from batch.model.errors import DependencyForbidden
from batch.model.message import Task
from batch.worker.committing.committer import Committer

warnings.simplefilter("ignore")  # newer versions of Python warn of a fork beside threads

fork: Any = multiprocessing.get_context("fork")
shared: list[Pool] = []
sharing = threading.Lock()


def square(number: int) -> int:
    note("copy")
    return number * number


def note(what: str) -> None:
    """A line in a file of the test: who writes here."""
    with (Path(os.environ["NOTES"]) / what).open("a") as file:
        file.write(f"{os.getpid()}\n")


def notes(what: str) -> list[str]:
    file = Path(os.environ["NOTES"]) / what
    return file.read_text().split() if file.exists() else []


def until(there: Callable[[], object]) -> None:
    while not there():
        threading.Event().wait(0.01)


def forever(what: str = "copy") -> None:
    note(what)
    time.sleep(600)


def pool() -> list[int]:
    with fork.Pool(2) as made:
        return list(made.map(square, range(4)))


def terminate() -> int:
    """It is told to end while it sleeps, and, the second one, before it has begun anything."""
    late, early = fork.Process(target=forever), fork.Process(target=forever)
    late.start()
    until(lambda: notes("copy"))
    late.terminate()
    late.join()
    early.start()
    early.terminate()
    early.join()
    return int(late.exitcode)


def executor() -> list[int]:
    with ProcessPoolExecutor(2, mp_context=fork) as made:
        return list(made.map(square, range(4)))


def raw() -> int:
    """One copy ends by itself, one by a signal."""
    pid = os.fork()
    if pid == 0:
        note("copy")
        os._exit(3)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    pid = os.fork()
    if pid == 0:
        forever()
    os.kill(pid, signal.SIGTERM)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGTERM
    return code


def process() -> int:
    """Another program, with code of ours between fork and exec."""
    return subprocess.run([sys.executable, "-c", "print(1)"], preexec_fn=os.getpid, stdout=subprocess.DEVNULL, check=True).returncode


def comes_back() -> str:
    """A copy that returns from the handler, with something printed and not flushed before the fork."""
    print("printed before the fork")
    pid = os.fork()
    if pid == 0:
        note("copy")
        return "copy"
    until(lambda: str(pid) in notes("copy"))
    return "handler"


def shared_pool() -> list[int]:
    """One pool for all tasks: made in the first one's thread, used in others."""
    with sharing:
        if not shared:
            shared.append(fork.Pool(2))
    return list(shared[0].map(square, range(4)))


def daemon() -> None:
    """As a service does: twice forked, in a session of its own, with nothing open."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.closerange(0, 100)
            forever("left")
        os._exit(0)


def leaves() -> None:
    """Processes of every kind that would live for ten minutes."""
    fork.Process(target=forever, args=("left",)).start()
    shared.append(fork.Pool(2, note, ("left",)))
    subprocess.Popen(["sh", "-c", 'echo $$ >> "$NOTES/left"; exec sleep 600'], start_new_session=True)
    daemon()


def leaves_and_stays() -> None:
    leaves()
    threading.Event().wait()


def leaves_and_breaks_off(end: Callable[..., object]) -> None:
    """The worker's committer meets a fault of another kind."""
    leaves()
    Committer.try_flush = end  # type: ignore[assignment]


def never(_: object) -> None:
    threading.Event().wait()


def crashes(_: object) -> None:
    raise RuntimeError("a fault of Fanout's own")


def is_refused(_: object) -> None:
    raise DependencyForbidden("the bucket says no")


def leaves_and_stops() -> None:
    leaves()
    os.kill(os.getpid(), signal.SIGTERM)


def uses_the_bucket(ctx: Context) -> Callable[[], Any]:
    """What a copy of a handler's process does with the context."""

    def copied(number: int) -> str:
        note("copy")
        try:
            written = ctx.write(f"out/{os.getpid()}-{number}", b"from a copy")
        except Exception as error:  # noqa: BLE001 - what it was told is the result
            return f"{type(error).__name__}: {error}"
        return f"wrote {ctx.read(written.name).decode()}"

    def run() -> list[str]:
        global _copied
        _copied = copied
        ctx.write(f"out/{ctx.task.task_id}", b"before")  # so that there are connections
        with fork.Pool(2) as made:
            said = made.map(call_copied, range(2))
        ctx.write(f"out/{ctx.task.task_id}-after", b"after")
        return list(said)

    return run


_copied: Callable[[int], str] = str


def call_copied(number: int) -> str:
    return _copied(number)


WAYS: dict[str, Callable[[], Any]] = {
    one.__name__: one
    for one in (
        pool,
        terminate,
        executor,
        raw,
        process,
        comes_back,
        shared_pool,
        leaves,
        leaves_and_stays,
        leaves_and_stops,
    )
}
WAYS |= {f"leaves_and_{one.__name__}": partial(leaves_and_breaks_off, one) for one in (never, crashes, is_refused)}


def way(task: Task, ctx: Any) -> Callable[[], Any]:
    name = str(task.fields["way"])
    return uses_the_bucket(ctx) if name == "uses_the_bucket" else WAYS[name]


@task("plain-forks", retries=0)
def plain(task: Task, ctx: Context) -> Any:
    return way(task, ctx)()


@task("isolated-forks", retries=0, isolation="process")
def isolated(task: Task, ctx: Context) -> Any:
    return way(task, ctx)()


@task("isolated-hangs", retries=0, isolation="process", timeout_s=1)
def hangs(task: Task, ctx: Context) -> None:
    leaves_and_stays()


@task("group-forks", retries=0, group=4, group_wait_s=0.01)
def group(tasks: list[Task], ctxs: list[Context]) -> list[Any]:
    return [way(task, ctx)() for task, ctx in zip(tasks, ctxs, strict=True)]


@task("async-forks", retries=0)
async def on_the_loop(task: Task, ctx: AsyncContext) -> Any:
    await asyncio.sleep(0)
    result = way(task, ctx)()
    await asyncio.sleep(0)
    return result


@task("async-thread-forks", retries=0)
async def beside_the_loop(task: Task, ctx: AsyncContext) -> Any:
    return await asyncio.to_thread(way(task, ctx))


@task("plain-coroutine-forks", retries=0)
def coroutine(task: Task, ctx: Context) -> Any:
    async def run() -> Any:
        await asyncio.sleep(0)
        result = way(task, ctx)()
        await asyncio.sleep(0)
        return result

    return asyncio.run(run())


@task("plain-good")
def good(task: Task, ctx: Context) -> None:
    ctx.write(f"out/{task.task_id}", b"1")
