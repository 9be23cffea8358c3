"""The table of events is closed: every event that the code logs stands in it, and each of its events is logged somewhere."""

from __future__ import annotations

import ast
import io
import json
import logging
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from batch.events import EVENTS, log
from batch.logs import set_up_logging

ROOT = Path(__file__).resolve().parents[2]


def events_in(module: ast.Module) -> Iterator[str]:
    """The names that are given to `log`, also one of two."""
    for node in ast.walk(module):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "log" and node.args:
            yield from (one.value for one in ast.walk(node.args[0]) if isinstance(one, ast.Constant) and isinstance(one.value, str))


def test_what_is_logged_is_what_the_table_says() -> None:
    paths = [path for package in ("batch", "controller", "intake") for path in (ROOT / package).rglob("*.py")]
    logged = {event for path in paths for event in events_in(ast.parse(path.read_text(encoding="utf-8")))}
    assert logged == set(EVENTS)


def test_a_line_is_what_cloud_logging_reads() -> None:
    out = io.StringIO()
    with redirect_stdout(out):
        set_up_logging(lane="default")
    log("pull_failed", error="no answer", attempt=2)
    log("lane_ticked", "lane default: 3 workers", launched=["e-1"])
    log("handler_progress", done=1)
    logging.getLogger("tests.some_server").warning("of the %s", "server")  # uvicorn's own may have been set up by a test before
    logging.getLogger("urllib3").info("nobody asked")
    first, second, third, other = (json.loads(line) for line in out.getvalue().splitlines())
    assert first.pop("time")[-1] == "Z"
    expected = {"severity": "WARNING", "message": "pull failed: no answer", "event": "pull_failed", "error": "no answer", "attempt": 2}
    assert first == {**expected, "lane": "default"}
    assert (second["severity"], second["message"], second["launched"]) == ("INFO", "lane default: 3 workers", ["e-1"])
    assert third["message"] == "handler progress"
    assert (other["severity"], other["message"]) == ("WARNING", "of the server")


def test_an_event_outside_the_table_is_a_fault() -> None:
    with pytest.raises(KeyError):
        log("no_such_event")
