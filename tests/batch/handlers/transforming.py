"""One `data_transformation` of one source in memory: the result, and its data as Python's own csv reads it."""

from __future__ import annotations

import csv
import io
from typing import Any

from batch.testing import run_handler

ALL: dict[str, Any] = {"transformation": "deduplicate"}
"""Keeps every row that no other is like."""


def transformed(source: str | bytes, name: str = "t.csv", **fields: Any) -> tuple[dict[str, Any], list[list[str]]]:
    """The result and the rows of its data, the header first."""
    data = source.encode() if isinstance(source, str) else source
    run = run_handler("data_transformation", {**ALL, **fields, "source": name}, objects={name: data})
    result: dict[str, Any] = run.json(f"results/{run.task.task_id}.json")
    rows = list(csv.reader(io.StringIO(run.text(result["data"]["object"]), newline=""), strict=True))
    assert result["data"]["rows"] == len(rows) - 1
    assert result["records_processed"] == result["read"]["rows"]
    return result, rows


def filtered(source: str | bytes, *conditions: dict[str, Any], name: str = "t.csv", **fields: Any) -> list[list[str]]:
    """The rows that fulfil all conditions, without the header."""
    return transformed(source, name, transformation="filter", conditions=list(conditions), **fields)[1][1:]
