"""Text: whether bytes are text, in which encoding, how many lines and words. What may be binary is called binary: no guess is reported.

Bytes are looked at in pieces, so that a large file is not copied as a whole.
"""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Iterator

UNKNOWN = "unknown-8bit"
"""Its name by RFC 1428. Lines and words can be counted in it."""
_PIECE_BYTES = 1 << 20
BYTE_ORDER_MARKS = (
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
_MAX_HIGH_RATIO = 0.3
"""Texts in a western single-byte encoding are mostly ASCII; compressed and compiled data are not."""


def encoding_of(data: bytes) -> str | None:
    """`utf-8` (also for ASCII and empty data), `utf-8-sig`, `utf-16` or `utf-32` (only with a byte order mark), UNKNOWN for text in one of
    the encodings of one byte a letter, which no look at it can tell apart, or None for what does not look like text."""
    for mark, encoding in BYTE_ORDER_MARKS:
        if data.startswith(mark):
            return encoding if _is_text_in(data, encoding) else None
    if any(_count(piece, _CONTROL) for piece in _pieces(data)):
        return None
    if _is_text_in(data, "utf-8"):
        return "utf-8"
    return UNKNOWN if _looks_like_one_byte_a_letter(data) else None


def counts(data: bytes, encoding: str) -> tuple[int, int]:
    """Lines and words. A line ends with \\n, \\r\\n or \\r, or with the data; words are what whitespace separates."""
    lines = words = 0
    with io.TextIOWrapper(io.BytesIO(data), "latin-1" if encoding == UNKNOWN else encoding) as text:
        for line in text:
            lines += 1
            words += len(line.split())
    return lines, words


def _is_text_in(data: bytes, encoding: str) -> bool:
    decoder = codecs.getincrementaldecoder(encoding)()
    try:
        found = any(_CONTROL_CHARACTER.search(decoder.decode(piece)) for piece in _pieces(data))
        return not found and not _CONTROL_CHARACTER.search(decoder.decode(b"", final=True))
    except UnicodeDecodeError:
        return False


def _looks_like_one_byte_a_letter(data: bytes) -> bool:
    return sum(_count(piece, _HIGH) for piece in _pieces(data)) <= _MAX_HIGH_RATIO * len(data)


def _pieces(data: bytes) -> Iterator[bytes]:
    return (data[start : start + _PIECE_BYTES] for start in range(0, len(data), _PIECE_BYTES))


def _count(piece: bytes, of: bytes) -> int:
    return len(piece) - len(piece.translate(None, of))
