"""Numbers: sums, minima, maxima and means, new scales, and conditions, beside Python's own Decimal, Fraction and math.

Integers and decimals are exact. A sum of doubles lies within 2 units in the last place of `math.fsum`, measured by the sum of the absolute
values: so much may cancel.
"""

from __future__ import annotations

import math
import operator
import random
import shutil
import statistics
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from batch.handlers.tables.conditions import Condition, chosen
from batch.handlers.tables.engine import opened
from batch.handlers.tables.opening import opened_source
from batch.handlers.tables.options import ReadOptions
from batch.model.errors import Permanent
from tests.batch.handlers.tables import Made, parquet, transformed

METHODS = ("z-score", "min-max")
ULP = 2.0**-52


def of(cells: list[str], **fields: Any) -> Made:
    """A CSV source with the column x, and g that is always `a`."""
    return transformed("g,x\n" + "".join(f"a,{one}\n" for one in cells), **fields)


def statistics_of(cells: list[str], **fields: Any) -> dict[str, str]:
    header, row = of(cells, transformation="aggregation", group_by="g", **fields).rows
    return {name.removeprefix("x_"): cell for name, cell in zip(header, row, strict=True)}


# --- aggregation


@pytest.mark.parametrize(
    "cells",
    [
        ["9007199254740993", "9007199254740993", "1"],
        ["9223372036854775807", "9223372036854775807", "-9223372036854775808"],
        ["9" * 37, "8" * 37, "-" + "7" * 37],
        ["12345678901234567890123.45", "0.01", "-0.46"],
        ["0.1", "0.25", "100", "-3.000000000000000000001"],
        ["0." + "1" * 38, "-0." + "2" * 38],
        ["-0", "0", "+5", ".5", "5."],
    ],
)
def test_integers_and_decimals_are_exact(cells: list[str]) -> None:
    numbers = [Fraction(one.rstrip(".")) for one in cells]
    told = statistics_of(cells)
    assert (int(told["row_count"]), int(told["count"])) == (len(cells), len(cells))
    assert [Fraction(told[one]) for one in ("sum", "min", "max")] == [sum(numbers), min(numbers), max(numbers)]
    assert float(told["mean"]) == pytest.approx(float(sum(numbers) / len(numbers)), rel=4 * ULP)


def test_a_sum_beyond_38_digits_is_refused() -> None:
    for cells in (["9" * 38, "1"], ["9" * 38] * 2, ["-" + "9" * 38, "-1"]):
        with pytest.raises(Permanent, match=r"^t.csv: .*(Overflow|out of range|cast)"):
            statistics_of(cells)
    assert statistics_of(["9" * 38, "-1"])["sum"] == "9" * 37 + "8"
    largest = pa.array([2**64 - 1] * 3, pa.uint64())
    made = transformed(parquet({"g": ["a"] * 3, "x": largest}), transformation="aggregation", group_by="g")
    assert made.rows[1][3] == str(3 * (2**64 - 1))


def test_sums_of_doubles_are_near_those_of_fsum_however_much_cancels() -> None:
    rng = random.Random(7)
    several = [rng.uniform(-1, 1) * 10 ** rng.randint(-20, 20) for _ in range(2000)]
    for values in ([1e16, 1.0, -1e16], [1.0, 1e100, 1.0, -1e100], [0.1] * 10, several, [5e-324, -0.0], [1.7e308, 1e292, -1.7e308]):
        made = transformed(parquet({"g": ["a"] * len(values), "x": values}), transformation="aggregation", group_by="g", format="parquet")
        (row,) = made.table.to_pylist()
        weight = sum(abs(Fraction(one)) for one in values)
        assert abs(Fraction(row["x_sum"]) - Fraction(math.fsum(values))) <= Fraction(2 * ULP) * weight + Fraction(math.ulp(row["x_sum"]))
        assert (row["x_min"], row["x_max"]) == (min(values), max(values))
    with pytest.raises(Permanent, match=r"^t.csv: the sum of column 'x' is larger than a double can hold; aggregate smaller numbers$"):
        transformed(parquet({"g": ["a", "a"], "x": [1.7e308, 1.7e308]}), transformation="aggregation", group_by="g")


def test_doubles_as_python_writes_them_are_doubles() -> None:
    numbers = [0.12345678901234568, -5.8e-05, 123.45678901234567, 1.2345678901234567e22]
    source = "g,x\n" + "".join(f"a,{one!r}\n" for one in numbers)
    made = transformed(source, transformation="aggregation", group_by="g")
    assert [float(one) for one in made.rows[1][3:]] == [sum(numbers), sum(numbers) / 4, min(numbers), max(numbers)]
    with pytest.raises(Permanent, match="numbers of more than 15 digits, which a double does not hold"):
        transformed(source + "a,0.12345678901234567\n", transformation="aggregation", group_by="g")


def test_missing_numbers_count_nowhere_and_a_group_may_have_none() -> None:
    source = parquet({"g": ["a", "a", "b", None], "x": [1.5, math.nan, math.nan, None], "y": pa.array([1, None, None, 2], pa.int64())})
    made = transformed(source, transformation="aggregation", group_by="g", format="parquet")
    assert [list(one.values()) for one in made.table.to_pylist()] == [
        [None, 1, 0, 0.0, None, None, None, 1, Decimal(2), 2.0, 2, 2],
        ["a", 2, 1, 1.5, 1.5, 1.5, 1.5, 1, Decimal(1), 1.0, 1, 1],
        ["b", 1, 0, 0.0, None, None, None, 0, Decimal(0), None, None, None],
    ]
    grouped = transformed(source, transformation="aggregation", group_by="x", values=[])
    assert grouped.rows == [["x", "row_count"], ["", "3"], ["1.5", "1"]], "NaN is a missing number, and the group of those is one"


def test_nan_is_missing_whatever_the_statistics_of_the_file_say() -> None:
    values = [0.0, math.nan, 1.0, math.nan, 2.0, 3.0]
    source = parquet({"x": values, "id": list(range(6))}, row_group_size=2)
    expected: list[tuple[dict[str, Any], list[int]]] = [
        ({"operator": "is_missing"}, [1, 3]),
        ({"operator": "is_missing", "value": False}, [0, 2, 4, 5]),
        ({"operator": ">", "value": 0}, [2, 4, 5]),
        ({"operator": "!=", "value": 1}, [0, 4, 5]),
        ({"operator": "in", "value": [3, 0.0]}, [0, 5]),
    ]
    for condition, rows in expected:
        made = transformed(source, conditions=[{"column": "x", **condition}], columns=["id"], format="parquet")
        assert made.table.column("id").to_pylist() == rows
        assert made.result["read"]["columns"][0]["null_count"] == 2


@pytest.mark.parametrize("form", ["csv", "parquet"])
@pytest.mark.parametrize("source", ["row_count,x\n1,2\n", "x_sum,x\n1,2\n"])
def test_a_result_has_no_name_twice(source: str, form: str) -> None:
    with pytest.raises(
        Permanent, match=r"^t.csv: two columns of the result have the name '(row_count|x_sum)'.*; name other columns, or rename one"
    ):
        transformed(source, transformation="aggregation", group_by=source.partition(",")[0], format=form)


# --- normalize


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "cells",
    [
        ["1000000000000004", "1000000000000007", "1000000000000013", "1000000000000016"],
        ["10000000000000000", "10000000000000002"],
        ["12345678901234567890123.45", "12345678901234567890123.46", "12345678901234567890123.49"],
        ["0", "1000000000000000.001", "1000000000000000.002"],
        ["1e-100", "3e-100", "2e-100"],
        ["1e100", "-3e100"],
        ["1", "2", "4", "", "8"],
    ],
)
def test_a_new_scale_is_that_of_exact_arithmetic(cells: list[str], method: str) -> None:
    numbers = [Fraction(one) for one in cells if one]
    made = of(cells, transformation="normalize", method=method, format="parquet")
    if method == "z-score":
        origin = statistics.mean(numbers)
        square = sum(((one - origin) * (one - origin) for one in numbers), Fraction(0)) / len(numbers)
        width = Fraction((Decimal(square.numerator) / Decimal(square.denominator)).sqrt())
        facts = made.result["columns"]["x"]
        assert facts["mean"] == pytest.approx(float(origin), rel=2 * ULP)
        assert facts["stdev"] == pytest.approx(float(width), rel=4 * ULP)
    else:
        origin, width = min(numbers), max(numbers) - min(numbers)
    found = made.table.column("x").to_pylist()
    assert [one is None for one in found] == [not one for one in cells]
    expected = [float((one - origin) / width) for one in numbers]
    assert [one for one in found if one is not None] == pytest.approx(expected, rel=1e-14, abs=1e-14)


@pytest.mark.slow
def test_the_same_source_makes_the_same_data_however_many_threads_read_it() -> None:
    rng = random.Random(3)
    values = [rng.uniform(-1, 1) * 10 ** rng.randint(-8, 8) for _ in range(250_000)]
    source = parquet({"g": ["a"] * len(values), "x": values}, row_group_size=10_000)
    fields: list[dict[str, Any]] = [{"transformation": "normalize"}, {"transformation": "aggregation", "group_by": "g"}]
    for one in fields:
        assert len({transformed(source, format="parquet", **one).data for _ in range(3)}) == 1
    facts = transformed(source, transformation="normalize", format="parquet").result["columns"]["x"]
    mean = math.fsum(values) / len(values)
    assert facts["mean"] == pytest.approx(mean, abs=8 * ULP * math.fsum(map(abs, values)) / len(values))
    assert facts["stdev"] == pytest.approx(math.sqrt(math.fsum((one - mean) ** 2 for one in values) / len(values)), rel=8 * ULP)


@pytest.mark.parametrize("method", METHODS)
def test_a_constant_column_becomes_zeros_and_missing_values_stay(method: str) -> None:
    for cells in (["0.1", "", "0.1"], ["7"], ["9" * 38, ""]):
        made = of(cells, transformation="normalize", method=method)
        assert [row[1] for row in made.rows[1:]] == ["0.0" if one else "" for one in cells]
        facts = made.result["columns"]["x"]
        assert (facts["constant"], facts["count"], facts["missing_count"]) == (True, len(cells) - cells.count(""), cells.count(""))
    empty = transformed("g,x\n1,\n3,\n", transformation="normalize", method=method, columns=["x"])
    assert empty.data == b"g,x\n1,\n3,\n"
    assert empty.result["columns"] == {"x": {"count": 0, "missing_count": 2}}


@pytest.mark.parametrize("values", [[1.7e308, -1.7e308], [1e200, -1e200], [5e-324, 0.0], [1e-160, 3e-160]])
def test_what_a_double_cannot_hold_is_right_or_refused(values: list[float]) -> None:
    for method in METHODS:
        try:
            made = transformed(parquet({"x": values}), transformation="normalize", method=method, format="parquet")
        except Permanent as refused:
            what = r"^t.csv: column 'x' cannot be normalized: from .* to .* is more, or less, than a double can hold$"
            with pytest.raises(Permanent, match=what):
                raise refused
            assert method == "z-score" or max(values) > 1e308
        else:
            low, high = min(values), max(values)
            assert method == "min-max"
            assert made.table.column("x").to_pylist() == [float((one - low) / (high - low)) for one in values]


def test_a_difference_beyond_38_digits_is_refused() -> None:
    with pytest.raises(Permanent, match=r"^t.csv: .*([Oo]verflow|out of range)"):
        of(["9" * 38, "-" + "9" * 38], transformation="normalize")


# --- conditions

ORDERS: dict[Any, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
VALUES = (0, -0.0, 1, 0.1, -0.5, 1.005, 1.01, 10**37, -(10**37), 10**38 - 1, 1e300, -1e300, 5e-324, 2**53, 2**53 + 1, 2**53 - 1)
CELLS = {
    "integers": ["0", "1", "-1", str(2**53), str(2**53 + 1), "1" + "0" * 37],
    "decimals": ["0.00", "1.00", "1.01", "-0.50", "0.10", "9007199254740993.00"],
    "digits": ["0." + "0" * 38, "0." + "1" * 38, "-0." + "5" * 38],
    "doubles": ["0", "0.1", "1e300", "-1e300", "9007199254740992", "5e-324"],
}


@pytest.mark.parametrize("kind", CELLS)
def test_numbers_compare_exactly(kind: str, tmp_path: Path) -> None:
    """Also with values of more digits than the column has, and beside doubles with integers that no double is."""
    cells = CELLS[kind]
    stored = [Fraction(float(one)) if kind == "doubles" else Fraction(one) for one in cells]
    source = "g,x\n" + "".join(f"a,{one}\n" for one in cells)
    (tmp_path / "t").write_bytes(parquet({"x": list(map(float, cells))}) if kind == "doubles" else source.encode())
    with opened("t.csv", 1 << 20) as engine:
        copied = shutil.copy(tmp_path / "t", engine.folder / "source")
        table = opened_source(engine, "t.csv", Path(copied), ReadOptions())
        place = len(table.columns) - 1
        for value in VALUES:
            exact = Fraction(value) if kind == "doubles" or isinstance(value, int) else Fraction(repr(value))
            for named, compare in ORDERS.items():
                sql = chosen(table, [Condition(column="x", operator=named, value=value)])
                found = [Fraction(one) for (one,) in engine.rows(f"SELECT c{place} FROM source WHERE {sql}")]
                assert found == [number for number in stored if compare(number, exact)], (value, named)


def test_a_thousand_values_in_columns_of_numbers_and_of_texts() -> None:
    values = [one + 0.5 if one % 2 else one for one in range(998)] + ["x1", True]
    source = "n,t,d\n" + "".join(f"{one},{'x' if one == 1 else ''}{one}.50,{one}.5\n" for one in range(1200))
    for column in ("n", "t", "d"):
        made = transformed(source, conditions=[{"column": column, "operator": "in", "value": values}])
        cells = [row["ntd".index(column)] for row in made.rows[1:]]
        halves = [f"{one}.5" for one in range(1, 998, 2)]
        expected = {"n": [str(one) for one in range(0, 998, 2)], "t": [f"{one}0" for one in halves[1:]], "d": halves}
        assert cells == expected[column]


TIMES = pa.array([0, 3_600_000_000, 123_456, None], pa.timestamp("us"))


@pytest.mark.parametrize(
    ("condition", "rows"),
    [
        ({"value": "1970-01-01"}, [0]),
        ({"value": "1970-01-01T01:00:00+01:00"}, [0]),
        ({"value": "1970-01-01 02:00+01"}, [1]),
        ({"operator": ">=", "value": "1970-01-01T00:00:00-01:00"}, [1]),
        ({"operator": "in", "value": ["1970-01-01T01:00:00Z", "1970-01-01T00:00:00.123456000"]}, [1, 2]),
        ({"value": "1970-01-01T00:00:00.123456789"}, []),
        ({"operator": "<", "value": "1970-01-01T00:00:00.123456789"}, [0, 2]),
        ({"operator": "!=", "value": "1970-01-01"}, [1, 2]),
    ],
)
@pytest.mark.parametrize("zone", [None, "UTC"])
def test_times_compare_as_instants(condition: dict[str, Any], rows: list[int], zone: str | None) -> None:
    source = parquet({"x": TIMES.cast(pa.timestamp("us", zone)), "id": [0, 1, 2, 3]})
    made = transformed(source, conditions=[{"column": "x", **condition}], columns=["id"])
    assert [row[0] for row in made.rows[1:]] == [str(one) for one in rows]


def test_nanoseconds_compare_to_the_last() -> None:
    source = parquet({"x": pa.array([123_456_789, 123_456_000], pa.timestamp("ns")), "id": [0, 1]})
    for named, rows in (("=", ["0"]), (">", []), ("<", ["1"])):
        condition = {"column": "x", "operator": named, "value": "1970-01-01T00:00:00.123456789"}
        assert [row[0] for row in transformed(source, conditions=[condition], columns=["id"]).rows[1:]] == rows


@pytest.mark.parametrize(
    "value", ["x", "1970-02-30", "1970-1-1", "1970-01-01.5", "1970-01-01T00:00.5", "10000-01-01", "0001-01-01T00:00+01"]
)
def test_what_is_no_time_does_not_compare_with_one(value: str) -> None:
    for named, wanted in (("=", value), (">", value), ("in", ["1970-01-01", value])):
        with pytest.raises(Permanent) as refused:
            transformed(parquet({"x": TIMES}), conditions=[{"column": "x", "operator": named, "value": wanted}])
        what = "t.csv: column 'x' holds values of type timestamp: compare it with a date such as 2026-01-31, or a time such as"
        assert str(refused.value) == f"{what} 2026-01-31T12:00:00Z, not {value!r}"


# --- the types that a task names

WRONG: dict[str, list[str]] = {
    "integer": ["1.5", "1e5", "x", "١٢", "1,000", "1 0", "--1", "0x10", "true"],
    "decimal": ["1e5", "inf", "nan", "x", "1,5", "."],
    "double": ["inf", "nan", "1e400", "-1e400", "x", "e5"],
    "boolean": ["0", "1", "t", "ja", "x"],
    "date": ["2026-02-30", "2026-1-1", "infinity", "0000-01-01", "2026-01-01T00:00:00", "10000-01-01", "01.02.2026"],
    "timestamp": ["2026-01-01T12:00:00.123456789", "epoch", "infinity", "2026-01-01T25:00", "2026-01-01T", "2026-02-30", "1767322800",
        "0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00", "2026-01-01T00:00:00+24:00", "2026-01-01T00:00:00+01:60"],
}  # fmt: skip
RIGHT: dict[str, list[tuple[str, Any]]] = {
    "text": [("007", "007"), ("+5", "+5"), ("1.10", "1.10")],
    "integer": [("007", 7), ("+5", 5), (" 7 ", 7), ("-0", 0), (str(2**60), 2**60), ("5.", 5)][:5],
    "decimal": [("1.5", Decimal("1.50")), ("+.25", Decimal("0.25")), ("-007", Decimal("-7.00"))],
    "double": [("1e5", 1e5), ("0.1", 0.1), ("1" * 50, float("1" * 50)), ("-0.0", -0.0)],
    "boolean": [("yes", True), ("No", False), ("TRUE", True), (" false", False)],
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_cell_that_is_not_of_its_type_is_refused_with_line_and_cell(kind: str) -> None:
    good = {"boolean": "yes", "date": "2026-01-31", "timestamp": "2026-01-31"}.get(kind, "1")
    for cell in WRONG[kind]:
        with pytest.raises(Permanent) as refused:
            transformed(f'id,x\n1,{good}\n2,\n3,"{cell}"\n', of="id", types={"x": kind})
        assert str(refused.value) == f"t.csv, line 4: column 'x' holds {cell!r}, which is no {kind}"


@pytest.mark.parametrize("kind", RIGHT)
def test_a_stated_type_is_that_of_the_result_and_blanks_stay_missing(kind: str) -> None:
    cells = "".join(f'{place},"{cell}"\n' for place, (cell, _) in enumerate(RIGHT[kind]))
    for form in ("csv", "parquet"):
        made = transformed(f"id,x\n9,\n{cells}", of="id", types={"x": kind}, format=form)
        found = made.table.column("x").to_pylist() if form == "parquet" else [row[1] for row in made.rows[1:]]
        expected = [None, *(value for _, value in RIGHT[kind])]
        told = [str(one).lower() if isinstance(one, bool) else str(one) for one in expected[1:]]
        assert [str(one) for one in found] == (list(map(str, expected)) if form == "parquet" else ["", *told])


def test_of_values_that_a_stated_type_makes_alike_one_is_kept() -> None:
    source = "x,y\n1.0,yes\n1.00,true\n01.0, YES\n2,no\n"
    types = {"x": "decimal", "y": "boolean"}
    assert transformed(source, transformation="deduplicate", types=types).rows[1:] == [["1.00", "true"], ["2.00", "false"]]
    assert len(transformed(source, transformation="deduplicate").rows) == 5


def test_stated_dates_and_times() -> None:
    source = "id,x\n1,2026-01-31\n2,\n"
    assert transformed(source, of="id", types={"x": "date"}, format="parquet").table.schema.field("x").type == pa.date32()
    assert transformed(source, of="id", types={"x": "timestamp"}).rows[1] == ["1", "2026-01-31 00:00:00"]
    source = "id,x\n1,2026-01-31T12:00:00+05:30\n2,2026-01-31 06:30:00.5Z\n3,\n"
    made = transformed(source, of="id", types={"x": "timestamp"}, format="parquet")
    assert made.table.schema.field("x").type == pa.timestamp("us", "UTC")
    assert made.table.column("x").cast(pa.int64()).to_pylist() == [1_769_841_000_000_000, 1_769_841_000_500_000, None]
    with pytest.raises(Permanent) as refused:
        transformed("id,x\n1,2026-01-31T12:00:00Z\n2,2026-01-31T12:00:00\n", of="id", types={"x": "timestamp"})
    what = "some of its timestamps have an offset from UTC and others have none; write all alike"
    assert str(refused.value) == f"t.csv: column 'x': {what}"
