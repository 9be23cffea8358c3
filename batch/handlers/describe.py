"""Describing a file: one dict of facts about its content. Every fact is computed from the bytes; what cannot be told is left out."""

from __future__ import annotations

import base64
import csv
import hashlib
from typing import Any

from batch.handlers import media, texts
from batch.handlers.tables.cells import ColumnType
from batch.handlers.tables.dialects import Dialect, dialect_of

MAX_COLUMNS = 1000
"""Columns that are described one by one; `column_count` counts all."""


def describe(filename: str, data: bytes) -> dict[str, Any]:
    """`size`, `crc32c`, `sha256`, `media_type`; for text also `encoding`, `line_count`, `word_count`; for CSV what `_csv_facts` says."""
    encoding = None if media.signature(data) else texts.encoding_of(data)
    kind = media.media_type(filename, data, is_text=encoding is not None)
    facts: dict[str, Any] = {"size": len(data), "crc32c": crc32c(data), "sha256": sha256(data), "media_type": kind}
    if encoding is None:
        return facts
    lines, words = texts.counts(data, encoding)
    facts |= {"encoding": encoding, "line_count": lines, "word_count": words}
    if kind in (media.CSV, media.TSV):
        facts |= _csv_facts(data, encoding)
    return facts


def _csv_facts(data: bytes, encoding: str) -> dict[str, Any]:
    """`row_count` (without the header, which is the first row), `column_count`, `columns` with name and type, `separator`;
    `uneven_row_count` when rows are wider or narrower than the header; only `csv_problem` when it cannot be cut into cells."""
    dialect = dialect_of(data, encoding)
    try:
        names, types, row_count, uneven_count = _columns(dialect, data, encoding)
    except csv.Error as error:
        return {"csv_problem": str(error)}
    columns = [{"name": name, "type": kind.name} for name, kind in zip(names[:MAX_COLUMNS], types, strict=False)]
    facts: dict[str, Any] = {"row_count": row_count, "column_count": len(names), "columns": columns, "separator": dialect.separator}
    return facts | {"uneven_row_count": uneven_count} if uneven_count else facts


def _columns(dialect: Dialect, data: bytes, encoding: str) -> tuple[list[str], list[ColumnType], int, int]:
    rows = dialect.rows(data, encoding)
    names = next(rows, (0, []))[1]
    types = [ColumnType() for _ in names[:MAX_COLUMNS]]
    row_count = uneven_count = 0
    for _, cells in rows:
        row_count += 1
        uneven_count += len(cells) != len(names)
        for kind, cell in zip(types, cells, strict=False):
            kind.see(cell)
    return names, types, row_count, uneven_count


def crc32c(data: bytes) -> str:
    """Base64 of the big-endian CRC32C: what Cloud Storage gives as an object's `crc32c`."""
    import google_crc32c

    digest: bytes = google_crc32c.Checksum(data).digest()
    return base64.b64encode(digest).decode()


def sha256(data: bytes) -> str:
    """Hexadecimal, as `sha256sum` prints it."""
    return hashlib.sha256(data).hexdigest()


def md5(data: bytes) -> str:
    """Hexadecimal, as `md5sum` prints it. It finds accidents, not forgeries."""
    return hashlib.md5(data, usedforsecurity=False).hexdigest()
