"""What belongs to a whole process and user code may change: working folder, umask, locale, standard streams, warning filters and the like.

A `ProcessState` knows how it was and puts it back. In a child each task begins as the first one did. In a worker tasks of other threads run
at the same time, so there it is looked at now and then, and put back once no handler that may still want the change runs.
"""

from __future__ import annotations

import faulthandler
import gc
import locale
import logging
import os
import resource
import signal
import socket
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from batch.logs import LEVELS, own, send_to

Get = Callable[[], Any]
Put = Callable[[Any], object]
_STACKS = signal.SIGUSR1
"""Makes a child print its stacks, by `faulthandler`, of which `signal` knows nothing."""
_TAKEN = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGABRT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGPIPE,
    signal.SIGALRM,
    signal.SIGTERM,
    signal.SIGCHLD,
    signal.SIGVTALRM,
    signal.SIGPROF,
)
"""Signals that programs take."""
_LIMITS = (
    resource.RLIMIT_AS,
    resource.RLIMIT_CPU,
    resource.RLIMIT_DATA,
    resource.RLIMIT_FSIZE,
    resource.RLIMIT_NOFILE,
    resource.RLIMIT_STACK,
)
_GENERATORS: dict[str, Callable[[Any], object]] = {
    "random": lambda module: module.seed(int.from_bytes(os.urandom(16))),
    "numpy.random": lambda module: module.seed(),
}
"""Modules with a generator for everybody, which handlers may use and seed; by itself the first one asks the system for 2,500 bytes."""
_STANDARD_ERROR = 2
_TIMERS = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)


class ProcessState:
    """As it is now."""

    def __init__(self, parts: Mapping[str, tuple[Get, Put]] | None = None) -> None:
        self._parts = EVERYWHERE if parts is None else parts
        self._as_before = {name: _got(get) for name, (get, _) in self._parts.items()}

    def changed(self) -> dict[str, Any]:
        """What is different now, by name."""
        found = {}
        for name, (get, _) in self._parts.items():
            value = _got(get)
            if not _same(value, self._as_before[name]):
                found[name] = value
        return found

    def put_back(self, names: Mapping[str, Any]) -> None:
        """As far as it can be: a folder may be gone, and user code may have put anything in the place of what was there."""
        for name in names:
            with suppress(Exception):
                self._parts[name][1](self._as_before[name])


def _got(get: Get) -> Any:
    """The working folder may have been deleted."""
    try:
        return get()
    except (OSError, ValueError, locale.Error) as error:
        return type(error)


def _same(value: Any, before: Any) -> bool:
    """What compares them may be user code."""
    try:
        return value is before or bool(value == before)
    except Exception:  # noqa: BLE001 - then it is another one
        return False


def child_state() -> ProcessState:
    """Of a child, in its main thread: with what only this thread can change, and the environment."""
    return ProcessState(
        {
            **EVERYWHERE,
            "umask": (_umask_by_setting, os.umask),
            "environment": (lambda: dict(os.environb), _put_environment),
            "signal handlers": (_signals, _put_signals),
            "blocked signals": (_blocked_signals, lambda kept: signal.pthread_sigmask(signal.SIG_SETMASK, kept)),
            "resource limits": (_limits, _put_limits),
            "temporary folder": (lambda: tempfile.tempdir, lambda kept: setattr(tempfile, "tempdir", kept)),
            "sys.path": (lambda: [*sys.path], lambda kept: sys.path.__setitem__(slice(None), kept)),
        }
    )


def draw_anew() -> None:
    """A seed that one task has set must not give the next one the same numbers; nor may its alarm ring for the next one."""
    for name, draw in _GENERATORS.items():
        if name in sys.modules:
            draw(sys.modules[name])
    for timer in _TIMERS:
        signal.setitimer(timer, 0)
    faulthandler.cancel_dump_traceback_later()


# --- the parts


def _umask() -> int | None:
    """Read, where the system shows it: to ask by setting it would change it for the other threads."""
    with suppress(OSError, ValueError), open("/proc/self/status", encoding="ascii", errors="replace") as file:
        for line in file:
            if line.startswith("Umask:"):
                return int(line.split()[1], 8)
    return None


def _umask_by_setting() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _put_umask(mask: int | None) -> None:
    if mask is not None:
        os.umask(mask)


def _filters() -> tuple[Any, ...]:
    return (warnings.showwarning, *warnings.filters)


def _put_filters(kept: tuple[Any, ...]) -> None:
    warnings.showwarning, *filters = kept
    warnings.filters[:] = filters  # type: ignore[index]
    with warnings.catch_warnings():  # what each module has remembered of the other filters counts no more
        pass


def _logging() -> tuple[Any, ...]:
    root = logging.getLogger()
    return own.handler is None or own.handler in root.handlers, root.level if own.handler else 0, root.manager.disable


def _put_logging(kept: tuple[Any, ...]) -> None:
    logging.disable(kept[2])
    if own.handler is not None:
        send_to(own.handler, next(name for name, number in LEVELS.items() if number == own.level), own.project)


def _signals() -> dict[int, Any]:
    known = {number: signal.getsignal(number) for number in _TAKEN}
    return {number: handler for number, handler in known.items() if handler is not None}


def _put_signals(kept: dict[int, Any]) -> None:
    for number, handler in _signals().items():
        if handler != kept.get(number, signal.SIG_DFL):
            signal.signal(number, kept.get(number, signal.SIG_DFL))
    signal.set_wakeup_fd(-1)
    show_stacks()


def show_stacks() -> None:
    """In a child: when a signal ends it, or its worker asks, the stacks are printed, also after a handler has taken those signals."""
    faulthandler.disable()
    faulthandler.enable(file=_STANDARD_ERROR)
    faulthandler.unregister(_STACKS)
    faulthandler.register(_STACKS, file=_STANDARD_ERROR, chain=False)


def _put_environment(kept: dict[bytes, bytes]) -> None:
    for name in set(os.environb) - set(kept):
        del os.environb[name]
    os.environb.update(kept)
    time.tzset()  # the C library has read TZ when a handler told it to


def _blocked_signals() -> set[int]:
    return set(signal.pthread_sigmask(signal.SIG_BLOCK, ()))


def _limits() -> dict[int, int]:
    """The soft ones: a hard one that was lowered stays so."""
    return {number: resource.getrlimit(number)[0] for number in _LIMITS}


def _put_limits(kept: dict[int, int]) -> None:
    for number, soft in kept.items():
        now, hard = resource.getrlimit(number)
        if now != soft:
            too_high = hard != resource.RLIM_INFINITY and (soft == resource.RLIM_INFINITY or soft > hard)
            resource.setrlimit(number, (hard if too_high else soft, hard))


def _put_gc(enabled: bool) -> None:
    (gc.enable if enabled else gc.disable)()


EVERYWHERE: dict[str, tuple[Get, Put]] = {
    "working folder": (os.getcwd, os.chdir),
    "umask": (_umask, _put_umask),
    "locale": (lambda: locale.setlocale(locale.LC_ALL), lambda kept: locale.setlocale(locale.LC_ALL, kept)),
    "sys.stdin": (lambda: getattr(sys, "stdin", None), lambda kept: setattr(sys, "stdin", kept)),
    "sys.stdout": (lambda: getattr(sys, "stdout", None), lambda kept: setattr(sys, "stdout", kept)),
    "sys.stderr": (lambda: getattr(sys, "stderr", None), lambda kept: setattr(sys, "stderr", kept)),
    "warning filters": (_filters, _put_filters),
    "logging": (_logging, _put_logging),
    "recursion limit": (sys.getrecursionlimit, sys.setrecursionlimit),
    "garbage collection": (gc.isenabled, _put_gc),
    "default socket timeout": (socket.getdefaulttimeout, socket.setdefaulttimeout),
}
