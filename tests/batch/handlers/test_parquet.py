"""Parquet in and out, with pyarrow itself as the oracle; without pyarrow a task says what to install."""

from __future__ import annotations

import importlib
import importlib.util
import io
import sys
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest

from batch.handlers.tables.parquet import MEDIA_TYPE, is_parquet, read_parquet, write_parquet
from batch.model.errors import MessageRefused, Permanent
from batch.testing import MemoryObjectStore, run_handler

needs_pyarrow = pytest.mark.skipif(importlib.util.find_spec("pyarrow") is None, reason="pyarrow is not installed (extra `data`)")
LOOKS_LIKE_PARQUET = b"PAR1\x15\x04\x00\x00\x00\x00PAR1"
FIX = r"install the extra `data` in the image \(pip install 'fanout-batch\[data\]', which brings pyarrow\), then submit again; or use CSV"


@pytest.fixture
def without_pyarrow(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("pyarrow", "pyarrow.parquet"):
        monkeypatch.setitem(sys.modules, name, None)


@pytest.mark.usefixtures("without_pyarrow")
def test_a_parquet_source_without_the_extra_says_what_to_do(store: MemoryObjectStore) -> None:
    with pytest.raises(Permanent, match=f"^s.parquet is Parquet, and this worker's image cannot handle it: {FIX}"):
        run_handler("data_transformation", {"source": "s.parquet"}, objects={"s.parquet": LOOKS_LIKE_PARQUET}, store=store)
    assert store.names("results/") == ()


@pytest.mark.usefixtures("without_pyarrow")
def test_parquet_output_without_the_extra_is_refused_before_the_work(store: MemoryObjectStore) -> None:
    with pytest.raises(Permanent, match=f"^the output is Parquet.*{FIX}"):
        run_handler("data_transformation", {"format": "parquet", "source": "not-even-there.csv"}, store=store)


def test_only_known_formats_pass_the_door(store: MemoryObjectStore) -> None:
    with pytest.raises(MessageRefused, match=r"format: .*'csv' or 'parquet'"):
        run_handler("data_transformation", {"format": "xlsx"}, store=store)


def test_parquet_is_known_by_its_marks() -> None:
    assert is_parquet(LOOKS_LIKE_PARQUET)
    assert not is_parquet(b"PAR1,a\n1,2\n3,4\n")
    assert not is_parquet(b"PAR1PAR1")


def parquet_of(columns: dict[str, Any], types: dict[str, Any] | None = None) -> bytes:
    arrow, parquet = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    body = io.BytesIO()
    arrays = {name: arrow.array(values, type=(types or {}).get(name)) for name, values in columns.items()}
    parquet.write_table(arrow.table(arrays), body)
    return body.getvalue()


def read_back(data: bytes) -> Any:
    return importlib.import_module("pyarrow.parquet").read_table(io.BytesIO(data))


@needs_pyarrow
def test_values_are_read_as_texts() -> None:
    arrow = importlib.import_module("pyarrow")
    values = {
        "i": [1, None],
        "f": [0.1, float("nan")],
        "t": ["007", ""],
        "b": [True, False],
        "d": [date(2026, 1, 2), None],
        "at": [datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), None],
        "dec": [Decimal("12.50"), None],
        "l": [[1, 2], None],
    }
    table = read_parquet("s.parquet", parquet_of(values, {"at": arrow.timestamp("ns", "UTC")}))
    assert table.columns == tuple(values)
    expected = [
        ["1", "0.1", "007", "true", "2026-01-02", "2026-01-02T03:04:05+00:00", "12.50", "[1, 2]"],
        ["", "", "", "false", "", "", "", ""],
    ]
    assert list(table.rows()) == expected
    assert list(table.rows()) == expected


@needs_pyarrow
def test_many_rows_come_batch_by_batch_in_order() -> None:
    table = read_parquet("s.parquet", parquet_of({"n": list(range(25_000))}))
    assert [int(cells[0]) for cells in table.rows()] == list(range(25_000))


@needs_pyarrow
def test_columns_are_written_with_their_types() -> None:
    rows = [["1", "1.5", "yes", "007", "", str(2**70)], ["", "2", "no", "a", "", "1"]]
    data, count = write_parquet(["i", "f", "b", "t", "e", "big"], lambda: iter(rows))
    table = read_back(data)
    assert count == 2
    assert [str(one) for one in table.schema.types] == ["int64", "double", "bool", "string", "string", "string"]
    assert table.to_pylist() == [
        {"i": 1, "f": 1.5, "b": True, "t": "007", "e": None, "big": str(2**70)},
        {"i": None, "f": 2.0, "b": False, "t": "a", "e": None, "big": "1"},
    ]


@needs_pyarrow
def test_a_table_without_rows_keeps_its_columns() -> None:
    data, count = write_parquet(["a", "b"], lambda: iter([]))
    assert (count, read_back(data).column_names) == (0, ["a", "b"])


@needs_pyarrow
def test_a_task_from_parquet_to_parquet(store: MemoryObjectStore) -> None:
    source = parquet_of({"g": ["a", "b", "a"], "n": [1, 2, 3]})
    fields = {"transformation": "filter", "conditions": [{"column": "g", "value": "a"}], "source": "s", "format": "parquet"}
    run = run_handler("data_transformation", fields, objects={"s": source}, store=store)
    data, info = store.read_with_info(f"results/{run.task.task_id}-1.parquet")
    assert read_back(data).to_pylist() == [{"g": "a", "n": 1}, {"g": "a", "n": 3}]
    assert info.content_type == MEDIA_TYPE
    assert (run.result["rows_in"], run.result["rows_out"]) == (3, 2)


@needs_pyarrow
def test_a_damaged_file_and_binary_columns_are_permanent() -> None:
    with pytest.raises(Permanent, match="s is not Parquet that can be read"):
        read_parquet("s", LOOKS_LIKE_PARQUET)
    with pytest.raises(Permanent, match="row 1: column 'x' holds binary data"):
        list(read_parquet("s", parquet_of({"x": [b"\xff"]})).rows())
