"""The text of a source: its encoding, which is known or refused, and where its lines end.

UTF-8 is checked to the last byte before anything is read: an encoding that takes any bytes turns one stray byte into a whole file of wrong
letters, so none is ever guessed, only suggested.
"""

from __future__ import annotations

import codecs
import io
from dataclasses import dataclass
from pathlib import Path

from batch.handlers import texts
from batch.handlers.tables.options import ENCODINGS
from batch.model.errors import Permanent

_MARKS = tuple((mark, encoding.removesuffix("-sig")) for mark, encoding in texts.BYTE_ORDER_MARKS)
_COMMON = (
    "cp1252",
    "cp1251",
    "cp1250",
    "iso8859-2",
    "shift_jis",
    "gb18030",
    "big5",
    "euc_kr",
    "cp1253",
    "cp1254",
    "koi8-r",
    "cp437",
    "cp850",
)
_PIECE = 1 << 20
_AROUND = 4096


@dataclass(frozen=True, slots=True)
class Text:
    """`encoding` by its name, `mark` whether a byte order mark begins the file. `line_count`, `is_mixed` (lines that end with \\n and with
    \\r\\n or \\r) and `has_quotes` are known for UTF-8 only."""

    encoding: str
    mark: bool = False
    line_count: int = 0
    is_mixed: bool = False
    has_quotes: bool = False

    @property
    def codec(self) -> str:
        """For Python; it takes the mark away."""
        return "utf-8-sig" if self.encoding == "utf-8" else self.encoding

    def opened(self, path: Path) -> io.TextIOWrapper:
        """Lines with their ends as they are. Reading raises UnicodeDecodeError."""
        return path.open(encoding=self.codec, newline="")

    def head(self, path: Path, chars: int) -> str:
        """The first characters. Raises Permanent."""
        with self.opened(path) as lines:
            try:
                return lines.read(chars)
            except UnicodeDecodeError as error:
                raise Permanent(f"it begins with bytes that are not {self.encoding}: {error}") from error


def text_of(name: str, path: Path, stated: str | None) -> Text:
    """Raises Permanent, with position, byte and likely encodings, for bytes that are not text in the stated encoding, or UTF-8."""
    with path.open("rb") as file:
        begin = file.read(4)
    marked = next((encoding for mark, encoding in _MARKS if begin.startswith(mark)), "")
    if marked.startswith(("utf-16", "utf-32")):
        if not (stated or marked).startswith(marked):
            raise Permanent(f"{name} begins with the byte order mark of {marked}, so it is not {stated}: leave encoding out")
        return _decoded(name, path, Text(marked, mark=True))
    if stated in ("utf-16", "utf-32"):
        raise Permanent(f"{name} has no byte order mark, which {stated} needs: say encoding: {stated}-le or {stated}-be")
    if stated not in (None, "utf-8") and not marked:
        return _decoded(name, path, Text(stated or ""))
    return _scanned(name, path, bool(marked))


def _decoded(name: str, path: Path, text: Text) -> Text:
    """Checked to the last byte."""
    decoder = codecs.getincrementaldecoder(text.encoding)()
    done = 0
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            _step(name, text.encoding, decoder, piece, done)
            done += len(piece)
        _step(name, text.encoding, decoder, b"", done, final=True)
    return text


def _step(name: str, encoding: str, decoder: codecs.IncrementalDecoder, piece: bytes, done: int, *, final: bool = False) -> None:
    waiting = len(decoder.getstate()[0])
    try:
        found = decoder.decode(piece, final)
    except (UnicodeDecodeError, ValueError) as error:
        place = done - waiting + (error.start if isinstance(error, UnicodeDecodeError) else 0)
        byte = f" 0x{error.object[error.start]:02X}" if isinstance(error, UnicodeDecodeError) else "s"
        raise Permanent(
            f"{name} is not {encoding}: the byte{byte} at position {place} stand{'s' if byte != 's' else ''} for no character; give its "
            "encoding"
        ) from error
    if "\0" in found:
        raise Permanent(f"{name} is not text: it holds the character U+0000 near position {done}")


def _scanned(name: str, path: Path, mark: bool) -> Text:
    """UTF-8, and how its lines end."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    done = newlines = both = returns = 0
    quotes, last = False, b""
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            zero = piece.find(b"\0")
            if zero >= 0:
                raise Permanent(f"{name} is not text: it holds a zero byte at position {done + zero}")
            if not piece.isascii() or decoder.getstate()[0]:
                _utf8(name, path, decoder, piece, done)
            done += len(piece)
            newlines += piece.count(b"\n")
            if b"\r" in piece or last == b"\r":
                returns += piece.count(b"\r")
                both += piece.count(b"\r\n") + (last == b"\r" and piece.startswith(b"\n"))
            quotes = quotes or b'"' in piece
            last = piece[-1:]
        _utf8(name, path, decoder, b"", done, final=True)
    ends = sum(1 for one in (newlines - both, both, returns - both) if one)
    lines = newlines + returns - both + (last not in (b"", b"\n", b"\r"))
    return Text("utf-8", mark, lines, ends > 1, quotes)


def _utf8(name: str, path: Path, decoder: codecs.IncrementalDecoder, piece: bytes, done: int, *, final: bool = False) -> None:
    waiting = len(decoder.getstate()[0])
    try:
        decoder.decode(piece, final)
    except UnicodeDecodeError as error:
        place = done - waiting + error.start
        raise Permanent(_not_utf8(name, path, place)) from error


def _not_utf8(name: str, path: Path, place: int) -> str:
    with path.open("rb") as file:
        line = 1
        while file.tell() < place:
            piece = file.read(min(_PIECE, place - file.tell()))
            line += piece.count(b"\n") or piece.count(b"\r")
        byte = file.read(1)
        file.seek(max(0, place - _AROUND))
        near = file.read(2 * _AROUND)
    likely = _likely(near)
    hint = f"; it may be {' or '.join(likely)}" if likely else ""
    which = f"{name}, line {line} is not UTF-8: the byte 0x{byte.hex().upper()} at position {place}"
    return f"{which}; say which encoding it is with encoding{hint}"


def _likely(near: bytes) -> list[str]:
    """At most three encodings in which a detector finds these bytes plausible, the common ones first."""
    try:
        from charset_normalizer import from_bytes
    except ImportError:
        return []
    found = {codecs.lookup(name).name for one in from_bytes(near) for name in (one.encoding, *one.could_be_from_charset)}
    return [one for one in (*_COMMON, *sorted(found - set(_COMMON))) if one in found and one in ENCODINGS][:3]
