"""`data_transformation` from task to bucket: the data, the result that names it, and what a repeated or failing run leaves."""

from __future__ import annotations

import csv
import io
import json
import statistics
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pytest

from batch.handlers.tables import datasets
from batch.model.errors import DependencyUnavailable, MessageRefused, Permanent, Retry
from batch.testing import ManualClock, MemoryObjectStore, run_handler

TASK_ID = "00000000-0000-4000-8000-000000000001"
SALES = "region,amount,units,day\nnorth,10.5,1,2026-01-01\nsouth,,2,2026-01-02\nnorth,-3,4,2026-01-03\n,7,5,2026-01-04\n"


def run(store: MemoryObjectStore, attempt: int = 1, **fields: Any) -> dict[str, Any]:
    result = run_handler("data_transformation", fields, store=store, attempt=attempt).result
    assert isinstance(result, dict)
    assert len(json.dumps(result)) < 1000
    return result


def stored(store: MemoryObjectStore) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """The result and the rows of the data that it names, checked against each other."""
    body, info = store.read_with_info(f"results/{TASK_ID}.json")
    assert info.content_type == "application/json"
    result: dict[str, Any] = json.loads(body)
    data, info = store.read_with_info(result["data"]["object"])
    rows = list(csv.DictReader(io.StringIO(data.decode(), newline="")))
    assert info.content_type == "text/csv"
    assert result["data"] == {"object": info.name, "generation": info.generation, "size": len(data), "rows": len(rows)}
    assert result["task_id"] == TASK_ID
    return result, rows


def generated(size: int, seed: int = 0) -> Iterator[dict[str, str]]:
    return (dict(zip(datasets.COLUMNS, row, strict=True)) for row in datasets.rows(size, seed))


def test_without_a_source_1000_generated_rows_are_normalized(store: MemoryObjectStore) -> None:
    told = run(store)
    result, rows = stored(store)
    assert result["data"]["object"] == f"results/{TASK_ID}-1.csv"
    assert (result["transformation"], result["method"]) == ("normalize", "z-score")
    assert (result["records_processed"], result["dataset_size"], result["seed"]) == (1000, 1000, 0)
    assert result["timestamp"].startswith("2026-01-01T00:00:00")
    assert set(result["columns"]) == {"value", "quantity"}
    source = list(generated(1000))
    for column in ("value", "quantity"):
        before = [float(row[column]) for row in source]
        mean, deviation = statistics.mean(before), statistics.pstdev(before)
        assert result["columns"][column]["mean"] == pytest.approx(mean)
        assert result["columns"][column]["stdev"] == pytest.approx(deviation)
        assert [float(row[column]) for row in rows] == pytest.approx([(value - mean) / deviation for value in before])
    for column in ("id", "category", "measured_at"):
        assert [row[column] for row in rows] == [row[column] for row in source]
    assert told == {name: result[name] for name in ("transformation", "records_processed", "processing_time", "data")}


def test_generated_data_is_plausible_and_the_same_everywhere() -> None:
    rows = list(generated(2000, seed=7))
    assert rows[:500] == list(generated(500, seed=7))
    assert rows != list(generated(2000, seed=8))
    assert len({row["id"] for row in rows}) == 2000
    assert {row["category"] for row in rows} == set(datasets.CATEGORIES)
    assert {int(row["quantity"]) for row in rows} == set(range(1, 21))
    assert 98 < statistics.mean(float(row["value"]) for row in rows) < 102
    assert rows[0] == {  # written down once: another Python must make the same
        "id": "row-0000000",
        "category": "alpha",
        "value": "88.77",
        "quantity": "11",
        "measured_at": "2026-01-01T00:00:00Z",
    }


def test_aggregation_of_generated_data(store: MemoryObjectStore) -> None:
    told = run(store, transformation="aggregation", dataset_size=300, seed=3)
    result, rows = stored(store)
    groups = defaultdict(list)
    for row in generated(300, seed=3):
        groups[row["category"]].append(float(row["value"]))
    assert [row["category"] for row in rows] == sorted(groups)
    assert told["group_count"] == result["group_count"] == len(groups)
    assert (result["group_by"], result["values"]) == ("category", ["value", "quantity"])
    for row in rows:
        values = groups[row["category"]]
        assert int(row["row_count"]) == int(row["value_count"]) == len(values)
        assert float(row["value_sum"]) == pytest.approx(sum(values))
        assert float(row["value_mean"]) == pytest.approx(statistics.mean(values))
        assert (float(row["value_min"]), float(row["value_max"])) == (min(values), max(values))


def test_a_csv_source_is_normalized_min_max(store: MemoryObjectStore) -> None:
    store.write("input/sales.csv", SALES.encode())
    run(store, source="input/sales.csv", method="min-max", columns=["amount"])
    result, rows = stored(store)
    assert result["source"] == "input/sales.csv"
    assert "dataset_size" not in result
    assert result["columns"] == {"amount": {"count": 3, "missing_count": 1, "constant": False, "min": -3.0, "max": 10.5}}
    assert [row["amount"] for row in rows] == ["1.0", "", "0.0", repr(10 / 13.5)]
    assert [row["units"] for row in rows] == ["1", "2", "4", "5"]


def test_a_json_lines_source_is_aggregated(store: MemoryObjectStore) -> None:
    lines = [json.dumps({"g": g, "x": x, "y": y}) for g, x, y in [("b", 1, 2.5), ("a", None, 1), ("b", 3, None)]]
    store.write("exports/today.jsonl", "\n".join(lines).encode())
    run(store, transformation="aggregation", source="exports/today.jsonl", group_by="g", values=["x"])
    result, rows = stored(store)
    assert result["records_processed"] == 3
    assert rows == [
        {"g": "a", "row_count": "1", "x_count": "0", "x_sum": "0", "x_mean": "", "x_min": "", "x_max": ""},
        {"g": "b", "row_count": "2", "x_count": "2", "x_sum": "4", "x_mean": "2.0", "x_min": "1", "x_max": "3"},
    ]


def test_the_data_of_one_task_can_be_the_source_of_the_next(store: MemoryObjectStore) -> None:
    run(store, dataset_size=50)
    name = stored(store)[0]["data"]["object"]
    result = run_handler(
        "data_transformation",
        {"transformation": "aggregation", "source": name, "group_by": "category"},
        store=store,
        task_id="second",
    ).result
    assert result["records_processed"] == 50


def test_a_result_with_cells_of_several_lines_is_the_source_of_the_next(store: MemoryObjectStore) -> None:
    """In a file of anybody's the same text would be refused: two stray quotes could have made it."""
    store.write("s.csv", b'a,b\n1,"x\n2,y"\n')
    run(store, source="s.csv", transformation="deduplicate", quote='"')
    name = stored(store)[0]["data"]["object"]
    assert store.read(name) == store.read("s.csv")
    result = run_handler("data_transformation", {"transformation": "deduplicate", "source": name}, store=store, task_id="second").result
    assert result["records_processed"] == 1
    with pytest.raises(Permanent, match=r"s\.csv, line 2: a cell in quotes goes on beyond its line"):
        run(store, source="s.csv", transformation="deduplicate")


@pytest.mark.parametrize(
    ("cell", "written"),
    [
        ("=1+1", "'=1+1"), ("+x", "'+x"), ("-2", "-2"), ("-2.5e3", "-2.5e3"), ("-x", "'-x"), ("@a", "'@a"), ("\tx", "'\tx"),
        ("\rx", "'\rx"), ("a=1", "a=1"), ("+1", "+1"), ('="1"', "'=\"1\""),
    ],
)  # fmt: skip
def test_formulas_are_escaped_when_the_task_says_so(store: MemoryObjectStore, cell: str, written: str) -> None:
    source = io.StringIO(newline="")
    csv.writer(source, quoting=csv.QUOTE_ALL).writerows([["=name", "n"], [cell, "1"]])
    store.write("s.csv", source.getvalue().encode())
    for task_id, escapes in (("yes", True), ("no", False)):
        fields = {"transformation": "deduplicate", "source": "s.csv", "quote": '"', "escape_formulas": escapes}
        text = run_handler("data_transformation", fields, store=store, task_id=task_id).text(f"results/{task_id}-1.csv")
        expected = [["'=name", "n"], [written, "1"]] if escapes else [["=name", "n"], [cell, "1"]]
        assert list(csv.reader(io.StringIO(text, newline=""))) == expected


@pytest.mark.parametrize("name", ["g", "G"])
def test_groups_are_in_their_own_order_whatever_their_column_is_called(store: MemoryObjectStore, name: str) -> None:
    store.write("s.csv", f"{name},x\n10,1\n9,2\n".encode())
    fields = {"transformation": "aggregation", "source": "s.csv", "group_by": name, "values": [], "escape_formulas": True}
    text = run_handler("data_transformation", fields, store=store, task_id="t").text("results/t-1.csv")
    assert text == f"{name},row_count\n9,1\n10,1\n"


def test_a_result_is_read_with_the_commas_that_it_is_written_with(store: MemoryObjectStore) -> None:
    store.write("s.tsv", b"a;b;c\td\n1;2;3\tx\n")
    for task_id, source in (("one", "s.tsv"), ("two", "results/one-1.csv")):
        run_handler("data_transformation", {"transformation": "deduplicate", "source": source}, store=store, task_id=task_id)
    assert store.read("results/two-1.csv") == store.read("results/one-1.csv") == b"a;b;c,d\n1;2;3,x\n"


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        ({"transformation": "rotate"}, "transformation: .*'normalize', 'aggregation', 'filter' or 'deduplicate'"),
        ({"dataset_size": 0}, "dataset_size"),
        ({"dataset_size": 1_000_001}, "dataset_size"),
        ({"dataset_size": "many"}, "dataset_size"),
        ({"seed": -1}, "seed"),
        ({"source": "../secret.csv"}, "source: .*'..' part"),
        ({"source": "/a.csv"}, "source: .*begins with a slash"),
        ({"method": "log"}, "method"),
        ({"columns": []}, "columns"),
        ({"columns": "value"}, "columns"),
        ({"columns": ["valu"]}, "no such column 'valu'; give some of value, quantity"),
        ({"columns": ["category"]}, "no such column 'category'"),
        ({"transformation": "aggregation", "group_by": "colour"}, "no such column 'colour'"),
        ({"transformation": "aggregation", "source": "a.csv"}, "group_by is required with a source"),
        ({"processing_time": -1}, "processing_time"),
    ],
)
def test_wrong_fields_are_refused_with_the_rule(store: MemoryObjectStore, fields: dict[str, Any], rule: str) -> None:
    with pytest.raises(MessageRefused, match=rule) as refused:
        run(store, **fields)
    assert refused.value.kind == "invalid"
    assert store.names() == ()


@pytest.mark.parametrize(
    ("source", "fields", "problem"),
    [
        (SALES, {"columns": ["region"]}, r"s\.csv: column 'region' cannot be computed with: line 2: 'north' is not a number"),
        (SALES, {"columns": ["amounts"]}, "no column 'amounts'; did you mean 'amount'"),
        (SALES, {"transformation": "aggregation", "group_by": "Region"}, "no column 'Region'; did you mean 'region'"),
        ("name,town\na,b\n", {}, "no numeric column"),
        ("name,town\n", {}, "no rows"),
        ("\0\1", {}, "is not text"),
    ],
)
def test_a_source_that_cannot_be_used_is_permanent(store: MemoryObjectStore, source: str, fields: dict[str, Any], problem: str) -> None:
    store.write("input/s.csv", source.encode())
    with pytest.raises(Permanent, match=problem):
        run(store, source="input/s.csv", **fields)
    assert store.names("results/") == ()


def test_a_source_that_is_not_there_is_asked_for_again(store: MemoryObjectStore) -> None:
    with pytest.raises(Retry, match=r"'input/late\.csv' is not in the bucket"):
        run(store, source="input/late.csv")
    store.write("input/late.csv", SALES.encode())
    assert run(store, attempt=2, source="input/late.csv")["records_processed"] == 4


def test_processing_time_is_slept() -> None:
    clock = ManualClock()
    run_handler("data_transformation", {"processing_time": 3}, clock=clock)
    assert clock.now() == ManualClock().now() + 3


def test_a_lost_result_is_written_by_the_next_run_for_the_same_data(store: MemoryObjectStore) -> None:
    run(store, dataset_size=20)
    generation = stored(store)[0]["data"]["generation"]
    store.delete(f"results/{TASK_ID}.json")
    run(store, dataset_size=20)
    assert stored(store)[0]["data"]["generation"] == generation


def test_the_data_is_there_before_the_result(store: MemoryObjectStore) -> None:
    store.fail_next("upload", DependencyUnavailable("the bucket did not answer"))
    with pytest.raises(DependencyUnavailable):
        run(store)
    assert store.names() == ()
    assert [written.name for written in run_handler("data_transformation", {}, store=store).outputs] == [
        f"results/{TASK_ID}-1.csv",
        f"results/{TASK_ID}.json",
    ]
    assert store.unmet() == []


def test_a_source_that_changed_between_two_runs_never_mixes_with_the_old_data(store: MemoryObjectStore) -> None:
    store.write("s.csv", b"x,y\n1,2\n3,4\n")
    run(store, source="s.csv")
    store.delete(f"results/{TASK_ID}.json")
    store.write("s.csv", b"x,y\n1,2\n3,5\n5,7\n")
    with pytest.raises(Retry, match="the source changed"):
        run(store, source="s.csv")
    assert store.info(f"results/{TASK_ID}.json") is None
    run(store, attempt=2, source="s.csv")
    result, rows = stored(store)
    assert result["data"]["object"].endswith("-2.csv")
    assert len(rows) == result["records_processed"] == 3


def test_a_second_attempt_tells_of_the_result_that_stands(store: MemoryObjectStore) -> None:
    first = run(store, dataset_size=30)
    assert run(store, attempt=2, dataset_size=30) == first
    assert stored(store)[0]["data"]["object"].endswith("-1.csv")
