"""Log records: the one JSON line that each becomes, the task that each belongs to, and the own log of a Fanout process.

What Fanout and `ctx.log` say never depends on how handlers configure the `logging` module: it goes straight to the process's own handler.
Making a line of a record never raises.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol, TextIO

from batch.model.clock import iso
from batch.model.delivery import GOOGLE_TRACEPARENT
from batch.model.texts import class_name, is_shown, json_bytes, plain, traceback_text

LEVELS = {"DEBUG": 10, "INFO": 20, "NOTICE": 25, "WARNING": 30, "ERROR": 40, "CRITICAL": 50}
TALKATIVE = ("google", "grpc", "urllib3", "uvicorn", "httpx", "httpcore")
"""Libraries that log each request at INFO: their WARNINGs are enough, unless a module sets their level itself."""
OWN_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
"""What every log record has; the rest are fields of its own."""
MAX_LINE_CHARS = 60_000
"""Cloud Logging takes 256 KB an entry."""
MAX_MESSAGE_CHARS = 30_000
MAX_FIELD_CHARS = 2000
"""Of each field of a record whose line would be longer."""
MAX_FIELDS = 40
MAX_TRACEBACK_CHARS = 16_000
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}", re.ASCII)
PRINTED = "handler_output"
"""The event of a line that user code has printed: like a record of its loggers it may have fields of any name."""
TRACE = "logging.googleapis.com/trace"
SPAN = "logging.googleapis.com/spanId"
TRACEPARENT = "traceparent"
REQUEST_ID = "request_id"
"""The attribute, and the field, of the request that a message came with."""


class HasFacts(Protocol):
    """What a task's code runs with: knows whose it is."""

    def facts(self) -> dict[str, Any]:
        """Fields of each log record that arises meanwhile."""


running: ContextVar[HasFacts | None] = ContextVar("running", default=None)
"""Of the task whose code runs here. Read only when a record is made."""


@dataclass(slots=True)
class _OwnLog:
    """`handler` is None in a process that is not Fanout's own, such as a test or a notebook: there records go through the `logging` module,
    as those of any library do."""

    handler: logging.Handler | None = None
    level: int = logging.INFO
    project: str = ""


own = _OwnLog()


def takes(name: str, level: int) -> bool:
    """Whether a record of this level is written at all."""
    return logging.getLogger(name).isEnabledFor(level) if own.handler is None else level >= own.level


def deliver(record: logging.LogRecord) -> None:
    """To the process's own log, if it takes records of this level."""
    if own.handler is None:
        if takes(record.name, record.levelno):
            logging.getLogger(record.name).handle(record)
    elif record.levelno >= own.level:
        own.handler.acquire()
        try:
            own.handler.emit(record)
        finally:
            own.handler.release()


def record_of(name: str, level: int, message: str, fields: Mapping[str, Any]) -> logging.LogRecord:
    """A record with fields of its own; none of them may be one of OWN_FIELDS."""
    record = logging.LogRecord(name, level, "", 0, message, None, None)
    vars(record).update(fields)
    return record


def trace_field(attributes: Mapping[str, str], span: str = "") -> dict[str, str]:
    """The trace that a message belongs to, as Cloud Logging knows it, and the request; neither when it names none, and no trace when the
    project is not known. `span`: the context of a span of this process, in the W3C's form, which is named too."""
    trace_id = (span[3:35] or trace_id_in(attributes)) if own.project else ""
    traced = {TRACE: f"projects/{own.project}/traces/{trace_id}"} if trace_id else {}
    if span and trace_id:
        traced[SPAN] = span[36:52]
    return traced | {REQUEST_ID: attributes[REQUEST_ID]} if REQUEST_ID in attributes else traced


def trace_id_in(attributes: Mapping[str, str]) -> str:
    """The trace that a message belongs to; empty when it names none."""
    return traceparent_in(attributes)[3:35]


def traceparent_in(attributes: Mapping[str, str]) -> str:
    """The context that a message names, in the W3C's form; empty when it names none. One that is not well formed is none. Of a later
    version than 00 more may follow, which is left out."""
    for name in (GOOGLE_TRACEPARENT, TRACEPARENT):
        given = attributes.get(name)
        if given and _TRACEPARENT.fullmatch(given[:55]) and (len(given) == 55 or (given[:2] != "00" and given[55] == "-")):
            return given[:55]
    return ""


# --- fields and messages that nothing can spoil


def message_of(record: logging.LogRecord) -> str:
    """Also of one whose values do not fit its text, or cannot be shown."""
    try:
        return plain(record.getMessage(), MAX_MESSAGE_CHARS)
    except BaseException:  # noqa: BLE001 - what shows a value is user code
        values = record.args if isinstance(record.args, tuple) else (record.args,)
        return " ".join(plain(one) for one in (record.msg, *values))


def fields_of(extra: object) -> dict[str, Any]:
    """What was given as `extra`, under names that a record does not have."""
    if extra is None:
        return {}
    try:
        named = {plain(key, MAX_FIELD_CHARS): value for key, value in dict(extra).items()}  # type: ignore[call-overload]
    except BaseException:  # noqa: BLE001 - it may be of any class
        return {"extra": plain(extra)}
    return {f"extra_{name}" if name in OWN_FIELDS else name: value for name, value in named.items()}


def own_fields(record: logging.LogRecord) -> dict[str, Any]:
    """The fields that not every record has."""
    return {key: value for key, value in vars(record).items() if key not in OWN_FIELDS}


def exception_of(record: logging.LogRecord) -> str:
    """The traceback that a record carries, if it does."""
    given = record.exc_info
    error = given[1] if isinstance(given, tuple) and len(given) == 3 else given
    return traceback_text(error, MAX_TRACEBACK_CHARS) if isinstance(error, BaseException) else ""


def json_text(body: Mapping[str, Any]) -> str:
    """An object as JSON that every reader takes, within bounds; what is not JSON in it becomes text."""
    try:
        text = _JSON.encode(body)
    except BaseException:  # noqa: BLE001 - values are user code's: they may raise anything when they are looked at
        text = ""
    if not text or len(text) > MAX_LINE_CHARS:
        text = _JSON.encode(dict([(plain(key), _short(key, value)) for key, value in body.items()][:MAX_FIELDS]))
    return text if text.isascii() else json_bytes(text).decode()


def _seen(line: str) -> str:
    """A JSON text that may be looked at in a terminal: what would not be seen as it is stands as JSON's own escape."""
    return line if line.isprintable() else "".join(one if is_shown(one) else json.dumps(one)[1:-1] for one in line)


def _short(key: Any, value: Any) -> Any:
    if isinstance(value, str):
        return plain(value, MAX_MESSAGE_CHARS if key == "message" else MAX_FIELD_CHARS)
    try:
        text = _JSON.encode(value)
    except BaseException:  # noqa: BLE001 - as above
        text = ""
    return json.loads(text) if text and len(text) <= MAX_FIELD_CHARS else plain(value, MAX_FIELD_CHARS)


_JSON = json.JSONEncoder(ensure_ascii=False, allow_nan=False, default=plain)


class JsonLines(logging.Formatter):
    """One JSON object a line: `severity`, `time`, `message`, the worker's constant fields, the record's own, those of the task that runs,
    and a traceback under `exception`."""

    def __init__(self, **constant: Any) -> None:
        super().__init__()
        self._constant = constant

    def format(self, record: logging.LogRecord) -> str:
        """Never raises."""
        body: dict[str, Any] = {"severity": severity(record.levelno), "time": iso(record.created), "message": message_of(record)}
        body |= self._constant
        fields = own_fields(record)
        ours = record.name == "fanout"
        reserved = set() if ours and fields.get("event") != PRINTED else set(body) if ours else {*body, "event"}
        for key, value in fields.items():
            body[f"extra_{key}" if key in reserved else key] = value
        if exception := exception_of(record):
            body["exception"] = exception
        return _seen(json_text({**facts_now(), **body}))


def facts_now() -> dict[str, Any]:
    """Of the task whose code runs here, if any."""
    whose = running.get()
    return whose.facts() if whose is not None else {}


def severity(level: int) -> str:
    """Cloud Logging's name; that of the next lower one for a level between two."""
    return next((name for name, number in reversed(LEVELS.items()) if number <= level), "DEBUG")


class OwnHandler(logging.Handler):
    """Stands among the root logger's handlers, where others find it: what they set there spoils no line, and Fanout's own go past it."""

    def filter(self, record: logging.LogRecord) -> Any:
        """One that raises keeps nothing."""
        try:
            return super().filter(record)
        except Exception:  # noqa: BLE001 - a filter is user code
            return True


class JsonHandler(OwnHandler):
    """Writes to the process's real standard output. A line that cannot be written is lost: there is no other place to say so."""

    def __init__(self, stream: TextIO, lines: JsonLines) -> None:
        super().__init__()
        self._stream, self._lines = stream, lines

    def emit(self, record: logging.LogRecord) -> None:
        """Never raises."""
        with suppress(OSError, ValueError):
            self._stream.write(self._lines.format(record) + "\n")
            self._stream.flush()


class OwnLogger(logging.Logger):
    """Behind `ctx.log`: nothing that handlers do to the `logging` module silences it, and no `extra` loses a line."""

    def isEnabledFor(self, level: int) -> bool:
        """By the process's own level."""
        return takes(self.name, level)

    def makeRecord(self, name: str, level: int, fn: str, lno: int, msg: object, args: Any, exc_info: Any, *more: Any) -> Any:
        """With its text made at once: values may change, and a handler that formats it later knows nothing of odd ones."""
        func, extra, sinfo = (*more, None, None, None)[:3]
        record = logging.LogRecord(name, level, fn, lno, msg, args, exc_info, func, sinfo)
        record.msg, record.args = message_of(record), None
        vars(record).update(fields_of(extra))
        return record

    def handle(self, record: logging.LogRecord) -> None:
        """Straight to the process's own log."""
        deliver(record)


# --- setting up


def set_up_logging(level: str = "INFO", project: str = "", **constant: Any) -> None:
    """Write all that Fanout and others log from `level` on to standard output, as JSON. `constant` fields stand in each line."""
    send_to(JsonHandler(getattr(sys.stdout, "real", sys.stdout), JsonLines(**constant)), level, project)


def send_to(handler: logging.Handler, level: str, project: str = "") -> None:
    """Make `handler` this process's own log, and that of all other loggers. Called again once modules are imported: a handler that one of
    them has put in its place, and that writes to standard output or error, would tell each line once more, and without the task."""
    root = logging.getLogger()
    others = [one for one in root.handlers if one is not own.handler and not _writes_to_console(one)]
    own.handler, own.level, own.project = handler, LEVELS[level], project
    handler.setLevel(own.level)
    root.handlers[:] = [handler, *others]
    root.setLevel(own.level)
    for name in TALKATIVE:
        library = logging.getLogger(name)
        if library.level == logging.NOTSET:
            library.setLevel(logging.WARNING)
    logging.captureWarnings(True)
    threading.excepthook = _thread_failed


def _writes_to_console(handler: logging.Handler) -> bool:
    consoles = [getattr(sys, name, None) for name in ("stdout", "stderr", "__stdout__", "__stderr__")]
    stream = getattr(handler, "stream", None)
    return stream is not None and any(stream is one for one in consoles)


def _thread_failed(args: threading.ExceptHookArgs) -> None:
    """A thread that a handler has started ended by an exception: one record, not a line for each of its traceback's."""
    error, name = args.exc_value, args.thread.name if args.thread else "unknown"
    if error is not None and not isinstance(error, SystemExit):
        logging.getLogger("threading").error("thread %s ended by %s: %s", name, class_name(error), plain(error), exc_info=error)
