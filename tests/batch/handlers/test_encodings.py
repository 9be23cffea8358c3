"""Encodings: text is what it says it is, or refused with place, byte and candidates; and what numbers, dates and blanks are in text."""

from __future__ import annotations

import codecs
from typing import Any

import pytest

from batch.handlers.describe import describe
from batch.model.errors import MessageRefused, Permanent
from tests.batch.handlers.transforming import transformed

CITY = "name,note\nÉlodie,déjà vu\nOlga,x\n"
CYRILLIC = "имя,город\nОлег,Москва\n"


def rows(text: str) -> list[list[str]]:
    return [line.split(",") for line in text.splitlines()]


@pytest.mark.parametrize(
    ("text", "codec", "said", "told"),
    [
        (CITY, "utf-8", None, "utf-8"),
        (CITY, "utf-8-sig", None, "utf-8"),
        (CITY, "utf-8-sig", "cp1252", "utf-8"),
        (CITY, "utf-16", None, "utf-16"),
        (CITY, "utf-16", "utf-16", "utf-16"),
        (CITY, "utf-16", "utf-16-le", "utf-16"),
        (CITY, "utf-32", None, "utf-32"),
        (CITY, "utf-16-be", "UTF-16BE", "utf-16-be"),
        (CITY, "latin-1", "latin1", "iso8859-1"),
        (CITY, "cp1252", "windows-1252", "cp1252"),
        (CYRILLIC, "cp1251", "cp1251", "cp1251"),
        (CYRILLIC, "koi8-r", "koi8-r", "koi8-r"),
        ("名,町\n太郎,東京\n", "shift_jis", "sjis", "shift_jis"),
        ("名,町\n太郎,東京\n", "iso2022_jp", "iso-2022-jp", "iso2022_jp"),
        ("名,町\n太郎,東京\n", "gb18030", "GB18030", "gb18030"),
    ],
)
def test_text_in_its_encoding_is_read_letter_by_letter(text: str, codec: str, said: str | None, told: str) -> None:
    result, found = transformed(text.encode(codec), **({"encoding": said} if said else {}))
    assert found == rows(text)
    assert result["read"]["encoding"] == told
    lines = f'{{"{rows(text)[0][0]}": "{rows(text)[1][0]}"}}\n'
    assert transformed(lines.encode(codec), "t.jsonl", **({"encoding": said} if said else {}))[1] == [[one[0]] for one in rows(text)[:2]]


@pytest.mark.parametrize(
    ("data", "fields", "problem"),
    [
        (CITY.encode() + b"x,\xe9\n", {}, "^t.csv, line 4 is not UTF-8: the byte 0xE9 at position 37; say which encoding"),
        (CITY.replace("\n", "\r").encode() + b"x,\xe9\r", {}, "^t.csv, line 4 is not UTF-8: the byte 0xE9 at position 37"),
        (CITY.encode("cp1252"), {}, "line 2 is not UTF-8: the byte 0xC9 at position 10; .*; it may be .*cp125"),
        (CYRILLIC.encode("cp1251"), {}, "line 1 is not UTF-8: the byte 0xE8 at position 0; .*; it may be cp1251"),
        ("a,b\n1,é".encode()[:-1], {}, "line 2 is not UTF-8: the byte 0xC3 at position 6"),
        (b"x" * (1 << 20) + b",b\n1,\xff\n", {}, "line 2 is not UTF-8: the byte 0xFF at position 1048581"),
        (b"a,b\n1,\xed\xa0\x80\n", {}, "line 2 is not UTF-8: the byte 0xED at position 6"),
        (b"a,b\n1,\xc0\xaf\n", {}, "line 2 is not UTF-8: the byte 0xC0 at position 6"),
        (b"a,b\n1,\x81\n", {"encoding": "cp1252"}, "^t.csv is not cp1252: the byte 0x81 at position 6 stands for no char"),
        (b"a,b\n1,\x81\n", {"encoding": "shift_jis"}, "^t.csv is not shift_jis: the byte 0x81 at position 6"),
        (CITY.encode("utf-16-le"), {}, "^t.csv is not text: it holds a zero byte at position 1$"),
        (CITY.encode("utf-16-le"), {"encoding": "utf-16"}, "no byte order mark, which utf-16 needs: say encoding: utf-16-le or utf-16-be$"),
        (CITY.encode("utf-16-be"), {"encoding": "utf-16"}, "no byte order mark, which utf-16 needs"),
        (CITY.encode("utf-16"), {"encoding": "cp1252"}, "^t.csv begins with the byte order mark of utf-16, so it is not cp1252: leave enc"),
        (CITY.encode("utf-16") + b"x", {}, "^t.csv is not utf-16: the byte 0x78 at position 66 stands for no character"),
        (codecs.BOM_UTF16_LE + b"\x00\xd8,\0b\0\n\0", {}, "^t.csv is not utf-16: the byte 0x00 at position 2"),
        ("a,b\n1,\0\n".encode("utf-16"), {}, "^t.csv is not text: it holds the character U.0000"),
    ],
)  # fmt: skip
def test_bytes_that_are_not_text_are_refused_with_their_place(data: bytes, fields: dict[str, Any], problem: str) -> None:
    with pytest.raises(Permanent, match=problem):
        transformed(data, **fields)


@pytest.mark.parametrize("encoding", ["", "rot13", "base64", "utf-7", "idna", "unicode_escape", "mbcs", "x" * 100, "utf\0"])
def test_what_is_no_encoding_of_files_is_refused_at_the_door(encoding: str) -> None:
    with pytest.raises(MessageRefused, match=r"there is no encoding .*; give a name such as utf-8, utf-16, cp1252"):
        transformed(CITY, encoding=encoding)


def test_describe_names_no_encoding_that_it_cannot_know() -> None:
    facts = describe("a.csv", CITY.encode("cp1252"))
    assert (facts["encoding"], facts["line_count"]) == ("unknown-8bit", 3)
    assert "line 2 is not UTF-8: the byte 0xC9 at position 10" in facts["table_problem"]
    assert "columns" not in facts


# --- numbers and blanks in text


def aggregated(source: str, **fields: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """The result, and the only group."""
    result, found = transformed(source, transformation="aggregation", group_by="g", **fields)
    assert len(found) == 2
    return result, dict(zip(*found, strict=True))


@pytest.mark.parametrize(
    ("cells", "fields", "count", "total"),
    [
        (["1", "2", "-3"], {}, 3, "0"),
        (["1.5", "2.25"], {}, 2, "3.75"),
        (["NA", "1", "\\N", "2", ""], {"nulls": ["NA", "\\N"]}, 2, "3"),
        (["1,5", "2,25"], {"decimal": ","}, 2, "3.75"),
        (["1,200", "5", "1,234,567"], {"thousands": ","}, 3, "1235772"),
        (["1.200,5", "5"], {"decimal": ",", "thousands": "."}, 2, "1205.5"),
        (["1 200", "5"], {"thousands": " "}, 2, "1205"),
        (["1\u202f200", "5"], {"thousands": "\u202f"}, 2, "1205"),
        (["1'200.50"], {"thousands": "'"}, 1, "1200.50"),
        ([" 7 ", "+1"], {}, 2, "8"),
        (["9007199254740993", "1"], {}, 2, "9007199254740994"),
        (["007", "1"], {"types": {"x": "integer"}}, 2, "8"),
    ],
)
def test_numbers_are_what_the_task_says(cells: list[str], fields: dict[str, Any], count: int, total: str) -> None:
    source = "g;x\n" + "".join(f"a;{cell}\n" for cell in cells)
    result, found = aggregated(source, **fields)
    assert (found["x_count"], found["x_sum"], found["row_count"]) == (str(count), total, str(len(cells)))
    assert (result["columns_left_out"], result["warnings"]) == ([], [])
    assert result["read"]["columns"][1]["null_count"] == len(cells) - count


@pytest.mark.parametrize(
    ("cell", "fields", "reason"),
    [
        ("1,200", {}, "line 3: '1,200' is not a number; if it is one, say thousands: ','"),
        ("1,5", {}, "line 3: '1,5' is not a number; if it is one, say decimal: ','"),
        ("NA", {}, "line 3: 'NA' is not a number; if it stands for a missing value, say nulls: ['NA']"),
        ("na", {"nulls": ["NA"]}, "line 3: 'na' is not a number; if it stands for a missing value, say nulls: ['na']"),
        ("1,20", {"thousands": ","}, "line 3: '1,20' is not a number; if it is one, say decimal: ','"),
        ("12,3456", {"thousands": ","}, "line 3: '12,3456' is not a number; if it is one, say decimal: ','"),
        ("0,200", {"thousands": ","}, "line 3: '0,200' is not a number; if it is one, say decimal: ','"),
        ("1.5", {"decimal": ","}, "line 3: '1.5' is not a number"),
        ("1_000", {}, "line 3: '1_000' is not a number"),
        ("0x1F", {}, "line 3: '0x1F' is not a number"),
        ("1e999x", {}, "line 3: '1e999x' is not a number"),
        ("\u0663", {}, "line 3: '\u0663' is not a number"),
        ("007", {}, "line 3: '007' is not a number"),
        ("9" * 39, {}, "its numbers need 39 digits, and 38 are exact: say types: double to round them"),
    ],
)
def test_a_column_that_is_left_out_is_told_with_its_reason(cell: str, fields: dict[str, Any], reason: str) -> None:
    result, found = aggregated(f"g;y;x\na;1;1\na;2;{cell}\n", **fields)
    assert list(found) == ["g", "row_count", "y_count", "y_sum", "y_mean", "y_min", "y_max"]
    assert [one["column"] for one in result["columns_left_out"]] == ["x"]
    assert result["columns_left_out"][0]["reason"].startswith(reason)
    whole = result["columns_left_out"][0]["reason"]
    assert result["warnings"] == ([f"column 'x' is left out: {whole}"] if "; if it" in whole or "digits" in whole else [])
    with pytest.raises(Permanent, match="column 'x' cannot be computed with: "):
        aggregated(f"g;y;x\na;1;1\na;2;{cell}\n", values=["x"], **fields)


def test_a_column_of_words_is_left_out_without_a_warning_and_values_may_be_none() -> None:
    result, found = aggregated("g,x,y\na,b,1\n")
    assert result["columns_left_out"] == [{"column": "x", "reason": "line 2: 'b' is not a number"}]
    assert result["warnings"] == []
    result, found = aggregated("g,x\na,1\na,2\n", values=[])
    assert (result["values"], found) == ([], {"g": "a", "row_count": "2"})
    with pytest.raises(Permanent, match=r"no numeric column to aggregate \('x': line 2: 'b' is not a number\); say values: \[\] to count"):
        aggregated("g,x\na,b\n")


def test_nothing_from_text_loses_a_sign_a_zero_or_a_digit_as_a_group() -> None:
    cells = ["0.0", "00", "0", "-0", "+1", "1", "1.0", "1.10", "1e0", "true", "NO"]
    for some in (cells, cells[1:4], ["-0", "0"], ["1.0", "1.10"], ["1", "1.0"]):
        source = "g,x\n" + "".join(f"{cell},1\n" for cell in some)
        found = transformed(source, transformation="aggregation", group_by="g")[1]
        assert sorted(row[0] for row in found[1:]) == sorted(some)
