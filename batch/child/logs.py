"""Log lines of a child: each record travels to the worker and is logged there, in the worker's own format."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

from batch.events import OWN_FIELDS

MAX_TEXT_CHARS = 8000

Send = Callable[[dict[str, Any]], None]


class Forwarding(logging.Handler):
    """In the child: sends each record over the wire."""

    def __init__(self, send: Send) -> None:
        super().__init__()
        self._send = send

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._send({"kind": "log", **told(record)})
        except Exception:  # noqa: BLE001 - a line that cannot be told must not fail the handler that logs
            self.handleError(record)


def told(record: logging.LogRecord) -> dict[str, Any]:
    """A record as JSON; what is not JSON in it becomes text."""
    extra = {key: value for key, value in vars(record).items() if key not in OWN_FIELDS}
    body: dict[str, Any] = {"logger": record.name, "level": record.levelno, "text": record.getMessage()[:MAX_TEXT_CHARS]}
    if record.exc_info:
        body["exception"] = logging.Formatter().formatException(record.exc_info)[-MAX_TEXT_CHARS:]
    try:
        plain = json.dumps(extra, default=str)
    except (ValueError, TypeError, RecursionError):
        plain = "{}"
    body["extra"] = json.loads(plain) if len(plain) <= 2 * MAX_TEXT_CHARS else {"extra": plain[:MAX_TEXT_CHARS]}
    return body


def relogged(body: dict[str, Any]) -> None:
    """In the worker: log it again."""
    logger, level = logging.getLogger(str(body.get("logger", "fanout.handler"))), int(body.get("level", logging.INFO))
    if not logger.isEnabledFor(level):
        return
    extra = {str(key): value for key, value in dict(body.get("extra", {})).items() if key not in OWN_FIELDS}
    if "exception" in body:
        extra["exception"] = body["exception"]
    logger.log(level, "%s", body.get("text", ""), extra=extra)


def set_up_forwarding(send: Send) -> None:
    """Every `fanout` line, and others' warnings, as in the worker."""
    root = logging.getLogger()
    root.handlers[:] = [Forwarding(send)]
    root.setLevel(logging.WARNING)
    logging.getLogger("fanout").setLevel(logging.INFO)
