"""`data_transformation`: normalizes or aggregates a table. The result is written last: it never names data that is not there.

The table is an object of the bucket (`source`), or a generated data set of `dataset_size` rows. The data goes to
`results/<task_id>-<attempt>.csv`, the result to `results/<task_id>.json`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from batch.clock import iso
from batch.context import Context
from batch.errors import ObjectMissing, Permanent, Retry
from batch.handlers import datasets
from batch.handlers.aggregation import aggregated, header
from batch.handlers.measures import groups_of, numbers_of
from batch.handlers.normalize import Method, normalized, normalized_rows
from batch.handlers.payload import ColumnName, ObjectName, Payload
from batch.handlers.reports import write_report
from batch.handlers.tables import Table, read_table, write_csv
from batch.message import Task
from batch.names import result_data_object, result_object
from batch.registry import task

ColumnNames = Annotated[tuple[ColumnName, ...], Field(min_length=1, max_length=1000)]
MAX_DATASET_SIZE = 1_000_000


class DataTransformation(Payload):
    """The fields of a `data_transformation` task; others are allowed and ignored. `columns` and `method` are for normalize, `group_by` and
    `values` for aggregation; `dataset_size` and `seed` count only without a `source`."""

    transformation: Literal["normalize", "aggregation"] = "normalize"
    source: ObjectName | None = None
    dataset_size: int = Field(default=1000, ge=1, le=MAX_DATASET_SIZE)
    seed: int = Field(default=0, ge=0, lt=2**63)
    method: Method = "z-score"
    columns: ColumnNames | None = None
    group_by: ColumnName | None = None
    values: ColumnNames | None = None

    @model_validator(mode="after")
    def _names_columns(self) -> DataTransformation:
        """What needs no data to be seen is refused at the door."""
        if self.source is not None:
            if self.transformation == "aggregation" and self.group_by is None:
                raise ValueError("group_by is required with a source: name the column to aggregate by")
            return self
        numeric = (self.columns if self.transformation == "normalize" else self.values) or ()
        for wanted, known in ((numeric, datasets.NUMERIC_COLUMNS), ((self.group_by or "category",), datasets.COLUMNS)):
            unknown = [one for one in wanted if one not in known]
            if unknown:
                raise ValueError(f"the generated data set has no such column {unknown[0][:200]!r}; give some of {', '.join(known)}")
        return self


@dataclass(frozen=True, slots=True)
class Product:
    """What a transformation made: CSV data with its rows, how many records went in, and the facts for the result."""

    data: bytes
    row_count: int
    record_count: int
    facts: Mapping[str, Any]


@task("data_transformation", payload=DataTransformation)
def data_transformation(task: Task, ctx: Context) -> dict[str, Any]:
    """The outcome's facts: transformation, records, and where the data is. Raises Permanent for a source that cannot be used, Retry for
    one that is not there, DependencyError."""
    started_s = ctx.clock.monotonic()
    fields: DataTransformation = ctx.payload
    if fields.processing_time:
        ctx.sleep(fields.processing_time)
    product = transformed(fields, _table(fields, ctx))
    data = _write_data(ctx, product)
    result = {
        "task_id": task.task_id,
        "transformation": fields.transformation,
        "records_processed": product.record_count,
        "timestamp": iso(ctx.now()),
        "processing_time": round(ctx.clock.monotonic() - started_s, 6),
        **_origin(fields),
        **product.facts,
        "data": data,
    }
    standing = write_report(ctx, result_object(task.task_id), result)
    told = ("transformation", "records_processed", "processing_time", "group_count", "data")
    return {name: standing[name] for name in told if name in standing}


def transformed(fields: DataTransformation, table: Table) -> Product:
    """Pure. Raises Permanent for columns and cells that cannot be used."""
    if fields.transformation == "normalize":
        return _normalize(table, fields.method, fields.columns)
    return _aggregate(table, fields.group_by or "category", fields.values)


def _normalize(table: Table, method: Method, columns: tuple[str, ...] | None) -> Product:
    record_count, numbers = numbers_of(table, columns)
    if not numbers:
        raise Permanent(f"{table.name} has no numeric column to normalize; name `columns` whose cells are numbers")
    facts: dict[str, Any] = {}
    for name in numbers:
        numbers[name], facts[name] = normalized(numbers[name], method)
    return _product(table.columns, normalized_rows(table, numbers), record_count, {"method": method, "columns": facts})


def _aggregate(table: Table, group_by: str, values: tuple[str, ...] | None) -> Product:
    groups, rows = groups_of(table, group_by)
    record_count, numbers = numbers_of(table, values, leave_out=group_by)
    facts = {"group_by": group_by, "values": list(numbers), "group_count": len(groups)}
    return _product(header(group_by, list(numbers)), aggregated(groups, rows, numbers), record_count, facts)


def _product(columns: Iterable[str], rows: Iterable[Iterable[object]], record_count: int, facts: Mapping[str, Any]) -> Product:
    data, row_count = write_csv(columns, rows)
    return Product(data, row_count, record_count, facts)


def _table(fields: DataTransformation, ctx: Context) -> Table:
    if fields.source is None:
        return datasets.dataset(fields.dataset_size, fields.seed)
    try:
        data = ctx.read(fields.source)
    except ObjectMissing as error:
        raise Retry(f"the source {fields.source!r} is not in the bucket (yet): upload it, or name an object that exists") from error
    return read_table(fields.source, data)


def _origin(fields: DataTransformation) -> dict[str, Any]:
    if fields.source is not None:
        return {"source": fields.source}
    return {"dataset_size": fields.dataset_size, "seed": fields.seed}


def _write_data(ctx: Context, product: Product) -> dict[str, Any]:
    """Raises Retry when an earlier run of this attempt left other data: the result must describe the data that it names."""
    name = result_data_object(ctx.task.task_id, ctx.attempt, "csv")
    written = ctx.write(name, product.data, "text/csv")
    if not written.created and ctx.read(name) != product.data:
        raise Retry(f"the source changed since {name} was written; the next attempt writes data of its own", after_s=0.0)
    return {"object": name, "generation": written.generation, "size": len(product.data), "rows": product.row_count}
