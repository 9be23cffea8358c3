"""What the handler makes of generated tables equals what plain Python computes of them, or the task is dead with a reason that the model
allows. Never a third thing.

A refusal is allowed only for: two names of a result that are alike (also but for upper and lower case, in Parquet); no column of numbers to
compute with; an order beside a number in a column that is none; a sum, difference or span beyond 38 digits or a double; and, in CSV whose
quotes the task does not name, a cell that has lines of its own (it may be two stray quotes), or a delimiter that cannot be told.
"""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
import math
import operator
import re
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Context, Decimal
from fractions import Fraction
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batch.model.errors import Permanent
from tests.batch.handlers.tables import Made, parquet, transformed

BLANKS = " \t\r\n\v\f\u00a0"
NUMBER = re.compile(r"[+-]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
PLAIN = Context(prec=10_000)
ORDERS: dict[str, Callable[[Any, Any], bool]] = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
Refusals = list[str]
"""The reasons that the model allows, as patterns."""


@dataclass
class Cell:
    """`raw` is what the source holds, `shown` its text in CSV (blank: missing), `key` what it is alike by."""

    raw: Any
    shown: str
    key: Hashable
    number: Fraction | float | None = None

    @property
    def is_missing(self) -> bool:
        return self.key is None


@dataclass
class Column:
    name: str
    cells: list[Cell]
    sort: str
    """`integer`, `decimal`, `double`, `date`, `boolean` or `text`."""
    scale: int = 0
    is_text: bool = True

    @property
    def is_number(self) -> bool:
        return self.sort in ("integer", "decimal", "double") and not (self.is_text and all(one.is_missing for one in self.cells))


@dataclass
class Drawn:
    columns: list[Column]
    source: bytes
    name: str
    options: dict[str, Any] = field(default_factory=dict)
    refusals: Refusals = field(default_factory=list)

    @property
    def rows(self) -> list[tuple[Cell, ...]]:
        return list(zip(*(one.cells for one in self.columns), strict=True))


# --- tables

LETTERS = st.characters(codec="utf-8", exclude_characters="\0", exclude_categories=["Cs"])
ODD = st.one_of(
    st.sampled_from(
        ["NA", "007", "1.10", "NO", "true", '"', '""', "a,b", "a;b", "a\tb", "a|b", " x", "'", "\\N", "\\", "=1+1", "é", "🦆", "+5"]
    ),
    st.text(LETTERS, max_size=4),
    st.text(st.sampled_from("\",;\t|\r\n '\\a1"), max_size=5),
)
WORDS = st.sampled_from(["a", "b", "c", "B"])
INTEGERS = st.one_of(st.integers(-9, 9), st.integers(-(2**63), 2**63 - 1), st.integers(-(10**38) + 1, 10**38 - 1))
DECIMALS = st.builds(lambda n, s: f"{Decimal(n).scaleb(-s, PLAIN):f}", st.one_of(st.integers(-999, 999), INTEGERS), st.integers(0, 20))
DOUBLES = st.one_of(st.floats(-1e6, 1e6), st.floats(allow_nan=False, allow_infinity=False), st.sampled_from([0.1, 1e16, -1e16, 1.0, -0.0]))
DATES = st.dates(dt.date(1, 1, 1), dt.date(9999, 12, 31)).map(dt.date.isoformat)
NAMES = st.one_of(
    st.sampled_from(["x", "X", "g", "row_count", "x_sum", "a b", 'q"', "c0", "row", "source", "ü", "a,b", "a\nb", "1"]),
    st.text(LETTERS, max_size=6),
)


def names(count: int) -> st.SearchStrategy[list[str]]:
    def fits(name: str) -> bool:
        return bool(name.strip()) and name == name.strip() and not name.startswith(("\ufeff", "sep="))

    return st.lists(NAMES.filter(fits), min_size=count, max_size=count, unique=True)


def texts_of(sort: str) -> st.SearchStrategy[str]:
    """Cells in text of a column; some columns are one sort with a few of another."""
    return {
        "integer": st.one_of(st.integers(-9, 9), INTEGERS).map(str),
        "small": st.integers(-99, 99).map(str),
        "decimal": DECIMALS,
        "cents": st.integers(-9999, 9999).map(lambda n: f"{Decimal(n).scaleb(-2):f}"),
        "double": DOUBLES.map(repr),
        "date": DATES,
        "word": WORDS,
        "odd": ODD,
        "mixed": st.one_of(DECIMALS, DOUBLES.map(repr), ODD),
    }[sort]


SORTS = ("integer", "small", "decimal", "cents", "double", "date", "word", "odd", "mixed")


def column_of_texts(name: str, texts: Sequence[str], *, may_be_number: bool = True) -> Column:
    """What a column of texts is, by the rules of the documentation."""
    cells = [Cell(one, one, one if one.strip(BLANKS) else None) for one in texts]
    found = [one for one in cells if not one.is_missing]
    numbers = [NUMBER.fullmatch(one.shown.strip(BLANKS)) for one in found]
    column = Column(name, cells, "text")
    if found and may_be_number and all(numbers):
        digits = [re.split("[eE]", one.shown.strip(BLANKS))[0] for one in found]
        wholes, fractions = [one.partition(".")[0].lstrip("+-0") for one in digits], [one.partition(".")[2] for one in digits]
        whole, column.scale = max(map(len, wholes)), max(map(len, fractions))
        if any(re.search("[eE]", one.shown) for one in found):
            is_written = all(repr(float(one.shown)) == one.shown != "-0.0" for one in found)
            column.sort = "double" if whole + column.scale <= 15 or is_written else "text"
        else:
            column.sort = ("decimal" if column.scale else "integer") if whole + column.scale <= 38 else "text"
    elif found and may_be_number and all(is_date(one.shown) for one in found):
        column.sort = "date"
    for one in found:
        if column.sort == "double":
            one.number = float(one.shown)
        elif column.sort in ("integer", "decimal"):
            one.number = Fraction(one.shown.strip(BLANKS).lstrip("+"))
    return column


def is_date(text: str) -> bool:
    try:
        return dt.date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


@st.composite
def text_tables(draw: st.DrawFn) -> Drawn:
    width, height = draw(st.integers(1, 4)), draw(st.integers(1, 8))
    called = draw(names(width))
    columns = []
    for _ in called:
        cells = texts_of(draw(st.sampled_from(SORTS)))
        maybe = st.one_of(cells, cells, cells, st.just(""), st.just(" ")) if draw(st.booleans()) else cells
        columns.append(draw(st.lists(maybe, min_size=height, max_size=height)))
    delimiter, end = draw(st.sampled_from(",;\t|")), draw(st.sampled_from(["\n", "\r\n"]))
    quoting: Any = draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]))
    body = io.StringIO(newline="")
    for row in zip(*([name, *cells] for name, cells in zip(called, columns, strict=True)), strict=True):
        line = io.StringIO(newline="")  # with this line end Python puts quotes around both \\r and \\n
        csv.writer(line, delimiter=delimiter, lineterminator="\r\n", quoting=quoting).writerow(row)
        body.write(line.getvalue().removesuffix("\r\n") + end)
    encoding = draw(st.sampled_from(["utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-16-le", "gb18030"]))
    drawn = Drawn([column_of_texts(*one) for one in zip(called, columns, strict=True)], body.getvalue().encode(encoding), "t.csv")
    if encoding in ("utf-16-le", "gb18030"):
        drawn.options["encoding"] = encoding
    if draw(st.booleans()):
        drawn.options |= {"delimiter": delimiter, "quote": '"'}
    else:
        drawn.name = "t.tsv" if delimiter == "\t" else "t.csv"
        if any("\n" in one or "\r" in one for cells in [called, *columns] for one in cells):
            is_tsv = drawn.name == "t.tsv"  # which is read without quotes where every line is a row then: other names, other values
            drawn.refusals.append("" if is_tsv else "a cell in quotes goes on beyond its line")
        drawn.options["delimiter"] = delimiter
    if len(called) > 2 and not any(one.strip() for one in called[1:]):
        drawn.refusals.append("it is a title")
    return drawn


JSON_VALUES = st.one_of(
    st.none(),
    INTEGERS,
    DOUBLES,
    st.booleans(),
    ODD,
    st.lists(st.one_of(st.integers(), ODD, st.none()), max_size=3),
    st.dictionaries(ODD, ODD, max_size=2),
)


@st.composite
def json_tables(draw: st.DrawFn) -> Drawn:
    width, height = draw(st.integers(1, 4)), draw(st.integers(1, 8))
    called = draw(names(width))
    columns: list[list[Any]] = []
    for _ in called:
        cells = draw(
            st.sampled_from(
                [INTEGERS, st.integers(-9, 9), DOUBLES, st.one_of(st.integers(), DOUBLES), st.booleans(), WORDS, ODD, JSON_VALUES]
            )
        )
        columns.append(draw(st.lists(st.one_of(st.none(), cells, cells), min_size=height, max_size=height)))
    ascii_only, height_of = draw(st.booleans()), range(height)
    lines = [{name: cells[row] for name, cells in zip(called, columns, strict=True)} for row in height_of]
    body = "".join(json.dumps(one, ensure_ascii=ascii_only) + "\n" for one in lines)
    found = []
    for name, cells in zip(called, columns, strict=True):
        there = [one for one in cells if one is not None]
        is_numeric = all(isinstance(one, int | float) and not isinstance(one, bool) for one in there)
        shown = ["" if one is None else one if isinstance(one, str) else json.dumps(one, ensure_ascii=False) for one in cells]
        column = column_of_texts(name, shown, may_be_number=is_numeric)
        if there and all(isinstance(one, bool) for one in there):
            column.sort = "boolean"
        found.append(column)
    return Drawn(found, body.encode(), "t.jsonl")


@st.composite
def parquet_tables(draw: st.DrawFn) -> Drawn:
    width, height = draw(st.integers(1, 4)), draw(st.integers(1, 8))
    called = draw(names(width))
    arrays, columns = [], []
    for name in called:
        sort = draw(st.sampled_from(["integer", "decimal", "double", "boolean", "text", "date"]))
        scale = draw(st.integers(0, 12)) if sort == "decimal" else 0
        kind, values = {
            "integer": (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
            "decimal": (
                pa.decimal128(30, scale),
                st.builds(lambda n, s: Decimal(n).scaleb(-s, PLAIN), st.integers(-(10**30) + 1, 10**30 - 1), st.just(scale)),
            ),
            "double": (pa.float64(), st.one_of(DOUBLES, st.just(math.nan))),
            "boolean": (pa.bool_(), st.booleans()),
            "text": (pa.string(), st.one_of(WORDS, ODD)),
            "date": (pa.date32(), st.dates()),
        }[sort]
        cells = draw(st.lists(st.one_of(st.none(), values, values), min_size=height, max_size=height))
        arrays.append(pa.array(cells, kind))
        columns.append(Column(name, [typed_cell(one) for one in cells], sort, scale, is_text=False))
    return Drawn(columns, parquet(pa.table(arrays, names=called)), "t.parquet")


def typed_cell(value: Any) -> Cell:
    if value is None:
        return Cell(None, "", None)
    if isinstance(value, bool):
        return Cell(value, str(value).lower(), value)
    if isinstance(value, float):
        return Cell(value, repr(value), None if math.isnan(value) else value, None if math.isnan(value) else value)
    if isinstance(value, int | Decimal):
        return Cell(value, f"{value:f}" if isinstance(value, Decimal) else str(value), Fraction(value), Fraction(value))
    return Cell(value, value if isinstance(value, str) else value.isoformat(), value)


TABLES = st.one_of(text_tables(), text_tables(), json_tables(), parquet_tables())


# --- what a task asks for


@st.composite
def tasks(draw: st.DrawFn, drawn: Drawn) -> dict[str, Any]:
    called = [one.name for one in drawn.columns]
    some = st.lists(st.sampled_from(called), min_size=1, unique=True)
    fields: dict[str, Any] = {
        "transformation": draw(st.sampled_from(["filter", "deduplicate", "aggregation", "normalize"])),
        "format": draw(st.sampled_from(["csv", "parquet"])),
    }
    if fields["transformation"] == "filter":
        fields["conditions"] = draw(st.lists(conditions(drawn), min_size=1, max_size=2))
        if draw(st.booleans()):
            fields["columns"] = draw(some)
    elif fields["transformation"] == "deduplicate":
        fields["keep"] = draw(st.sampled_from(["first", "last"]))
        if draw(st.booleans()):
            fields["columns"] = draw(some)
    elif fields["transformation"] == "aggregation":
        fields["group_by"] = draw(st.sampled_from(called))
    else:
        fields["method"] = draw(st.sampled_from(["z-score", "min-max"]))
    return fields


@st.composite
def conditions(draw: st.DrawFn, drawn: Drawn) -> dict[str, Any]:
    column = draw(st.sampled_from(drawn.columns))
    named = draw(st.sampled_from(["=", "!=", "<", "<=", ">", ">=", "in", "contains", "is_missing"]))
    own = [one for one in column.cells if not one.is_missing]
    numbers = [int(one.number) if one.number == int(one.number) else float(one.number) for one in own if one.number is not None]
    a_number = st.one_of(st.sampled_from([*numbers, 0]), INTEGERS, DOUBLES).filter(lambda one: abs(one) < 10**38 or isinstance(one, float))
    a_text = st.one_of(st.sampled_from([*(one.shown for one in own), "x"]), ODD)
    if named == "is_missing":
        return {"column": column.name, "operator": named, "value": draw(st.booleans())}
    if named == "contains":
        return {"column": column.name, "operator": named, "value": draw(a_text.filter(bool))}
    if column.sort == "date":
        return {"column": column.name, "operator": "is_missing"}
    if named == "in":
        return {"column": column.name, "operator": named, "value": draw(st.lists(st.one_of(a_number, a_text), min_size=1, max_size=4))}
    if named in ORDERS:
        return {"column": column.name, "operator": named, "value": draw(a_number)}
    return {"column": column.name, "operator": named, "value": draw(st.one_of(a_number, a_text, st.booleans()))}


# --- the model


def holds(column: Column, cell: Cell, named: str, value: Any) -> bool:
    if named == "is_missing":
        return cell.is_missing is value
    if cell.is_missing:
        return False
    if named == "contains":
        return value in cell.shown
    if named == "in":
        return any(equal(column, cell, one) for one in value)
    if named in ORDERS:
        return ORDERS[named](exact(cell.number), of_condition(column, value))
    return equal(column, cell, value) == (named == "=")


def equal(column: Column, cell: Cell, value: Any) -> bool:
    if isinstance(value, bool):
        if not column.is_text:
            return cell.raw is value
        return cell.shown.strip(BLANKS).lower() in (("true", "yes") if value else ("false", "no"))
    if isinstance(value, str):
        return cell.shown == value
    if column.is_number:
        return exact(cell.number) == of_condition(column, value)
    text = cell.shown.strip(BLANKS)
    if not column.is_text or not NUMBER.fullmatch(text):
        return False
    return float(text) == value if "e" in text.lower() else Fraction(text.lstrip("+")) == of_condition(column, value)


def exact(number: Fraction | float | None) -> Fraction | float:
    assert number is not None
    return Fraction(number) if math.isfinite(number) else number


def of_condition(column: Column, value: Any) -> Fraction:
    return Fraction(value) if column.sort == "double" or isinstance(value, int) else Fraction(repr(value))


def checked(drawn: Drawn, fields: dict[str, Any]) -> None:
    """Run the task and compare, or see that its refusal is one that is allowed."""
    refusals = [*drawn.refusals, *allowed(drawn, fields)]
    try:
        made = transformed(drawn.source, drawn.name, **drawn.options, **fields)
    except Permanent as refused:
        if not any(re.search(one, str(refused)) for one in refusals):
            raise
        return
    if drawn.name == "t.tsv" and drawn.refusals and "quotes are read as letters" in str(made.result["warnings"]):
        return  # a rule of its own, which a warning tells
    assert made.result["records_processed"] == len(drawn.rows)
    {"filter": check_rows, "deduplicate": check_rows, "aggregation": check_groups, "normalize": check_scale}[fields["transformation"]](
        drawn, fields, made
    )


def allowed(drawn: Drawn, fields: dict[str, Any]) -> Refusals:
    found, result = [], [one.name for one in drawn.columns]
    by_name = {one.name: one for one in drawn.columns}
    if fields["transformation"] == "filter":
        result = fields.get("columns", result)
        for one in fields["conditions"]:
            column = by_name[one["column"]]
            if one["operator"] in ORDERS and not column.is_number:
                found.append("which is not a number; '[<>=]+' compares numbers|cannot be compared with a number")
    numbers = [one for one in drawn.columns if one.is_number and one.name != fields.get("group_by")]
    if fields["transformation"] == "aggregation":
        result = [
            fields["group_by"],
            "row_count",
            *(f"{one.name}_{each}" for one in numbers for each in ("count", "sum", "mean", "min", "max")),
        ]
        found += [] if numbers else ["has no numeric column to aggregate"]
    if fields["transformation"] == "normalize":
        found += [] if numbers else ["has no numeric column to normalize"]
    if fields["transformation"] in ("aggregation", "normalize"):
        for one in numbers:
            values = [each.number for each in one.cells if each.number is not None]
            if one.sort == "double":
                if sum(abs(Fraction(each)) for each in values if math.isfinite(each)) > Fraction(10) ** 153 or not all(
                    map(math.isfinite, values)
                ):
                    found.append("is larger than a double can hold|than a double can hold")
                if values and 0 < max(values) - min(values) < 1e-139:
                    found.append("than a double can hold")
            elif sum((abs(Fraction(each)) for each in values), Fraction(0)) * 10**one.scale >= 10**38:
                found.append("Overflow in|[Oo]ut of range|Could not cast|Casting value|is larger than")
    if len(set(result)) < len(result) or (fields["format"] == "parquet" and len({one.lower() for one in result}) < len(result)):
        found.append("two columns of the result have the name|more than one column")
    return found


def check_rows(drawn: Drawn, fields: dict[str, Any], made: Made) -> None:
    by_name = {one.name: place for place, one in enumerate(drawn.columns)}
    rows, columns = drawn.rows, drawn.columns
    if fields["transformation"] == "filter":
        for one in fields["conditions"]:
            place = by_name[one["column"]]
            value = one.get("value", True) if one["operator"] == "is_missing" else one["value"]
            rows = [row for row in rows if holds(columns[place], row[place], one["operator"], value)]
        places = [by_name[one] for one in fields.get("columns", list(by_name))]
    else:
        keys = [by_name[one] for one in fields.get("columns", list(by_name))]
        ordered = rows if fields["keep"] == "first" else rows[::-1]
        seen: dict[Hashable, tuple[Cell, ...]] = {}
        for row in ordered:
            seen.setdefault(tuple(row[one].key for one in keys), row)
        rows = list(seen.values()) if fields["keep"] == "first" else list(seen.values())[::-1]
        places = list(range(len(columns)))
    compare(made, fields["format"], [columns[one] for one in places], [[row[one] for one in places] for row in rows])
    assert (made.result["rows_in"], made.result["rows_out"]) == (len(drawn.rows), len(rows))


def compare(made: Made, form: str, columns: Sequence[Column], rows: Sequence[Sequence[Cell]]) -> None:
    if form == "csv":
        assert made.rows[0] == [one.name for one in columns]
        for found, row in zip(made.rows[1:], rows, strict=True):
            for shown, cell, column in zip(found, row, columns, strict=True):
                if column.sort == "double" and not column.is_text and not cell.is_missing:
                    assert str(float(shown)) == str(cell.raw)
                elif not (cell.is_missing and not shown.strip(BLANKS)) and not (isinstance(cell.raw, float) and math.isnan(cell.raw)):
                    assert shown == cell.shown
        return
    assert made.table.column_names == [one.name for one in columns]
    found_columns = [one.to_pylist() for one in made.table.columns]
    assert made.table.num_rows == len(rows)
    for place, column in enumerate(columns):
        for found, row in zip(found_columns[place], rows, strict=True):
            check_value(found, row[place], column)


def check_value(found: Any, cell: Cell, column: Column) -> None:
    """A value of Parquet is the one of the source; one that was a text can be written back as it stood."""
    if not column.is_text:
        assert str(found) == str(cell.raw)
    elif cell.is_missing:
        assert found is None
    elif isinstance(found, bool):
        assert column.sort == "boolean"
        assert str(found).lower() == cell.shown
    elif isinstance(found, float):
        assert column.sort != "text"
        assert float(cell.shown) == found
        assert str(found) == cell.shown or "e" in cell.shown.lower()
    else:
        assert (f"{found:f}" if isinstance(found, Decimal) else str(found)) == cell.shown


def numbers_of(cells: Iterable[Cell]) -> list[Any]:
    return [one.number for one in cells if one.number is not None]


def near(found: Any, expected: Fraction, scale: Fraction | float = 0) -> bool:
    """Within 8 units in the last place of the larger of what is expected and what went into it."""
    return abs(Fraction(found) - expected) <= Fraction(2) ** -50 * max(abs(expected), Fraction(scale)) + Fraction(5e-324)


def check_groups(drawn: Drawn, fields: dict[str, Any], made: Made) -> None:
    by_name = {one.name: one for one in drawn.columns}
    group = by_name[fields["group_by"]]
    numbers = [one for one in drawn.columns if one.is_number and one is not group]
    assert made.result["values"] == [one.name for one in numbers]
    left = {one["column"] for one in made.result["columns_left_out"]}
    assert left == {one.name for one in drawn.columns if one is not group and not one.is_number}, "nothing is left out silently"
    members: dict[Hashable, list[int]] = {}
    for place, cell in enumerate(group.cells):
        members.setdefault(
            cell.key if not group.is_number or cell.number is None else cell.number if not group.is_text else cell.key, []
        ).append(place)
    header, *found = tabular(made, fields["format"])
    assert len(found) == len(members)
    remaining = dict(sorted(members.items(), key=lambda one: one[0] is not None))
    for row in found:
        key = next(key for key, places in remaining.items() if is_group(row[0], group.cells[places[0]], group))
        rows = remaining.pop(key)
        told = dict(zip(header[1:], row[1:], strict=True))
        assert int(told["row_count"]) == len(rows)
        for column in numbers:
            check_statistics(
                column, numbers_of(column.cells[one] for one in rows), {name: told[f"{column.name}_{name}"] for name in STATISTICS}
            )
    assert not remaining
    check_order(group, [row[0] for row in found])


STATISTICS = ("count", "sum", "mean", "min", "max")


def is_group(found: Any, cell: Cell, group: Column) -> bool:
    if cell.is_missing:
        return found in (None, "")
    if found in (None, ""):
        return found is not None and not cell.shown
    if isinstance(found, str):
        return found == cell.shown or (group.sort == "double" and group.is_number and float(found) == cell.number)
    is_alike: bool = found in (cell.raw, cell.number)
    return is_alike or (group.is_text and str(found).lower() == cell.shown)


def check_order(group: Column, found: Sequence[Any]) -> None:
    """A missing one first; then numbers by their value, where the type is one, and texts by their letters."""
    blanks = 2 if group.sort == "text" and not group.is_text else 1  # in Parquet a blank text is a value beside null
    assert all(one not in (None, "") for one in found[blanks:])
    there = [one for one in found if one not in (None, "")]
    if not group.is_text and group.sort in ("integer", "decimal", "double"):
        assert all(Fraction(one) <= Fraction(other) for one, other in pairwise(there))
    elif group.sort == "text":
        assert all(one.encode() < other.encode() for one, other in pairwise(there))


def check_statistics(column: Column, values: list[Any], told: dict[str, Any]) -> None:
    assert int(told["count"]) == len(values)
    if not values:
        assert Fraction(told["sum"]) == 0
        assert all(told[one] in (None, "") for one in ("mean", "min", "max"))
        return
    total = sum(map(Fraction, values), Fraction(0))
    weight = sum((abs(Fraction(one)) for one in values), Fraction(0))
    for name, expected in (("sum", total), ("min", Fraction(min(values))), ("max", Fraction(max(values)))):
        if name == "sum" and column.sort == "double":
            assert near(told[name], expected, weight)
        else:
            assert Fraction(float(told[name]) if column.sort == "double" else told[name]) == expected
    assert near(told["mean"], total / len(values), weight / len(values) if column.sort == "double" else 0)


def check_scale(drawn: Drawn, fields: dict[str, Any], made: Made) -> None:
    numbers = [one.name for one in drawn.columns if one.is_number]
    assert list(made.result["columns"]) == numbers
    _, *rows = tabular(made, fields["format"])
    assert len(rows) == len(drawn.rows)
    for place, column in enumerate(drawn.columns):
        if column.name not in numbers:
            compare(projected(made, place, fields["format"]), fields["format"], [column], [[one] for one in column.cells])
            continue
        values = [None if one.number is None else Fraction(one.number) for one in column.cells]
        there = [one for one in values if one is not None]
        low, high = min(there, default=Fraction(0)), max(there, default=Fraction(0))
        mean = sum(there, Fraction(0)) / max(len(there), 1)
        origin, width = (
            (mean, root(sum(((one - mean) ** 2 for one in there), Fraction(0)) / max(len(there), 1)))
            if fields["method"] == "z-score"
            else (low, high - low)
        )
        for value, row in zip(values, rows, strict=True):
            if value is None:
                assert row[place] in (None, "")
            else:
                expected = (value - origin) / width if width and high != low else Fraction(0)
                assert abs(Fraction(row[place]) - Fraction(expected)) <= Fraction(2) ** -42


def tabular(made: Made, form: str) -> list[list[Any]]:
    """The names, and the rows."""
    if form == "csv":
        return [list(one) for one in made.rows]
    return [list(made.table.column_names), *(list(one) for one in zip(*(one.to_pylist() for one in made.table.columns), strict=True))]


def root(square: Fraction) -> Fraction:
    """With 60 digits."""
    return Fraction(Decimal(square.numerator).sqrt(Context(prec=1000))) / Fraction(Decimal(square.denominator).sqrt(Context(prec=1000)))


def projected(made: Made, place: int, form: str) -> Made:
    """One column of a result, as a result."""
    if form == "parquet":
        return Made(parquet(made.table.select([place])), made.result)
    body = io.StringIO(newline="")
    csv.writer(body).writerows([one[place]] for one in made.rows)
    return Made(body.getvalue().encode(), made.result)


FOUND = [
    ("utf-8-sig", '"a\nb",x\n1,2\n3,4\n', [["a\nb", "x"], ["1", "2"], ["3", "4"]]),
    ("utf-8", 'x,"X\r"\n1,2\n3,4\n', [["x", "X"], ["1", "2"], ["3", "4"]]),
    ("utf-8", 'x,y\n1,"a\r"\n3,4\n', [["x", "y"], ["1", "a\r"], ["3", "4"]]),
    ("utf-16", 'x,"q\rr"\n1,"a\n"\n', [["x", "q\rr"], ["1", "a\n"]]),
]


@pytest.mark.parametrize(("encoding", "source", "rows"), FOUND)
def test_found_by_generated_tables(encoding: str, source: str, rows: list[list[str]]) -> None:
    assert transformed(source.encode(encoding), of="x", quote='"').rows == rows


def test_a_group_of_decimals_below_one_stands_as_it_stood() -> None:
    source = "g,x\n0.123456789012345678,1\n-0.000000000000000001,2\n"
    made = transformed(source, transformation="aggregation", group_by="g", values=[])
    assert made.rows[1:] == [["-0.000000000000000001", "1"], ["0.123456789012345678", "1"]]


def test_a_lone_carriage_return_in_json_is_kept() -> None:
    source = json.dumps({"x": 1, "a\rb": "c\r", "X": "\r"}) + "\n"
    assert transformed(source, "t.jsonl").rows == [["x", "a\rb", "X"], ["1", "c\r", "\r"]]


@settings(max_examples=25)
@given(st.data())
def test_a_generated_table_is_computed_with_exactly_or_refused(data: st.DataObject) -> None:
    drawn = data.draw(TABLES)
    checked(drawn, data.draw(tasks(drawn)))


@pytest.mark.slow
@settings(max_examples=150)
@given(st.data())
def test_many_generated_tables_are_computed_with_exactly_or_refused(data: st.DataObject) -> None:
    drawn = data.draw(TABLES)
    checked(drawn, data.draw(tasks(drawn)))
