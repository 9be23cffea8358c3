"""Describing a file: one dict of facts about its content. Every fact is computed from the bytes; what cannot be told is left out."""

from __future__ import annotations

import base64
import hashlib
import os
import threading
from typing import Any

from batch.handlers import media, texts
from batch.handlers.tables.engine import opened
from batch.handlers.tables.opening import opened_source
from batch.handlers.tables.options import ReadOptions
from batch.model.errors import Permanent

MEMORY_MB = 128
TABLES = (media.CSV, media.TSV, media.JSON_LINES, media.PARQUET)
FILES_BYTES = 64 << 20
"""Beside those of the file itself: other tasks work here, too."""
_TURNS = threading.BoundedSemaphore(os.cpu_count() or 1)
"""More engines at a time than there are CPUs would be no faster, and take memory and files each."""


def describe(filename: str, data: bytes) -> dict[str, Any]:
    """`size`, `crc32c`, `sha256`, `media_type`; for text also `encoding`, `line_count`, `word_count`; for tables see `_table_facts`."""
    encoding = None if media.signature(data) else texts.encoding_of(data)
    kind = media.media_type(filename, data, is_text=encoding is not None)
    facts: dict[str, Any] = {"size": len(data), "crc32c": crc32c(data), "sha256": sha256(data), "media_type": kind}
    if encoding is not None:
        lines, words = texts.counts(data, encoding)
        facts |= {"encoding": encoding, "line_count": lines, "word_count": words}
    if kind in TABLES:
        facts |= _table_facts(filename, data)
    return facts


def _table_facts(filename: str, data: bytes) -> dict[str, Any]:
    """`row_count` (without the header), `column_count`, `columns` with name, type and `null_count`, `separator` for CSV; or only
    `table_problem`, which says, with the line, why it cannot be read whole."""
    try:
        with _TURNS, opened(filename, FILES_BYTES + len(data), memory_mb=MEMORY_MB) as engine:
            path = engine.folder / "source"
            path.write_bytes(data)
            source = opened_source(engine, filename, path, ReadOptions())
    except Permanent as problem:
        return {"table_problem": str(problem)}
    facts = source.facts()
    told = {"row_count": source.row_count, "column_count": facts["column_count"], "columns": facts["columns"]}
    if source.reading.format == "csv":
        told["separator"] = source.reading.delimiter
    return {**told, "warnings": source.warnings} if source.warnings else told


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
