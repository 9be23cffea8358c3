"""`data_transformation`: normalizes, aggregates, filters or deduplicates a table. The result is written last: it never names data that
is not there.

The table is an object of the bucket (`source`), or a generated data set of `dataset_size` rows. It is read whole or refused, and the result
says how. The data goes to `results/<task_id>-<attempt>.csv` (or `.parquet`), the result to `results/<task_id>.json`.

All its files lie in a temporary folder, which on Cloud Run is memory: the source, at most DATA_MAX_BYTES of it; what is written anew of it
(SPILL_TIMES as much at most) and the data of the result, together RESULT_TIMES as much; and what the engine puts aside, SPILL_TIMES as
much.
"""

from __future__ import annotations

import errno
import filecmp
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from batch.handlers.contract import ColumnName, ObjectName, Payload, data_max_bytes, too_large, write_report
from batch.handlers.tables import datasets
from batch.handlers.tables.conditions import Condition, chosen
from batch.handlers.tables.engine import Engine, file_limit, opened
from batch.handlers.tables.opening import opened_source
from batch.handlers.tables.options import ReadOptions
from batch.handlers.tables.source import LeftOut, Source
from batch.handlers.tables.transformations import Keep, Method, Plan, aggregated, distinct, filtered, normalized
from batch.handlers.tables.writing import MEDIA_TYPES, Target, write
from batch.handling.context import Context
from batch.handling.registry import task
from batch.model.clock import iso
from batch.model.errors import ObjectMissing, ObjectTooLarge, Permanent, Retry
from batch.model.message import Task
from batch.model.names import result_data_object, result_object

ColumnNames = Annotated[tuple[ColumnName, ...], Field(min_length=1, max_length=1000)]
Values = Annotated[tuple[ColumnName, ...], Field(max_length=1000)]
Conditions = Annotated[tuple[Condition, ...], Field(max_length=100)]
MAX_DATASET_SIZE = 1_000_000
MEMORY_MB = 512
"""What the child may use: Python, the engine with its own code, and what the engine holds."""
TIMEOUT_S = 900.0
RESULT_TIMES = 4
SPILL_TIMES = 2


class DataTransformation(Payload, ReadOptions):
    """The fields of a `data_transformation` task; others are allowed and ignored. `columns` and `method` are for normalize, `group_by` and
    `values` (none: count rows only) for aggregation, `conditions` for filter, whose rows have `columns` (all by default), `columns` (all by
    default) and `keep` for deduplicate; `dataset_size` and `seed` count only without a `source`; `format` is what the data is written in;
    `escape_formulas` is for CSV that a person opens. Those of ReadOptions say how the source is read."""

    transformation: Literal["normalize", "aggregation", "filter", "deduplicate"] = "normalize"
    format: Target = "csv"
    escape_formulas: bool = False
    source: ObjectName | None = None
    dataset_size: int = Field(default=1000, ge=1, le=MAX_DATASET_SIZE)
    seed: int = Field(default=0, ge=0, lt=2**63)
    method: Method = "z-score"
    columns: ColumnNames | None = None
    group_by: ColumnName | None = None
    values: Values | None = None
    conditions: Conditions | None = None
    keep: Keep = "first"

    @model_validator(mode="after")
    def _names_columns(self) -> DataTransformation:
        """What needs no data to be seen is refused at the door."""
        if self.transformation == "filter" and not self.conditions:
            raise ValueError('conditions is required: a list such as [{"column": "price", "operator": ">=", "value": 10}]')
        if self.source is not None:
            if self.transformation == "aggregation" and self.group_by is None:
                raise ValueError("group_by is required with a source: name the column to aggregate by")
            return self
        for wanted, known in self._named():
            unknown = [one for one in wanted if one not in known]
            if unknown:
                raise ValueError(f"the generated data set has no such column {unknown[0][:200]!r}; give some of {', '.join(known)}")
        return self

    def _named(self) -> Iterator[tuple[Sequence[str], Sequence[str]]]:
        """The columns that the transformation names, each with those it may name in the generated data set."""
        if self.transformation == "normalize":
            yield self.columns or (), datasets.NUMERIC_COLUMNS
        elif self.transformation == "aggregation":
            yield self.values or (), datasets.NUMERIC_COLUMNS
            yield (self.group_by or "category",), datasets.COLUMNS
        elif self.transformation == "filter":
            yield [one.column for one in self.conditions or ()], datasets.COLUMNS
            yield self.columns or (), datasets.COLUMNS
        else:
            yield self.columns or (), datasets.COLUMNS


@task("data_transformation", payload=DataTransformation, isolation="process", memory_mb=MEMORY_MB, timeout_s=TIMEOUT_S)
def data_transformation(task: Task, ctx: Context) -> dict[str, Any]:
    """The outcome's facts: transformation, records, and where the data is. Raises Permanent for a source that cannot be used, Retry for
    one that is not there, DependencyError."""
    started_s = ctx.clock.monotonic()
    fields: DataTransformation = ctx.payload
    if fields.processing_time:
        ctx.sleep(fields.processing_time)
    limit_bytes = data_max_bytes()
    name = fields.source or f"the generated data set (seed {fields.seed})"
    with opened(name, SPILL_TIMES * limit_bytes) as engine:
        path = _fetched(fields, ctx, engine, limit_bytes)
        source = opened_source(engine, name, path, _read_options(fields))
        with _bounded(name, RESULT_TIMES * limit_bytes - source.rewritten_bytes):
            plan = planned(source, fields)
            file, row_count = write(source, plan, fields.format, escape_formulas=fields.escape_formulas)
        data = {**_written(ctx, file, fields.format), "rows": row_count}
    result = {
        "task_id": task.task_id,
        "transformation": fields.transformation,
        "records_processed": source.row_count,
        "timestamp": iso(ctx.now()),
        "processing_time": round(ctx.clock.monotonic() - started_s, 6),
        **({"source": fields.source} if fields.source is not None else {"dataset_size": fields.dataset_size, "seed": fields.seed}),
        **plan.facts,
        **_counts(fields, source.row_count, row_count),
        "read": source.facts(),
        "columns_left_out": [{"column": one.column, "reason": one.reason} for one in plan.left_out],
        "warnings": warnings_of(source, plan),
        "data": data,
    }
    standing = write_report(ctx, result_object(task.task_id), result)
    said = ("transformation", "records_processed", "processing_time", "group_count", "rows_in", "rows_out", "data")
    return {**{name: standing[name] for name in said if name in standing}, **_warned(standing)}


def _read_options(fields: DataTransformation) -> ReadOptions:
    """The data of a result is CSV as it is written here: a cell of several lines stands in quotes there on purpose, and a semicolon is a
    letter. What the task itself says counts."""
    if fields.source is None or not fields.source.startswith("results/") or not fields.source.endswith(".csv"):
        return fields
    ours = {"quote": '"', "delimiter": ","}
    return fields.model_copy(update={name: mark for name, mark in ours.items() if getattr(fields, name) is None})


def planned(source: Source, fields: DataTransformation) -> Plan:
    """Raises Permanent for columns and values that cannot be used."""
    if fields.transformation == "filter":
        conditions = fields.conditions or ()
        columns = source.columns if fields.columns is None else [source.column(one) for one in fields.columns]
        said = [one.model_dump(mode="json") for one in conditions]
        return filtered(chosen(source, conditions), columns, {"conditions": said})
    if fields.transformation == "deduplicate":
        columns = source.columns if fields.columns is None else [source.column(one) for one in fields.columns]
        return distinct(source, columns, fields.keep)
    if fields.transformation == "normalize":
        columns, left_out = source.numbers(fields.columns)
        if not columns:
            raise Permanent(f"{source.name} has no numeric column to normalize{_reasons(left_out)}; name `columns` whose cells are numbers")
        return normalized(source, columns, fields.method, left_out)
    group = source.column(fields.group_by or "category")
    columns, left_out = source.numbers(fields.values, leave_out=group.name)
    if not columns and fields.values is None:
        raise Permanent(f"{source.name} has no numeric column to aggregate{_reasons(left_out)}; say values: [] to count rows only")
    return aggregated(group, columns, left_out)


def warnings_of(source: Source, plan: Plan) -> list[str]:
    """What a person should look at: a field of the result, for nobody reads the log of a task that succeeded."""
    return [*source.warnings, *(f"column {one.column!r} is left out: {one.reason}" for one in plan.left_out if one.is_doubtful)]


def _reasons(left_out: Sequence[LeftOut]) -> str:
    said = "; ".join(f"{one.column[:60]!r}: {one.reason}" for one in left_out[:5])
    return f" ({said}{' …' if len(left_out) > 5 else ''})" if said else ""


def _counts(fields: DataTransformation, rows_in: int, rows_out: int) -> dict[str, int]:
    if fields.transformation == "aggregation":
        return {"group_count": rows_out}
    return {} if fields.transformation == "normalize" else {"rows_in": rows_in, "rows_out": rows_out}


def _warned(standing: Any) -> dict[str, int]:
    count = len(standing.get("warnings") or ())
    return {"warning_count": count} if count else {}


@contextmanager
def _bounded(name: str, limit_bytes: int) -> Iterator[None]:
    """No file grows beyond the limit. Raises Permanent when one would."""
    with file_limit(limit_bytes):
        try:
            yield
        except OSError as error:
            if error.errno != errno.EFBIG:
                raise
            raise Permanent(
                f"{name} unfolds into a file of more than {limit_bytes:,} bytes, which is all that DATA_MAX_BYTES leaves for it: split it, "
                "or send it to a lane with a larger DATA_MAX_BYTES"
            ) from error


def _fetched(fields: DataTransformation, ctx: Context, engine: Engine, limit_bytes: int) -> Path:
    path = engine.folder / "source"
    if fields.source is None:
        datasets.write(path, fields.dataset_size, fields.seed)
        return path
    try:
        ctx.download(fields.source, path, limit_bytes)
    except ObjectMissing as error:
        raise Retry(f"the source {fields.source!r} is not in the bucket (yet): upload it, or name an object that exists") from error
    except ObjectTooLarge as error:
        raise too_large(f"the source {fields.source!r}") from error
    return path


def _written(ctx: Context, file: Path, form: Target) -> dict[str, Any]:
    """Raises Retry when an earlier run of this attempt left other data: the result must describe the data that it names."""
    name = result_data_object(ctx.task.task_id, ctx.attempt, form, ctx.task.replay_number)
    written = ctx.upload(name, file, MEDIA_TYPES[form])
    if not written.created:
        standing = file.with_name("standing")
        ctx.download(name, standing)
        if not filecmp.cmp(standing, file, shallow=False):
            raise Retry(f"the source changed since {name} was written; the next attempt writes data of its own", after_s=0.0)
    return {"object": name, "generation": written.generation, "size": file.stat().st_size}
