"""What a worker's try printed last, where this machine can read it: from the local cloud's logs. Cloud Run's own are read at its link."""

from __future__ import annotations

import urllib.error
import urllib.request

MAX_LINES = 12
FATAL = "Fatal Python error"
CURRENT = "Current thread"
TIMEOUT_S = 5.0


def last_words(log_uri: str, emulator_url: str) -> list[str]:
    """The last lines of standard error in this log; empty where there are none, or the log is not the local cloud's."""
    if not emulator_url or not log_uri.startswith(emulator_url.rstrip("/") + "/"):
        return []
    try:
        with urllib.request.urlopen(log_uri, timeout=TIMEOUT_S) as answer:
            text = answer.read().decode(errors="replace")
    except (OSError, urllib.error.URLError) as error:
        return [f"its log cannot be read: {error}"]
    return said_last(text)


def said_last(text: str) -> list[str]:
    """Of a log in which events, each a line of JSON, are mixed with what went to standard error: the last of the latter; of a crash that
    Python itself tells, what happened and where the thread was that it happened to."""
    lines = [line.rstrip() for line in text.splitlines() if line.strip() and not line.startswith("{")]
    fatal = [at for at, line in enumerate(lines) if line.startswith(FATAL)]
    if not fatal:
        return lines[-MAX_LINES:]
    lines = lines[fatal[-1] :]
    current = next((at for at, line in enumerate(lines) if line.startswith(CURRENT)), 1)
    frames = lines[current : current + MAX_LINES - 1]
    other = next((at for at, line in enumerate(frames) if at and not line.startswith(" ")), len(frames))
    return [lines[0], *frames[:other]]
