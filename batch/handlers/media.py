"""Media types: what kind of file this is, by its first bytes and its name. Where the two disagree, the content wins.

Names are looked up in the standard library's own table and a few more, never in the machine's `mime.types`: the same file
has the same type everywhere.
"""

from __future__ import annotations

import mimetypes
from functools import cache
from pathlib import PurePosixPath

UNKNOWN = "application/octet-stream"
CSV = "text/csv"
TSV = "text/tab-separated-values"
JSON_LINES = "application/x-ndjson"
PARQUET = "application/vnd.apache.parquet"

_SIGNATURES: tuple[tuple[str, tuple[tuple[int, bytes | tuple[bytes, ...]], ...]], ...] = (
    ("image/png", ((0, b"\x89PNG\r\n\x1a\n"),)),
    ("image/jpeg", ((0, b"\xff\xd8\xff"),)),
    ("image/gif", ((0, (b"GIF87a", b"GIF89a")),)),
    ("image/tiff", ((0, (b"II*\0", b"MM\0*")),)),
    ("image/webp", ((0, b"RIFF"), (8, b"WEBP"))),
    ("audio/x-wav", ((0, b"RIFF"), (8, b"WAVE"))),
    ("audio/ogg", ((0, b"OggS\0"),)),
    ("audio/flac", ((0, b"fLaC\0"),)),
    ("audio/mpeg", ((0, (b"ID3\x02", b"ID3\x03", b"ID3\x04")),)),
    ("video/mp4", ((0, b"\0\0\0"), (4, b"ftyp"))),
    ("video/webm", ((0, b"\x1a\x45\xdf\xa3"),)),
    ("application/pdf", ((0, b"%PDF-"),)),
    ("application/zip", ((0, (b"PK\x03\x04", b"PK\x05\x06")),)),
    ("application/gzip", ((0, b"\x1f\x8b"),)),
    ("application/x-bzip2", ((0, b"BZh"), (4, (b"1AY&SY", b"\x17\x72\x45\x38\x50\x90")))),
    ("application/x-xz", ((0, b"\xfd7zXZ\0"),)),
    ("application/zstd", ((0, b"\x28\xb5\x2f\xfd"),)),
    ("application/x-7z-compressed", ((0, b"7z\xbc\xaf\x27\x1c"),)),
    ("application/x-tar", ((257, b"ustar"),)),
    ("application/vnd.sqlite3", ((0, b"SQLite format 3\0"),)),
    (PARQUET, ((0, b"PAR1\x15"),)),
    ("application/wasm", ((0, b"\0asm"),)),
    ("application/x-executable", ((0, b"\x7fELF"),)),
)
_IN_ZIP = {
    ".docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    ".xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    ".pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    ".odt": "application/vnd.oasis.opendocument.text",
    ".ods": "application/vnd.oasis.opendocument.spreadsheet",
    ".odp": "application/vnd.oasis.opendocument.presentation",
    ".epub": "application/epub+zip",
    ".jar": "application/java-archive",
}
_MORE_NAMES = {
    ".csv": CSV,
    ".tsv": TSV,
    ".tab": TSV,
    ".jsonl": JSON_LINES,
    ".ndjson": JSON_LINES,
    ".md": "text/markdown",
    ".log": "text/plain",
    ".yaml": "application/yaml",
    ".yml": "application/yaml",
    ".toml": "application/toml",
    ".sql": "application/sql",
}
_TEXT_OUTSIDE_TEXT = {
    "application/javascript",
    "application/json",
    "application/sql",
    "application/toml",
    "application/xml",
    "application/yaml",
    "application/x-sh",
    "application/x-tex",
    "application/x-latex",
    "image/svg+xml",
    "message/rfc822",
    JSON_LINES,
}
_WITH_SIGNATURE = {kind for kind, _ in _SIGNATURES} - {"audio/mpeg", "application/x-tar"}
"""A file of one of these types shows it; MP3 without tags and old tar archives do not."""


def signature(data: bytes) -> str | None:
    """The type that the first bytes prove, or None."""
    for kind, marks in _SIGNATURES:
        if all(data.startswith(mark, offset) for offset, mark in marks):
            return kind
    return None


def by_name(name: str) -> str | None:
    """The type that the name promises; None when it promises nothing, or something compressed."""
    suffix = PurePosixPath(name).suffix.lower()
    if suffix in _MORE_NAMES:
        return _MORE_NAMES[suffix]
    kind, compression = _table().guess_type(PurePosixPath(name).name.replace(":", "_"))
    return None if compression else kind


def media_type(name: str, data: bytes, is_text: bool) -> str:
    """One media type, without parameters. `is_text` says whether the content looks like text."""
    proved = signature(data)
    if proved == "application/zip":
        return _IN_ZIP.get(PurePosixPath(name).suffix.lower(), proved)
    if proved:
        return proved
    promised = by_name(name)
    if not data:
        return promised if promised and is_textual(promised) else UNKNOWN
    if is_text:
        return promised if promised and is_textual(promised) else "text/plain"
    if promised is None or is_textual(promised) or promised in _WITH_SIGNATURE:
        return UNKNOWN
    return promised


def is_textual(kind: str) -> bool:
    return kind.startswith("text/") or kind in _TEXT_OUTSIDE_TEXT or kind.endswith(("+xml", "+json"))


@cache
def _table() -> mimetypes.MimeTypes:
    return mimetypes.MimeTypes()
