"""Encodings, counts and media types, compared with Python's own text files and with real headers."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import random
import tarfile
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batch.handlers import media, texts

ANY_CHARACTER = st.characters(codec="utf-8", exclude_categories=("Cc", "Cs"), exclude_characters="\ufeff")
PRINTABLE = st.text(ANY_CHARACTER | st.sampled_from("\n\r\t \x0c"), max_size=300)
quick = settings(deadline=None, database=None, max_examples=80)


@pytest.mark.parametrize(
    ("data", "encoding"),
    [
        (b"", "utf-8"),
        (b"plain\n", "utf-8"),
        ("grün 東京\n".encode(), "utf-8"),
        ("grün".encode("utf-8-sig"), "utf-8-sig"),
        ("grün 東京".encode("utf-16"), "utf-16"),
        (codecs.BOM_UTF16_BE + "grün".encode("utf-16-be"), "utf-16"),
        ("grün".encode("utf-32"), "utf-32"),
        ("Die Straße ist grün und schön.".encode("latin-1"), texts.UNKNOWN),
        ("He said “yes” – then left.".encode("windows-1252"), texts.UNKNOWN),
        (b"\x1b[31mred\x1b[0m", "utf-8"),
        (b"nul\0byte", None),
        (b"\x01\x02", None),
        (codecs.BOM_UTF16_LE + b"odd", None),
        (codecs.BOM_UTF8 + b"\xff", None),
        (codecs.BOM_UTF16_LE + b"\x01\x00\x02\x00", None),
        (b"mostly ascii text \x81 yet not in any western encoding", texts.UNKNOWN),
        (random.Random(1).randbytes(5000), None),
        (bytes(range(128, 256)) * 3, None),
    ],
)
def test_encoding(data: bytes, encoding: str | None) -> None:
    assert texts.encoding_of(data) == encoding


def test_a_character_cut_by_the_piece_size_does_not_matter() -> None:
    for shift in range(3):
        assert texts.encoding_of(b"x" * shift + "東".encode() * 800_000) == "utf-8"
    assert texts.encoding_of(b"x" * (3 << 20) + b"\0") is None
    assert texts.encoding_of(b"x" * (3 << 20) + b"\xe6") == texts.UNKNOWN


@quick
@given(PRINTABLE, st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32"]))
def test_what_was_encoded_is_found_and_counted(text: str, encoding: str) -> None:
    data = text.encode(encoding)
    found = texts.encoding_of(data)
    assert found == encoding
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    expected = len(lines) - (lines[-1] == "")
    assert texts.counts(data, encoding) == (expected, len(text.split()))


@pytest.mark.parametrize(
    ("data", "counts"),
    [
        (b"", (0, 0)),
        (b"one", (1, 1)),
        (b"one two\n", (1, 2)),
        (b"a\r\nb\rc\n\n", (4, 3)),
        (b"caf\xe9 cr\xe8me\nth\xe9", (2, 3)),
    ],
)
def test_counts(data: bytes, counts: tuple[int, int]) -> None:
    assert texts.counts(data, texts.encoding_of(data) or "") == counts


def zipped() -> bytes:
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w") as archive:
        archive.writestr("a.txt", "text")
    return body.getvalue()


def tarred() -> bytes:
    body = io.BytesIO()
    with tarfile.open(fileobj=body, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a.txt"))
    return body.getvalue()


@pytest.mark.parametrize(
    ("name", "data", "kind"),
    [
        ("a.png", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "image/png"),
        ("a.txt", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "image/png"),
        ("a", b"\xff\xd8\xff\xe0\0\x10JFIF", "image/jpeg"),
        ("a", b"GIF89a\x01\0", "image/gif"),
        ("a", b"RIFF\0\0\0\0WEBPVP8 ", "image/webp"),
        ("a", b"RIFF\0\0\0\0AVI LIST", media.UNKNOWN),
        ("a", b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "application/pdf"),
        ("a.zip", zipped(), "application/zip"),
        ("report.DOCX", zipped(), "application/vnd.openxmlformats-officedocument.wordprocessingml.document"),
        ("a.csv.gz", gzip.compress(b"a,b", mtime=0), "application/gzip"),
        ("a", bz2.compress(b"a"), "application/x-bzip2"),
        ("a", lzma.compress(b"a"), "application/x-xz"),
        ("a.tar", tarred(), "application/x-tar"),
        ("a.csv", b"a,b\n", "text/csv"),
        ("A.CSV", b"a,b\n", "text/csv"),
        ("a.tsv", b"a\tb\n", "text/tab-separated-values"),
        ("a.json", b"{}", "application/json"),
        ("a.jsonl", b"{}", "application/x-ndjson"),
        ("a.svg", b"<svg/>", "image/svg+xml"),
        ("README", b"text", "text/plain"),
        ("a.png", b"text", "text/plain"),
        ("a.csv.gz", b"text", "text/plain"),
        ("a.csv", b"\0\1\2", media.UNKNOWN),
        ("a.png", b"\0\1\2", media.UNKNOWN),
        ("a.mp3", b"\xff\xfb\x90\0", "audio/mpeg"),
        ("a.bin", b"\0\1\2", media.UNKNOWN),
        ("empty.csv", b"", "text/csv"),
        ("empty.png", b"", media.UNKNOWN),
        ("http://x:y/a.py", b"pass", "text/x-python"),
        ("data:text/html,x", b"text", "text/plain"),
    ],
)
def test_media_type(name: str, data: bytes, kind: str) -> None:
    is_text = media.signature(data) is None and texts.encoding_of(data) is not None
    assert media.media_type(name, data, is_text) == kind
