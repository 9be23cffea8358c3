"""Isolated handlers that work with files: registered where the child imports this module."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
from multiprocessing import util
from pathlib import Path
from typing import Any

from batch.handling.context import Context
from batch.model.errors import ObjectMissing, ObjectTooLarge
from batch.model.message import Task
from tests.batch.child.handlers import isolated


@isolated("stream")
def stream(task: Task, ctx: Context) -> dict[str, Any]:
    path = Path(tempfile.gettempdir()) / "file"
    info = ctx.download(str(task.fields["from"]), path, max_bytes=task.fields.get("max_bytes"))
    size = path.stat().st_size
    written = ctx.upload(str(task.fields["to"]), path, "text/csv")
    return {"size": [info.size, size], "created": written.created, "name": written.name}


@isolated("file-errors")
def file_errors(_task: Task, ctx: Context) -> list[str]:
    """What went wrong, by what a handler would catch."""
    found = []
    calls: list[Any] = [
        lambda: ctx.download("no/such", "file"),
        lambda: ctx.download("in", "file", max_bytes=1),
        lambda: ctx.download("in", "no/such/folder/file"),
        lambda: ctx.upload("out", "no-such-file"),
        lambda: ctx.upload("out", 3),  # type: ignore[arg-type]
    ]
    os.chdir(tempfile.gettempdir())
    for call in calls:
        try:
            call()
        except (ObjectMissing, ObjectTooLarge, FileNotFoundError, TypeError) as error:
            found.append(f"{type(error).__name__}: {error}")
    return [*found, *os.listdir()]


@isolated("litter", timeout_s=None)
def litter(task: Task, ctx: Context) -> dict[str, Any]:
    """Fills its temporary folder, and ends as it is told to."""
    folder = tempfile.gettempdir()
    found = sorted(os.listdir(folder))
    outside = Path(str(task.fields["outside"]))
    (Path(folder) / "deep" / "er").mkdir(parents=True)
    (Path(folder) / "deep" / "er" / "file").write_text("left")
    (Path(folder) / "file").write_text("left")
    (Path(folder) / "to a file").symlink_to(outside / "file")
    (Path(folder) / "to a folder").symlink_to(outside)
    (Path(folder) / "deep" / "to a folder").symlink_to(outside)
    os.chmod(Path(folder) / "deep" / "er", 0o500)
    of_python = util.get_temp_dir()
    is_there = os.path.isdir(of_python)
    _end(str(task.fields.get("end", "")), folder, outside)
    return {"folder": folder, "found": found, "pid": os.getpid(), "of_python": of_python, "is_there": is_there}


@isolated("litter-late", timeout_s=0.3)
def litter_late(task: Task, ctx: Context) -> None:
    litter(task, ctx)


def _end(how: str, folder: str, outside: Path) -> None:
    if how == "exit":
        os._exit(7)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "hang":
        threading.Event().wait()
    if how == "raise":
        raise ValueError("it failed")
    if how == "elsewhere":
        tempfile.tempdir = str(outside)
    if how == "swap":
        os.rename(folder, f"{folder}-moved")
        os.symlink(outside, folder)
    if how == "close":
        os.chmod(folder, 0)


@isolated("slow-transfer", timeout_s=0.3)
def slow_transfer(task: Task, ctx: Context) -> None:
    ctx.download("in", Path(tempfile.gettempdir()) / "file")
