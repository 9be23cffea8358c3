"""Log lines of a child: each record travels to the worker and is logged there, in the worker's own format, as its task's."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from batch.logs import OwnHandler, deliver, exception_of, json_text, message_of, own_fields, record_of, send_to

Send = Callable[[dict[str, Any]], None]


class Forwarding(OwnHandler):
    """In the child: sends each record over the wire."""

    def __init__(self, send: Send) -> None:
        super().__init__()
        self._send = send

    def emit(self, record: logging.LogRecord) -> None:
        """A line that cannot be told must not fail the handler that logs."""
        with suppress(OSError):
            self._send({"kind": "log", **told(record)})


def told(record: logging.LogRecord) -> dict[str, Any]:
    """A record as JSON; what is not JSON in it becomes text."""
    extra = json.loads(json_text(own_fields(record)))
    if exception := exception_of(record):
        extra["exception"] = exception
    return {"logger": record.name, "level": record.levelno, "text": message_of(record), "extra": extra}


def relogged(body: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    """In the worker: log it again, with the facts of the task that the child runs."""
    deliver(record_of(str(body["logger"]), int(body["level"]), str(body["text"]), {**facts, **body["extra"]}))


def set_up_forwarding(send: Send, level: str) -> None:
    """Everything from `level` on, as in the worker."""
    send_to(Forwarding(send), level)
