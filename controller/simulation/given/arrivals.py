"""When messages arrive: a tuple of (whole seconds since the start, count), in order, at most one a second, no count of 0.

They come from a pattern, from a file of `time,count` or from the series that Cloud Monitoring keeps of what was published.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from io import StringIO
from math import isfinite

from batch.model.errors import SettingsError

Arrivals = tuple[tuple[float, int], ...]
MINUTE_S = 60
LONGEST_S = 366 * 86400.0
"""How far from its start a simulation may go."""
MOST_MESSAGES = 10**9
_HEADER = ["time", "count"]
_SHOWN = 40


def total(arrivals: Arrivals) -> int:
    """How many messages arrive."""
    return sum(count for _, count in arrivals)


def by_second(arrivals: Iterable[tuple[float, int]], horizon_s: float = LONGEST_S) -> Arrivals:
    """Counts of the same whole second in one entry, in order; what lies before the start or at the horizon and later is left out."""
    counts: dict[float, int] = {}
    for at_s, count in arrivals:
        if 0 <= at_s < horizon_s and count > 0:
            second = float(int(at_s))
            counts[second] = counts.get(second, 0) + count
    return tuple(sorted(counts.items()))


def arrivals_from_series(points: Iterable[tuple[float, int]]) -> Arrivals:
    """From a series of deltas as Cloud Monitoring gives it, in any order: each point is (end of its minute in seconds since 1970, what was
    published in that minute). The start is that of the first minute; a minute's messages are spread evenly over its seconds. Points of the
    same minute (several series) add up. Raises SettingsError for a time or count that is none."""
    known = list(points)
    for end_s, count in known:
        if not isfinite(end_s) or count < 0:
            raise SettingsError([f"the series has the point ({end_s:g}, {count}): a time and a count of 0 or more are expected"])
    if not known:
        return ()
    start_s = min(end_s for end_s, _ in known) - MINUTE_S
    return by_second(piece for end_s, count in known for piece in _spread(end_s - MINUTE_S - start_s, count))


def _spread(start_s: float, count: int) -> Iterator[tuple[float, int]]:
    """A minute's messages over its 60 seconds, the same each time."""
    done = 0
    for second in range(MINUTE_S):
        due = ((second + 1) * count + MINUTE_S // 2) // MINUTE_S
        yield start_s + second, due - done
        done = due


def arrivals_from_csv(text: str) -> Arrivals:
    """From lines of `time,count` below that header, in order of time. A time is in seconds since the start, or a moment in ISO 8601 (UTC
    where it names no offset), of which the first is the start. Raises SettingsError with one line that names the first wrong line."""
    rows = _rows(text.removeprefix("\ufeff"))
    number, header = next(rows, (1, []))
    if [name.strip().lower() for name in header] != _HEADER:
        raise _wrong(number, ",".join(header), "the header time,count is expected")
    found: list[tuple[float, int]] = []
    start: float | None = None
    is_moments = False
    for number, row in rows:
        if len(row) != len(_HEADER):
            raise _wrong(number, ",".join(row), "a time and a count are expected")
        at_s, is_moment = _time(number, row[0])
        if start is None:
            start, is_moments = (at_s if is_moment else 0.0), is_moment
        if is_moment != is_moments:
            raise _wrong(number, row[0], "seconds and moments are not mixed in a file")
        at_s -= start
        if not 0 <= at_s <= LONGEST_S or (found and at_s < found[-1][0]):
            rule = "the times are in order" if found and at_s < found[-1][0] else "a time is from 0 s to 366 days after the start"
            raise _wrong(number, row[0], rule)
        found.append((at_s, _count(number, row[1])))
    arrivals = by_second(found)
    if not 0 < total(arrivals) <= MOST_MESSAGES:
        raise SettingsError([f"arrivals: {total(arrivals)} messages in {len(found)} lines, from 1 to {MOST_MESSAGES:,} are expected"])
    return arrivals


def _rows(text: str) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(StringIO(text), strict=True)
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                yield reader.line_num, row
    except csv.Error as error:
        raise _wrong(reader.line_num, str(error), "lines of time,count are expected") from error


def _time(number: int, text: str) -> tuple[float, bool]:
    """Seconds, and whether they are a moment's (since 1970)."""
    try:
        at_s = float(text)
    except ValueError:
        try:
            moment = datetime.fromisoformat(text.strip())
            return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp(), True
        except (ValueError, OverflowError) as error:
            raise _wrong(number, text, "a time is in seconds or ISO 8601") from error
    if not isfinite(at_s):
        raise _wrong(number, text, "a time is in seconds or ISO 8601")
    return at_s, False


def _count(number: int, text: str) -> int:
    digits = text.strip()
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= len(str(MOST_MESSAGES)) and int(digits) <= MOST_MESSAGES):
        raise _wrong(number, text, f"a count is a whole number from 0 to {MOST_MESSAGES:,}")
    return int(digits)


def _wrong(number: int, value: str, rule: str) -> SettingsError:
    shown = value if len(value) <= _SHOWN else value[:_SHOWN] + "…"
    return SettingsError([f"arrivals, line {number}: {rule}, got {shown!r}"])
