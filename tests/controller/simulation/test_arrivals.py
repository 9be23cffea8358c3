"""Arrivals out of a file, and out of Cloud Monitoring's series."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from batch.model.errors import SettingsError
from controller.simulation.given.arrivals import arrivals_from_csv, arrivals_from_series, by_second, total


def test_seconds_and_counts_are_read() -> None:
    assert arrivals_from_csv("time,count\n0,3\n1.2, 4\n1.9,1\n\n60,0\n61,7\n") == ((0.0, 3), (1.0, 5), (61.0, 7))


def test_moments_count_from_the_first() -> None:
    text = "\ufeffTime,Count\n2026-11-30T08:00:00Z,3\n2026-11-30T10:00:30+02:00,4\n2026-11-30T08:01:00,5\n"
    assert arrivals_from_csv(text) == ((0.0, 3), (30.0, 4), (60.0, 5))


@pytest.mark.parametrize(
    ("text", "line", "value"),
    [
        ("", 1, "''"),
        ("at,count\n0,1\n", 1, "'at,count'"),
        ("time,count\n5,1\n4,1\n", 3, "'4'"),
        ("time,count\n-1,1\n", 2, "'-1'"),
        ("time,count\n0,1\n0,-2\n", 3, "'-2'"),
        ("time,count\n0,two\n", 2, "'two'"),
        ("time,count\n0,1.5\n", 2, "'1.5'"),
        ("time,count\nnan,1\n", 2, "'nan'"),
        ("time,count\ninf,1\n", 2, "'inf'"),
        ("time,count\n1e300,1\n", 2, "'1e300'"),
        ("time,count\n0,99999999999999999999\n", 2, "'99999999999999999999'"),
        ("time,count\nsoon,1\n", 2, "'soon'"),
        ("time,count\n0\n", 2, "'0'"),
        ("time,count\n0,1,2\n", 2, "'0,1,2'"),
        ("time,count\n0,\n", 2, "''"),
        ("time,count\n0,1\n2026-11-30T08:00:00Z,1\n", 3, "'2026-11-30T08:00:00Z'"),
        ("time,count\n2026-11-30T08:00:00Z,1\n60,1\n", 3, "'60'"),
        ("time,count\n2026-11-30T08:00:00Z,1\n2026-11-30T07:00:00Z,1\n", 3, "'2026-11-30T07:00:00Z'"),
        ("time,count\n0,1\n" + "x" * 500 + ",1\n", 3, "'xxx"),
        ('time,count\n0,"1\n', 2, "'unexpected end of data'"),
    ],
)
def test_a_wrong_line_is_named_with_its_value(text: str, line: int, value: str) -> None:
    with pytest.raises(SettingsError) as raised:
        arrivals_from_csv(text)
    said = str(raised.value)
    assert said.startswith(f"arrivals, line {line}: ")
    assert value in said
    assert "\n" not in said
    assert len(said) < 200


@pytest.mark.parametrize("text", ["time,count\n", "time,count\n0,0\n", "time,count\n0,1000000000\n1,1\n"])
def test_a_file_with_nothing_or_too_much_in_it_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match=r"arrivals: [\d,]+ messages in \d lines?, from 1 to 1,000,000,000 are expected"):
        arrivals_from_csv(text)


@settings(max_examples=60)
@given(st.text(alphabet='time,count\n0123456789.-:TZ+naif "\0\r', max_size=60))
@example('time,count\n"' + "1" * 140_000)
def test_any_text_is_arrivals_or_a_settings_error(text: str) -> None:
    for one in (text, "time,count\n" + text):
        try:
            arrivals = arrivals_from_csv(one)
        except SettingsError as error:
            said = str(error)
        else:
            said = ""
            assert total(arrivals) > 0
            assert arrivals == by_second(arrivals)
        assert "\n" not in said


@given(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 10_000)), min_size=1, max_size=20))
@settings(max_examples=30)
def test_what_is_written_is_read(lines: list[tuple[int, int]]) -> None:
    lines.sort()
    text = "time,count\n" + "".join(f"{at_s},{count}\n" for at_s, count in lines)
    if sum(count for _, count in lines):
        assert arrivals_from_csv(text) == by_second((float(at_s), count) for at_s, count in lines)


def test_a_minute_is_spread_evenly() -> None:
    start = 1_800_000_000.0
    arrivals = arrivals_from_series([(start + 120, 60), (start + 60, 2), (start + 240, 150)])  # newest first or not
    assert arrivals[:2] == ((14.0, 1), (44.0, 1))
    assert arrivals[2:62] == tuple((60.0 + second, 1) for second in range(60))
    assert total(arrivals[62:]) == 150
    assert {count for _, count in arrivals[62:]} == {2, 3}
    assert arrivals[62][0] >= 180


@given(st.lists(st.tuples(st.integers(1, 30), st.integers(0, 5000)), max_size=10))
@settings(max_examples=30)
def test_no_message_of_a_series_is_lost(points: list[tuple[int, int]]) -> None:
    series = [(minute * 60.0, count) for minute, count in points]
    arrivals = arrivals_from_series(series)
    assert total(arrivals) == sum(count for _, count in points)
    assert arrivals == arrivals_from_series(reversed(series))


@pytest.mark.parametrize("point", [(float("nan"), 1), (float("inf"), 1), (60.0, -1)])
def test_a_point_that_is_none_is_refused(point: tuple[float, int]) -> None:
    with pytest.raises(SettingsError, match="a time and a count of 0 or more"):
        arrivals_from_series([(120.0, 5), point])
