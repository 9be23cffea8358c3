"""Text: whether bytes are text, in which encoding, how many lines and words. What may be binary is called binary: no guess is reported.

Bytes are looked at in pieces, so that a large file is not copied as a whole.
"""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Iterator

_PIECE_BYTES = 1 << 20
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose little-endian mark begins it
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_WHITESPACE_AND_ESCAPE = b"\b\t\n\v\f\r\x1b"
_CONTROL = bytes(byte for byte in (*range(32), 127) if byte not in _WHITESPACE_AND_ESCAPE)
_CONTROL_CHARACTER = re.compile("[" + re.escape(_CONTROL.decode("ascii")) + "]")
_HIGH = bytes(range(0x80, 0x100))
_C1 = bytes(range(0x80, 0xA0))
_MAX_HIGH_RATIO = 0.3
"""Texts in a western single-byte encoding are mostly ASCII; compressed and compiled data are not."""


def encoding_of(data: bytes) -> str | None:
    """`utf-8` (also for ASCII and empty data), `utf-8-sig`, `utf-16` or `utf-32` (only with a byte order mark), `latin-1`,
    `windows-1252`, or None for what does not look like text. Each is a name that Python's codecs know."""
    for mark, encoding in _BYTE_ORDER_MARKS:
        if data.startswith(mark):
            return encoding if _is_text_in(data, encoding) else None
    if any(_count(piece, _CONTROL) for piece in _pieces(data)):
        return None
    return "utf-8" if _is_text_in(data, "utf-8") else _single_byte_encoding(data)


def counts(data: bytes, encoding: str) -> tuple[int, int]:
    """Lines and words. A line ends with \\n, \\r\\n or \\r, or with the data; words are what whitespace separates."""
    lines = words = 0
    with io.TextIOWrapper(io.BytesIO(data), encoding) as text:
        for line in text:
            lines += 1
            words += len(line.split())
    return lines, words


def head(data: bytes, encoding: str, characters: int) -> str:
    """The first characters, with their line ends as they are."""
    with io.TextIOWrapper(io.BytesIO(data), encoding, newline="") as text:
        return text.read(characters)


def _is_text_in(data: bytes, encoding: str) -> bool:
    decoder = codecs.getincrementaldecoder(encoding)()
    try:
        found = any(_CONTROL_CHARACTER.search(decoder.decode(piece)) for piece in _pieces(data))
        return not found and not _CONTROL_CHARACTER.search(decoder.decode(b"", final=True))
    except UnicodeDecodeError:
        return False


def _single_byte_encoding(data: bytes) -> str | None:
    if sum(_count(piece, _HIGH) for piece in _pieces(data)) > _MAX_HIGH_RATIO * len(data):
        return None
    if not any(_count(piece, _C1) for piece in _pieces(data)):
        return "latin-1"
    # Latin-1 has control characters where Windows has quotation marks and dashes.
    return "windows-1252" if _is_text_in(data, "windows-1252") else None


def _pieces(data: bytes) -> Iterator[bytes]:
    return (data[start : start + _PIECE_BYTES] for start in range(0, len(data), _PIECE_BYTES))


def _count(piece: bytes, of: bytes) -> int:
    return len(piece) - len(piece.translate(None, of))
