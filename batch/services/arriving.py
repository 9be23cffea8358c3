"""The content of an object as it arrives in pieces: checked, unzipped where it is stored zipped, written to a file.

No more of it is ever in memory than a piece, and no more in the file than its reader takes.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

from batch.files import Transferred
from batch.model.errors import DependencyUnavailable, ObjectDamaged, ObjectTooLarge
from batch.services.ports import ObjectInfo

PIECE_BYTES = 1024 * 1024
"""How much is unzipped at a time, and written to a file at a time."""
_GZIP = 31
"""For zlib: a stream with the head and the checksum of gzip."""


class Arriving:
    """An object's content on its way into a file; the client writes to it what it gets. `stored_bytes`: how much of what is stored came."""

    def __init__(self, info: ObjectInfo, file: Transferred, max_bytes: int | None, *, is_zipped: bool) -> None:
        import google_crc32c

        self.stored_bytes = 0
        self._info, self._file, self._max_bytes = info, file, max_bytes
        self._checksum = google_crc32c.Checksum()
        self._unzipping = Unzipping(self._keep) if is_zipped else None
        self._size = 0
        self._waiting = bytearray()

    def write(self, data: bytes) -> int:
        """Raises ObjectTooLarge; DependencyUnavailable when more comes than is stored; OSError of the file."""
        self.stored_bytes += len(data)
        if self.stored_bytes > self._info.size:
            raise DependencyUnavailable(f"more than the {self._info.size:,} bytes of object {self._info.name} arrived; try again later")
        self._checksum.update(data)
        if self._unzipping is None:
            self._keep(data)
        else:
            self._unzipping.feed(data)
        return len(data)

    @property
    def is_broken(self) -> bool:
        """Whether the file has failed: nothing that still comes can be kept."""
        return self._file.failed is not None

    def is_whole(self) -> bool:
        """Whether what came is what is stored, by its size and checksum."""
        crc32c = base64.b64encode(self._checksum.digest()).decode()
        return self.stored_bytes == self._info.size and self._info.crc32c in ("", crc32c)

    def finish(self) -> None:
        """All has come. Raises ObjectDamaged, OSError of the file."""
        if self._unzipping is not None and (problem := self._unzipping.problem()):
            raise damaged(self._info.name, problem)
        self._file.append(self._waiting)
        self._waiting.clear()

    def _keep(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._max_bytes is not None and self._size > self._max_bytes:
            raise ObjectTooLarge(self._info.name, self._max_bytes)
        self._waiting += piece
        if len(self._waiting) >= PIECE_BYTES:
            self._file.append(self._waiting)
            self._waiting.clear()


class Unzipping:
    """A gzip of one or more members, a piece at a time: what `gzip.decompress` takes and refuses, this does."""

    def __init__(self, keep: Callable[[bytes], None]) -> None:
        self._keep = keep
        self._member: Any = None
        self._member_count = 0
        self._problem = ""

    def feed(self, data: bytes) -> None:
        """Once something is wrong nothing more is unzipped: whether it is stored so, or arrived so, its checksum tells at the end."""
        import zlib

        while data and not self._problem:
            if self._member is None:
                if self._member_count and not (data := data.lstrip(b"\0")):
                    return
                self._member, self._member_count = zlib.decompressobj(_GZIP), self._member_count + 1
            try:
                data = self._unzip(data)
            except zlib.error as error:
                self._problem = str(error)

    def _unzip(self, data: bytes) -> bytes:
        """Of one member as much as there is; returns what follows it."""
        while data:
            self._keep(self._member.decompress(data, PIECE_BYTES))
            if self._member.eof:
                following: bytes = self._member.unused_data
                self._member = None
                return following
            data = self._member.unconsumed_tail
        return b""

    def problem(self) -> str:
        """Why all that came is no whole gzip; empty when it is one."""
        return self._problem or ("it ends in the middle" if self._member is not None else "")


def damaged(name: str, problem: object) -> ObjectDamaged:
    """An object that its Content-Encoding calls gzip, and that is none."""
    return ObjectDamaged(
        f"object {name} is stored with Content-Encoding: gzip and is no whole gzip ({problem}): upload it again, or, if it was never "
        "zipped, clear its Content-Encoding"
    )
