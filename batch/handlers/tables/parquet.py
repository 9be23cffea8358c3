"""Parquet, read and written with pyarrow, which the extra `data` installs; without it a task is refused with what to do.

A file is read and written batch by batch. As everywhere in these handlers a cell is a text: missing values are blank, numbers read back to
the same double, times are ISO 8601. What is written gets a type for each column: integer, number and boolean where all cells are such, else
text; blank cells are null.
"""

from __future__ import annotations

import importlib
import io
import itertools
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import date, time, timedelta
from decimal import Decimal
from typing import Any

from batch.handlers.tables.cells import ColumnType
from batch.handlers.tables.table import Row, Table
from batch.model.errors import Permanent

MEDIA_TYPE = "application/vnd.apache.parquet"
BATCH_ROWS = 10_000
_MAGIC = b"PAR1"
_INT64 = range(-(2**63), 2**63)


def is_parquet(data: bytes) -> bool:
    """By the mark at both its ends."""
    return len(data) >= 12 and data.startswith(_MAGIC) and data.endswith(_MAGIC)


def demand(what: str) -> None:
    """Raises Permanent when pyarrow is not installed; `what` needs it."""
    try:
        importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise Permanent(
            f"{what} is Parquet, and this worker's image cannot handle it: install the extra `data` in the image "
            "(pip install 'fanout-batch[data]', which brings pyarrow), then submit again; or use CSV"
        ) from error


def read_parquet(name: str, data: bytes) -> Table:
    """Raises Permanent for a file that cannot be read, and for columns that have no texts (binary ones)."""
    demand(name)
    arrow, parquet = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")

    def opened() -> Any:
        try:
            return parquet.ParquetFile(arrow.BufferReader(data))
        except (arrow.ArrowException, OSError) as error:
            raise Permanent(f"{name} is not Parquet that can be read: {error}") from error

    columns = tuple(map(str, opened().schema_arrow.names))
    if len(set(columns)) < len(columns):
        twice = next(one for one in columns if columns.count(one) > 1)
        raise Permanent(f"{name} has more than one column {twice[:200]!r}; give each column its own name")

    def rows() -> Iterator[Row]:
        file, number = opened(), 0
        try:
            for batch in file.iter_batches(batch_size=BATCH_ROWS):
                for values in zip(*(_values(arrow, column) for column in batch.columns), strict=True):
                    number += 1
                    yield [_cell(name, number, column, value) for column, value in zip(columns, values, strict=True)]
        except (arrow.ArrowException, OSError) as error:
            raise Permanent(f"{name} is not Parquet that can be read: {error}") from error

    return Table(name, columns, rows)


def write_parquet(columns: Sequence[str], rows: Callable[[], Iterable[Iterable[object]]]) -> tuple[bytes, int]:
    """The file, and its number of rows. `rows()` is called twice: to see what type each column has, and to write."""
    demand("the output")
    arrow, parquet = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    kinds = _kinds(len(columns), rows())
    types = {"integer": arrow.int64(), "number": arrow.float64(), "boolean": arrow.bool_()}
    schema = arrow.schema([arrow.field(name, types.get(kind, arrow.string())) for name, kind in zip(columns, kinds, strict=True)])
    body, count = io.BytesIO(), 0
    with parquet.ParquetWriter(body, schema) as writer:
        all_rows = iter(rows())
        while batch := list(itertools.islice(all_rows, BATCH_ROWS)):
            count += len(batch)
            cells = zip(*([_text(cell) for cell in row] for row in batch), strict=True)
            arrays = [
                arrow.array([_typed(kind, cell) for cell in column], type=field.type)
                for kind, column, field in zip(kinds, cells, schema, strict=True)
            ]
            writer.write_batch(arrow.record_batch(arrays, schema=schema))
    return body.getvalue(), count


def _kinds(column_count: int, rows: Iterable[Iterable[object]]) -> list[str]:
    """`integer`, `number`, `boolean` or `text` for each column."""
    seen = [ColumnType() for _ in range(column_count)]
    fits = [True] * column_count
    for row in rows:
        for place, cell in enumerate(row):
            text = _text(cell)
            seen[place].see(text)
            if fits[place] and seen[place].name == "integer" and text.strip():
                fits[place] = int(text) in _INT64
    names = [kind.name if kind.name in ("integer", "number", "boolean") else "text" for kind in seen]
    return [name if fit or name != "integer" else "text" for name, fit in zip(names, fits, strict=True)]


def _text(cell: object) -> str:
    return cell if isinstance(cell, str) else str(cell)


def _typed(kind: str, cell: str) -> object:
    text = cell.strip()
    if not text:
        return None
    if kind == "integer":
        return int(text)
    if kind == "number":
        return float(text)
    if kind == "boolean":
        return text.lower() in ("true", "yes")
    return cell


def _values(arrow: Any, column: Any) -> list[Any]:
    """As Python values; nanoseconds, which Python's times do not have, are cut off."""
    if arrow.types.is_timestamp(column.type) and column.type.unit == "ns":
        column = column.cast(arrow.timestamp("us", column.type.tz), safe=False)
    values: list[Any] = column.to_pylist()
    return values


def _cell(name: str, row: int, column: str, value: object) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, bytes):
        raise Permanent(f"{name}, row {row}: column {column[:200]!r} holds binary data; leave the column out")
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, timedelta):
        return repr(value.total_seconds())
    return json.dumps(value, ensure_ascii=False, default=str)
