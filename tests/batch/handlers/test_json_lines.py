"""JSON Lines: every value as it stands, and what is no such file refused with its line."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batch.model.errors import Permanent
from tests.batch.handlers.transforming import filtered, transformed

NAME = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=3).filter(lambda name: bool(name.strip()))
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0") | st.sampled_from(',"\n\r '), max_size=5)
VALUE = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | TEXT | st.lists(TEXT)


@settings(deadline=None, database=None, max_examples=30)
@given(st.lists(st.dictionaries(NAME, VALUE, min_size=1, max_size=3), min_size=1, max_size=4))
def test_every_value_is_kept(rows: list[dict[str, Any]]) -> None:
    keyed = [{**row, "\u00fe": f"row {number}"} for number, row in enumerate(rows)]  # so that no two are alike
    source = "\n".join(json.dumps(row, ensure_ascii=False) for row in keyed)
    _, (names, *found) = transformed(source, "t.jsonl")
    assert names == list(dict.fromkeys(key for row in keyed for key in row))
    for row, cells in zip(keyed, found, strict=True):
        for name, cell in zip(names, cells, strict=True):
            value = row.get(name)
            if value is None:
                assert cell == ""
            elif isinstance(value, str):
                assert cell == value
            else:
                assert json.loads(cell) == value
                assert type(json.loads(cell)) is type(value)


@pytest.mark.parametrize(
    "number", ["0.1000000000000000055511151231257827", "1e400", "-1E-400", "7" * 400, "1.10", "-0", "-0.0", "1.0", "9007199254740993"]
)
def test_a_number_keeps_every_digit(number: str) -> None:
    source = f'{{"a": {number}, "b": {{"c": [{number}]}}}}'
    expected = [number, f'{{"c": [{number}]}}']
    assert filtered(source, {"column": "a", "operator": "is_missing", "value": False}, name="t.jsonl") == [expected]
    assert transformed(source, "t.jsonl")[1][1:] == [expected]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ('{"a": 1}\r\n{"a": 2}\r\n', [["a"], ["1"], ["2"]]),
        ('{"a": 1}\n\n  \n{"b": "x"}', [["a", "b"], ["1", ""], ["", "x"]]),
        ('\ufeff{"a": 1}\n', [["a"], ["1"]]),
        ('{"a": "\\ud83d\\ude00"}\n', [["a"], ["\U0001f600"]]),
        ('{"a": "x\\ry", "b": "p\\nq"}\n', [["a", "b"], ["x\ry", "p\nq"]]),
        ('{"a\\rb": "\\r"}\n{"a\\rb": "x"}', [["a\rb"], [""], ["x"]]),
        ('{"a": "007", "b": true, "c": "true"}\n', [["a", "b", "c"], ["007", "true", "true"]]),
        ('{"a": "NA", "A": 1}\n', [["a", "A"], ["NA", "1"]]),
        ('{"a": "' + "x" * 3_000_000 + '"}\n', [["a"], ["x" * 3_000_000]]),
    ],
    ids=lambda one: f"{one!r:.30}",
)
def test_what_comes_in_comes_out(source: str, expected: list[list[str]]) -> None:
    result, rows = transformed(source, "t.jsonl")
    assert [["" if cell == "\r" else cell for cell in row] for row in rows] == expected
    assert (result["read"]["format"], result["read"]["encoding"], result["warnings"]) == ("json_lines", "utf-8", [])


def test_json_lines_are_known_by_their_content_and_mixed_columns_are_told() -> None:
    result, rows = transformed('{"a": 1, "b": 1}\n{"a": "x", "b": 2.5}\n', "export")
    assert rows == [["a", "b"], ["1", "1"], ["x", "2.5"]]
    assert result["warnings"] == ["column 'a' holds integer and text values; all are read as text"]


ARRAY = "is a JSON array; give JSON Lines: one object on each line, without brackets and commas around them$"


@pytest.mark.parametrize(
    ("name", "source", "problem"),
    [
        ("t.json", '[{"a": 1}]', ARRAY),
        ("t.json", '[\n  {"a": 1},\n  {"a": 2}\n]\n', ARRAY),
        ("t.csv", '[{"a": 1}]', ARRAY),
        ("t", "[1, 2]", ARRAY),
        ("t.json", '{\n"a": 1\n}\n', "line 1 is not JSON: .*; JSON Lines has one whole object on each line$"),
        ("t.jsonl", '{"a": 1}\n{"a": }\n', "line 2 is not JSON"),
        ("t.jsonl", '{"a": 1}\n{"a": 2} {"a": 3}\n', "line 2 is not JSON: Extra data"),
        ("t.jsonl", '{"a": 1}\n[1]\n', "line 2 is JSON but not an object"),
        ("t.jsonl", '{"a": NaN}\n', "line 1 is not JSON: NaN is not a JSON number; leave the value out, or give null"),
        ("t.jsonl", '{"a": -Infinity}\n', "-Infinity is not a JSON number"),
        ("t.jsonl", '{"a": 01}\n', "line 1 is not JSON"),
        ("t.jsonl", '{"a": 1, "b": 2, "a": 3}\n', "line 1 is not JSON: the key 'a' occurs twice in one object"),
        ("t.jsonl", '{"a": {"x": 1, "x": 2}}\n', "the key 'x' occurs twice in one object"),
        ("t.jsonl", '{"a": "\\ud800"}\n', "line 1 holds '.*ud800', which is not text that a file can hold"),
        ("t.jsonl", '{"a": 1}\n{"a": ["\\ud800"]}\n', "line 2 holds .*, which is not text that a file can hold"),
        ("t.jsonl", '{"\\ud800": 1}\n', "line 1 holds .*, which is not text"),
        ("t.jsonl", '{"a": "\\u0000"}\n', "line 1 holds .*, which is not text"),
        ("t.jsonl", '{"a": 1}\n{"": 1}\n', "line 2 has a key without a name; give each key its own name"),
        ("t.jsonl", "{}\n", "has no keys, so it has no columns"),
        ("t.jsonl", '{"a": ' + "[" * 100_000, "line 1 is not JSON"),
    ],
    ids=lambda one: f"{one!r:.30}",
)  # fmt: skip
def test_what_is_wrong_is_refused_with_its_line(name: str, source: str, problem: str) -> None:
    with pytest.raises(Permanent, match=f"^{name.replace('.', '[.]')}.*{problem}"):
        transformed(source, name)


def test_options_of_csv_are_refused() -> None:
    with pytest.raises(Permanent, match=r"t\.jsonl is JSON Lines, which has no delimiter: leave delimiter out"):
        transformed('{"a": 1}', "t.jsonl", delimiter=";")
