"""Opening a source: CSV, JSON Lines or Parquet becomes the view `source`, read whole or refused, and looked at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from batch.handlers.tables.columns import SAMPLE_CELLS, SAMPLE_ROWS, Column, Draft, blank_free
from batch.handlers.tables.digits import MAX_DIGITS
from batch.handlers.tables.engine import Engine, text
from batch.handlers.tables.options import ReadOptions
from batch.handlers.tables.reading import MAX_COLUMNS, MAX_ROW_BYTES, Reading, reading_of, refuse_twice, unquoted
from batch.handlers.tables.rewriting import (
    JsonKinds,
    csv_rows,
    end_last_line,
    first_cut,
    first_problem,
    needs_rewriting,
    rewritten_csv,
    rewritten_json,
)
from batch.handlers.tables.source import REWRITTEN, Source, hint, in_parts
from batch.model.errors import Permanent

BUFFER_ROWS = 4
"""The engine reads as many of the longest rows at a time. With fewer it lost the last row of a file, or cut one that was too long."""
_UNQUOTED = "quotes are read as letters: with quotes as such, rows would be lost"


def opened_source(engine: Engine, name: str, path: Path, options: ReadOptions) -> Source:
    """Read all of a source once, and look at it. Raises Permanent for what cannot be read whole."""
    reading = reading_of(name, path, options)
    source = Source(engine, name, path, reading, options, warnings=list(reading.warnings))
    if reading.format == "parquet":
        _look(source, *_parquet(source))
    elif reading.format == "json_lines":
        canonical, kinds = rewritten_json(name, path, _known(reading), engine.folder / REWRITTEN, engine.files_bytes)
        _look_at_csv(source, engine.folder / REWRITTEN, canonical, kinds)
        source.warnings += [
            f"column {one!r} holds {' and '.join(sorted(found))} values; all are read as text"
            for one, found in kinds.items()
            if len(found) > 1 and not found <= {"integer", "number"}
        ]
    else:
        _csv(source)
    if not source.row_count:
        raise Permanent(f"{name} has columns but no rows")
    for one in options.types:
        source.column(one)
    return source


def _refuse_unknown(name: str, wanted: Sequence[str], names: Sequence[str]) -> None:
    known = set(names)
    for one in wanted:
        if one not in known:
            raise Permanent(f"{name} has no column {one[:200]!r}{hint(one, names)}")


def _known(reading: Reading) -> Any:
    return reading.text


# --- CSV


def _csv(source: Source) -> None:
    """Tab-separated text whose quotes are letters is read so, and that is told."""
    reading, text = source.reading, _known(source.reading)
    may_be_plain = reading.delimiter == "\t" and reading.quote and not reading.is_stated
    try:
        is_rewritten = _read_csv(source)
    except Permanent:
        if not may_be_plain or not _unquoted(source):
            raise
        return
    is_longer = text.has_quotes and text.line_count > source.row_count + reading.has_header
    if reading.quote and not reading.is_stated and (is_rewritten or is_longer):
        line = first_cut(source.name, source.path, reading)
        if line and not (may_be_plain and _unquoted(source)):
            raise Permanent(
                f"{source.name}, line {line}: a cell in quotes goes on beyond its line, but each of its lines is a whole row without "
                'quotes: say quote: \'"\' if cells may have lines of their own, or quote: "" if quotes are letters like others'
            )


def _read_csv(source: Source) -> bool:
    """Whether it was written anew. Raises Permanent, with the line."""
    name, path, reading = source.name, source.path, source.reading
    if needs_rewriting(path, reading):
        target = source.engine.folder / REWRITTEN
        canonical = rewritten_csv(name, path, reading, target, source.engine.files_bytes)
        _look_at_csv(source, target, canonical, None)
        return True
    end_last_line(path)
    try:
        _look_at_csv(source, path, reading, None)
    except Permanent as error:
        raise first_problem(name, path, reading) or error from error
    if _may_lack_rows(source):
        row_count = sum(1 for _ in csv_rows(name, path, reading)) - reading.has_header
        if row_count != source.row_count:
            raise Permanent(f"{name} has {row_count} rows, but only {source.row_count} could be read; delete its blank lines")
    return False


def _may_lack_rows(source: Source) -> bool:
    """Whether there are more lines than the rows have: blank ones, or lost ones. The engine leaves out a last row that is too long or whose
    quotes do not end."""
    left: int = _known(source.reading).line_count - source.row_count - source.reading.has_header
    if not left:
        return False
    cells = f"concat_ws('', {', '.join(f'c{place}' for place in range(len(source.reading.names)))})"
    ends = ", ".join(f"sum(strlen({cells}) - strlen(replace({cells}, chr({end}), '')))" for end in (10, 13))
    return left != max(one or 0 for one in source.engine.row(f"SELECT {ends} FROM source"))


def _unquoted(source: Source) -> bool:
    """Read it without quotes. False where not every line is a row then."""
    quoted = source.reading
    try:
        source.reading = unquoted(source.name, source.path, quoted)
        _read_csv(source)
    except Permanent:
        source.reading = quoted
        return False
    source.warnings.append(_UNQUOTED)
    return True


def _look_at_csv(source: Source, path: Path, reading: Reading, kinds: JsonKinds | None) -> None:
    columns = ", ".join(f"'c{place}': 'VARCHAR'" for place in range(len(reading.names)))
    options = {
        "auto_detect": "false",
        "header": "true" if reading.has_header else "false",
        "delim": text(reading.delimiter),
        "quote": text(reading.quote),
        "escape": text(reading.quote),
        "strict_mode": "true",
        "null_padding": "false",
        "allow_quoted_nulls": "false",
        "max_line_size": str(MAX_ROW_BYTES),
        "buffer_size": str(BUFFER_ROWS * MAX_ROW_BYTES),
        # In parts side by side it has lost rows around quotes without a word, and refused plain files.
        "parallel": "false",
        "columns": f"{{{columns}}}",
    }
    if path != source.path:
        options["new_line"] = r"'\n'"  # the engine would take the first \r, in quotes, too
    table = f"read_csv({text(str(path))}, {', '.join(f'{one}={said}' for one, said in options.items())})"
    _look(source, table, reading.names, tuple("VARCHAR" for _ in reading.names), kinds)


# --- Parquet


def _parquet(source: Source) -> tuple[str, tuple[str, ...], tuple[str, ...], JsonKinds]:
    """The table in SQL, names and types of its columns. A text there is a text, whatever it looks like."""
    engine, name, options = source.engine, source.name, source.options
    table = f"read_parquet({text(str(source.path))})"
    try:
        described = engine.rows(f"DESCRIBE SELECT * FROM {table}")
    except Permanent as error:
        raise Permanent(
            f"{name} is not Parquet that can be read, it may be damaged; write it again ({str(error).removeprefix(name + ': ')})"
        ) from error
    types = tuple(str(one[1]) for one in described)
    if len(types) > MAX_COLUMNS:
        raise Permanent(f"{name} has {len(types)} columns; a table may have {MAX_COLUMNS}")
    schema = engine.rows(
        f"SELECT name, coalesce(num_children, 0), type, coalesce(precision, 0) FROM parquet_schema({text(str(source.path))})"
    )
    parts_of = _column_parts(schema)
    names = tuple(str(parts[0][0]) for parts in parts_of)
    if any(not one for one in names):
        raise Permanent(f"{name} has a column without a name; give each column its own name")
    refuse_twice(name, names)
    for one, parts in zip(names, parts_of, strict=True):
        if one in options.exclude:
            continue
        digits = max(int(precision) for *_, precision in parts)
        if digits > MAX_DIGITS:
            raise Permanent(f"{name}: column {one[:200]!r} is a decimal of {digits} digits, and {MAX_DIGITS} are exact; name it in exclude")
        if any(kind == "INT96" for _, _, kind, _ in parts):
            source.warnings.append(f"column {one!r} holds timestamps of the old type INT96: what is finer than a microsecond is cut")
    return table, names, types, {one: {"text"} for one in names}


def _column_parts(schema: Sequence[tuple[Any, ...]]) -> list[Sequence[tuple[Any, ...]]]:
    """For each column its line of the schema and those of its parts: the engine itself would rename what differs in case only."""
    found: list[Sequence[tuple[Any, ...]]] = []
    place = 1
    for _ in range(schema[0][1]):
        begin, left = place, 1
        while left:
            left += schema[place][1] - 1
            place += 1
        found.append(schema[begin:place])
    return found


# --- what is in it


def _look(source: Source, table: str, names: Sequence[str], types: Sequence[str], kinds: JsonKinds | None) -> None:
    """Read everything once: how many rows, and what each column holds."""
    options, engine = source.options, source.engine
    _refuse_unknown(source.name, options.exclude, names)
    everything = ", ".join(f"c{place}" for place in range(len(names)))
    engine.rows(f"CREATE OR REPLACE TEMP VIEW source AS SELECT * FROM {table} AS raw({everything})")
    drafts = [
        Draft(
            name,
            place,
            types[place],
            options.types.get(name),
            None if kinds is None else frozenset(kinds[name]),
            options,
            keeps_blanks=source.reading.format == "parquet",
        )
        for place, name in enumerate(names)
        if name not in options.exclude
    ]
    if not drafts:
        raise Permanent(f"{source.name} has no column but those in exclude")
    texts = [one for one in drafts if one.is_text]
    if texts:
        row_count = min(SAMPLE_ROWS, SAMPLE_CELLS // len(texts))
        for some in in_parts(texts):
            sample = engine.rows(f"SELECT {', '.join(one.raw for one in some)} FROM source LIMIT {row_count}")
            for place, one in enumerate(some):
                one.sample = [blank_free(row[place], options) for row in sample]
    source.row_count, found = _asked(engine, drafts)
    open_ones = [place for place, draft in enumerate(drafts) if not draft.is_answered(found[place])]
    if open_ones:
        _, again = _asked(engine, [drafts[place] for place in open_ones])
        for place, answers in zip(open_ones, again, strict=True):
            found[place] = answers
    source.columns = tuple(one.column(source.row_count, answers) for one, answers in zip(drafts, found, strict=True))
    for draft, column in zip(drafts, source.columns, strict=True):
        _demand_type(source, draft, column)


def _asked(engine: Engine, drafts: Sequence[Draft]) -> tuple[int, list[list[Any]]]:
    """The number of rows, and for each column the values of its aggregates."""
    row_count, told = 0, []
    for some in in_parts(drafts):
        asked = [one.aggregates() for one in some]
        values, parts = (", ".join(each) for each in zip(*(one.parts() for one in some), strict=True))
        rows = f"(SELECT {parts} FROM (SELECT {values} FROM source))"
        found = engine.row(f"SELECT count(*), {', '.join(sql for each in asked for sql in each)} FROM {rows}")
        row_count, answers = found[0], iter(found[1:])
        told += [[next(answers) for _ in each] for each in asked]
    return row_count, told


def _demand_type(source: Source, draft: Draft, column: Column) -> None:
    """Raises Permanent, with the line, for a value that is not of the type that the task names."""
    if draft.stated is None or column.kind == "empty":
        return
    if not draft.is_text:
        if draft.stated != column.kind:
            raise Permanent(
                f"{source.name}: column {column.name[:200]!r} has the type {column.kind} of its own, not {draft.stated}; "
                "leave it out of types"
            )
        return
    if draft.candidate == "text" or column.kind == draft.stated or (column.number and draft.stated in ("decimal", "double")):
        return
    found = source.first(column, draft.test())
    if found is None:
        raise Permanent(f"{source.name}: column {column.name[:200]!r}: {column.problem}")
    row, cell = found
    raise Permanent(f"{source.name}, {source.place(row)}: column {column.name[:200]!r} holds {cell[:60]!r}, which is no {draft.stated}")
