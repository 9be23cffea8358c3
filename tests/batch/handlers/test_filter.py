"""`filter`: the conditions against plain Python, what is refused at the door, and the result of a whole task."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from batch.handlers.data_transformation import DataTransformation
from batch.handlers.tables.conditions import Condition
from batch.model.errors import MessageRefused, Permanent
from batch.testing import MemoryObjectStore, run_handler
from tests.batch.handlers import transforming

SALES = "region,amount,paid,day\nnorth,10.5,true,2026-01-01\nsouth,,no,2026-01-02\nnorth,-3,,2026-02-03\n,7,yes,2026-03-04\n"


def chosen(cells: list[str], condition: dict[str, Any]) -> list[str]:
    """The cells of a column that fulfil a condition."""
    found = transforming.filtered(written(["c", "row"], enumerated(cells)), {"column": "c", **condition}, quote='"')
    return [cell for cell, _ in found]


def enumerated(cells: list[str]) -> list[list[str]]:
    return [[cell, f"row {number}"] for number, cell in enumerate(cells)]


def written(names: list[str], rows: list[list[Any]]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text, quoting=csv.QUOTE_ALL).writerows([names, *rows])
    return text.getvalue()


# --- the grammar, against plain Python

some = settings(deadline=None, database=None, max_examples=25)
digits = st.decimals(-(10**12), 10**12, places=6) | st.integers(-(10**20), 10**20)
numbers = st.integers(-(10**25), 10**25) | st.floats(-1e15, 1e15)
texts = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), max_size=5).filter(str.strip)
ORDERS: dict[str, Callable[[Any, Any], bool]] = {
    "=": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}


def is_numeric(text: str) -> bool:
    try:
        Condition(column="c", operator="<", value=text)
    except ValidationError:
        return True
    return False


@some
@given(st.lists(digits, max_size=8), numbers, st.sampled_from(list(ORDERS)))
def test_numbers_compare_exactly(values: list[Any], value: Any, name: str) -> None:
    cells = [*(format(one, "f") if isinstance(one, Decimal) else str(one) for one in values), format(Decimal(repr(value)), "f")]
    cells = [cell for cell in cells if len(cell) < 30] or ["0"]
    expected = [cell for cell in cells if ORDERS[name](Fraction(cell), Fraction(repr(value)))]
    assert chosen(cells, {"operator": name, "value": value}) == expected


@some
@given(st.lists(texts, max_size=8), texts.filter(lambda text: not is_numeric(text)), st.sampled_from(list(ORDERS)))
def test_texts_compare_letter_by_letter(values: list[str], value: str, name: str) -> None:
    cells = [*values, value]
    assert chosen(cells, {"operator": name, "value": value}) == [cell for cell in cells if ORDERS[name](cell, value)]


@some
@given(st.lists(texts, min_size=1, max_size=8), st.lists(texts, min_size=1, max_size=4), texts)
def test_in_and_contains(cells: list[str], choices: list[str], part: str) -> None:
    assert chosen(cells, {"operator": "in", "value": choices}) == [cell for cell in cells if cell in choices]
    assert chosen(cells, {"operator": "contains", "value": part}) == [cell for cell in cells if part in cell]


@pytest.mark.parametrize(
    ("cells", "condition", "expected"),
    [
        (["1", "1.0", " 1 ", "01", "1e0", "x", "", "2"], {"value": 1}, ["1", "1.0", " 1 ", "1e0"]),
        (["1", "x", "", "2"], {"operator": "!=", "value": 1}, ["x", "2"]),
        (["1", "1.0", ""], {"value": "1"}, ["1"]),
        (["9007199254740993", "9007199254740992"], {"value": 9007199254740993}, ["9007199254740993"]),
        (["true", "Yes", "no", "1", ""], {"value": True}, ["true", "Yes"]),
        (["true", "no", "maybe", ""], {"operator": "!=", "value": False}, ["true", "maybe"]),
        (["1", "b", "true", "", "2"], {"operator": "in", "value": [1, "b", True]}, ["1", "b", "true"]),
        (["a", "", "  "], {"operator": "is_missing"}, ["", "  "]),
        (["a", "", "  "], {"operator": "is_missing", "value": False}, ["a"]),
        (["2026-01-02", "2026-01-01T10:00", "2025-12-31"], {"operator": ">", "value": "2026-01-01"}, ["2026-01-02", "2026-01-01T10:00"]),
        (["", "  "], {"operator": "!=", "value": "x"}, []),
        (["", "a"], {"operator": "contains", "value": "a"}, ["a"]),
    ],
)
def test_cells_and_conditions(cells: list[str], condition: dict[str, Any], expected: list[str]) -> None:
    assert chosen(cells, condition) == expected


def test_what_cannot_be_compared_is_told_with_its_row() -> None:
    with pytest.raises(Permanent, match=r"t\.csv, line 3: column 'c' holds 'n/a', which is not a number; '<' compares numbers"):
        chosen(["1", "n/a"], {"operator": "<", "value": 5})


# --- at the door


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        ({}, "conditions is required: a list such as"),
        ({"conditions": []}, "conditions"),
        ({"conditions": [{"column": "value", "operator": "~", "value": 1}]}, "conditions.0.operator: Input should be '=', '!='"),
        ({"conditions": [{"column": "value", "value": None}]}, "'=' needs a number, a text, true or false; for missing values"),
        ({"conditions": [{"column": "value", "operator": "<", "value": "10"}]}, "'<' needs a number without quotes: 10"),
        ({"conditions": [{"column": "value", "operator": ">=", "value": True}]}, "'>=' needs a number or a text"),
        ({"conditions": [{"column": "value", "operator": "<", "value": float("nan")}]}, "'<' needs a number or a text"),
        ({"conditions": [{"column": "value", "operator": "in", "value": []}]}, "'in' needs a list of 1 to 1000"),
        ({"conditions": [{"column": "value", "operator": "in", "value": [[1]]}]}, "'in' needs a list of 1 to 1000"),
        ({"conditions": [{"column": "value", "operator": "in", "value": "abc"}]}, "'in' needs a list of 1 to 1000"),
        ({"conditions": [{"column": "value", "operator": "contains", "value": ""}]}, "'contains' needs a text of 1 to"),
        ({"conditions": [{"column": "value", "operator": "is_missing", "value": "yes"}]}, "'is_missing' needs true or false"),
        ({"conditions": [{"column": "value", "value": 1, "or": 2}]}, "conditions.0.or: Extra inputs"),
        ({"conditions": [{"column": "valu", "value": 1}]}, "no such column 'valu'; give some of id, category, value"),
        ({"conditions": [{"column": "value", "value": 1}] * 101}, "conditions"),
    ],
)
def test_wrong_conditions_are_refused_with_the_rule(store: MemoryObjectStore, fields: dict[str, Any], rule: str) -> None:
    with pytest.raises(MessageRefused, match=rule) as refused:
        run_handler("data_transformation", {"transformation": "filter", **fields}, store=store)
    assert refused.value.kind == "invalid"


def test_a_column_of_a_source_is_checked_when_it_is_read(store: MemoryObjectStore) -> None:
    fields = {"transformation": "filter", "source": "s.csv", "conditions": [{"column": "amounts", "value": 1}]}
    assert DataTransformation.model_validate(fields)
    with pytest.raises(Permanent, match="no column 'amounts'; did you mean 'amount'"):
        run_handler("data_transformation", fields, objects={"s.csv": SALES.encode()}, store=store)


# --- the task as a whole


def filtered(source: bytes, *conditions: dict[str, Any], name: str = "s.csv") -> tuple[dict[str, Any], list[dict[str, str]]]:
    fields = {"transformation": "filter", "source": name, "conditions": list(conditions)}
    run = run_handler("data_transformation", fields, objects={name: source})
    result = run.json(f"results/{run.task.task_id}.json")
    rows = list(csv.DictReader(io.StringIO(run.text(result["data"]["object"]), newline="")))
    assert result["data"]["rows"] == result["rows_out"] == run.result["rows_out"] == len(rows)
    assert result["records_processed"] == result["rows_in"] == run.result["rows_in"]
    return result, rows


def test_rows_that_fulfil_all_conditions_are_kept_as_they_are() -> None:
    conditions: list[dict[str, Any]] = [{"column": "region", "value": "north"}, {"column": "amount", "operator": "<", "value": 20}]
    result, rows = filtered(SALES.encode(), *conditions)
    assert [row["amount"] for row in rows] == ["10.5", "-3"]
    assert rows[0] == {"region": "north", "amount": "10.5", "paid": "true", "day": "2026-01-01"}
    assert (result["rows_in"], result["rows_out"]) == (4, 2)
    assert result["conditions"] == [{"operator": "=", **conditions[0]}, conditions[1]]


def test_json_lines_are_filtered_too() -> None:
    lines = "\n".join(json.dumps(one) for one in ({"a": 1, "b": True}, {"a": None, "b": True}, {"a": 3}))
    _, rows = filtered(
        lines.encode(), {"column": "b", "value": True}, {"column": "a", "operator": "is_missing", "value": False}, name="x.jsonl"
    )
    assert rows == [{"a": "1", "b": "true"}]


def test_a_filter_may_leave_nothing() -> None:
    result, rows = filtered(SALES.encode(), {"column": "region", "value": "west"})
    assert (rows, result["rows_in"], result["rows_out"]) == ([], 4, 0)


def test_the_generated_data_set_is_filtered() -> None:
    fields = {"transformation": "filter", "dataset_size": 200, "conditions": [{"column": "quantity", "operator": ">", "value": 10}]}
    run = run_handler("data_transformation", fields)
    rows = list(csv.DictReader(io.StringIO(run.text(f"results/{run.task.task_id}-1.csv"), newline="")))
    assert 0 < len(rows) < 200
    assert all(int(row["quantity"]) > 10 for row in rows)


@some
@given(st.lists(st.tuples(texts, st.integers(0, 9)), min_size=1, max_size=20), st.integers(0, 9))
def test_a_whole_filter_is_what_the_standard_library_would_do(cells: list[tuple[str, int]], least: int) -> None:
    source = written(["t", "n"], [list(one) for one in cells])
    before = list(csv.DictReader(io.StringIO(source, newline="")))
    _, rows = filtered(source.encode(), {"column": "n", "operator": ">=", "value": least})
    assert rows == [row for row in before if int(row["n"]) >= least]
