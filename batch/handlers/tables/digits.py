"""Numbers in texts: what a text must look like to be one, and how the engine reads it without losing a digit.

A number has no leading zero (a postcode read as a number is lost), at most 38 digits, and the marks that the task names. With an exponent
it is a double, as floating point numbers are, and has at most 15 digits that count, or stands as a double is written.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from batch.handlers.tables.engine import text
from batch.handlers.tables.options import ReadOptions

BLANKS = " \t\r\n\v\f\u00a0"
_NO_BREAK = "'\u00a0'"
MAX_DIGITS = 38
QUICK_DIGITS = 18
"""A number of so many is an integer of the machine."""
DOUBLE_DIGITS = 15
CANONICAL = r"-?[1-9][0-9]*(\.[0-9]+)?|0(\.[0-9]+)?|-0\.[0-9]*[1-9][0-9]*"
"""As a number is written that has no other spelling with as many digits after the point; there is no minus zero."""


def trimmed(cell: str) -> str:
    """SQL: the text without blanks around it. Most texts have none, and `trim` costs more than all the rest."""
    ends = f"{cell} >= '!' AND {cell} < {_NO_BREAK} AND {cell}[-1] >= '!' AND {cell}[-1] < {_NO_BREAK}"
    return f"CASE WHEN {ends} THEN {cell} ELSE trim({cell}, {text(BLANKS)}) END"


def present(cell: str) -> str:
    """SQL: the text, or NULL when it is blank."""
    return f"CASE WHEN {cell} >= '!' AND {cell} < {_NO_BREAK} OR trim({cell}, {text(BLANKS)}) <> '' THEN {cell} END"


@dataclass(frozen=True, slots=True)
class Marks:
    """The marks in numbers. `is_loose`: leading zeros are allowed, for the task says that the column is a number."""

    decimal: str = "."
    thousands: str | None = None
    is_loose: bool = False

    @property
    def pattern(self) -> str:
        """What a whole trimmed number matches, for Python and for the engine."""
        point = re.escape(self.decimal)
        whole = "[0-9]+" if self.is_loose else "(?:0|[1-9][0-9]*)"
        if self.thousands:
            whole = f"(?:{whole}|[1-9][0-9]{{0,2}}(?:{re.escape(self.thousands)}[0-9]{{3}})+)"
        return rf"[+-]?(?:{whole}(?:{point}[0-9]*)?|{point}[0-9]+)(?:[eE][+-]?[0-9]+)?"

    def matches(self, cell: str) -> bool:
        """Whether a text is a number."""
        return re.fullmatch(self.pattern, cell.strip(BLANKS)) is not None

    def test(self, cell: str, *, is_trimmed: bool = False) -> str:
        """SQL: whether a text is a number."""
        return f"regexp_full_match({cell if is_trimmed else trimmed(cell)}, {text(self.pattern)})"

    def plain(self, cell: str, *, is_trimmed: bool = False) -> str:
        """SQL: the number as the engine reads it."""
        found = cell if is_trimmed else trimmed(cell)
        if self.thousands:
            found = f"replace({found}, {text(self.thousands)}, '')"
        return found if self.decimal == "." else f"replace({found}, {text(self.decimal)}, '.')"


def marks_of(options: ReadOptions, *, is_loose: bool = False) -> Marks:
    """Those that the task names."""
    return Marks(options.decimal, options.thousands, is_loose)


def measures(plain: str) -> tuple[str, ...]:
    """SQL aggregates over plain numbers, for `Shape`."""
    # The exponent is no digit of the number.
    digits = f"split_part(lower({plain}), 'e', 1)"
    fraction = f"strlen(split_part({digits}, '.', 2))"
    return (
        f"max(strlen(ltrim(split_part({digits}, '.', 1), '+-0')))",
        f"max({fraction})",
        f"min({fraction})",
        f"bool_or(contains(lower({plain}), 'e'))",
    )


@dataclass(frozen=True, slots=True)
class Shape:
    """How many digits the numbers of a column have, at most: before the point, and after it (`least_scale` at least)."""

    whole: int
    scale: int
    least_scale: int
    has_exponent: bool

    @property
    def kind(self) -> str:
        """`integer`, `decimal` or `double`."""
        if self.has_exponent:
            return "double"
        return "decimal" if self.scale else "integer"

    @property
    def problem(self) -> str:
        """Why they cannot be computed with exactly; empty when they can."""
        if self.has_exponent and self.whole + self.scale > DOUBLE_DIGITS:
            return (
                f"it has numbers with exponents, which are doubles, and numbers of more than {DOUBLE_DIGITS} digits, which a double does "
                "not hold: say types: double to round them"
            )
        if not self.has_exponent and self.whole + self.scale > MAX_DIGITS:
            return f"its numbers need {self.whole + self.scale} digits, and {MAX_DIGITS} are exact: say types: double to round them"
        return ""

    @property
    def sql_type(self) -> str:
        """The type that holds all of them exactly."""
        if self.has_exponent:
            return "DOUBLE"
        digits = max(self.whole, 1) + self.scale  # without one before the point the engine would write .5
        if not self.scale and digits <= QUICK_DIGITS:
            return "BIGINT"
        return f"DECIMAL({QUICK_DIGITS if digits <= QUICK_DIGITS else MAX_DIGITS}, {self.scale})"
