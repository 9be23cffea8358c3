"""How a source is read: its format, encoding, delimiter and header, decided from its first bytes, its name and what the task says of it.

Nothing is guessed that cannot fail. Text is UTF-8, or has a byte order mark, or the task names its encoding. Without `delimiter` a name
that ends with .tsv says tab; else it is the one among comma, semicolon, tab and bar with which most of the first rows are as wide as the
header, then the one that makes most columns; what is still undecided a name that ends with .csv decides for the comma.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from batch.handlers import media
from batch.handlers.tables.encoded import Text, text_of
from batch.handlers.tables.options import Format, ReadOptions
from batch.model.errors import Permanent

MAX_COLUMNS = 1000
MAX_HEADER_CHARS = 1 << 20
MAX_ROW_BYTES = 8 << 20
"""The longest row, and with it the longest cell."""
SEPARATORS = ",;\t|"
SHOWN = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
_SAMPLE_CHARS = 1 << 16
_SAMPLE_ROWS = 100
_MARK, _ENCRYPTED = b"PAR1", b"PARE"
_SEP_LINE = re.compile(r'"?sep=(.)"?(?:\r\n|\n|\r)')
_LINE_END = re.compile(r"\r\n|\n|\r")
_BLANK_LINES = re.compile(r"(?:\r\n|\n|\r)*")
csv.field_size_limit(MAX_ROW_BYTES)


@dataclass(frozen=True, slots=True)
class Reading:
    """`names` are the columns of a CSV source, in order; other formats tell theirs later. `skipped_lines` stand before the header,
    which ends after `header_lines`. `skip_space`: cells begin with a space that is none of theirs. `is_stated`: the task itself says what
    quotes are."""

    format: Format
    text: Text | None = None
    delimiter: str = ""
    quote: str = ""
    has_header: bool = True
    skipped_lines: int = 0
    header_lines: int = 1
    skip_space: bool = False
    is_stated: bool = False
    names: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def facts(self) -> dict[str, object]:
        """As a result tells them."""
        if self.text is None:
            return {"format": self.format}
        facts: dict[str, object] = {"format": self.format, "encoding": self.text.encoding}
        return facts if self.format != "csv" else {**facts, "delimiter": self.delimiter, "quote": self.quote, "header": self.has_header}


def reading_of(name: str, path: Path, options: ReadOptions) -> Reading:
    """Raises Permanent for what is no table, or not one that can be read with these options."""
    begin, end = _marks(path)
    if begin in (_MARK, _ENCRYPTED) and end == _ENCRYPTED:
        raise Permanent(f"{name} is encrypted Parquet; give it without encryption")
    if begin == end == _MARK and options.source_format in (None, "parquet"):
        wrong = options.given("delimiter", "quote", "encoding", "header")
        if wrong:
            raise Permanent(f"{name} is Parquet, which has no {wrong}: leave {wrong} out")
        return Reading("parquet")
    with path.open("rb") as file:
        kind = media.signature(file.read(1024))
    if kind == media.PARQUET or options.source_format == "parquet":
        raise Permanent(f"{name} is not a whole file of Parquet: it was cut off; write it again")
    if kind:
        raise Permanent(f"{name} is {kind}, which is no table; give CSV, JSON Lines or Parquet")
    text = text_of(name, path, options.encoding)
    head = text.head(path, _SAMPLE_CHARS)
    if not head.strip():
        raise Permanent(f"{name} is empty; give CSV with a header, or JSON Lines")
    form = options.source_format or _format_of(name, head)
    if form == "json_lines":
        wrong = options.given("delimiter", "quote", "header")
        if wrong:
            raise Permanent(f"{name} is JSON Lines, which has no {wrong}: leave {wrong} out")
        return Reading("json_lines", text)
    return _csv(name, path, text, head, options)


def _marks(path: Path) -> tuple[bytes, bytes]:
    """The first and the last bytes, by which Parquet is known; empty when they are too near for that."""
    with path.open("rb") as file:
        begin = file.read(4)
        if file.seek(0, io.SEEK_END) < 12:
            return b"", b""
        file.seek(-4, io.SEEK_END)
        return begin, file.read(4)


def _format_of(name: str, head: str) -> Format:
    begins, promised = head.lstrip(), media.by_name(name)
    if promised == media.JSON_LINES:
        return "json_lines"
    if begins.startswith("[") and (promised not in (media.CSV, media.TSV) or re.match(r"\[\s*[\[{]", begins)):
        raise Permanent(f"{name} is a JSON array; give JSON Lines: one object on each line, without brackets and commas around them")
    return "json_lines" if begins.startswith("{") and promised not in (media.CSV, media.TSV) else "csv"


# --- CSV


def _csv(name: str, path: Path, text: Text, head: str, options: ReadOptions) -> Reading:
    promised = media.by_name(name)
    said = _SEP_LINE.match(head)
    sample = head[said.end() :] if said else head
    blank = _BLANK_LINES.match(sample)
    blank_lines = blank.group() if blank else ""
    skipped_lines = bool(said) + len(blank_lines.splitlines())
    sample = sample[len(blank_lines) :]
    quote = '"' if options.quote is None else options.quote
    delimiter = options.delimiter or (said.group(1) if said else "") or ("\t" if promised == media.TSV else "")
    if not delimiter:
        is_sure = promised == media.CSV or options.source_format == "csv"
        delimiter = _delimiter_of(name, sample, quote, is_sure=is_sure, is_csv=promised == media.CSV)
    rows = _sample_rows(sample, delimiter, quote)
    skip_space = len(rows[0]) > 1 and all(cell.startswith(" ") for cell in rows[0][1:]) if rows else False
    header = _first_row(name, path, text, skipped_lines, delimiter, quote)
    warnings = []
    if options.header:
        _refuse_title(name, skipped_lines + 1, header, rows[1] if len(rows) > 1 else [])
        names = _names(name, header)
        if all(re.fullmatch(r"[+-]?[0-9][0-9.,]*", one) for one in names):
            warnings.append("all names in the header are numbers; say header: false if the first row is data")
    else:
        names = _numbered(header)
    if len(names) > MAX_COLUMNS:
        raise Permanent(f"{name} has {len(names)} columns; a table may have {MAX_COLUMNS}: split it, or write it as rows of name and value")
    return Reading(
        "csv",
        text,
        delimiter,
        quote,
        has_header=options.header,
        skipped_lines=skipped_lines,
        header_lines=skipped_lines + 1 + sum(len(_LINE_END.findall(cell)) for cell in header),
        skip_space=skip_space,
        is_stated=options.quote is not None,
        names=names,
        warnings=tuple(warnings),
    )


def unquoted(name: str, path: Path, reading: Reading) -> Reading:
    """The same, with quotes as letters. Raises Permanent where the names stand in quotes, which are no letters then."""
    skipped = reading.skipped_lines
    header = _first_row(name, path, reading.text or Text("utf-8"), skipped, reading.delimiter, "")
    if reading.has_header and any(len(cell) > 1 and cell[0] == cell[-1] == reading.quote for cell in header):
        raise Permanent(f"{name}, line {skipped + 1} has names in quotes")
    names = _names(name, header) if reading.has_header else _numbered(header)
    return replace(reading, quote="", is_stated=True, header_lines=skipped + 1, names=names)


def _delimiter_of(name: str, sample: str, quote: str, *, is_sure: bool, is_csv: bool) -> str:
    """Raises Permanent when two are as likely, or when there is none in a file that nothing says is CSV."""
    scores: dict[str, tuple[float, int]] = {}
    for separator in SEPARATORS:
        rows = _sample_rows(sample, separator, quote)
        if rows and len(rows[0]) > 1:
            scores[separator] = (sum(len(row) == len(rows[0]) for row in rows) / len(rows), len(rows[0]))
    if not scores:
        if is_sure:
            return ","
        raise Permanent(
            f"{name} is neither CSV nor JSON Lines: no comma, semicolon, tab or bar separates its first rows; or give delimiter"
        )
    best = max(scores.values())
    found = [separator for separator, score in scores.items() if score == best]
    if len(found) == 1 or (is_csv and "," in found):
        return found[0]
    raise Permanent(f"{name} can be cut into columns by {' and by '.join(SHOWN[one] for one in found)} alike; say which with delimiter")


def _sample_rows(sample: str, separator: str, quote: str) -> list[list[str]]:
    """The last row of a sample that was cut is left out: it may be half a row."""
    rows = []
    try:
        for cells in _reader(io.StringIO(sample, newline=""), separator, quote):
            if cells:
                rows.append(cells)
            if len(rows) > _SAMPLE_ROWS:
                break
    except csv.Error:
        pass  # the reading itself finds where, and says so
    return rows[:-1] if len(sample) >= _SAMPLE_CHARS and len(rows) > 1 else rows[:_SAMPLE_ROWS]


def _reader(lines: Iterator[str] | io.StringIO, separator: str, quote: str) -> Iterator[list[str]]:
    if not quote:
        return csv.reader(lines, delimiter=separator, quoting=csv.QUOTE_NONE)
    return csv.reader(lines, delimiter=separator, quotechar=quote)


def _first_row(name: str, path: Path, text: Text, skipped_lines: int, delimiter: str, quote: str) -> list[str]:
    def bounded() -> Iterator[str]:
        left = MAX_HEADER_CHARS
        with text.opened(path) as lines:
            for number, line in enumerate(iter(partial(lines.readline, MAX_HEADER_CHARS + 1), "")):
                left -= len(line)
                if left < 0:
                    raise Permanent(
                        f"{name}, line 1: the header is longer than {MAX_HEADER_CHARS} characters; close its quotes, or shorten it"
                    )
                if number >= skipped_lines:
                    yield line

    try:
        return next((cells for cells in _reader(bounded(), delimiter, quote) if cells), [])
    except csv.Error as error:
        raise Permanent(f"{name}, line {skipped_lines + 1} is not CSV that can be read: {error}") from error


def _refuse_title(name: str, line: int, header: list[str], row: list[str]) -> None:
    """One text in a row of several cells is no header; in a row of two, when it is the first and the next row has both."""
    texts = [cell.strip() for cell in header if cell.strip()]
    if len(texts) == 1 and (len(header) > 2 or (len(header) == 2 and header[0].strip() and len(row) == 2 and all(map(str.strip, row)))):
        raise Permanent(
            f"{name}, line {line} has a text in one cell only ({texts[0][:60]!r}): it is a title, not a header; delete what stands above "
            "the header, or name all columns"
        )


def _numbered(row: list[str]) -> tuple[str, ...]:
    return tuple(f"column_{place}" for place in range(1, len(row) + 1))


def _names(name: str, header: list[str]) -> tuple[str, ...]:
    names = tuple(cell.strip() or f"column_{place}" for place, cell in enumerate(header, 1))
    refuse_twice(name, names)
    return names


def refuse_twice(name: str, names: tuple[str, ...]) -> None:
    """Raises Permanent when two columns have one name."""
    if len(set(names)) < len(names):
        twice = next(one for one, count in Counter(names).items() if count > 1)
        raise Permanent(f"{name} has more than one column {twice[:200]!r}; give each column its own name")
