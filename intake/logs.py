"""Log lines as Cloud Logging reads them: one JSON object a line on standard error, with a severity."""

from __future__ import annotations

import json
import logging
import sys


class CloudLines(logging.Formatter):
    """A record as one line; the traceback of an error is part of its message, as Error Reporting wants it."""

    def format(self, record: logging.LogRecord) -> str:
        text = record.getMessage()
        if record.exc_info:
            text = f"{text}\n{self.formatException(record.exc_info)}"
        return json.dumps({"severity": record.levelname, "logger": record.name, "message": text})


def set_up() -> None:
    """For the whole process; of the HTTP server only what goes wrong."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(CloudLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
