"""`file_processing`, on real files: every fact is computed a second time, in another way."""

from __future__ import annotations

import base64
import csv
import gzip
import hashlib
import importlib
import io
import json
import mimetypes
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from batch.handlers import describe
from batch.handlers.file_processing import FileProcessing
from batch.handling.registry import default_registry
from batch.model.errors import DependencyUnavailable, MessageRefused, ObjectMissing, Permanent, Superseded
from batch.testing import HandlerRun, ManualClock, MemoryObjectStore, run_handler

REAL_FILES = [Path(module.__file__) for module in (csv, gzip, hashlib, json, mimetypes) if module.__file__]


def run(store: MemoryObjectStore, filename: str, **fields: Any) -> HandlerRun:
    return run_handler("file_processing", {"filename": filename, **fields}, store=store)


def report(store: MemoryObjectStore, filename: str) -> dict[str, Any]:
    body, info = store.read_with_info(f"processed/{filename}")
    assert info.content_type == "application/json"
    read: dict[str, Any] = json.loads(body)
    return read


def slow_crc32c(data: bytes) -> str:
    """Bit by bit, from the polynomial."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return base64.b64encode((crc ^ 0xFFFFFFFF).to_bytes(4, "big")).decode()


@pytest.mark.parametrize("path", REAL_FILES, ids=lambda path: path.name)
def test_a_source_file_is_described(store: MemoryObjectStore, path: Path) -> None:
    data = path.read_bytes()
    store.write(f"input/{path.name}", data)
    result = run(store, path.name).result
    facts = report(store, path.name)
    assert facts["original_file"] == path.name
    assert facts["operation"] == "describe"
    assert facts["input_found"] is True
    assert facts["size"] == path.stat().st_size
    assert facts["sha256"] == hashlib.sha256(data).hexdigest()
    assert facts["crc32c"] == slow_crc32c(data)
    assert facts["media_type"] == "text/x-python"
    assert facts["encoding"] == "utf-8"
    assert facts["line_count"] == len(path.read_text("utf-8").split("\n")) - 1
    assert facts["word_count"] == len(path.read_text("utf-8").split())
    assert "columns" not in facts
    assert result["line_count"] == facts["line_count"]
    assert len(json.dumps(result)) < 1000


def test_a_csv_file_is_described_by_column(store: MemoryObjectStore) -> None:
    rows = [
        ["id", "price", "paid", "when", "note", "unused", "postcode"],
        ["1", "1.5", "true", "2026-01-31", 'says "hi", twice', "", "00501"],
        ["2", "-2e3", "No", "2026-01-31T10:00:00Z", "two\nlines", " ", "10001"],
        ["3", "", "yes", "2026-02-01 10:00", "", "", ""],
    ]
    path_text = "\r\n".join(";".join('"' + cell.replace('"', '""') + '"' for cell in row) for row in rows)
    store.write("input/a/b.csv", path_text.encode("utf-8-sig"))
    result = run(store, "a/b.csv").result
    facts = report(store, "a/b.csv")
    assert facts["media_type"] == "text/csv"
    assert facts["encoding"] == "utf-8-sig"
    assert facts["separator"] == ";"
    assert (facts["row_count"], facts["column_count"]) == (3, 7)
    assert [one["name"] for one in facts["columns"]] == rows[0]
    assert [one["type"] for one in facts["columns"]] == ["integer", "double", "text", "text", "text", "empty", "text"]
    assert [one["null_count"] for one in facts["columns"]] == [0, 1, 0, 0, 1, 3, 1]
    assert "table_problem" not in facts
    assert result["row_count"] == 3


@pytest.mark.parametrize(
    ("name", "data", "problem"),
    [
        ("uneven.csv", b"a,b\n1,2\n3\n4,5,6\n", "uneven.csv, line 3: 1 cells where the header has 2; repair the row"),
        ("endless.csv", b'a,b\n1,"' + b"x" * 200_000, "endless.csv, line 2: a quote that does not end where its cell ends"),
        ("title.csv", b"Sales,,\na,b,c\n1,2,3\n", "title.csv, line 1 has a text in one cell only"),
        ("wide.csv", b",".join([b"x%d" % place for place in range(1001)]), "wide.csv has 1001 columns; a table may have 1000"),
        ("t.jsonl", b'{"a": 1}\n[]\n', "t.jsonl, line 2 is JSON but not an object"),
    ],
)  # fmt: skip
def test_a_table_that_cannot_be_read_whole_is_told(store: MemoryObjectStore, name: str, data: bytes, problem: str) -> None:
    store.write(f"input/{name}", data)
    result = run(store, name).result
    facts = report(store, name)
    assert facts["table_problem"].startswith(problem)
    assert facts["size"] == len(data)
    assert not {"columns", "row_count"} & facts.keys()
    assert len(json.dumps(result)) < 1000


def test_no_more_tables_are_open_at_a_time_than_there_are_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    together, most, count, guard = threading.Barrier(2), 0, 0, threading.Lock()

    def look(*_: object) -> Any:
        nonlocal most, count
        with guard:
            count += 1
            most = max(most, count)
        with suppress(threading.BrokenBarrierError):
            together.wait(0.1)  # if there is another
        with guard:
            count -= 1
        raise Permanent("seen")

    monkeypatch.setattr(describe, "opened_source", look)
    monkeypatch.setattr(describe, "_TURNS", threading.BoundedSemaphore(1))
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(describe.describe, ["a.csv"] * 4, [b"a,b\n1,2\n"] * 4))
    assert [one["table_problem"] for one in found] == ["seen"] * 4
    assert most == 1


def test_the_memory_that_a_table_lacked_is_that_of_describe() -> None:
    written = io.BytesIO()
    arrow = importlib.import_module("pyarrow")
    column = arrow.array(["x" * (1 << 20)]).dictionary_encode().take(arrow.array([0] * 20_000))
    importlib.import_module("pyarrow.parquet").write_table(arrow.table({"a": column}), written)
    assert "more than the 128 MB of memory" in describe.describe("a.parquet", written.getvalue())["table_problem"]


def test_checksums_are_those_of_other_tools(store: MemoryObjectStore) -> None:
    data = b"123456789"
    store.write("input/digits", data)
    result = run(store, "digits", operation="checksum").result
    facts = report(store, "digits")
    assert facts["crc32c"] == base64.b64encode(bytes.fromhex("e3069283")).decode(), "the check value of CRC-32C"
    assert facts["md5"] == "25f9e794323b453885f5181f1b624d0b"
    assert facts["sha256"] == hashlib.sha256(data).hexdigest()
    assert facts["size"] == 9
    assert {"crc32c", "md5", "sha256", "size"} <= result.keys()


@pytest.mark.parametrize("data", [b"", b"a" * 100_000, REAL_FILES[0].read_bytes()], ids=["empty", "a's", "source"])
def test_compress_writes_gzip_that_reads_back(data: bytes) -> None:
    first, second = MemoryObjectStore(), MemoryObjectStore()
    for store in (first, second):
        store.write("input/f.txt", data)
    result = run(first, "f.txt", operation="compress").result
    run_handler("file_processing", {"filename": "f.txt", "operation": "compress"}, store=second, clock=ManualClock(2e9))
    body, info = first.read_with_info("processed/f.txt")
    assert info.content_type == "application/gzip"
    assert gzip.decompress(body) == data
    assert body == second.read("processed/f.txt"), "the time must not be in it"
    assert (result["size"], result["compressed_size"]) == (len(data), len(body))
    assert result["ratio"] == (pytest.approx(len(body) / len(data), abs=1e-6) if data else None)


@pytest.mark.parametrize("operation", ["describe", "checksum", "compress"])
def test_a_name_without_a_file_gives_the_plain_report(store: MemoryObjectStore, operation: str) -> None:
    result = run(store, "nothing.pdf", operation=operation).result
    facts = report(store, "nothing.pdf")
    assert facts["input_found"] is False
    assert facts["original_file"] == "nothing.pdf"
    assert facts["processed_at"].startswith("2026-01-01T00:00:00")
    assert "size" not in facts
    assert result["input_found"] is False


def test_processing_time_is_slept_and_reported() -> None:
    clock = ManualClock()
    store = MemoryObjectStore(clock=clock)
    began_s = clock.monotonic()
    run_handler("file_processing", {"filename": "a", "processing_time": 2.5}, store=store, clock=clock)
    assert clock.monotonic() - began_s == 2.5
    assert report(store, "a")["processing_time"] == 2.5
    assert report(store, "a")["processed_at"].startswith("2026-01-01T00:00:02.5")


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        ({"filename": "../../etc/passwd"}, "'..' part"),
        ({"filename": "/etc/passwd"}, "begins with a slash"),
        ({"filename": "a\nb"}, "control character"),
        ({"filename": ""}, "non-empty text"),
        ({"filename": 7}, "non-empty text"),
        ({}, "filename: Field required"),
        ({"filename": "a", "operation": "delete"}, "operation: .*'describe', 'checksum' or 'compress'"),
        ({"filename": "a", "processing_time": -1}, "processing_time: .*greater than or equal to 0"),
        ({"filename": "a", "processing_time": float("nan")}, "processing_time"),
        ({"filename": "a", "processing_time": 1e9}, "processing_time"),
        ({"filename": "a", "processing_time": "soon"}, "processing_time"),
    ],
)
def test_wrong_fields_are_refused_with_the_rule(store: MemoryObjectStore, fields: dict[str, Any], rule: str) -> None:
    with pytest.raises(MessageRefused, match=rule) as refused:
        run_handler("file_processing", fields, store=store)
    assert refused.value.kind == "invalid"
    assert store.names() == ()


def test_fields_of_the_client_are_ignored() -> None:
    fields = FileProcessing.model_validate({"filename": "a", "processing_time": 1, "priority": "high", "payload": {"x": 1}})
    assert fields.model_dump() == {"filename": "a", "operation": "describe", "processing_time": 1.0}
    assert default_registry["file_processing"].payload is FileProcessing


def test_a_second_run_of_the_task_tells_what_the_first_one_wrote(store: MemoryObjectStore) -> None:
    store.write("input/a.txt", b"first content")
    first = run(store, "a.txt").result
    before = store.info("processed/a.txt")
    store.write("input/a.txt", b"other")
    assert run(store, "a.txt").result == first
    assert store.info("processed/a.txt") == before


def test_a_second_run_with_another_operation_keeps_the_output(store: MemoryObjectStore) -> None:
    """An edited task replayed under its old id: what stands is no report, so the new facts are told."""
    store.write("input/a.txt", b"content")
    run(store, "a.txt", operation="compress")
    assert run(store, "a.txt").result["size"] == 7


def test_a_newer_tasks_output_is_left_alone(store: MemoryObjectStore) -> None:
    newer = ManualClock(ManualClock().now() + 60)
    run_handler("file_processing", {"filename": "a"}, store=store, clock=newer, task_id="newer")
    before = store.info("processed/a")
    with pytest.raises(Superseded):
        run_handler("file_processing", {"filename": "a"}, store=store, task_id="older")
    assert store.info("processed/a") == before


@pytest.mark.parametrize("method", ["read", "write"])
def test_a_failing_bucket_is_not_the_tasks_fault(store: MemoryObjectStore, method: str) -> None:
    store.fail_next(method, DependencyUnavailable("the bucket did not answer"))
    with pytest.raises(DependencyUnavailable):
        run(store, "a")
    assert store.unmet() == []
    with pytest.raises(ObjectMissing):
        store.read("processed/a")
