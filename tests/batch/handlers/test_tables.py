"""Reading tables: what comes in comes out, and what cannot be trusted is refused with its place."""

from __future__ import annotations

import csv
import io
import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batch.handlers.tables.cells import ColumnType, number
from batch.handlers.tables.dialects import dialect_of
from batch.handlers.tables.table import read_table, write_csv
from batch.model.errors import Permanent

quick = settings(deadline=None, database=None, max_examples=80)
CELL = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs"), exclude_characters="\ufeff") | st.sampled_from(',;\t|"\n '))
JSON_VALUE = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | CELL


@quick
@given(st.integers(2, 5).flatmap(lambda width: st.lists(st.lists(CELL, min_size=width, max_size=width), min_size=1, max_size=8)))
def test_what_write_csv_writes_is_read_back(rows: list[list[str]]) -> None:
    columns = [f"column {place}" for place in range(len(rows[0]))]
    data, count = write_csv(columns, rows)
    assert count == len(rows)
    assert list(csv.reader(io.StringIO(data.decode(), newline=""))) == [columns, *rows]
    assert next(dialect_of(data, "utf-8").rows(data, "utf-8"))[1] == columns


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_the_separator_is_found_although_others_stand_in_cells(separator: str) -> None:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=separator)
    rows = [["name", "note"], ["a, b", "1,5; 2,5"], ['says "a|b"', "x\ty"], ["c", "1,2,3"]]
    writer.writerows(rows)
    table = read_table("t.csv", text.getvalue().encode())
    assert table.columns == ("name", "note")
    assert list(table.rows()) == rows[1:]
    assert list(table.rows()) == rows[1:], "rows begin anew"


def test_decimal_commas_do_not_win_over_semicolons() -> None:
    assert dialect_of(b"name;amount\na;1,5\nb;2,5\n", "utf-8").separator == ";"


def test_spaces_behind_separators_are_skipped_when_the_header_has_them() -> None:
    assert list(read_table("t.csv", b'a, b\n1, "x, y"\n').rows()) == [["1", "x, y"]]
    assert list(read_table("t.csv", b"a,b\n1, x\n").rows()) == [["1", " x"]]


def test_a_single_column_is_taken_only_from_a_file_called_csv() -> None:
    assert list(read_table("t.csv", b"value\n1\n2\n").rows()) == [["1"], ["2"]]
    with pytest.raises(Permanent, match="neither CSV nor JSON Lines"):
        read_table("notes.txt", b"Dear reader\nthis is prose\n")


def test_hostile_quotes_take_linear_time() -> None:
    data = (',"\n,"\n' * 100_000).encode()
    began_s = time.monotonic()
    dialect_of(data, "utf-8")
    assert time.monotonic() - began_s < 60, "the library's sniffer would need minutes"


def test_half_a_row_at_the_end_of_the_sample_does_not_vote() -> None:
    data = b"a;x,b\n1;x,2\n3;" + b"y" * 70_000 + b",4\n"
    assert dialect_of(data, "utf-8").separator == ","


@quick
@given(st.lists(st.dictionaries(st.sampled_from("abcde"), JSON_VALUE, min_size=1), min_size=1, max_size=8))
def test_json_lines_keep_every_value(rows: list[dict[str, Any]]) -> None:
    data = "\n".join(json.dumps(row) for row in rows).encode()
    table = read_table("t.jsonl", data)
    assert set(table.columns) == {key for row in rows for key in row}
    for row, cells in zip(rows, table.rows(), strict=True):
        for column, cell in zip(table.columns, cells, strict=True):
            value = row.get(column)
            if value is None:
                assert cell == ""
            elif isinstance(value, str):
                assert cell == value
            else:
                assert json.loads(cell) == value
                assert type(json.loads(cell)) is type(value)


@pytest.mark.parametrize(
    ("name", "data", "problem"),
    [
        ("s.csv", b"", "s.csv is empty"),
        ("s.csv", b" \n ", "s.csv is empty"),
        ("s.csv", b"a,b\n", "columns but no rows"),
        ("s.csv", b"a,b\n1,2\n3\n", "line 3: 1 cells where the header has 2"),
        ("s.csv", b"a,b\n1,2\n\n3,4,5\n", "line 4: 3 cells"),
        ("s.csv", b"a,b,a\n1,2,3\n", "more than one column 'a'"),
        ("s.csv", b'a,b\n1,"' + b"x" * 200_000, "not CSV that can be read"),
        ("s.csv", b"\x89PNG\r\n\x1a\n", "is not text"),
        ("s.bin", b"a,b\n\0,1\n", "is not text"),
        ("s.jsonl", b'{"a": 1}\n{"a": }\n', "line 2 is not JSON"),
        ("s.jsonl", b'{"a": 1}\n[1]\n', "line 2 is JSON but not an object"),
        ("s.jsonl", b'{"a": NaN}\n', "NaN is not a JSON number"),
        ("s.jsonl", b'{"a": "\\ud800"}\n', "not Unicode text"),
        ("s.jsonl", b'{"\\ud800": 1}\n', "not Unicode text"),
        ("s.jsonl", b"[" * 100_000, "line 1 is not JSON"),
        ("s.json", b'{\n"a": 1\n}\n', "line 1 is not JSON.*one whole object on each line"),
        ("s.jsonl", b"{}\n", "no column"),
    ],
)
def test_what_is_wrong_is_named(name: str, data: bytes, problem: str) -> None:
    def use() -> None:
        table = read_table(name, data)
        list(table.rows())
        table.index("missing")

    with pytest.raises(Permanent, match=problem):
        use()


def test_json_lines_are_known_by_content_too() -> None:
    assert list(read_table("export", b'{"a": 1}\n\n{"b": "x"}\n').rows()) == [["1", ""], ["", "x"]]


def test_columns_without_a_name_get_one() -> None:
    assert read_table("t.csv", b"a,,\n1,2,3\n").columns == ("a", "column_2", "column_3")


def test_a_column_that_is_not_there_names_the_nearest() -> None:
    table = read_table("t.csv", b"price,name\n1,2\n")
    with pytest.raises(Permanent, match="no column 'prise'; did you mean 'price'"):
        table.index("prise")
    with pytest.raises(Permanent, match="no column 'zzz'; it has 'price', 'name'"):
        table.index("zzz")


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        ([], "empty"),
        (["", "  "], "empty"),
        (["1", "", "-20", "+3"], "integer"),
        (["1", "2.5", ".5", "1e-3", "5."], "number"),
        (["007", "1"], "text"),
        (["0", "0.5"], "number"),
        (["true", "FALSE", "yes"], "boolean"),
        (["true", "1"], "text"),
        (["2026-01-31", "2026-01-31T10:00:00+02:00"], "date"),
        (["2026-02-30"], "text"),
        (["20260131"], "integer"),
        (["nan"], "text"),
        (["1e999"], "text"),
        (["1", "x", "2"], "text"),
        (["١"], "text"),
    ],
)
def test_column_types(cells: list[str], kind: str) -> None:
    column = ColumnType()
    for cell in cells:
        column.see(cell)
    assert column.name == kind


@quick
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_double_is_a_number(value: float) -> None:
    assert number(repr(value)) == value
    assert number(f" {value!r} ") == value
