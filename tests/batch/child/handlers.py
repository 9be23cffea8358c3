"""Isolated handlers at their worst, and some that are well behaved: registered where the child imports this module."""

from __future__ import annotations

import asyncio
import ctypes
import mmap
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from batch.handling.context import AsyncContext, Context
from batch.handling.registry import Backoff, Function, task
from batch.model.errors import Cancelled, DependencyUnavailable, ObjectMissing, Permanent, Retry, Snooze
from batch.model.message import Task

QUICK = Backoff(first_s=0)


class Payload(BaseModel):
    name: str
    size: int = 1


class Stubborn(Exception):
    def __init__(self, connection: Any) -> None:
        self.connection = connection
        super().__init__("it cannot travel")

    def __reduce__(self) -> Any:
        raise TypeError("not to be pickled")


def isolated(task_type: str, **options: Any) -> Callable[[Function], Function]:
    return task(f"child-{task_type}", isolation="process", **{"retries": 0, "backoff": QUICK, **options})


@isolated("write")
def write(task: Task, ctx: Context) -> dict[str, Any]:
    ctx.sleep(float(task.fields.get("seconds", 0)))
    written = ctx.write(str(task.fields["name"]), task.task_id.encode())
    return {"name": written.name, "created": written.created, "pid": os.getpid(), "attempt": ctx.attempt}


@isolated("copy")
def copy(task: Task, ctx: Context) -> dict[str, Any]:
    data = ctx.read(str(task.fields["from"]))
    written = ctx.write(str(task.fields["to"]), data, "application/x-copied")
    return {"size": len(data), "created": written.created, "there": ctx.exists(written.name), "not_there": ctx.exists("no/such")}


@isolated("payload", payload=Payload)
def with_payload(task: Task, ctx: Context) -> dict[str, Any]:
    return {"name": ctx.payload.name, "size": ctx.payload.size, "remaining": ctx.remaining_s() > 0}


@isolated("missing")
def missing(task: Task, ctx: Context) -> str:
    try:
        ctx.read("no/such")
    except ObjectMissing as error:
        return f"{error.name} is missing"
    return "found"


@isolated("say")
def say(task: Task, ctx: Context) -> Any:
    """Raise what the task names."""
    what = str(task.fields["what"])
    if what == "retry":
        raise Retry("not yet", 0)
    if what == "permanent":
        raise Permanent("never")
    if what == "snooze":
        raise Snooze(300)
    if what == "dependency":
        raise DependencyUnavailable("the other service is down")
    if what == "exit":
        sys.exit(3)
    if what == "stubborn":
        raise Stubborn(sys.stdout)
    raise ValueError("wrong")


@isolated("result")
def result(task: Task, ctx: Context) -> Any:
    made: dict[str, Callable[[], Any]] = {"large": lambda: "x" * 50_000_000, "object": object, "nan": lambda: float("nan")}
    made["none"] = lambda: None
    return made[str(task.fields["what"])]()


@isolated("segfault")
def segfault(task: Task, ctx: Context) -> None:
    print("about to touch what is not mine")
    ctypes.string_at(0)


@isolated("exit-7")
def exit_7(task: Task, ctx: Context) -> None:
    print("last words")
    os._exit(7)


@isolated("leaves-a-copy")
def leaves_a_copy(task: Task, ctx: Context) -> None:
    """The copy has everything open that its parent had, and stays."""
    if os.fork() == 0:
        time.sleep(600)
    os._exit(7)


@isolated("kill")
def kill(task: Task, ctx: Context) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@isolated("hog", memory_mb=128)
def hog(task: Task, ctx: Context) -> int:
    kept = []
    while True:
        kept.append(bytearray(16_000_000))


KEPT: list[bytearray] = []


@isolated("keeps")
def keeps(task: Task, ctx: Context) -> int:
    """Leaves 100 MB behind."""
    KEPT.append(bytearray(os.urandom(1_000_000)) * 100)
    return os.getpid()


@isolated("frugal", memory_mb=128)
def frugal(task: Task, ctx: Context) -> int:
    """Uses 60 MB of the 128 it may."""
    used = bytearray(os.urandom(1_000_000)) * 60
    return os.getpid() if used else 0


def reserve() -> None:
    """As a numerical library does when it is imported: threads and buffers, of which nothing is used yet."""
    for _ in range(8):
        threading.Thread(target=threading.Event().wait, daemon=True).start()
    RESERVED.extend(mmap.mmap(-1, 32 * 1024 * 1024, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) for _ in range(8))


RESERVED: list[mmap.mmap] = []


@isolated("reserves")
def reserves(task: Task, ctx: Context) -> int:
    reserve()
    return os.getpid()


@isolated("endless", timeout_s=0.5)
def endless(task: Task, ctx: Context) -> None:
    """Starts a process of its own, whose number it tells, and never ends."""
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    Path(str(task.fields["tell"])).write_text(f"{sleeper.pid}")
    while True:
        pass


@isolated("noise")
def noise(task: Task, ctx: Context) -> str:
    os.write(1, b"\x00\xff\xfe" + os.urandom(1000) + b"\n")
    os.write(2, b'{"kind": "answer", "said": "permanent"}\n')
    for _ in range(200):
        os.write(1, b"y" * 64 * 1024)
    sys.stdout.write("no line end")
    return "done"


@isolated("prints")
def prints(task: Task, ctx: Context) -> None:
    print(f"I am {task.task_id}")
    ctx.log.warning("logged by %s", task.task_id, extra={"colour": "red"})


@isolated("forks")
def forks(task: Task, ctx: Context) -> str:
    copy_pid = os.fork()
    if copy_pid == 0:
        return "the copy"
    os.waitpid(copy_pid, 0)
    return "the child"


@isolated("holds")
def holds(task: Task, ctx: Context) -> None:
    """Keep the interpreter to itself, as a C library does that never lets go; `tell` names a file for the id of its process."""
    if "tell" in task.fields:
        Path(str(task.fields["tell"])).write_text(f"{os.getpid()}")
    ctypes.PyDLL(None).usleep(int(float(task.fields["seconds"]) * 1e6))


@isolated("holds-and-tells")
def holds_and_tells(task: Task, ctx: Context) -> None:
    Path(str(task.fields["tell"])).write_text(f"{os.getpid()}")
    ctypes.PyDLL(None).usleep(60_000_000)


@isolated("twice", retries=5)
def twice(task: Task, ctx: Context) -> int:
    """Dies in its first two attempts."""
    if ctx.attempt < 3:
        os._exit(5)
    return ctx.attempt


@isolated("until-stopped")
def until_stopped(task: Task, ctx: Context) -> str:
    print("waiting")
    return "told" if ctx.stopping.wait(60) else "not told"


@isolated("until-cancelled")
def until_cancelled(task: Task, ctx: Context) -> None:
    ctx.write("began", b"")
    while not ctx.cancelled:
        ctx.stopping.wait(0.01)
    raise Cancelled


@isolated("sleeps")
def sleeps(task: Task, ctx: Context) -> None:
    Path(str(task.fields["tell"])).write_text(f"{os.getpid()}")
    time.sleep(600)


@isolated("modules")
def modules(task: Task, ctx: Context) -> list[str]:
    ctx.write("out/modules", ctx.read("in/modules"))
    return sorted(one for one in sys.modules if one.split(".")[0] in ("grpc", "google"))


# --- the same that kill, in threads, on the loop and in groups: for quarantined tasks


@task("thread-dies", retries=2, backoff=QUICK)
def thread_dies(task: Task, ctx: Context) -> None:
    os._exit(9)


@task("thread-hog", retries=1, backoff=QUICK)
def thread_hog(task: Task, ctx: Context) -> None:
    kept = []
    while True:
        kept.append(bytearray(16_000_000))


@task("thread-write")
def thread_write(task: Task, ctx: Context) -> dict[str, Any]:
    seconds = float(task.fields.get("seconds", 0))
    if seconds:
        ctx.sleep(seconds)
    return {"name": ctx.write(f"out/{task.task_id}", b"1").name, "pid": os.getpid()}


@task("async-write")
async def async_write(task: Task, ctx: AsyncContext) -> dict[str, Any]:
    await asyncio.sleep(float(task.fields.get("seconds", 0)))
    written = await ctx.write(f"out/{task.task_id}", b"1")
    return {"name": written.name, "pid": os.getpid()}


@task("group-write", group=4)
def group_write(tasks: list[Task], ctxs: list[Context]) -> list[Any]:
    time.sleep(sum(float(one.fields.get("seconds", 0)) for one in tasks))
    return [{"name": ctx.write(f"out/{one.task_id}", b"1").name, "pid": os.getpid()} for one, ctx in zip(tasks, ctxs, strict=True)]


@isolated("hangs-in-python")
def hangs_in_python(task: Task, ctx: Context) -> None:
    ctx.progress(1, 2, "halves")
    ctx.stopping.wait(float(task.fields["seconds"]))


def told(task: Task) -> dict[str, Any]:
    """What a handler gets of a message that was not written for Fanout."""
    return {"data": task.data.decode(), "form": task.form, "fields": dict(task.fields), "attributes": dict(task.attributes)}


@isolated("tells")
def tells(task: Task, ctx: Context) -> dict[str, Any]:
    return told(task)


@task("thread-tells")
def thread_tells(task: Task, ctx: Context) -> dict[str, Any]:
    return told(task)


@task("async-tells")
async def async_tells(task: Task, ctx: AsyncContext) -> dict[str, Any]:
    return told(task)


@task("group-tells", group=4)
def group_tells(tasks: list[Task], ctxs: list[Context]) -> list[Any]:
    return [told(task) for task in tasks]
