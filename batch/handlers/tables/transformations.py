"""What can be done with a table: normalize, aggregate, filter, deduplicate. Each makes one statement in SQL for the data of the result, and
the facts that stand beside it. Sums, minima and maxima of integers and decimals are exact; what does not fit is refused.

Means, deviations and normalized values are doubles. They are computed from each value's distance to a value of the column, which is exact
for integers and decimals: so large numbers that lie close together lose nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any, Literal

from batch.handlers.tables.columns import Column
from batch.handlers.tables.digits import MAX_DIGITS
from batch.handlers.tables.engine import text
from batch.handlers.tables.source import LeftOut, Source, in_parts
from batch.model.errors import Permanent

Method = Literal["z-score", "min-max"]
Keep = Literal["first", "last"]
_LEAST_DEVIATION = 1e-140
"""Its square is still a double with all its digits."""
STATISTICS = ("count", "sum", "mean", "min", "max")
Value = tuple[str, str, str]
"""A column of a result: its name, and its SQL for a result with types and for one in text."""


@dataclass(frozen=True, slots=True)
class Plan:
    """`values` make the rows of the result, from `rows`, which is SQL after FROM. `left_out`: columns that are not in it, and why."""

    values: Sequence[Value]
    rows: str
    facts: Mapping[str, Any]
    left_out: Sequence[LeftOut] = ()


def kept(columns: Sequence[Column]) -> list[Value]:
    """Columns as they are."""
    return [(one.name, one.typed, one.written) for one in columns]


def filtered(condition: str, columns: Sequence[Column], facts: Mapping[str, Any]) -> Plan:
    """The rows that fulfil a condition in SQL."""
    return Plan(kept(columns), f"source WHERE {condition}", facts)


def distinct(source: Source, columns: Sequence[Column], keep: Keep) -> Plan:
    """Of rows that are alike in some columns one, in their order. Values are alike as the result shows them; two missing ones are."""
    which = "min" if keep == "first" else "max"
    alike = ", ".join(one.typed if one.is_text and one.written == one.typed else one.cell for one in columns)
    numbered = "(SELECT row_number() OVER () AS row, * FROM source)"
    rows = f"{numbered} WHERE row IN (SELECT {which}(row) FROM {numbered} GROUP BY {alike})"
    return Plan(kept(source.columns), rows, {"columns": [one.name for one in columns], "keep": keep})


def aggregated(group: Column, columns: Sequence[Column], left_out: Sequence[LeftOut]) -> Plan:
    """One row a group, in the groups' order; a missing value is a group, too. Missing values count nowhere: a column without values in a
    group has count 0, sum 0 and blanks."""
    shown = group.written and ("g" if group.is_text else "shown")
    values: list[Value] = [(group.name, "g", shown), ("row_count", "row_count", "row_count")]
    inner = [f"{group.typed if group.is_text else group.cell} AS g", "count(*) AS row_count"]
    if shown == "shown":
        inner.append(f"any_value({group.written}) FILTER (WHERE {group.cell} IS NOT NULL) AS shown")
    for place, one in enumerate(columns):
        for named, sql in zip(STATISTICS, _statistics(one), strict=True):
            inner.append(f"{sql} AS {named}{place}")
            values.append((f"{one.name}_{named}", f"{named}{place}", f"{named}{place}"))
    # The group is sorted as text is, or as its type is; a column of the result may be named g, too.
    rows = f"(SELECT {', '.join(inner)} FROM source GROUP BY g) AS groups ORDER BY groups.g NULLS FIRST"
    return Plan(values, rows, {"group_by": group.name, "values": [one.name for one in columns]}, left_out)


def _statistics(column: Column) -> tuple[str, ...]:
    """SQL of count, sum, mean, min and max."""
    number = column.number
    if column.scale is None:
        total = f"fsum({number})"
        finite = f"CASE WHEN NOT isfinite({total}) THEN error({text(_too_large(column.name))}) ELSE coalesce({total}, 0.0) END"
        return (f"count({number})", finite, f"favg({number})", f"min({number})", f"max({number})")
    total = f"CAST(sum({number}) AS DECIMAL({MAX_DIGITS}, {column.scale}))"
    mean = f"CAST(sum({number}) AS DOUBLE) / count({number})"
    return (f"count({number})", f"coalesce({total}, 0)", mean, f"min({number})", f"max({number})")


def _too_large(name: str) -> str:
    return f"the sum of column {name[:200]!r} is larger than a double can hold; aggregate smaller numbers"


# --- normalizing


@dataclass(frozen=True, slots=True)
class Spread:
    """A column's numbers: how many, the ends (exact), and mean and population deviation of their distances from `origin`."""

    count: int
    low: Any = None
    high: Any = None
    mean: float = 0.0
    deviation: float = 0.0
    origin: Any = None


def normalized(source: Source, columns: Sequence[Column], method: Method, left_out: Sequence[LeftOut]) -> Plan:
    """All columns, these on their new scale. Raises Permanent where a double cannot hold what is between two numbers."""
    spreads = dict(zip([one.name for one in columns], _spreads(source, columns), strict=True))
    facts = {one.name: _told(source, spreads[one.name], method) for one in columns}
    values: list[Value] = []
    for one in source.columns:
        if one.name in spreads:
            number = next(each for each in columns if each.name == one.name)
            scaled = _scaled(source, number, spreads[one.name], method)
            values.append((one.name, scaled, scaled))
        else:
            values.append((one.name, one.typed, one.written))
    return Plan(values, "source", {"method": method, "columns": facts}, left_out)


def _spreads(source: Source, columns: Sequence[Column]) -> list[Spread]:
    return [one for some in in_parts(columns) for one in _spreads_of(source, some)]


def _spreads_of(source: Source, columns: Sequence[Column]) -> list[Spread]:
    origins = source.engine.row(f"SELECT {', '.join(f'quantile_disc({one.number}, 0.5)' for one in columns)} FROM (FROM source LIMIT 1000)")
    asked = []
    for one, origin in zip(columns, origins, strict=True):
        distance = f"CAST({one.number} - {_literal(origin, one)} AS DOUBLE)"
        asked += [f"count({one.number})", f"min({one.number})", f"max({one.number})", f"fsum({distance})", f"fsum({distance} * {distance})"]
    found = source.engine.row(f"SELECT {', '.join(asked)} FROM source")
    spreads = []
    for place, origin in enumerate(origins):
        count, low, high, total, squares = found[5 * place : 5 * place + 5]
        spreads.append(Spread(count, low, high, *_moments(count, total or 0.0, squares or 0.0), 0 if origin is None else origin))
    return spreads


def _moments(count: int, total: float, squares: float) -> tuple[float, float]:
    """Mean and population deviation. The engine's own deviation depends on which thread read what, these sums do not: a task that runs
    twice makes the same data."""
    if not count or not math.isfinite(total) or not math.isfinite(squares):
        return total, squares
    mean = Fraction(total) / count
    return float(mean), math.sqrt(max(Fraction(squares) / count - mean * mean, Fraction(0)))


def _literal(value: Any, column: Column) -> str:
    if column.scale is None:
        return f"CAST({text(repr(float(value or 0)))} AS DOUBLE)"
    return f"CAST({text(str(value or 0))} AS DECIMAL({MAX_DIGITS}, {column.scale}))"


def _told(source: Source, found: Spread, method: Method) -> dict[str, Any]:
    facts: dict[str, Any] = {"count": found.count, "missing_count": source.row_count - found.count}
    if not found.count:
        return facts
    facts["constant"] = found.low == found.high
    if method == "min-max":
        return {**facts, "min": told(found.low), "max": told(found.high)}
    mean = float(Decimal(found.origin) + Decimal(found.mean)) if math.isfinite(found.mean) else found.mean
    return {**facts, "mean": mean, "stdev": 0.0 if facts["constant"] else found.deviation}


def _scaled(source: Source, column: Column, found: Spread, method: Method) -> str:
    """SQL of a column on its new scale."""
    if not found.count:
        return "CAST(NULL AS DOUBLE)"
    if found.low == found.high:
        return f"CASE WHEN {column.number} IS NOT NULL THEN 0.0::DOUBLE END"
    width = float(Decimal(found.high) - Decimal(found.low))
    divisor, origin, middle = (width, found.low, 0.0) if method == "min-max" else (found.deviation, found.origin, found.mean)
    if not math.isfinite(divisor) or not math.isfinite(middle) or divisor < (0.0 if method == "min-max" else _LEAST_DEVIATION):
        raise Permanent(
            f"{source.name}: column {column.name[:200]!r} cannot be normalized: from {told(found.low)} to {told(found.high)} is "
            f"more, or less, "
            "than a double can hold"
        )
    distance = f"CAST({column.number} - {_literal(origin, column)} AS DOUBLE)"
    return f"({distance} - {_double(middle)}) / {_double(divisor)} + 0.0"


def _double(value: float) -> str:
    return f"CAST({text(repr(value))} AS DOUBLE)"


def told(value: Any) -> Any:
    """A number as JSON can tell it: exactly, as a text where a JSON reader would round it."""
    if isinstance(value, Decimal):
        if value == value.to_integral_value() and value.as_tuple().exponent == 0:
            return int(value)
        return float(value) if Decimal(repr(float(value))) == value else str(value)
    return value
