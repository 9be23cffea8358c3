"""Sources that are written anew before the engine reads them, row by row and exactly: JSON Lines, CSV in another encoding than UTF-8, and
CSV that the engine would read in another way than others. The new file is CSV in UTF-8 with commas.

Rows are found again here, too, by their lines: an engine counts rows, a person looks for a line.
"""

from __future__ import annotations

import csv
import io
import json
import mmap
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from batch.handlers.tables.encoded import Text
from batch.handlers.tables.reading import MAX_COLUMNS, MAX_ROW_BYTES, Reading
from batch.model.errors import Permanent

JsonKinds = dict[str, set[str]]
"""For each column of JSON Lines which of `integer`, `number`, `boolean`, `text` and `nested` its values are."""
REPAIR = 'repair the row, or say quote: "" if quotes are letters like others'


_LINE_END = re.compile(r"\r\n|\n|\r")


class _Digits(str):
    """A number of JSON, letter by letter: nothing of it is lost."""

    __slots__ = ()


def csv_rows(name: str, path: Path, reading: Reading) -> Iterator[tuple[int, list[str]]]:
    """The line on which each row begins, and its cells, the header's first. A blank line is no row, but in a table of one column, where it
    is a missing value; empty cells beyond the header's are nothing. The engine reads so, too. Raises Permanent, with the line, for what
    is no row of the table."""
    text = reading.text or Text("utf-8")
    quoting: dict[str, Any] = {"quotechar": reading.quote} if reading.quote else {"quoting": csv.QUOTE_NONE}
    with text.opened(path) as lines:
        for _ in range(reading.skipped_lines):
            next(lines)
        reader = csv.reader(
            _bounded(name, lines, reading.skipped_lines),
            delimiter=reading.delimiter,
            strict=True,
            skipinitialspace=reading.skip_space,
            **quoting,
        )
        width, line = len(reading.names), reading.skipped_lines + 1
        try:
            for cells in reader:
                if not cells and width == 1:
                    cells = [""]
                if len(cells) > width and not any(cells[width:]):
                    del cells[width:]
                if cells and len(cells) != width:
                    raise Permanent(f"{name}, line {line}: {len(cells)} cells where the header has {width}; {REPAIR}")
                if cells:
                    yield line, cells
                line = reading.skipped_lines + reader.line_num + 1
        except csv.Error as error:
            raise Permanent(f"{name}, line {line}: a quote that does not end where its cell ends ({error}); {REPAIR}") from error


def _bounded(name: str, lines: TextIO, before: int = 0) -> Iterator[str]:
    """Raises Permanent for a line that would fill the memory."""
    for number, line in enumerate(iter(partial(lines.readline, MAX_ROW_BYTES + 1), ""), before + 1):
        if len(line) > MAX_ROW_BYTES:
            raise Permanent(f"{name}, line {number} is longer than {MAX_ROW_BYTES:,} characters; shorten its cells, or split them")
        yield line


def rewritten_csv(name: str, path: Path, reading: Reading, target: Path, limit_bytes: int) -> Reading:
    """Write the table anew, and how to read that. Raises Permanent."""
    rows = csv_rows(name, path, reading)
    if reading.has_header:
        next(rows, None)
    _write(name, target, (cells for _, cells in rows), limit_bytes)
    return _canonical(reading.names)


def json_rows(name: str, path: Path, text: Text) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line and object. Raises Permanent."""
    with path.open(encoding=text.codec) as lines:
        for line, found in enumerate(_bounded(name, lines), 1):
            if not found.strip():
                continue
            try:
                row = _DECODER.decode(found)
            except (ValueError, RecursionError) as error:
                raise Permanent(f"{name}, line {line} is not JSON: {error}; JSON Lines has one whole object on each line") from error
            if not isinstance(row, dict):
                raise Permanent(f"{name}, line {line} is JSON but not an object; JSON Lines has one object on each line")
            yield line, row


def rewritten_json(name: str, path: Path, text: Text, target: Path, limit_bytes: int) -> tuple[Reading, JsonKinds]:
    """Write JSON Lines as CSV: a column for each key that occurs, in the order in which they do. Raises Permanent."""
    kinds: JsonKinds = {}
    for line, row in json_rows(name, path, text):
        for key, value in row.items():
            if key not in kinds:
                if not key.strip():
                    raise Permanent(f"{name}, line {line} has a key without a name; give each key its own name")
                kinds[_unicode(name, line, key)] = set()
                if len(kinds) > MAX_COLUMNS:
                    raise Permanent(f"{name}, line {line}: more than {MAX_COLUMNS} different keys; write them as rows of name and value")
            if value is not None:
                kinds[key].add(_kind(value))
    names = tuple(kinds)
    if not names:
        raise Permanent(f"{name} has no keys, so it has no columns")
    rows = ([_cell(name, line, row.get(key)) for key in names] for line, row in json_rows(name, path, text))
    _write(name, target, rows, limit_bytes)
    return _canonical(names), kinds


def line_of_row(name: str, path: Path, reading: Reading, row: int) -> int:
    """The line on which a row, counted from 1, begins."""
    lines = (line for line, _ in csv_rows(name, path, reading))
    if reading.format == "json_lines":
        lines = (line for line, _ in json_rows(name, path, reading.text or Text("utf-8")))
    elif reading.has_header:
        next(lines, None)
    return next(line for number, line in enumerate(lines, 1) if number == row)


def needs_rewriting(path: Path, reading: Reading) -> bool:
    """Whether the engine would not read this CSV as others do. Behind a byte order mark it loses a row, or makes one of
    half the header, unless the header is the first line and no more. After a blank line it takes half a line end for a letter of the
    next cell, where one of its buffers ends between \\r and \\n."""
    text = reading.text or Text("utf-8")
    is_plain = text.encoding == "utf-8" and not text.is_mixed and not reading.skip_space and reading.header_lines == 1
    if not is_plain:
        return True
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(b"\r\n\r\n") >= 0 or _has_spaced_quotes(content, reading)


def _has_spaced_quotes(content: mmap.mmap, reading: Reading) -> bool:
    """Whether a quote may begin or end a cell but for spaces beside it. The engine takes such spaces for nothing, where others take the
    quotes for letters."""
    if not reading.quote or (reading.quote == '"' and reading.text and not reading.text.has_quotes):
        return False
    quote, delimiter = re.escape(reading.quote.encode()), re.escape(reading.delimiter.encode())
    pattern = b"(?:^|[\r\n]|%b) +%b|%b +(?:%b|[\r\n]|$)" % (delimiter, quote, quote, delimiter)
    return re.search(pattern, content) is not None


def end_last_line(path: Path) -> None:
    """A last row without an end that is longer than its buffer the engine loses or cuts without a word; with one it is refused."""
    with path.open("rb+") as file:
        head = file.read(1 << 16)
        file.seek(-1, io.SEEK_END)
        if file.read(1) not in b"\r\n":
            file.write(b"\r\n" if b"\r\n" in head else b"\r" if b"\r" in head and b"\n" not in head else b"\n")


def first_problem(name: str, path: Path, reading: Reading) -> Permanent | None:
    """What is wrong with a CSV source, with its line; None when nothing is found."""
    try:
        for _ in csv_rows(name, path, reading):
            pass
    except Permanent as problem:
        return problem
    return None


def first_cut(name: str, path: Path, reading: Reading) -> int:
    """The line on which the first row begins that goes on beyond its line, when each such row could be a whole row on each of its lines,
    with quotes as letters: then two stray quotes may have swallowed rows. Else 0."""
    width, first = len(reading.names), 0
    for line, cells in csv_rows(name, path, reading):
        parts = _LINE_END.split(reading.delimiter.join(cells))
        if len(parts) > 1 and any(part.count(reading.delimiter) != width - 1 for part in parts):
            return 0
        first = first or (line if len(parts) > 1 else 0)
    return first


def _canonical(names: tuple[str, ...]) -> Reading:
    """How the new file is read. It has no header."""
    return Reading("csv", Text("utf-8", has_quotes=True), ",", '"', False, is_stated=True, names=names)


def _write(name: str, target: Path, rows: Iterator[list[str]], limit_bytes: int) -> None:
    """Raises Permanent beyond the limit: where each row has other keys, a few bytes of JSON become a cell for every key."""
    with target.open("wb") as raw, io.TextIOWrapper(raw, encoding="utf-8", newline="") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n")  # or a lone \r would stand bare
        for row in rows:
            writer.writerow(row)
            if raw.tell() > limit_bytes:
                raise Permanent(
                    f"{name} unfolds into a file of more than {limit_bytes:,} bytes, which is all that one task has for it: split it, or "
                    "send it to a lane with a larger DATA_MAX_BYTES"
                )


# --- values of JSON


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice[:60]!r} occurs twice in one object")
    return found


def _refuse_constant(constant: str) -> None:
    raise ValueError(f"{constant} is not a JSON number; leave the value out, or give null")


_DECODER = json.JSONDecoder(object_pairs_hook=_pairs, parse_float=_Digits, parse_int=_Digits, parse_constant=_refuse_constant)


def _kind(value: object) -> str:
    if isinstance(value, _Digits):
        return "integer" if value.lstrip("-").isdigit() else "number"
    if isinstance(value, bool):
        return "boolean"
    return "text" if isinstance(value, str) else "nested"


def _cell(name: str, line: int, value: object) -> str:
    """Numbers as they stand, true and false, nested values as JSON, null as blank."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value if isinstance(value, _Digits) else _unicode(name, line, value)
    try:
        return _unicode(name, line, _dumped(value))
    except RecursionError as error:
        raise Permanent(f"{name}, line {line} holds values in values, too deep to be written; give them as text") from error


def _dumped(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key, ensure_ascii=False)}: {_dumped(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_dumped, value)) + "]"
    return value if isinstance(value, _Digits) else json.dumps(value, ensure_ascii=False)


def _unicode(name: str, line: int, text: str) -> str:
    """JSON can spell half a surrogate pair, which no file can hold, and U+0000, which no CSV can."""
    if text.isascii() and "\0" not in text:
        return text
    try:
        text.encode()
        if "\0" not in text:
            return text
    except UnicodeEncodeError:
        pass
    raise Permanent(f"{name}, line {line} holds {text[:60]!r}, which is not text that a file can hold")
