"""Objects of a bucket as files: written and read a piece at a time, so that an object may be larger than the memory.

A file that a transfer works on may be deleted meanwhile (a child's temporary folder goes with the child): the transfer ends then.
"""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from batch.model.errors import FanoutError


class Transferred(io.FileIO):
    """A file that is being written or read. `failed` is the error that ended it, which others may have taken for one of the network."""

    def __init__(self, path: str, mode: str) -> None:
        if os.path.isdir(path):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        if os.path.exists(path) and not os.path.isfile(path):
            raise OSError(errno.EINVAL, "it is no regular file", path)
        super().__init__(path, mode)
        self.size = os.fstat(self.fileno()).st_size
        self.failed: OSError | None = None

    def read(self, size: int | None = -1) -> bytes:
        """As `io.FileIO.read`. Raises OSError where the file has become shorter than it was when it was opened."""
        with self._noted():
            begin = self.tell()
            wanted = self.size - begin if size is None or size < 0 else min(size, self.size - begin)
            data = super().read(wanted) or b""
            if len(data) < wanted:
                raise OSError(errno.EIO, f"it became shorter than {self.size:,} bytes while it was uploaded", self.name)
            return data

    def append(self, data: bytes | bytearray) -> None:
        """Write all of it."""
        with self._noted(), memoryview(data) as left:
            done = 0
            while done < len(left):
                done += super().write(left[done:]) or 0

    @contextmanager
    def _noted(self) -> Iterator[None]:
        try:
            if os.fstat(self.fileno()).st_nlink == 0:
                raise FileNotFoundError(errno.ENOENT, "it was deleted while it was being transferred", self.name)
            yield
        except OSError as error:
            self.failed = error
            raise


@contextmanager
def new_file(path: str) -> Iterator[Transferred]:
    """An empty file to write to; after an error there is none. Raises the file's own error where that was taken for another."""
    path = os.path.realpath(path)
    with Transferred(path, "wb") as file:
        try:
            with _own_error(file):
                yield file
        except BaseException:
            with suppress(OSError):
                os.unlink(path)
            raise


@contextmanager
def whole_file(path: str) -> Iterator[Transferred]:
    """A file to read. Raises the file's own error where that was taken for another."""
    with Transferred(path, "rb") as file, _own_error(file):
        yield file


@contextmanager
def _own_error(file: Transferred) -> Iterator[None]:
    try:
        yield
    except FanoutError:
        if file.failed is not None:
            raise file.failed from None
        raise
