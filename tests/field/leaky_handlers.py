"""Handlers that leave the process as no other task should find it, and those that look how they find it: alike for each kind."""

from __future__ import annotations

import decimal
import faulthandler
import gc
import locale
import logging
import os
import random
import resource
import signal
import socket
import sys
import threading
import time
import warnings
from contextvars import ContextVar
from io import StringIO
from typing import Any

from batch.handling.context import Context
from batch.handling.registry import Registry, default_registry
from batch.model.message import Task

TENANT: ContextVar[str] = ContextVar("tenant", default="none")


def own_context() -> dict[str, Any]:
    return {"tenant": TENANT.get(), "precision": decimal.getcontext().prec}


def process_wide() -> dict[str, Any]:
    with open("/proc/self/status", encoding="ascii") as file:
        umask = next(line for line in file if line.startswith("Umask"))
    return {
        "folder": os.getcwd(),
        "umask": umask,
        "locale": locale.setlocale(locale.LC_ALL),
        "streams": [type(one).__name__ for one in (sys.stdin, sys.stdout, sys.stderr)],
        "filters": len(warnings.filters),
        "gc": gc.isenabled(),
        "timeout": socket.getdefaulttimeout(),
        "recursion": sys.getrecursionlimit(),
        "disabled": logging.root.manager.disable,
    }


def only_in_a_child() -> dict[str, Any]:
    return {
        "environment": os.environ.get("LEAKED"),
        "signals": [str(signal.getsignal(one)) for one in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGALRM)],
        "alarm": signal.getitimer(signal.ITIMER_REAL)[0],
        "blocked": [str(one) for one in signal.pthread_sigmask(signal.SIG_BLOCK, ())],
        "files": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        "zone": time.strftime("%H", time.localtime(0)),
        "path": list(sys.path),
    }


def look() -> dict[str, Any]:
    found = own_context() | process_wide()
    if threading.current_thread() is threading.main_thread():
        found |= only_in_a_child() | {"pid": os.getpid(), "random": random.random()}
    return found


def leak() -> None:
    TENANT.set("another")
    decimal.getcontext().prec = 3
    os.chdir("/")
    os.umask(0o077)
    locale.setlocale(locale.LC_ALL, "C")
    locale.setlocale(locale.LC_CTYPE, "C")
    sys.setrecursionlimit(sys.getrecursionlimit() + 1000)
    sys.stdin, sys.stdout, sys.stderr = StringIO(), StringIO(), StringIO()
    warnings.simplefilter("ignore")
    gc.disable()
    socket.setdefaulttimeout(0.25)
    logging.disable(logging.CRITICAL)
    if threading.current_thread() is threading.main_thread():
        os.environ["LEAKED"] = "yes"
        os.environ["TZ"] = "Asia/Tokyo"
        time.tzset()
        sys.path.insert(0, "/leaked")
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGALRM):
            signal.signal(number, signal.SIG_IGN)
        signal.alarm(1000)
        random.seed(0)


def does(task: Task) -> dict[str, Any]:
    found = look()
    if task.fields["name"] == "leak":
        leak()
    return found


def plain(task: Task, ctx: Context) -> Any:
    return does(task)


async def awaited(task: Task, ctx: Any) -> Any:
    return does(task)


def grouped(tasks: list[Task], ctxs: list[Context]) -> list[Any]:
    return [does(task) for task in tasks]


def hangs(task: Task, ctx: Context) -> Any:
    threading.Event().wait(600)


def watches(task: Task, ctx: Context) -> float:
    """Is to be ended when it hangs, as a module's own watchdog does it; the next one takes longer than that."""
    if task.fields["name"] == "leak":
        faulthandler.dump_traceback_later(0.3, exit=True)
        return 0.0
    threading.Event().wait(0.6)
    return 0.6


for registry in (default_registry, LEAKY := Registry()):
    registry.task("leaky-plain", retries=0)(plain)
    registry.task("leaky-async", retries=0)(awaited)
    registry.task("leaky-group", retries=0, group=2)(grouped)
    registry.task("leaky-isolated", retries=0, isolation="process")(plain)
    registry.task("leaky-watches", retries=0, isolation="process")(watches)
    registry.task("leaky-isolated-hangs", retries=0, isolation="process", timeout_s=1)(hangs)
