"""CSV and TSV: a table is read whole, as Python's csv reads it, or refused with the line and the repair."""

from __future__ import annotations

import csv
import io
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batch.model.errors import MessageRefused, Permanent
from tests.batch.handlers.transforming import transformed
from tests.support import slow_but

READ: list[tuple[str, str, dict[str, Any], list[list[str]]]] = [
    ("t.csv", "a,b\n1,2\n3,4\n", {}, [["a", "b"], ["1", "2"], ["3", "4"]]),
    ("t.csv", "a,b\n1,2\n3,4", {}, [["a", "b"], ["1", "2"], ["3", "4"]]),
    ("t.csv", "a,b\r1,2\r3,4\r", {}, [["a", "b"], ["1", "2"], ["3", "4"]]),
    ("t.csv", "a,b\r\n1,2\n3,4\r5,6", {}, [["a", "b"], ["1", "2"], ["3", "4"], ["5", "6"]]),
    ("t.csv", "a,b\n\n1,2\n\n\n3,4\n\n", {}, [["a", "b"], ["1", "2"], ["3", "4"]]),
    ("t.csv", "\r\n\r\na,b\r\n1,2\r\n", {}, [["a", "b"], ["1", "2"]]),
    ("t.csv", '\n\na,"b\nc"\n1,2\n', {}, [["a", "b\nc"], ["1", "2"]]),
    ("t.csv", '\ufeff"a",b\n1,2\n', {}, [["a", "b"], ["1", "2"]]),
    ("t.csv", '\ufeff"a",b\n1,2\n', {"header": False}, [["column_1", "column_2"], ["a", "b"], ["1", "2"]]),
    ("t.csv", '\ufeff"a\nb",c\n1,2\n3,4\n', {}, [["a\nb", "c"], ["1", "2"], ["3", "4"]]),
    ("t.csv", '"a","b"\n"say ""hi""","x, y"\n', {}, [["a", "b"], ['say "hi"', "x, y"]]),
    ("t.csv", 'a,b\n1,"two\nlines"\n2,x\n', {}, [["a", "b"], ["1", "two\nlines"], ["2", "x"]]),
    ("t.csv", 'a,b\r\n1,"two\r\nlines"\r\n', {}, [["a", "b"], ["1", "two\r\nlines"]]),
    ("t.csv", 'a,b\n1,"lone\rreturn"\n3,4\n', {}, [["a", "b"], ["1", "lone\rreturn"], ["3", "4"]]),
    ("t.csv", 'a,"b\rc"\n1,2\n', {}, [["a", "b\rc"], ["1", "2"]]),
    ("t.csv", 'a,b\n1,5" tube\n2,x"y"z\n', {}, [["a", "b"], ["1", '5" tube'], ["2", 'x"y"z']]),
    ("t.csv", 'a,b\n1, "2"\n', {}, [["a", "b"], ["1", ' "2"']]),
    ("t.csv", "a,b\n1, x\n", {}, [["a", "b"], ["1", " x"]]),
    ("t.csv", 'a, b\n1, "x, y"\n', {}, [["a", "b"], ["1", "x, y"]]),
    ("t.csv", "a,b\n1,2,\n3,4,,\n", {}, [["a", "b"], ["1", "2"], ["3", "4"]]),
    ("t.csv", "a,,\n1,2,3\n", {"header": False}, [["column_1", "column_2", "column_3"], ["a", "", ""], ["1", "2", "3"]]),
    ("t.csv", "a,b,\n1,2,3\n", {}, [["a", "b", "column_3"], ["1", "2", "3"]]),
    ("t.csv", "a,A\n1,2\n", {}, [["a", "A"], ["1", "2"]]),
    ("t.csv", "a\n1\n\n2\n", {}, [["a"], ["1"], [""], ["2"]]),
    ("t.csv", 'a\r\n1\n\r\n"x"\n', {}, [["a"], ["1"], [""], ["x"]]),
    ("t.csv", 'a\n"one\ncell"\n2\n', {"quote": '"'}, [["a"], ["one\ncell"], ["2"]]),
    ("t.csv", 'a,b\n1,"x\n2,y"\n', {"quote": '"'}, [["a", "b"], ["1", "x\n2,y"]]),
    ("t.csv", 'a,b\n1,"x\n2,y"\n', {"quote": ""}, [["a", "b"], ["1", '"x'], ["2", 'y"']]),
    ("t.csv", "a,b\n'x, y',\"z\"\n", {"quote": "'"}, [["a", "b"], ["x, y", '"z"']]),
    ("t.csv", "a,b\n007,+1\n1.10,-0\nNO,true\n", {}, [["a", "b"], ["007", "+1"], ["1.10", "-0"], ["NO", "true"]]),
    ("t.csv", "sep=;\na;b\n1;2\n", {}, [["a", "b"], ["1", "2"]]),
    ("t.csv", '\ufeff"sep=;"\r\na;b\r\n1;2\r\n', {}, [["a", "b"], ["1", "2"]]),
    ("t.csv", "sep=;\ra;b\r1;2\r", {}, [["a", "b"], ["1", "2"]]),
    ("t.csv", "sep=\t\n\na\tb\n1\t2\n", {}, [["a", "b"], ["1", "2"]]),
    ("t.csv", "name;amount\na;1,5\nb;2,5\n", {}, [["name", "amount"], ["a", "1,5"], ["b", "2,5"]]),
    ("t.csv", "a,b;c\n1,2;3\n", {}, [["a", "b;c"], ["1", "2;3"]]),
    ("t.tsv", "a\tb,c,d\n1\t2,3,4\n", {}, [["a", "b,c,d"], ["1", "2,3,4"]]),
    ("t.txt", "a,b;c\n1,2;3\n", {"delimiter": ";"}, [["a,b", "c"], ["1,2", "3"]]),
    ("t.txt", "a|b\n1|2\n", {}, [["a", "b"], ["1", "2"]]),
    ("t", "a b\n1 2\n", {"delimiter": " "}, [["a", "b"], ["1", "2"]]),
    ("t.csv", "a,b,c\n1,2,3\n", {"exclude": ["b"]}, [["a", "c"], ["1", "3"]]),
    ("t.tsv", '1\t"Hello\t1999\n2\tb\t2000\n3\tc\t2001\n', {"header": False}, [
        ["column_1", "column_2", "column_3"], ["1", '"Hello', "1999"], ["2", "b", "2000"], ["3", "c", "2001"]]),
    ("t.tsv", 'a\tb\n1\t"x\n2\ty"\n', {}, [["a", "b"], ["1", '"x'], ["2", 'y"']]),
    ("t.tsv", 'a\tb\n1\t"two\nlines"\n', {}, [["a", "b"], ["1", "two\nlines"]]),
    ("t.csv", "a,b\n1," + "x" * 200_000 + "\n", {}, [["a", "b"], ["1", "x" * 200_000]]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "source", "fields", "expected"), READ, ids=[f"{one[1]!r:.30}" for one in READ])
def test_what_comes_in_comes_out(name: str, source: str, fields: dict[str, Any], expected: list[list[str]]) -> None:
    result, rows = transformed(source, name, **fields)
    assert rows == expected
    assert result["rows_in"] == len(expected) - 1
    unquoted = name == "t.tsv" and any('"' in cell for row in expected for cell in row)
    assert result["warnings"] == (["quotes are read as letters: with quotes as such, rows would be lost"] if unquoted else [])
    assert (result["read"]["quote"] == "") == (unquoted or fields.get("quote") == "")
    assert result["columns_left_out"] == []


REPAIR = r'; repair the row, or say quote: "" if quotes are letters like others$'
LETTERS = (
    ": a cell in quotes goes on beyond its line, but each of its lines is a whole row without quotes: say quote: '\"' if cells may have "
    'lines of their own, or quote: "" if quotes are letters like others$'
)
REFUSED: list[tuple[str, str, dict[str, Any], str]] = [
    ("t.csv", "", {}, r"^t\.csv is empty; give CSV with a header, or JSON Lines$"),
    ("t.csv", " \n ", {}, r"^t\.csv is empty"),
    ("t.csv", "\ufeff", {}, r"^t\.csv is empty"),
    ("t.csv", "a,b\n", {}, r"^t\.csv has columns but no rows$"),
    ("t.csv", "a,b\n1,2\n3\n", {}, "^t.csv, line 3: 1 cells where the header has 2" + REPAIR),
    ("t.csv", "a,b\n1,2\n\n3,4,5\n", {}, "^t.csv, line 4: 3 cells where the header has 2" + REPAIR),
    ("t.csv", "a,b\n1,2\n   \n", {}, "^t.csv, line 3: 1 cells" ),
    ("t.csv", 'a,b\n"1\n2",3\n4\n', {}, "^t.csv, line 4: 1 cells"),
    ("t.csv", 'id,note\n1,ok\n2,"she said\n3,hi\n4,x\n', {}, "^t.csv, line 3: a quote that does not end where its cell ends" ),
    ("t.csv", 'id,note\n1,"hello\n2,ok\n3,"bye\n4,x\n', {}, "^t.csv, line 2: a quote that does not end where its cell ends .*" + REPAIR),
    ("t.csv", 'a,b\n1,2\n3,"x', {}, "^t.csv, line 3: a quote that does not end where its cell ends .unexpected end of data." + REPAIR),
    ("t.csv", 'a,b\n1,2\n3,"x\n\n', {"quote": '"'}, "^t.csv, line 3: a quote that does not end"),
    ("t.csv", 'a,b\n1,"p\nq\nr"\n\n2,"z', {"header": False}, "^t.csv, line 6: a quote that does not end"),
    ("t.csv", 'a\n1\n"', {"header": False}, "^t.csv, line 3: a quote that does not end"),
    ("t.csv", 'a,b\n"1" ,2\n', {}, "^t.csv, line 2: a quote that does not end where its cell ends .*" + REPAIR),
    ("t.csv", 'a,b\n"1"x,2\n', {}, "^t.csv, line 2: a quote that does not end where its cell ends"),
    ("t.csv", 'a,b\n1,"x\n2,y"\n', {}, "^t.csv, line 2" + LETTERS),
    ("t.csv", 'a,b\n1,"x, y"\n2,"p\n3,q"\n4,r\n', {}, "^t.csv, line 3" + LETTERS),
    ("t.csv", 'a,b\r\n1,"x\n2,y"\n', {}, "^t.csv, line 2" + LETTERS),
    ("t.csv", 'a,b\n1, "x\n2, y"\n3\n', {}, "^t.csv, line 4: 1 cells"),
    ("t.csv", 'a\n"x\ny"\n', {}, "^t.csv, line 2" + LETTERS),
    ("t.tsv", 'a\tb\n1\t"x\n2\n', {}, "^t.tsv, line 2: a quote that does not end where its cell ends"),
    ("t.tsv", 'a\tb\n1\t"x\ty"\n2\t"p\n3\tq"\n', {}, "^t.tsv, line 3" + LETTERS),
    ("t.tsv", '"a"\n"x\ny"\n"z"\n', {}, "^t.tsv, line 2" + LETTERS),
    ("t.tsv", '"a"\t"b"\n"1"\t"x\n', {}, "^t.tsv, line 2: a quote that does not end where its cell ends"),
    ("t.csv", "a,b,a\n1,2,3\n", {}, r"^t\.csv has more than one column 'a'; give each column its own name$"),
    ("t.csv", "a,column_3,\n1,2,3\n", {}, "^t.csv has more than one column 'column_3'"),
    ("t.csv", "Sales 2026,,\na,b,c\n1,2,3\n", {}, "^t.csv, line 1 has a text in one cell only .'Sales 2026'.: it is a title, not a header"),
    ("t.csv", "\n,Sales,\n,,\na,b,c\n1,2,3\n", {}, "^t.csv, line 2 has a text in one cell only .'Sales'."),
    ("t.csv", "Sales,\na,b\n1,2\n", {}, "^t.csv, line 1 has a text in one cell only .'Sales'."),
    ("t.csv", "Sales\na,b,c\n1,2,3\n", {}, "^t.csv, line 2: 3 cells where the header has 1"),
    ("t.txt", "a,b;c\n1,2;3\n", {}, r"^t\.txt can be cut into columns by comma and by semicolon alike; say which with delimiter$"),
    ("t.txt", "Dear reader\nthis is prose\n", {}, r"^t\.txt is neither CSV nor JSON Lines: no comma, .* or give delimiter$"),
    ("t.csv", '[{"a": 1}]\n', {}, r"^t\.csv is a JSON array; give JSON Lines: one object on each line"),
    ("t.csv", "a,b\n1,\0\n", {}, r"^t\.csv is not text: it holds a zero byte at position 6$"),
    ("t.csv", "\x89PNG\r\n\x1a\n", {}, r"^t\.csv is "),
    ("t.csv", "a,b\n1,2\n", {"exclude": ["c"]}, "^t.csv has no column 'c'; it has 'a', 'b'$"),
    ("t.csv", "a\n1\n", {"exclude": ["a"]}, "^t.csv has no column but those in exclude$"),
    ("t.csv", "a,b\n1,2\n", {"columns": ["a", "a"], "transformation": "filter", "conditions": [{"column": "a", "value": 1}]},
        "^t.csv: two columns of the result have the name 'a'; name other columns"),
    ("t.csv", "x_count,x\n1,2\n", {"transformation": "aggregation", "group_by": "x_count", "values": ["x"]},
        "^t.csv: two columns of the result have the name 'x_count'"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "source", "fields", "problem"), REFUSED, ids=[f"{one[1]!r:.30}" for one in REFUSED])
def test_what_is_wrong_is_refused_with_its_line_and_the_repair(name: str, source: str, fields: dict[str, Any], problem: str) -> None:
    with pytest.raises(Permanent) as refused:
        transformed(source.encode("latin-1") if source.startswith("\x89") else source, name, **fields)
    assert re.search(problem, str(refused.value)), refused.value


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        ({"delimiter": "ab"}, "delimiter"),
        ({"delimiter": "\n"}, "delimiter cannot be"),
        ({"delimiter": "é"}, "delimiter cannot be 'é'; give one ASCII character"),
        ({"quote": ","}, "delimiter and quote cannot both be ','"),
        ({"decimal": ",", "thousands": ","}, "decimal and thousands cannot both be ','"),
        ({"source_format": "xlsx"}, "source_format"),
        ({"types": {"a": "money"}}, "types"),
        ({"types": {"a": "text"}, "exclude": ["a"]}, "column 'a' is excluded and has a type; name it once"),
    ],
)
def test_options_that_cannot_be_are_refused_at_the_door(fields: dict[str, Any], rule: str) -> None:
    with pytest.raises(MessageRefused, match=rule):
        transformed("a,b\n1,2\n", **fields)


# --- against Python's csv

CELL = st.text(st.sampled_from('a1",;\n\r\t é'), max_size=4)
ROWS = st.integers(1, 3).flatmap(lambda width: st.lists(st.lists(CELL, min_size=width, max_size=width), min_size=1, max_size=5))


def alike(rows: list[list[str]]) -> list[list[str]]:
    """One of each, as deduplicate would keep them: blank cells are missing."""
    kinds: dict[tuple[str, ...], list[str]] = {}
    for row in rows:
        kinds.setdefault(tuple(cell if cell.strip(" \t\r\n\v\f\u00a0") else "" for cell in row), row)
    return list(kinds.values())


@pytest.mark.parametrize("examples", slow_but(["15"], ["15", "70"]))
def test_what_csv_writes_is_read_and_what_is_written_csv_reads(examples: str) -> None:
    @settings(max_examples=int(examples), deadline=None, database=None)
    @given(ROWS, st.sampled_from(["\n", "\r\n", "\r"]), st.sampled_from([",", ";", "\t"]))
    def check(rows: list[list[str]], end: str, delimiter: str) -> None:
        text = io.StringIO(newline="")
        writer = csv.writer(text, delimiter=delimiter, lineterminator=end, quoting=csv.QUOTE_ALL)
        names = [f"n{place}" for place in range(len(rows[0]))]
        writer.writerows([names, *rows])
        assert transformed(text.getvalue(), delimiter=delimiter, quote='"')[1] == [names, *alike(rows)]

    check()


HOSTILE = st.sampled_from(['a1",\n', 'a",\n\r ', 'ab\t"\n', "a,\n", 'a\n"', "a,\r\n", 'é,\n"']).flatmap(
    lambda letters: st.text(st.sampled_from(letters), max_size=14)
)


@pytest.mark.parametrize("examples", slow_but(["25"], ["25", "90"]))
def test_any_text_is_read_as_python_reads_it_or_refused(examples: str) -> None:
    @settings(max_examples=int(examples), deadline=None, database=None)
    @given(st.sampled_from(["x\n", "x,y\n", "x,y,z\r\n", "x,y\r", ""]), HOSTILE, st.booleans(), st.sampled_from([None, '"', ""]))
    def check(header: str, body: str, has_header: bool, quote: str | None) -> None:
        fields = {} if quote is None else {"quote": quote}
        try:
            result, rows = transformed(header + body, header=has_header, **fields)
        except Permanent:
            return
        read = result["read"]
        quoting: dict[str, Any] = {"quotechar": read["quote"]} if read["quote"] else {"quoting": csv.QUOTE_NONE}
        skips = any(name.startswith(" ") for name in (header + body).splitlines()[0].split(read["delimiter"])[1:])
        found = list(
            csv.reader(io.StringIO(header + body, newline=""), delimiter=read["delimiter"], strict=True, skipinitialspace=skips, **quoting)
        )
        first = next(place for place, row in enumerate(found) if row)
        width = len(found[first])
        table = [row or [""] for row in found[first:] if row or width == 1]
        assert all(len(row) == width or not any(row[width:]) for row in table)
        table = [row[:width] for row in table][has_header:]
        assert result["rows_in"] == len(table)
        assert rows[1:] == alike(table)

    check()
