"""What a table may cost: each is done within the handler's limits, or dead with the reason."""

from __future__ import annotations

import csv
import importlib
import io
import json
import os
import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import batch.handlers
from batch.handlers import describe
from batch.handlers.tables import opening, reading, source
from batch.handling.registry import default_registry
from batch.model.errors import Permanent
from batch.model.exit import ExitReason
from batch.model.outcomes import merged
from batch.testing import MemoryObjectStore, run_handler
from tests.batch.worker.isolated import submit, worker
from tests.batch.worker.plant import Plant
from tests.support import wait_until

PRESENT: dict[str, Any] = {"transformation": "filter", "conditions": [{"column": "a", "operator": "is_missing", "value": False}]}
MB = 1_000_000


def result_of(data: bytes, name: str = "s.csv", **fields: Any) -> tuple[list[list[str]], dict[str, Any]]:
    """The rows of the data, the header first, and what the handler returned."""
    store = MemoryObjectStore()
    run = run_handler("data_transformation", {"source": name, **fields}, objects={name: data}, store=store)
    body = store.read(f"results/{run.task.task_id}-1.csv").decode()
    return list(csv.reader(io.StringIO(body, newline=""))), dict(run.result)


# --- long rows


def cell(rng: random.Random, most: int) -> str:
    letters = rng.choice(("abc9 ", 'ab,"\n9'))
    return "".join(rng.choice(letters) for _ in range(int(rng.random() ** 3 * most))).strip() or "x"


@pytest.mark.parametrize("pad", range(4))
def test_a_blank_line_where_the_engines_pieces_meet_is_no_letter_of_the_next_cell(pad: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "MAX_ROW_BYTES", 256)
    cells = ["x" * 200] * 4 + ["y" * (202 + pad)]
    data = "a,b\r\n" + "".join(f"{one},\r\n" for one in cells) + "\r\n" + 'p,"q"\r\n' * 9
    rows = [[one, ""] for one in cells] + [["p", "q"]] * 9
    assert result_of(data.encode(), **PRESENT)[0][1:] == rows


@pytest.mark.parametrize("seed", range(30))
def test_no_row_is_lost_where_the_engines_pieces_meet(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    longest = 1000
    monkeypatch.setattr(opening, "MAX_ROW_BYTES", longest)
    rng = random.Random(seed)
    rows = [[cell(rng, longest // 4) for _ in range(3)] for _ in range(rng.randrange(1, 400))]
    if is_too_long := rng.random() < 0.3:
        rows[rng.choice((0, -1, len(rows) // 2))][1] = "y" * (rng.choice((1, 2, 3)) * longest + rng.randrange(10))
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([["a", "b", "c"], *rows])
    data = text.getvalue().encode()
    keep = {**PRESENT, "quote": '"'}
    if is_too_long:
        with pytest.raises(Permanent, match=r"near line \d+: a row is longer than 1,000 bytes"):
            result_of(data, **keep)
        return
    written, told = result_of(data, **keep)
    assert (written[1:], told["rows_in"]) == (rows, len(rows))


def test_a_last_row_without_an_end_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "MAX_ROW_BYTES", 1000)
    with pytest.raises(Permanent, match="a row is longer than 1,000 bytes"):
        result_of(b"a,b\n1,2\n3," + b"y" * 5000, **PRESENT)


def test_a_plain_file_larger_than_the_engines_buffer_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "MAX_ROW_BYTES", 1 << 14)
    rows = [[f"row-{number}", str(number)] for number in range(20_000)]
    data = "a,b\n" + "".join(f"{name},{number}\n" for name, number in rows)
    assert result_of(data.encode(), **PRESENT)[0][1:] == rows


# --- refused before they cost anything, or done


def parquet(columns: dict[str, Any], **options: Any) -> bytes:
    arrow, written = importlib.import_module("pyarrow"), io.BytesIO()
    importlib.import_module("pyarrow.parquet").write_table(arrow.table(columns), written, **options)
    return written.getvalue()


def unfolding(size: int, count: int) -> bytes:
    """One long text that stands in every row."""
    arrow = importlib.import_module("pyarrow")
    return parquet({"a": arrow.array(["x" * size]).dictionary_encode().take(arrow.array([0] * count)), "row": arrow.array(range(count))})


REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "120 KB of one name.csv": (lambda: b",".join([b"a"] * 60_000) + b"\n1\n", "more than one column 'a'"),
    "8,000 keys.jsonl": (lambda: b"".join(b'{"k%d": 1}\n' % one for one in range(8000)), "line 1001: more than 1000 different keys"),
    "300,000 columns.csv": (lambda: b",".join(b"c%d" % one for one in range(300_000)), "the header is longer than 1048576 characters"),
    "1,001 columns.csv": (lambda: b",".join(b"c%d" % one for one in range(1001)) + b"\n", "1001 columns; a table may have 1000"),
    "10 MB of commas.csv": (lambda: b"a,b\n" + b"," * 10 * MB, "line 2"),
    "one line of 9 MB.jsonl": (lambda: b'{"a": "' + b"y" * 9 * MB + b'"}\n', "line 1 is longer than 8,388,608 characters"),
    "900 lists in lists.jsonl": (lambda: b'{"a": ' + b"[" * 900 + b"]" * 900 + b"}\n", "line 1"),
    "100,000 lists in lists.jsonl": (lambda: b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n", "line 1 is not JSON"),
    "a quote that never ends.csv": (lambda: b'a,b\n1,"x\n' + b"2,y\n" * 2_200_000, "line 2: a quote that does not end"),
    "a text that unfolds.parquet": (lambda: unfolding(MB, 30), "the result of .* is larger than this lane allows"),
    "too large.csv": (lambda: b"a\n" + b"1\n" * 6 * MB, "is larger than 11,534,336 bytes, the DATA_MAX_BYTES of this lane"),
}


def test_describe_writes_no_more_anew_than_a_worker_has_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(describe, "FILES_BYTES", 1 << 16)
    data = json.dumps({f"k{one}": 1 for one in range(100)}).encode() + b"\n{}" * 1000
    problem = describe.describe("a.jsonl", data)["table_problem"]
    assert problem.startswith(f"a.jsonl unfolds into a file of more than {(1 << 16) + len(data):,} bytes")


@pytest.mark.parametrize("name", REFUSED)
def test_what_costs_too_much_is_refused_and_leaves_no_file(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, reason = REFUSED[name]
    monkeypatch.setenv("DATA_MAX_BYTES", str(1 << 20 if "unfolds" in name else 11 << 20))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(Permanent, match=reason):
        result_of(made(), name, **PRESENT)
    assert os.listdir(tmp_path) == []


def test_a_million_rows_in_a_few_bytes_are_done() -> None:
    arrow = importlib.import_module("pyarrow")
    data = parquet({"a": arrow.array([1] * MB)}, compression="zstd")
    assert len(data) < 5000
    rows, told = result_of(data, "s.parquet", transformation="deduplicate")
    assert (rows, told["rows_in"]) == ([["a"], ["1"]], MB)


def test_a_thousand_values_are_looked_for_at_once() -> None:
    """Numbers beside a column of texts: each that is one of them, however it is written."""
    cells = [f"t{number}" if number % 2 else f"{number}.0" for number in range(10_000)]
    data = "a\n" + "".join(f"{one}\n" for one in cells)
    wanted: dict[str, Any] = {"column": "a", "operator": "in", "value": [*range(1999), True, False, "t9999"]}
    rows, _ = result_of(data.encode(), transformation="filter", conditions=[{**wanted, "value": wanted["value"][-1000:]}])
    assert [one for (one,) in rows[1:]] == [one for one in cells if one == "t9999" or (one.endswith(".0") and 1002 <= float(one) < 1999)]


def test_columns_that_one_statement_cannot_hold_are_computed_with_in_parts() -> None:
    width = 3 * source.COLUMNS_AT_A_TIME
    data = ",".join(f"c{one}" for one in range(width)) + "\n" + "".join(",".join([cell] * width) + "\n" for cell in ("1.5", "2", "2.25"))
    rows, _ = result_of(data.encode(), transformation="aggregation", group_by="c0", values=["c1", f"c{width - 1}"])
    assert rows[1] == ["1.5", "1", "1", "1.50", "1.5", "1.50", "1.50", "1", "1.50", "1.5", "1.50", "1.50"]
    assert width < reading.MAX_COLUMNS


def test_values_that_fill_the_memory_are_dead_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(opening, "rewritten_json", full)
    with pytest.raises(Permanent, match=r"^s\.jsonl needs more memory than one task has for a row"):
        result_of(b'{"a": 1}\n', "s.jsonl", **PRESENT)


# --- in a process of its own


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_what_fills_memory_is_dead_with_the_reason_and_harms_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    plant = Plant(registry=default_registry)
    wild: dict[str, tuple[bytes, dict[str, Any], str]] = {
        "a text in many rows": (unfolding(MB, 100_000), PRESENT, "memory that one task has for tables"),
        "pages that unfold": (
            parquet({"a": ["x" * MB + str(one) for one in range(500)]}, compression="zstd", use_dictionary=False, data_page_size=1 << 30),
            PRESENT,
            "memory that one task has for tables",
        ),
        "one long line": (b"a,b\n1," + b"y" * 50 * MB, PRESENT, "line 2 is longer than"),
        "a line of a million objects.jsonl": (b'{"a":[' + b'{"k":1},' * MB + b"1]}\n", PRESENT, "than one task has for a row"),
        "rows of 7 MB": (b"a,b\n" + (b"1," + b"y" * 7 * MB + b"\n") * 7, PRESENT, ""),
        "all distinct": (b"a,b\n" + b"".join(b"%d,x%d\n" % (one, one) for one in range(2 * MB)), {"transformation": "deduplicate"}, ""),
        "many conditions.csv": (
            b"a\n" + b"x\n" * 10_000,
            {**PRESENT, "conditions": [{"column": "a", "operator": "contains", "value": "x"}] * 100},
            "",
        ),
    }
    for place, (name, (data, fields, _)) in enumerate(wild.items()):
        plant.store.write(name, data)
        submit(plant, f"wild-{place}", "data_transformation", source=name, **fields)
        plant.store.write(f"input/{place}", b"a,b\n1,2\n")
        submit(plant, f"good-{place}", "file_processing", filename=str(place))
        submit(plant, f"fine-{place}", "data_transformation", dataset_size=10)
    assert worker(plant, BACKLOG=3 * len(wild), PROCESSES=1, HANDLERS=batch.handlers.__name__).run() is ExitReason.SHARE_DONE
    outcomes = merged(plant.outcomes())
    for place, (name, (_, _, reason)) in enumerate(wild.items()):
        outcome = outcomes[f"wild-{place}"]
        assert (outcome.outcome, outcome.error_type) == (("dead", "permanent") if reason else ("succeeded", "")), (name, outcome.reason)
        assert reason in (outcome.reason or ""), (name, json.dumps(outcome.reason))
    assert {one.outcome for task_id, one in outcomes.items() if not task_id.startswith("wild")} == {"succeeded"}
    wait_until(lambda: not os.listdir(tmp_path), 60, "the removal of the child's folder")
