"""`deduplicate`: which row of those that are alike is kept, against plain Python, and the result of a whole task."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batch.model.errors import MessageRefused, Permanent
from batch.testing import MemoryObjectStore, run_handler
from tests.batch.handlers.transforming import transformed

PEOPLE = "id,name,town\n1,Ada,Paris\n2,Bob,Rome\n1,Ada,Oslo\n3,Ada,Paris\n2,Bob,Rome\n"
cells = st.sampled_from(["", " ", "a", "b", "ab", "1", "1.0"])


def distinct(rows: list[list[str]], columns: list[str], keep: str) -> list[list[str]]:
    source = "x,y,n\n" + "".join(f"{x},{y},{number}\n" for number, (x, y) in enumerate(rows))
    return [row[:2] for row in transformed(source, columns=columns, keep=keep)[1][1:]]


def oracle(rows: list[list[str]], places: list[int], keep: str) -> list[list[str]]:
    """By dicts: the first or last place of each kind, in the order of the rows."""
    kinds: dict[tuple[str, ...], int] = {}
    for number, row in enumerate(rows):
        kind = tuple(row[place].strip() and row[place] for place in places)
        if keep == "last" or kind not in kinds:
            kinds[kind] = number
    return [rows[number] for number in sorted(kinds.values())]


@settings(deadline=None, database=None, max_examples=40)
@given(
    st.lists(st.lists(cells, min_size=2, max_size=2), min_size=1), st.sampled_from([[0], [1], [0, 1]]), st.sampled_from(["first", "last"])
)
@pytest.mark.slow
def test_the_first_or_last_of_its_kind_is_kept_in_order(rows: list[list[str]], places: list[int], keep: str) -> None:
    assert distinct(rows, [("x", "y")[place] for place in places], keep) == oracle(rows, places, keep)


@pytest.mark.parametrize("keep", ["first", "last"])
def test_cells_never_run_into_each_other(keep: str) -> None:
    rows = [["ab", "c"], ["a", "bc"], ["", "abc"], ["1", "1.0"], ["1.0", "1"], ["01", "1"]]
    assert distinct(rows, ["x", "y"], keep) == rows


@pytest.mark.slow
@pytest.mark.parametrize("kinds", [10, 150_000, 299_000])
@pytest.mark.parametrize("keep", ["first", "last"])
def test_the_order_of_many_rows_is_kept(kinds: int, keep: str) -> None:
    last_or_first: dict[int, int] = {}
    for number in range(300_000):
        kind = number * 7919 % kinds
        if keep == "last" or kind not in last_or_first:
            last_or_first[kind] = number
    source = "k,n\n" + "".join(f"{number * 7919 % kinds},{number}\n" for number in range(300_000))
    found = transformed(source, columns=["k"], keep=keep)[1]
    assert [int(number) for _, number in found[1:]] == sorted(last_or_first.values())


def deduplicated(store: MemoryObjectStore, **fields: Any) -> tuple[dict[str, Any], list[dict[str, str]]]:
    given_fields = {"transformation": "deduplicate", "source": "people.csv", **fields}
    run = run_handler("data_transformation", given_fields, store=store, objects={"people.csv": PEOPLE.encode()})
    result = run.json(f"results/{run.task.task_id}.json")
    return result, list(csv.DictReader(io.StringIO(run.text(result["data"]["object"]), newline="")))


@pytest.mark.parametrize(
    ("fields", "kept"),
    [
        ({"columns": ["id"]}, ["Paris", "Rome", "Paris"]),
        ({"columns": ["id"], "keep": "last"}, ["Oslo", "Paris", "Rome"]),
        ({}, ["Paris", "Rome", "Oslo", "Paris"]),
        ({"columns": ["name", "town"]}, ["Paris", "Rome", "Oslo"]),
    ],
)
def test_a_task_keeps_one_of_each(store: MemoryObjectStore, fields: dict[str, Any], kept: list[str]) -> None:
    result, rows = deduplicated(store, **fields)
    assert [row["town"] for row in rows] == kept
    assert (result["records_processed"], result["rows_in"], result["rows_out"]) == (5, 5, len(kept))
    assert (result["columns"], result["keep"]) == (fields.get("columns", ["id", "name", "town"]), fields.get("keep", "first"))


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        ({"keep": "both"}, "keep: .*'first' or 'last'"),
        ({"columns": []}, "columns"),
        ({"source": None, "columns": ["nam"]}, "no such column 'nam'"),
    ],
)
def test_wrong_fields_are_refused_with_the_rule(store: MemoryObjectStore, fields: dict[str, Any], rule: str) -> None:
    with pytest.raises(MessageRefused, match=rule):
        deduplicated(store, **fields)


def test_a_column_that_is_not_there_is_permanent(store: MemoryObjectStore) -> None:
    with pytest.raises(Permanent, match=r"people\.csv has no column 'nam'; did you mean 'name'"):
        deduplicated(store, columns=["nam"])
