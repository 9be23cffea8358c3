"""`data_transformation`: normalizes, aggregates, filters or deduplicates a table. The result is written last: it never names data that
is not there.

The table is an object of the bucket (`source`), or a generated data set of `dataset_size` rows. The data goes to
`results/<task_id>-<attempt>.csv` (or `.parquet`), the result to `results/<task_id>.json`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from batch.handlers.contract import ColumnName, ObjectName, Payload, write_report
from batch.handlers.tables import datasets
from batch.handlers.tables.conditions import Condition, chooser
from batch.handlers.tables.duplicates import Keep, distinct_rows
from batch.handlers.tables.measures import groups_of, numbers_of
from batch.handlers.tables.numeric import Method, aggregated, header, normalized, normalized_rows
from batch.handlers.tables.parquet import MEDIA_TYPE, demand, is_parquet, read_parquet, write_parquet
from batch.handlers.tables.table import Row, Table, read_table, without_formula, write_csv
from batch.handling.context import Context
from batch.handling.registry import task
from batch.model.clock import iso
from batch.model.errors import ObjectMissing, Permanent, Retry
from batch.model.message import Task
from batch.model.names import result_data_object, result_object

ColumnNames = Annotated[tuple[ColumnName, ...], Field(min_length=1, max_length=1000)]
Conditions = Annotated[tuple[Condition, ...], Field(max_length=100)]
Format = Literal["csv", "parquet"]
MAX_DATASET_SIZE = 1_000_000
MEDIA_TYPES = {"csv": "text/csv", "parquet": MEDIA_TYPE}


class DataTransformation(Payload):
    """The fields of a `data_transformation` task; others are allowed and ignored. `columns` and `method` are for normalize, `group_by` and
    `values` for aggregation, `conditions` for filter, `columns` (all of them by default) and `keep` for deduplicate; `dataset_size` and
    `seed` count only without a `source`; `format` is what the data is written in; `escape_formulas` is for CSV that a person opens."""

    transformation: Literal["normalize", "aggregation", "filter", "deduplicate"] = "normalize"
    format: Format = "csv"
    escape_formulas: bool = False
    source: ObjectName | None = None
    dataset_size: int = Field(default=1000, ge=1, le=MAX_DATASET_SIZE)
    seed: int = Field(default=0, ge=0, lt=2**63)
    method: Method = "z-score"
    columns: ColumnNames | None = None
    group_by: ColumnName | None = None
    values: ColumnNames | None = None
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
        else:
            yield self.columns or (), datasets.COLUMNS


@dataclass(frozen=True, slots=True)
class Product:
    """What a transformation made: the data with its rows, how many records went in, and the facts for the result."""

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
    if fields.format == "parquet":
        demand("the output")
    product = transformed(fields, _table(fields, ctx))
    data = _write_data(ctx, product, fields.format)
    result = {
        "task_id": task.task_id,
        "transformation": fields.transformation,
        "records_processed": product.record_count,
        "timestamp": iso(ctx.now()),
        "processing_time": round(ctx.clock.monotonic() - started_s, 6),
        **({"source": fields.source} if fields.source is not None else {"dataset_size": fields.dataset_size, "seed": fields.seed}),
        **product.facts,
        "data": data,
    }
    standing = write_report(ctx, result_object(task.task_id), result)
    told = ("transformation", "records_processed", "processing_time", "group_count", "rows_in", "rows_out", "data")
    return {name: standing[name] for name in told if name in standing}


def transformed(fields: DataTransformation, table: Table) -> Product:
    """Pure. Raises Permanent for columns and cells that cannot be used."""
    make = {"normalize": _normalize, "aggregation": _aggregate, "filter": _filter, "deduplicate": _deduplicate}
    return make[fields.transformation](fields, table)


def _normalize(fields: DataTransformation, table: Table) -> Product:
    record_count, numbers = numbers_of(table, fields.columns)
    if not numbers:
        raise Permanent(f"{table.name} has no numeric column to normalize; name `columns` whose cells are numbers")
    facts: dict[str, Any] = {}
    for name in numbers:
        numbers[name], facts[name] = normalized(numbers[name], fields.method)
    data, row_count = _written(fields, table.columns, lambda: normalized_rows(table, numbers))
    return Product(data, row_count, record_count, {"method": fields.method, "columns": facts})


def _aggregate(fields: DataTransformation, table: Table) -> Product:
    group_by = fields.group_by or "category"
    groups, rows = groups_of(table, group_by)
    record_count, numbers = numbers_of(table, fields.values, leave_out=group_by)
    facts = {"group_by": group_by, "values": list(numbers), "group_count": len(groups)}
    data, row_count = _written(fields, header(group_by, list(numbers)), lambda: aggregated(groups, rows, numbers))
    return Product(data, row_count, record_count, facts)


def _filter(fields: DataTransformation, table: Table) -> Product:
    chosen = chooser(table, fields.conditions or ())
    said = [one.model_dump(mode="json") for one in fields.conditions or ()]
    return _some_rows(fields, table, lambda one: (cells for row, cells in enumerate(one.rows(), 1) if chosen(row, cells)), conditions=said)


def _deduplicate(fields: DataTransformation, table: Table) -> Product:
    columns = fields.columns or table.columns
    return _some_rows(fields, table, lambda one: distinct_rows(one, columns, fields.keep), columns=list(columns), keep=fields.keep)


def _some_rows(fields: DataTransformation, table: Table, choose: Callable[[Table], Iterable[Row]], **facts: Any) -> Product:
    """Rows of the table as they are; with how many went in and came out."""
    row_count = 0

    def rows() -> Iterator[Row]:
        nonlocal row_count
        row_count = 0
        for cells in table.rows():
            row_count += 1
            yield cells

    counted = replace(table, rows=rows)
    data, kept_count = _written(fields, table.columns, lambda: choose(counted))
    return Product(data, kept_count, row_count, {**facts, "rows_in": row_count, "rows_out": kept_count})


def _written(fields: DataTransformation, columns: Sequence[str], rows: Callable[[], Iterable[Iterable[object]]]) -> tuple[bytes, int]:
    if fields.format == "parquet":
        return write_parquet(columns, rows)
    if fields.escape_formulas:
        return write_csv([str(without_formula(one)) for one in columns], (map(without_formula, row) for row in rows()))
    return write_csv(columns, rows())


def _table(fields: DataTransformation, ctx: Context) -> Table:
    if fields.source is None:
        return datasets.dataset(fields.dataset_size, fields.seed)
    try:
        data = ctx.read(fields.source)
    except ObjectMissing as error:
        raise Retry(f"the source {fields.source!r} is not in the bucket (yet): upload it, or name an object that exists") from error
    return read_parquet(fields.source, data) if is_parquet(data) else read_table(fields.source, data)


def _write_data(ctx: Context, product: Product, form: Format) -> dict[str, Any]:
    """Raises Retry when an earlier run of this attempt left other data: the result must describe the data that it names."""
    name = result_data_object(ctx.task.task_id, ctx.attempt, form)
    written = ctx.write(name, product.data, MEDIA_TYPES[form])
    if not written.created and ctx.read(name) != product.data:
        raise Retry(f"the source changed since {name} was written; the next attempt writes data of its own", after_s=0.0)
    return {"object": name, "generation": written.generation, "size": len(product.data), "rows": product.row_count}
