"""One child's life, seen from its worker: started, given one attempt at a time, watched, killed when it must be, and told of.

A child belongs to the thread that started it: the kernel ends it with that thread. Only `kill` may be called by another one.
"""

from __future__ import annotations

import os
import resource
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from batch.child.folder import TemporaryFolder
from batch.child.logs import relogged
from batch.child.store import answered, takes_long
from batch.child.wire import Frame, Garbled, Link
from batch.descendants import end_below
from batch.handling.answer import MAX_TRACEBACK_CHARS, Answer, Said, overdue
from batch.handling.cancels import Cancel
from batch.handling.registry import Kind
from batch.model.clock import Clock
from batch.services.ports import ObjectStore
from batch.worker.executors.output import TAIL_BYTES, Output
from batch.worker.executors.running import Where

TICK_S = 0.25
"""How late a child's end, its deadline or the worker's stop may be noticed."""
START_LIMIT_S = 120.0
"""Handlers' modules may import a lot."""
SEND_LIMIT_S = 30.0
GONE_LIMIT_S = 5.0
"""How long a killed process may take to be gone."""
END_LIMIT_S = 1.0
"""How long a process may take to end that has closed its wire, or whose worker has."""
STEP_S = 0.01
STACKS_S = 0.5
"""How long a process that is past its time may take to print where it hangs."""


class CannotStart(Exception):
    """A child did not get ready. `lasting`: no other would, for its handlers cannot be imported."""

    def __init__(self, reason: str, *, lasting: bool = False) -> None:
        self.lasting = lasting
        super().__init__(reason)


class NeverBegan(Exception):
    """The child was gone before the handler began: the attempt may be given to another one."""


@dataclass(frozen=True, slots=True)
class Order:
    """One attempt for a child. `until_s` (monotonic; None: without limit) is when it is killed; `limit_s` the limit as it was asked for;
    the header tells the child all that it needs; `cancelled_by` is asked while it runs."""

    header: dict[str, Any]
    data: bytes
    until_s: float | None
    limit_s: float | None
    facts: dict[str, Any]
    cancelled_by: Callable[[], Cancel | None] = lambda: None


class Child:
    """`hello` is the first frame it gets, `environment` all that it has of one. Raises CannotStart when there can be no process."""

    def __init__(
        self, hello: dict[str, Any], environment: Mapping[str, str], store: ObjectStore, clock: Clock, stopping: threading.Event
    ) -> None:
        self._store = store
        self._clock = clock
        self._stopping = stopping
        self._told_stop = False
        self._killing = threading.Lock()
        self._reaped = False
        self._why = ""
        self._where: Where | None = None
        self._where_wanted = False
        self.output = Output()
        ours, theirs, self._printed, printing = _ends()
        command = [sys.executable, *(f"-W{one}" for one in sys.warnoptions), "-m", "batch.child", str(theirs.fileno()), str(os.getpid())]
        self._folder = TemporaryFolder()
        try:
            # In a session of its own: a signal to the worker's group is the worker's to judge.
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=printing,
                stderr=printing,
                env={**environment, **self._folder.make()},
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        except OSError as error:
            ours.close()
            os.close(self._printed)
            self._folder.remove()
            raise CannotStart(f"the process for isolated handlers could not be made: {error}") from error
        finally:
            theirs.close()
            os.close(printing)
        self.pid = self._process.pid
        os.set_blocking(self._printed, False)
        self._link = Link(ours)
        self._link.limit_sends(SEND_LIMIT_S)
        self._poll = select.poll()
        self._poll.register(self._link.fileno(), select.POLLIN)
        self._poll.register(self._printed, select.POLLIN)
        self._poll_printed = select.poll()
        self._poll_printed.register(self._printed, select.POLLIN)
        self._hello = hello
        self._facts: dict[str, Any] = {}

    def get_ready(self) -> None:
        """Wait until its handlers are imported. Raises CannotStart; the child is gone then."""
        until_s = self._clock.monotonic() + START_LIMIT_S
        self._try_send(self._hello)
        while (frame := self._next()) is None or frame.kind == "log":
            if frame is not None:
                self._serve(frame)
            elif self._stopping.is_set():
                self._fail_start("the worker stopped while it started")
            elif self._clock.monotonic() >= until_s:
                self._fail_start(f"it was not ready after {START_LIMIT_S:g} s")
            elif not self._pump():
                self._fail_start(f"it {self._ended()}")
        if frame.kind != "ready":
            self._fail_start(str(frame.header.get("text", "it did not say why")), lasting=True)
        self._folder.keep()

    def _fail_start(self, why: str, *, lasting: bool = False) -> None:
        self._bury()
        printed = f"; it printed: {self.output.tail[-1000:]}" if self.output.tail else ""
        raise CannotStart(f"a process for isolated handlers did not start: {why}{printed}", lasting=lasting)

    def idle(self) -> bool:
        """Whether it still lives and waits for work."""
        return not self._reaped and self._lives()

    def run(self, order: Order) -> Answer:
        """Give it an attempt and wait for what becomes of it. Raises NeverBegan. Unless the handler has answered, it is gone."""
        self.output.begin(**order.facts)
        self._facts = order.facts
        began = told_cancelled = self._where_wanted = False
        self._where = None
        try:
            self._link.send({"kind": "run", **order.header}, order.data)
        except OSError as error:
            self.close()
            raise NeverBegan from error
        while True:
            if order.until_s is not None and self._clock.monotonic() >= order.until_s:
                return self._timed_out(order)
            if self._stopping.is_set() and not self._told_stop:
                self._told_stop = True
                self._try_send({"kind": "stop"})
            if not told_cancelled and (entry := order.cancelled_by()) is not None:
                told_cancelled = True
                self._try_send({"kind": "cancelled", "task_id": order.facts["task_id"], "at": entry.at})
            if self._where_wanted:
                self._where_wanted = False
                self._try_send({"kind": "where"})
            frame = self._next()
            if frame is None:
                if self._pump():
                    continue
                ended = self._ended()
                if not began:
                    raise NeverBegan(ended)
                return self._crashed(ended, order)
            if frame.kind == "answer":
                self._drain()
                self.output.end()
                return self._answer(frame)
            if frame.kind == "worn":
                self.close()
                raise NeverBegan("had too much memory in use from the tasks before")
            began = began or frame.kind == "began"
            self._serve(frame)

    def where(self) -> Where | None:
        """Where its handler is. Any thread may ask; the one that watches the child passes the question on, and the answer is None until
        it is known."""
        found, self._where = self._where, None
        self._where_wanted = found is None
        return found

    def kill(self) -> None:
        """End it and all it has started. Any thread may."""
        with self._killing:
            if self._reaped:
                return
            with suppress(OSError):
                os.kill(self.pid, signal.SIGSTOP)  # it starts nothing more, and keeps what it has started until that is found
            end_below(self.pid)
            for kill in (os.killpg, os.kill):
                with suppress(OSError):
                    kill(self.pid, signal.SIGKILL)

    def abandon(self) -> None:
        """The worker ends, and its threads may not come to do what is left to do."""
        self.kill()
        self._folder.remove()

    def close(self) -> None:
        """It is not needed any more: it may end by itself, and is killed when it does not at once."""
        if self._reaped:
            return
        self._link.close()
        self._wait_end()
        self._bury()

    # --- what comes from it

    def _next(self) -> Frame | None:
        try:
            return self._link.decoder.next()
        except Garbled as error:
            self._refuse(f"wrote into the wire to its worker ({error}) and was killed")
            return None

    def _pump(self) -> bool:
        """Wait a little for what comes. False when it is gone, and everything it had sent has been taken."""
        ready = dict(self._poll.poll(TICK_S * 1000))
        if self._printed in ready:
            self._drain()
        if self._link.fileno() not in ready:
            return self._lives() or self._link.fileno() in dict(self._poll.poll(0))
        with suppress(ConnectionError):
            if self._link.take():
                return True
        if not self._wait_end():
            self._refuse("closed the wire to its worker and was killed")
        return False

    def _wait_end(self) -> bool:
        """Whether it ends by itself within END_LIMIT_S; what it prints meanwhile is read."""
        for _ in range(int(END_LIMIT_S / STEP_S)):
            if not self._lives():
                return True
            if self._poll_printed.poll(STEP_S * 1000) and not self._drain():
                threading.Event().wait(STEP_S)
        return not self._lives()

    def _refuse(self, why: str) -> None:
        self._why = self._why or why
        self.kill()

    def _drain(self) -> bool:
        """Read what it has printed so far; False at the end of all printing."""
        for _ in range(64):
            try:
                data = os.read(self._printed, 64 * 1024)
            except BlockingIOError:
                return True
            if not data:
                with suppress(KeyError):
                    self._poll.unregister(self._printed)
                return False
            self.output.feed(data)
        return True

    def _serve(self, frame: Frame) -> None:
        if frame.kind == "ask" and takes_long(frame):
            # Aside, or the child would not be watched meanwhile. A transfer ends when its file is gone, with the folder of the child.
            threading.Thread(target=self._reply, args=(frame,), name="transfer", daemon=True).start()
        elif frame.kind == "ask":
            self._reply(frame)
        elif frame.kind == "log":
            relogged(frame.header, self._facts)
        elif frame.kind == "where":
            self._where = Where(str(frame.header.get("stack", "")), str(frame.header.get("progress", "")))

    def _reply(self, question: Frame) -> None:
        reply = answered(self._store, question)
        self._try_send(reply.header, reply.body)

    def _try_send(self, header: dict[str, Any], body: bytes = b"") -> None:
        """A child that does not listen is a dead one: the next look at it tells."""
        try:
            self._link.send(header, body)
        except OSError:
            self._refuse("did not listen to its worker and was killed")

    def _answer(self, frame: Frame) -> Answer:
        told = {name: value for name, value in frame.header.items() if name not in ("kind", "usable")}
        answer = Answer(**{**told, "said": Said(told["said"])})
        if frame.header.get("usable", True):
            self._folder.clear()
        else:
            self.close()
        return answer

    # --- how it ends

    def _timed_out(self, order: Order) -> Answer:
        """Past its time: asked for its stacks, then killed."""
        with suppress(OSError):
            os.kill(self.pid, signal.SIGUSR1)
        if self._poll_printed.poll(STACKS_S * 1000):
            threading.Event().wait(STEP_S)
        self._bury()
        return overdue(order.limit_s or 0.0, Kind.PROCESS, self.output.tail[-MAX_TRACEBACK_CHARS:])

    def _crashed(self, ended: str, order: Order) -> Answer:
        memory_mb = order.header["memory_mb"]
        limit = f"; it may use {memory_mb} MB" if memory_mb is not None else ""
        evidence = self.output.tail[-TAIL_BYTES:]
        return Answer(Said.CRASHED, error_type="ProcessDied", reason=f"its process {ended}{limit}", traceback=evidence)

    def _ended(self) -> str:
        """It has ended: how, in words."""
        code, peak_mb = self._bury()
        return (self._why or how_it_ended(code)) + (f" (it had used up to {peak_mb} MB)" if peak_mb else "")

    def _lives(self) -> bool:
        """Looks without reaping: until then its number is nobody else's."""
        with suppress(ChildProcessError):
            return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None
        return False

    def _bury(self) -> tuple[int | None, int]:
        """Kill what is left of its group, reap it, close everything; its exit code as Popen gives it, and its peak memory if known."""
        self.kill()
        with self._killing:
            if self._reaped:
                return None, 0
            code, peak_mb = self._reap()
            self._reaped = True
        self._drain()
        self.output.end()
        self._link.close()
        with suppress(OSError):
            os.close(self._printed)
        self._folder.remove()
        return code, peak_mb

    def _reap(self) -> tuple[int | None, int]:
        for _ in range(int(GONE_LIMIT_S / 0.01)):
            try:
                pid, status, usage = os.wait4(self.pid, os.WNOHANG)
            except ChildProcessError:
                break
            if pid:
                self._process.returncode = os.waitstatus_to_exitcode(status)
                return self._process.returncode, _peak_mb(usage.ru_maxrss)
            threading.Event().wait(0.01)
        self._process.returncode = -signal.SIGKILL
        return None, 0


def _ends() -> tuple[socket.socket, socket.socket, int, int]:
    """Both ends of the wire, and of the pipe for what is printed. Raises CannotStart when the worker may open nothing more."""
    try:
        ours, theirs = socket.socketpair()
        try:
            return ours, theirs, *os.pipe()
        except OSError:
            ours.close()
            theirs.close()
            raise
    except OSError as error:
        raise CannotStart(f"no wire to a process for isolated handlers could be made: {error}") from error


def _peak_mb(kilobytes: int) -> int:
    """What the kernel tells counts from before the process became a child: no more than the worker's own peak says nothing."""
    if sys.platform != "linux" or kilobytes <= resource.getrusage(resource.RUSAGE_SELF).ru_maxrss:
        return 0
    return kilobytes // 1024


def how_it_ended(code: int | None) -> str:
    """An exit code, as Popen gives it, in words."""
    if code is None:
        return "was killed and did not go"
    if code >= 0:
        return f"ended with exit code {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    told = {"SIGSEGV": "it touched memory that is not its own", "SIGABRT": "it gave up", "SIGKILL": "often because memory ran out"}
    return f"was ended by {name}" + (f" ({told[name]})" if name in told else "")
