"""Inside a child: takes one attempt at a time from its worker, runs the handler in the main thread, tells what it said.

A thread reads the wire all the while, so that `ctx.stopping` and `ctx.cancelled` are heard, and so that the child ends when its worker
does.
"""

from __future__ import annotations

import asyncio
import faulthandler
import json
import logging
import os
import sys
import tempfile
import threading
from dataclasses import asdict
from queue import SimpleQueue
from types import CoroutineType
from typing import Any

from batch.child.bonds import end_group, memory_limit, worn
from batch.child.logs import set_up_forwarding
from batch.child.store import RemoteStore
from batch.child.wire import Frame, Link
from batch.copies import copies
from batch.formats.forms import ENVELOPES, Forms
from batch.handling.answer import Answer, Said, answers_of, awaited_here, called, raised, tasks_begin_as_now
from batch.handling.cancels import Cancel, Cancels
from batch.handling.context import AsyncContext, Context
from batch.handling.registry import Handler, Kind, Registry, load_handlers
from batch.handling.signals import holds
from batch.model.clock import SystemClock
from batch.model.errors import SettingsError
from batch.model.outcomes import MAX_LINE_BYTES, Outcome, left_out, to_line
from batch.model.result import ResultRefused
from batch.model.texts import plain
from batch.process_state import ProcessState, child_state, draw_anew

MAX_STACK_CHARS = 2000
LEAVE_S = 5.0
"""How long a child that is not needed any more may take for its own last things."""


class Inside:
    """One child's state. `link` leads to the worker."""

    def __init__(self, link: Link) -> None:
        self._link = link
        copies.at_birth(link.close)
        self._copy_count = copies.count
        self._work: SimpleQueue[Frame | None] = SimpleQueue()
        self._replies: SimpleQueue[Frame] = SimpleQueue()
        self._asking = threading.Lock()
        self._ctx: Context | AsyncContext | None = None
        self._busy = self._used = False
        self._stopping = threading.Event()
        self._cancels = Cancels()
        self._clock = SystemClock()
        self._registry = Registry()
        self._decode = ENVELOPES.decode
        self._store = RemoteStore("", self._ask)
        self._state = ProcessState({})

    def live(self) -> None:
        """From the first frame to the worker's end."""
        threading.Thread(target=self._read, name="wire", daemon=True).start()
        hello = self._work.get()
        if hello is None or not self._greet(hello.header):
            return
        while (frame := self._work.get()) is not None:
            if self._used and worn(frame.header["memory_mb"]):
                self._send({"kind": "worn"})
                return
            self._busy = self._used = True
            answer, usable = self._attempt(frame)
            _flush()
            self._state.put_back(self._state.changed())
            draw_anew()
            self._send({"kind": "answer", "usable": usable, **asdict(answer)})
            self._busy = False

    def _greet(self, hello: dict[str, Any]) -> bool:
        """Import the handlers; tells the worker when that cannot be done."""
        sys.path[:] = hello["path"]
        self._store.bucket_name = hello["bucket_name"]
        accept, default_type, event_types, subscription = hello["forms"]
        self._decode = Forms(tuple(accept), default_type, tuple(event_types), subscription).decode
        set_up_forwarding(self._send, hello["log_level"])
        try:
            self._registry = load_handlers(hello["modules"])
            tasks_begin_as_now()
            set_up_forwarding(self._send, hello["log_level"])  # a module may have configured logging when it was imported
        except SettingsError as error:
            _flush()
            self._send({"kind": "problem", "text": str(error)})
            return False
        _flush()
        self._state = child_state()
        self._send({"kind": "ready"})
        return True

    def _attempt(self, frame: Frame) -> tuple[Answer, bool]:
        """The answer, and whether this child may take another attempt."""
        told = frame.header
        task = self._decode(
            frame.body, told["attributes"], message_id=told["message_id"], published_s=told["published_s"], lane=told["lane"]
        )
        if task.task_type not in self._registry:
            reason = f"the child process knows no handler for {task.task_type!r}: register it when a module of HANDLERS is imported"
            return Answer(Said.DEPENDENCY, reason=reason), True
        self._send({"kind": "began"})
        handler = self._registry[task.task_type]
        deadline_s = None if told["remaining_s"] is None else self._clock.monotonic() + told["remaining_s"]
        kind_of_context = AsyncContext if handler.is_async else Context
        more = {"_attributes": told["attributes"], "_cancels": self._cancels, "_traceparent": told["traceparent"]}
        ctx = kind_of_context(task, self._store, self._clock, told["number"], deadline_s, None, self._stopping, **more)
        self._ctx = ctx
        tight: list[BaseException] = []

        def run(ctx: Context | AsyncContext) -> Any:
            with memory_limit(told["memory_mb"]):
                try:
                    ctx.payload = handler.validated(task)
                    return _called(handler, ctx)
                except BaseException as error:
                    if holds(error, MemoryError):
                        tight.append(error)
                    raise

        answer = called(run, ctx)
        if answer.said is Said.RETURNED:
            answer = self._plain(answer, handler)
            answer.output = ctx.ended()
        elif tight and answer.said is Said.FAILED and told["memory_mb"] is not None:
            answer.reason = f"it asked for more than the {told['memory_mb']} MB that it may use. {answer.reason}".strip()
        return answer, not tight

    def _plain(self, answer: Answer, handler: Handler) -> Answer:
        """The result as it will stand in the outcome's line; one that is too large for that does not travel."""
        if handler.kind is Kind.GROUP:
            (answer,) = answers_of(answer, 1)
            if answer.said is not Said.RETURNED:
                return answer
        try:
            line = to_line(Outcome("", "", "succeeded", "", result=answer.result))
        except ResultRefused as refused:
            return raised(refused.error)
        except BaseException as error:  # noqa: BLE001 - turning a result into text is user code again
            return raised(error)
        return Answer(Said.RETURNED, left_out(line) if len(line) > MAX_LINE_BYTES else json.loads(line).get("result"))

    def _how_far(self) -> str:
        """What the handler has said of its progress; empty when it has said nothing."""
        ctx = self._ctx
        return "" if ctx is None else plain(ctx.how_far.get(ctx.task.task_id) or "")

    def _ask(self, header: dict[str, Any], body: bytes) -> Frame:
        """One question at a time: the worker answers in order. Raises CopyRefused in a copy of the child."""
        copies.refuse(
            self._copy_count,
            "runs the isolated handler: ctx.read, ctx.write and what else asks the bucket work there only. Give a copy the data that it "
            "needs, let it return the data that it has made (as pool.map does), and write that in the handler",
        )
        with self._asking:
            self._send(header, body)
            return self._replies.get()

    def _send(self, header: dict[str, Any], body: bytes = b"") -> None:
        if copies.count == self._copy_count:
            self._link.send(header, body)
        elif header["kind"] == "log":
            sys.stderr.write(f"{header['text']}\n")  # a copy that the handler has forked must not speak for the child; it may print

    def _read(self) -> None:
        """Sort what comes. Whatever goes wrong here is the end: nothing would ever be heard again."""
        try:
            while (frame := self._link.receive()) is not None:
                if frame.kind == "reply":
                    self._replies.put(frame)
                elif frame.kind == "stop":
                    self._stopping.set()
                elif frame.kind == "cancelled":
                    told = frame.header
                    self._cancels.by_id = {told["task_id"]: Cancel(told["at"], told["at"])}
                elif frame.kind == "where":
                    self._send({"kind": "where", "stack": _stack(), "progress": self._how_far()})
                else:
                    self._work.put(frame)
        except BaseException as error:  # noqa: BLE001 - told on standard error, which the worker reads
            sys.stderr.write(f"the wire to the worker broke: {error!r}\n")
            _flush()
            os._exit(70)
        if not self._busy:
            self._work.put(None)
            threading.Event().wait(LEAVE_S)
        end_group()


def _called(handler: Handler, ctx: Context | AsyncContext) -> Any:
    """A quarantined task may be of any kind: a grouped one is given a group of one; a coroutine is run here."""
    result = handler.function([ctx.task], [ctx]) if handler.kind is Kind.GROUP else handler.function(ctx.task, ctx)
    return asyncio.run(awaited_here(result)) if isinstance(result, CoroutineType) else result


def _stack() -> str:
    """Where the handler is, the most recent call first."""
    try:
        with tempfile.TemporaryFile() as file:
            faulthandler.dump_traceback(file)
            file.seek(0)
            text = file.read().decode(errors="replace")
    except OSError as error:
        return f"it could not be read: {error}"
    return text.split("\n\n")[-1].strip()[:MAX_STACK_CHARS]  # the main thread, where handlers run, stands last


def _flush() -> None:
    """What was printed is out before the answer is: it belongs to this attempt."""
    for name in ("stdout", "stderr"):
        try:
            getattr(sys, name).flush()
        except Exception:  # noqa: BLE001 - a handler may have closed or replaced it
            logging.getLogger("fanout.handler").debug("a stream could not be flushed")
