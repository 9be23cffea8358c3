"""An object's content as it arrives: in whatever pieces it comes and is stored, the file holds what the whole says."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch.files import new_file
from batch.model.errors import DependencyUnavailable, ObjectTooLarge
from batch.services import arriving
from batch.services.arriving import Arriving, Unzipping
from batch.services.ports import ObjectInfo

MEMBER = st.binary(max_size=300).map(lambda data: gzip.compress(data * 7, mtime=0))
BETWEEN = st.sampled_from([b"", b"\0", b"\0" * 9, b"more", b"\x1f", b"\x1f\x8b"])
ZIPPED = st.lists(st.one_of(MEMBER, MEMBER, BETWEEN), max_size=4).map(b"".join)


def whole(data: bytes) -> bytes | None:
    """What the standard library makes of it; None where it refuses."""
    try:
        return gzip.decompress(data)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        return None


@given(ZIPPED, st.integers(0, 400), st.lists(st.integers(1, 60), min_size=1), st.integers(1, 64))
def test_in_pieces_it_is_unzipped_and_refused_as_the_whole_is(data: bytes, cut: int, lengths: list[int], piece_bytes: int) -> None:
    data = data[: len(data) - cut] if cut < len(data) // 2 else data
    got = bytearray()
    unzipping = Unzipping(got.extend)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arriving, "PIECE_BYTES", piece_bytes)
        begin = 0
        for number in range(len(data)):
            if begin >= len(data):
                break
            length = lengths[number % len(lengths)]
            unzipping.feed(data[begin : begin + length])
            begin += length
    expected = whole(data)
    assert (None if unzipping.problem() else bytes(got)) == expected


def test_an_answer_that_does_not_end_is_cut_off(tmp_path: Path) -> None:
    with new_file(str(tmp_path / "file")) as file:
        into = Arriving(ObjectInfo("one", 1, 3), file, None, is_zipped=False)
        into.write(b"123")
        with pytest.raises(DependencyUnavailable, match="more than the 3 bytes of object one"):
            into.write(b"4")


@given(st.lists(st.binary(max_size=40)), st.integers(1, 30), st.integers(0, 100))
def test_never_more_than_its_reader_takes_stands_in_the_file(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes], piece_bytes: int, max_bytes: int
) -> None:
    content = b"".join(pieces)
    path = tmp_path_factory.getbasetemp() / "arriving"
    refused = False
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arriving, "PIECE_BYTES", piece_bytes)
        try:
            with new_file(str(path)) as file:
                into = Arriving(ObjectInfo("one", 1, len(content)), file, max_bytes, is_zipped=False)
                try:
                    for piece in pieces:
                        into.write(piece)
                    assert into.is_whole()
                    into.finish()
                finally:
                    assert path.stat().st_size <= max_bytes
        except ObjectTooLarge:
            refused = True
    assert refused is (len(content) > max_bytes)
    assert (path.read_bytes() if path.exists() else None) == (None if refused else content)
    Path(path).unlink(missing_ok=True)
