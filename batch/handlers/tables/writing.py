"""The data of a result: a file of CSV or Parquet that this engine, and others, read as it was meant."""

from __future__ import annotations

import csv
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from batch.handlers.tables.engine import Engine, identifier, text
from batch.handlers.tables.source import Source
from batch.handlers.tables.transformations import Plan
from batch.model.errors import Permanent

Target = Literal["csv", "parquet"]
MEDIA_TYPES = {"csv": "text/csv", "parquet": "application/vnd.apache.parquet"}
_FORMULA = "('=', '+', '-', '@', chr(9), chr(13), chr(10))"


def write(source: Source, plan: Plan, target: Target, *, escape_formulas: bool = False) -> tuple[Path, int]:
    """The file, and how many rows it has. Raises Permanent."""
    engine = source.engine
    twice = _alike(plan, str if target == "csv" else str.lower)
    if twice is not None:
        raise Permanent(
            f"{source.name}: two columns of the result have the name {twice[:200]!r}"
            f"{'' if target == 'csv' else ' (but for upper and lower case, which readers of Parquet take for one)'}; "
            "name other columns, or rename one in the source"
        )
    path = engine.folder / f"result.{target}"
    return path, _parquet(engine, plan, path) if target == "parquet" else _csv(source, plan, path, escape_formulas=escape_formulas)


def _csv(source: Source, plan: Plan, path: Path, *, escape_formulas: bool) -> int:
    """UTF-8, lines that end with \\n, quotes where they are needed; the header is written here, for the engine renames columns that differ
    in case only."""
    for name, _, sql in plan.values:
        if not sql:
            raise Permanent(
                f"{source.name}: column {name[:200]!r} holds binary data, which CSV cannot; name it in exclude, or say format: parquet"
            )
    values = [sql for _, _, sql in plan.values]
    names = [name for name, _, _ in plan.values]
    if escape_formulas:
        values = [_without_formula(one) for one in values]
        names = [_shown(one) for one in names]
    if len(values) == 1:
        values = [f"coalesce(CAST({values[0]} AS VARCHAR), '')"]  # or a missing value would be a blank line
    chosen = ", ".join(f"{sql} AS {identifier(name)}" for name, sql in zip(names, values, strict=True))
    options = "FORMAT csv, DELIMITER ',', QUOTE '\"', ESCAPE '\"'"
    if _alike(plan, str.lower) is None:
        return _copied(source.engine, f"COPY (SELECT {chosen} FROM {plan.rows}) TO {text(str(path))} ({options}, HEADER true)")
    body = path.with_suffix(".body")
    count = _copied(source.engine, f"COPY (SELECT {chosen} FROM {plan.rows}) TO {text(str(body))} ({options}, HEADER false)")
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n").writerow(names)  # or a lone \r would stand bare
    with path.open("ab") as file, body.open("rb") as rows:
        shutil.copyfileobj(rows, file)
    body.unlink()
    return count


def _alike(plan: Plan, shape: Callable[[str], str]) -> str | None:
    """A name that occurs twice in this shape."""
    return next((name for name, count in Counter(shape(name) for name, _, _ in plan.values).items() if count > 1), None)


def _parquet(engine: Engine, plan: Plan, path: Path) -> int:
    chosen = ", ".join(f"{sql} AS {identifier(name)}" for name, sql, _ in plan.values)
    return _copied(engine, f"COPY (SELECT {chosen} FROM {plan.rows}) TO {text(str(path))} (FORMAT parquet, COMPRESSION snappy)")


def _copied(engine: Engine, sql: str) -> int:
    return int(engine.row(sql)[0])


def _without_formula(sql: str) -> str:
    """SQL: a text that a spreadsheet would take for a formula, behind an apostrophe; numbers as they are."""
    shown = f"CAST({sql} AS VARCHAR)"
    return f"CASE WHEN substr({shown}, 1, 1) IN {_FORMULA} AND TRY_CAST({shown} AS DOUBLE) IS NULL THEN '''' || {shown} ELSE {shown} END"


def _shown(name: str) -> str:
    if not name.startswith(("=", "+", "-", "@", "\t", "\r", "\n")):
        return name
    try:
        float(name)
    except ValueError:
        return f"'{name}"
    return name
