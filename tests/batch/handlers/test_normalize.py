"""Normalizing and aggregating as arithmetic: laws that hold for any numbers, and the standard library's own statistics."""

from __future__ import annotations

import math
import statistics
from array import array
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batch.handlers.tables.measures import groups_of, numbers_of
from batch.handlers.tables.numeric import Method, aggregated, header, normalized, spread, total
from batch.handlers.tables.table import read_table
from batch.model.errors import Permanent

quick = settings(deadline=None, database=None, max_examples=100)
DOUBLE = st.floats(allow_nan=False, allow_infinity=False)
MODEST = st.floats(-1e6, 1e6, allow_subnormal=False)
METHODS: list[Method] = ["z-score", "min-max"]


def scaled(values: list[float], method: Method) -> list[float]:
    return list(normalized(array("d", values), method)[0])


@quick
@given(st.lists(DOUBLE, min_size=2).filter(lambda values: min(values) != max(values)))
def test_z_scores_have_mean_0_and_deviation_1(values: list[float]) -> None:
    scores = scaled(values, "z-score")
    assert statistics.fmean(scores) == pytest.approx(0, abs=1e-9)
    assert statistics.pstdev(scores) == pytest.approx(1, rel=1e-9)


@quick
@given(st.lists(DOUBLE, min_size=2).filter(lambda values: min(values) != max(values)))
def test_min_max_spans_exactly_0_to_1_and_keeps_the_order(values: list[float]) -> None:
    shares = scaled(values, "min-max")
    assert (min(shares), max(shares)) == (0.0, 1.0)
    for one, other, before, after in zip(values, values[1:], shares, shares[1:], strict=False):
        assert (before <= after) if one <= other else (before >= after)


@quick
@given(st.lists(MODEST, min_size=2).filter(lambda values: max(values) - min(values) > 1e-3))
def test_z_scores_are_those_of_the_standard_library(values: list[float]) -> None:
    mean, deviation = statistics.mean(map(Fraction, values)), statistics.pstdev(map(Fraction, values))
    expected = [float((Fraction(value) - mean) / Fraction(deviation)) for value in values]
    assert scaled(values, "z-score") == pytest.approx(expected, rel=1e-9, abs=1e-9)
    facts = normalized(array("d", values), "z-score")[1]
    assert facts["mean"] == pytest.approx(float(mean), rel=1e-12, abs=1e-12)
    assert facts["stdev"] == pytest.approx(float(deviation), rel=1e-12)


def test_a_large_offset_does_not_cost_the_digits() -> None:
    values = [1e9 + value for value in (4.0, 7.0, 13.0, 16.0)]
    facts = normalized(array("d", values), "z-score")[1]
    assert facts["stdev"] == math.sqrt(22.5)
    assert scaled([1e16, 1e16 + 2], "z-score") == [-1.0, 1.0]


@pytest.mark.parametrize("values", [[1e308, -1e308, 1.5e308], [5e-324, 0.0, 1e-323], [1.7e308, 1.7e308, -1.7e308]])
@pytest.mark.parametrize("method", METHODS)
def test_the_largest_and_smallest_doubles_neither_overflow_nor_vanish(values: list[float], method: Method) -> None:
    data, facts = normalized(array("d", values), method)
    assert all(math.isfinite(value) for value in data)
    assert len(set(data)) == len(set(values))
    assert all(math.isfinite(value) for value in facts.values())


@pytest.mark.parametrize("method", METHODS)
def test_constant_columns_become_zeros_and_missing_values_stay(method: Method) -> None:
    data, facts = normalized(array("d", [0.1, math.nan, 0.1, 0.1]), method)
    assert [repr(value) for value in data] == ["0.0", "nan", "0.0", "0.0"]
    assert facts["constant"] is True
    assert (facts["count"], facts["missing_count"]) == (3, 1)
    data, facts = normalized(array("d", [math.nan]), method)
    assert math.isnan(data[0])
    assert facts == {"count": 0, "missing_count": 1}


@pytest.mark.parametrize("method", METHODS)
@quick
@given(st.lists(MODEST, min_size=1), st.lists(st.integers(0, 50)))
def test_missing_values_change_nothing_for_the_others(method: Method, values: list[float], places: list[int]) -> None:
    holed = list(values)
    for place in places:
        holed.insert(place, math.nan)
    assert [value for value in scaled(holed, method) if not math.isnan(value)] == scaled(values, method)


@quick
@given(st.lists(DOUBLE, min_size=1))
def test_totals_are_exact(values: list[float]) -> None:
    exact = sum(map(Fraction, values))
    try:
        expected = float(exact)
    except OverflowError:
        with pytest.raises(OverflowError):
            total(values)
    else:
        assert total(values) == pytest.approx(expected, rel=1e-15)
    assert spread(values).mean == pytest.approx(float(exact / len(values)), rel=1e-12, abs=max(map(abs, values)) * 1e-15)


@quick
@given(st.lists(st.tuples(st.sampled_from(["a", "b", "c", ""]), st.none() | MODEST), min_size=1))
def test_groups_are_the_rows_they_were_made_of(rows: list[tuple[str, float | None]]) -> None:
    names = sorted({group for group, _ in rows})
    places = [names.index(group) for group, _ in rows]
    column = array("d", [math.nan if value is None else value for _, value in rows])
    made = list(aggregated(names, places, {"x": column}))
    assert [row[0] for row in made] == names
    assert sum(int(str(row[1])) for row in made) == len(rows)
    for name, row_count, count, whole, mean, low, high in made:
        values = [value for group, value in rows if group == name and value is not None]
        assert row_count == sum(group == name for group, _ in rows)
        assert (count, whole) == (len(values), math.fsum(values))
        assert (low, high) == ((min(values), max(values)) if values else ("", ""))
        assert mean == (pytest.approx(statistics.fmean(values), rel=1e-12, abs=1e-9) if values else "")


def test_a_sum_beyond_doubles_is_refused_and_one_within_is_not() -> None:
    assert total([1.7e308, 1.7e308, -1.7e308]) == 1.7e308
    with pytest.raises(Permanent, match="column 'x' in group 'g' is larger than a double"):
        list(aggregated(["g"], [0, 0], {"x": array("d", [1.7e308, 1.7e308])}))


def test_the_header_names_every_cell() -> None:
    (row,) = aggregated(["g"], [0], {"x": array("d", [1.0]), "y": array("d", [2.0])})
    assert len(header("group", ["x", "y"])) == len(row)


def test_numeric_columns_are_found_and_others_left_out() -> None:
    table = read_table("t.csv", b"a,b,c,d,e\n1,x,,1.5,3\n2,1,,,x\n,2,,-1e3,4\n")
    row_count, numbers = numbers_of(table, None)
    assert row_count == 3
    assert list(numbers) == ["a", "d"], "not the column of texts, nor the empty one"
    assert list(numbers["a"])[:2] == [1.0, 2.0]
    assert math.isnan(numbers["a"][2])
    assert list(numbers_of(table, None, leave_out="a")[1]) == ["d"]
    assert list(numbers_of(table, ["c"])[1]) == ["c"], "asked for, so kept although it is empty"
    with pytest.raises(Permanent, match="row 1: column 'b' holds 'x', which is not a number"):
        numbers_of(table, ["a", "b"])


def test_groups_are_sorted_and_blank_is_one() -> None:
    names, rows = groups_of(read_table("t.csv", b"g,x\nb,1\n,2\na,3\nb,4\n"), "g")
    assert names == ["", "a", "b"]
    assert list(rows) == [2, 0, 1, 2]
