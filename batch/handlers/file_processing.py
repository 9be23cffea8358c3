"""`file_processing`: reads `input/<filename>`, writes `processed/<filename>`: facts, digests, or gzip. It never changes the input.

The simplest clients send only a name, without a file: for them a plain report is written, which says that there was no input.
"""

from __future__ import annotations

import gzip
from typing import Any, Literal

from batch.handlers.contract import Payload, RelativeName, data_max_bytes, too_large, write_report
from batch.handlers.describe import crc32c, describe, md5, sha256
from batch.handling.context import Context
from batch.handling.registry import task
from batch.model.clock import iso
from batch.model.errors import ObjectMissing, ObjectTooLarge
from batch.model.message import Task
from batch.model.names import input_object, processed_object

TOLD = (
    "operation", "input_found", "processing_time", "size", "crc32c", "md5", "sha256", "media_type",
    "encoding", "line_count", "word_count", "row_count", "column_count",
)  # fmt: skip
"""The facts of a report that also stand in the outcome line: all short, so that the line stays below 1 KB."""


class FileProcessing(Payload):
    """The fields of a `file_processing` task; others are allowed and ignored."""

    filename: RelativeName
    operation: Literal["describe", "checksum", "compress"] = "describe"


@task("file_processing", payload=FileProcessing)
def file_processing(task: Task, ctx: Context) -> dict[str, Any]:  # noqa: ARG001 - every handler takes both
    """The outcome's facts: those of TOLD, for `compress` the sizes. Raises Superseded, DependencyError, Permanent for an
    input beyond DATA_MAX_BYTES."""
    started_s = ctx.clock.monotonic()
    fields: FileProcessing = ctx.payload
    if fields.processing_time:
        ctx.sleep(fields.processing_time)
    try:
        data, stored = ctx.store.read_stored(input_object(fields.filename), data_max_bytes())
    except ObjectMissing:
        return _report(ctx, fields, started_s, {"input_found": False})
    except ObjectTooLarge as error:
        raise too_large(f"the input {fields.filename!r}") from error
    if fields.operation == "compress":
        return _compress(ctx, fields, started_s, data)
    facts = checksums(data, stored) if fields.operation == "checksum" else describe(fields.filename, data)
    return _report(ctx, fields, started_s, {"input_found": True, **facts})


def checksum(data: bytes) -> dict[str, Any]:
    """`size` in bytes and three digests."""
    return {"size": len(data), "crc32c": crc32c(data), "md5": md5(data), "sha256": sha256(data)}


def checksums(data: bytes, stored: bytes | None) -> dict[str, Any]:
    """Those of the content; `stored` has those of what lies in the bucket, where that is zipped."""
    return checksum(data) if stored is None else {**checksum(data), "stored": {"content_encoding": "gzip", **checksum(stored)}}


def _report(ctx: Context, fields: FileProcessing, started_s: float, facts: dict[str, Any]) -> dict[str, Any]:
    report = {
        "task_id": ctx.task.task_id,
        "processed_at": iso(ctx.now()),
        "original_file": fields.filename,
        "operation": fields.operation,
        "processing_time": _elapsed_s(ctx, started_s),
        **facts,
    }
    standing = write_report(ctx, processed_object(fields.filename), report)
    return {name: standing[name] for name in TOLD if name in standing}


def _compress(ctx: Context, fields: FileProcessing, started_s: float, data: bytes) -> dict[str, Any]:
    """Writes the gzip itself, without a time in it: the same input gives the same bytes. `ratio` is compressed ÷ original size."""
    body = gzip.compress(data, mtime=0)
    ctx.write(processed_object(fields.filename), body, "application/gzip")
    return {
        "operation": "compress",
        "input_found": True,
        "processing_time": _elapsed_s(ctx, started_s),
        "size": len(data),
        "compressed_size": len(body),
        "ratio": round(len(body) / len(data), 6) if data else None,
        "sha256": sha256(data),
    }


def _elapsed_s(ctx: Context, started_s: float) -> float:
    return round(ctx.clock.monotonic() - started_s, 6)
