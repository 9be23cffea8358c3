"""What a task may name: nothing of what Fanout keeps in the same bucket for itself."""

from __future__ import annotations

import asyncio
import inspect
from pathlib import Path
from typing import Any

import pytest

from batch.handlers.data_transformation import DataTransformation
from batch.handlers.file_processing import FileProcessing
from batch.handling.context import AsyncContext, Context
from batch.model import names
from batch.model.clock import SystemClock
from batch.model.errors import NameRefused
from batch.model.message import Task
from batch.testing import MemoryObjectStore

OWN = sorted(f"{folder}/x.csv" for folder in names.OWN_FOLDERS)


def test_every_folder_of_the_layout_is_known() -> None:
    """A new folder in `batch.model.names` belongs to OWN_FOLDERS, or is written and read by clients."""
    folders = set()
    for name, function in inspect.getmembers(names, inspect.isfunction):
        kinds = [one.annotation for one in inspect.signature(function).parameters.values()]
        if not name.startswith("_") and inspect.signature(function).return_annotation == "str" and (name.endswith(("_object", "_folder"))):
            given = [0 if kind == "int" else 0.0 if kind.startswith("float") else "a/b" for kind in kinds]
            folders.add(function(*given).split("/")[0])
    assert folders - {"a", ".."} == names.OWN_FOLDERS | {"input", "processed", "results"}


@pytest.mark.parametrize("name", OWN)
def test_a_source_is_no_object_of_fanout(name: str) -> None:
    with pytest.raises(ValueError, match=r"source.*keeps for itself"):
        DataTransformation(source=name)
    for odd in (f"./{name}", f"/{name}", f"input/../{name}", name.replace("/", "//")):
        with pytest.raises(ValueError, match="source"):
            DataTransformation(source=odd)
    assert FileProcessing(filename=name).filename == name  # of input/
    for fine in (f"input/{name}", "results/a-1.csv", "s.csv", name.replace("/", "-")):
        assert DataTransformation(source=fine).source == fine


CALLS: dict[str, Any] = {
    "read": lambda ctx, name, _: ctx.read(name),
    "exists": lambda ctx, name, _: ctx.exists(name),
    "write": lambda ctx, name, _: ctx.write(name, b"x"),
    "download": lambda ctx, name, path: ctx.download(name, path),
    "upload": lambda ctx, name, path: ctx.upload(name, path),
}


@pytest.mark.parametrize("call", CALLS)
def test_no_handler_reaches_them(call: str, tmp_path: Path) -> None:
    store, task = MemoryObjectStore(), Task("id", "type", "2026-01-01T00:00:00Z", {})
    (tmp_path / "file").write_bytes(b"x")
    for name in OWN:
        with pytest.raises(NameRefused, match="keeps for itself"):
            CALLS[call](Context(task, store, SystemClock()), name, tmp_path / "file")
        with pytest.raises(NameRefused, match="keeps for itself"):
            asyncio.run(CALLS[call](AsyncContext(task, store, SystemClock()), name, tmp_path / "file"))
    assert list(store.list("")) == []
