"""Tables: columns and rows of text, read from CSV or JSON Lines. A table is either whole or refused: no row is padded, cut or skipped.

A table gives its rows as often as asked, each time from the bytes, so that a large one is never held as Python objects.
Whatever is wrong with a source raises Permanent, naming the source and the line.
"""

from __future__ import annotations

import csv
import difflib
import io
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from batch.handlers import media, texts
from batch.handlers.tables.dialects import Dialect, dialect_of
from batch.model.errors import Permanent

Row = list[str]


@dataclass(frozen=True, slots=True)
class Table:
    """`rows()` begins anew at each call; each row has a cell for every column, blank where the value is missing.

    `name` says where the table comes from, for errors. `given_columns` are the columns that count when a task names none (None: all).
    """

    name: str
    columns: tuple[str, ...]
    rows: Callable[[], Iterator[Row]]
    given_columns: tuple[str, ...] | None = None

    def index(self, column: str) -> int:
        """Raises Permanent with the nearest column that exists."""
        if column in self.columns:
            return self.columns.index(column)
        near = difflib.get_close_matches(column, self.columns, n=1)
        known = ", ".join(repr(one[:60]) for one in self.columns[:20])
        hint = f"; did you mean {near[0]!r}?" if near else f"; it has {known}{' …' if len(self.columns) > 20 else ''}"
        raise Permanent(f"{self.name} has no column {column[:200]!r}{hint}")


def read_table(name: str, data: bytes) -> Table:
    """JSON Lines by name or by a first `{`, else CSV with a header. Raises Permanent."""
    encoding = None if media.signature(data) else texts.encoding_of(data)
    if encoding is None:
        raise Permanent(f"{name} is not text; give CSV or JSON Lines")
    begins = texts.head(data, encoding, 4096).lstrip()
    if not begins:
        raise Permanent(f"{name} is empty; give CSV with a header, or JSON Lines")
    promised = media.by_name(name)
    if promised == media.JSON_LINES or (begins.startswith("{") and promised not in (media.CSV, media.TSV)):
        table = _json_table(name, data, encoding)
    else:
        table = _csv_table(name, data, encoding, sure=promised in (media.CSV, media.TSV))
    if next(table.rows(), None) is None:
        raise Permanent(f"{name} has columns but no rows")
    return table


def write_csv(columns: Iterable[str], rows: Iterable[Iterable[object]]) -> tuple[bytes, int]:
    """CSV in UTF-8 with a header and lines that end with \\n, and the number of rows."""
    count = 0
    body = io.BytesIO()
    with io.TextIOWrapper(body, "utf-8", newline="", write_through=False) as text:
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(columns)
        for row in rows:
            writer.writerow(row)
            count += 1
        text.flush()
        return body.getvalue(), count


def without_formula(cell: object) -> object:
    """A text that a spreadsheet would take for a formula, behind an apostrophe; numbers as they are."""
    if not isinstance(cell, str) or not cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n")):
        return cell
    try:
        float(cell)
    except ValueError:
        return f"'{cell}"
    return cell


def _csv_table(name: str, data: bytes, encoding: str, sure: bool) -> Table:
    dialect = dialect_of(data, encoding)
    if not dialect.found and not sure:
        raise Permanent(f"{name} is neither CSV nor JSON Lines: no comma, semicolon, tab or bar separates its first rows")
    header = next(_csv_rows(name, data, encoding, dialect), (0, []))[1]
    columns = tuple(cell.strip() or f"column_{place}" for place, cell in enumerate(header, 1))
    twice = {one for one in columns if columns.count(one) > 1} if len(set(columns)) < len(columns) else set()
    if twice:
        raise Permanent(f"{name} has more than one column {min(twice)[:200]!r}; give each column its own name")

    def rows() -> Iterator[Row]:
        lines = _csv_rows(name, data, encoding, dialect)
        next(lines)
        for line, cells in lines:
            if len(cells) != len(columns):
                raise Permanent(f"{name}, line {line}: {len(cells)} cells where the header has {len(columns)}; repair the row")
            yield cells

    return Table(name, columns, rows)


def _csv_rows(name: str, data: bytes, encoding: str, dialect: Dialect) -> Iterator[tuple[int, Row]]:
    try:
        yield from dialect.rows(data, encoding)
    except csv.Error as error:
        raise Permanent(f"{name} is not CSV that can be read: {error}") from error


def _json_table(name: str, data: bytes, encoding: str) -> Table:
    columns: dict[str, None] = {}
    for line, row in _json_rows(name, data, encoding):
        for column in row:
            columns.setdefault(_text(name, line, column))

    def rows() -> Iterator[Row]:
        for line, row in _json_rows(name, data, encoding):
            yield [_cell(name, line, row.get(column)) for column in columns]

    return Table(name, tuple(columns), rows)


def _json_rows(name: str, data: bytes, encoding: str) -> Iterator[tuple[int, dict[str, Any]]]:
    with io.TextIOWrapper(io.BytesIO(data), encoding) as lines:
        for line, text in enumerate(lines, 1):
            if not text.strip():
                continue
            try:
                row = json.loads(text, parse_constant=_refuse_constant)
            except (ValueError, RecursionError) as error:
                raise Permanent(f"{name}, line {line} is not JSON: {error}; JSON Lines has one whole object on each line") from error
            if not isinstance(row, dict):
                raise Permanent(f"{name}, line {line} is JSON but not an object; JSON Lines has one object on each line")
            yield line, row


def _refuse_constant(constant: str) -> None:
    raise ValueError(f"{constant} is not a JSON number; leave the value out, or give null")


def _cell(name: str, line: int, value: object) -> str:
    """Numbers as they read back to the same double, true and false, nested values as JSON, null as blank."""
    if value is None:
        return ""
    if isinstance(value, str):
        return _text(name, line, value)
    return json.dumps(value, allow_nan=True)


def _text(name: str, line: int, text: str) -> str:
    """JSON can spell half a surrogate pair, which no file can hold."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise Permanent(f"{name}, line {line} holds {text[:60]!r}, which is not Unicode text") from error
    return text
