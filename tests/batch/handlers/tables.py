"""Tables for the tests of `data_transformation`: made with pyarrow, put through the handler, and read back with it."""

from __future__ import annotations

import csv
import io
import json
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from batch.testing import MemoryObjectStore, run_handler


class Made(NamedTuple):
    """The data of a result, and the result."""

    data: bytes
    result: dict[str, Any]

    @property
    def rows(self) -> list[list[str]]:
        """Of a CSV result, the header's first."""
        return list(csv.reader(io.StringIO(self.data.decode(), newline=""), strict=True))

    @property
    def table(self) -> pa.Table:
        """Of a Parquet result."""
        return pq.read_table(io.BytesIO(self.data))


def parquet(columns: dict[str, Any] | pa.Table, **options: Any) -> bytes:
    """A file of Parquet."""
    body = io.BytesIO()
    pq.write_table(columns if isinstance(columns, pa.Table) else pa.table(columns), body, **options)
    return body.getvalue()


def transformed(source: bytes | str, name: str = "t.csv", **fields: Any) -> Made:
    """What the handler makes of a source; without `transformation` the rows in which the column `of` has a value. Raises what it raises."""
    if fields.setdefault("transformation", "filter") == "filter" and "conditions" not in fields:
        fields["conditions"] = [{"column": fields.pop("of", "x"), "operator": "is_missing", "value": False}]
    store = MemoryObjectStore()
    store.write(name, source.encode() if isinstance(source, str) else source)
    run = run_handler("data_transformation", {"source": name, **fields}, store=store)
    result = json.loads(store.read(f"results/{run.task.task_id}.json"))
    return Made(store.read(result["data"]["object"]), result)
