"""The journal: a file of framed entries that only grows, until it is rewritten with what still counts.

An entry exists from the moment its frame is whole. There is no fsync: what was appended survives the end of the process
by `kill -9`, not the end of the machine.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import mmap
import os
import struct
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from local_cloud.web.refused_start import Damaged, Occupied

MAGIC = b"local pubsub journal 1\n"
_FRAME = struct.Struct("=II")  # length and CRC-32 of the entry

_log = logging.getLogger(__name__)

REWRITE_BYTES = 256 * 1024 * 1024
"""Below this, a rewrite is not worth its time; above, the file may double between two rewrites."""

Condense = Callable[[memoryview, Iterable[tuple[int, int]]], Iterable[bytes]]
"""From bytes, and where entries start and end in them, to the entries that have the same meaning. It is called while nobody
can append, so it answers at once, with an iterator; what that keeps of the bytes it copies."""


class Journal:
    """The file `<folder>/journal`. Safe to use from any thread; one process at a time."""

    def __init__(self, folder: Path, condense: Condense, rewrite_bytes: int = REWRITE_BYTES) -> None:
        """Opens the file and cuts a torn end off. Raises RuntimeError if another process uses the folder, ValueError on damage."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.path = folder / "journal"
        self._condense = condense
        self._rewrite_bytes = rewrite_bytes
        self._lock = threading.Lock()
        self._rewriting: threading.Thread | None = None
        self._broken = ""
        self._lock_file = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._claim(folder)
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                self._length = self._checked_length()
            except BaseException:
                os.close(self._file)
                raise
        except BaseException:
            os.close(self._lock_file)
            raise
        self._rewrite_at = max(rewrite_bytes, 2 * self._length)

    def _claim(self, folder: Path) -> None:
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise Occupied(f"another process uses {folder}: stop it, or give this one a --state-dir of its own") from error

    def _checked_length(self) -> int:
        length = os.fstat(self._file).st_size
        if length < len(MAGIC):
            os.ftruncate(self._file, 0)
            _write(self._file, MAGIC)
            return len(MAGIC)
        with mapped(self._file, length) as data:
            if data[: len(MAGIC)] != MAGIC:
                raise Damaged(f"{self.path} is no journal of this version: move it away to start empty")
            end = max((end for _start, end in frames(data, str(self.path))), default=len(MAGIC))
        os.ftruncate(self._file, end)
        return end

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self._length

    def append(self, entry: bytes) -> None:
        """Raises OSError when the disk takes no more; from then on every call does, as an answer could not be kept."""
        head = _FRAME.pack(len(entry), zlib.crc32(entry))
        with self._lock:
            if self._broken:
                raise OSError(self._broken)
            try:
                _write(self._file, head, entry)
            except OSError as error:
                self._broken = f"{self.path} cannot be written, so nothing can be confirmed: {error}; make room and restart the service"
                # A part of a frame at the end is cut off at the next start anyway.
                with contextlib.suppress(OSError):
                    os.ftruncate(self._file, self._length)
                raise OSError(self._broken) from error
            self._length += len(head) + len(entry)
            if self._length >= self._rewrite_at and self._rewriting is None:
                self._rewrite_at = 2 * self._length  # when the next try comes, should this one fail
                self._rewriting = threading.Thread(target=self._rewrite_aside, name="journal", daemon=True)
                self._rewriting.start()

    def read(self, use: Callable[[memoryview, Iterable[tuple[int, int]]], None]) -> None:
        """Call `use` with the bytes of the file and where its entries start and end; it may keep no view of the bytes."""
        with contextlib.ExitStack() as stack:
            # The mapping outlives the file that a rewrite closes; but it has to be made before.
            with self._lock:
                data = stack.enter_context(mapped(self._file, self._length))
            use(data, frames(data, str(self.path)))

    def rewrite(self) -> None:
        """Replace the file by one that means the same. Others may append meanwhile."""
        fresh_path = self.path.with_suffix(".fresh")
        fresh = os.open(fresh_path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            _write(fresh, MAGIC)
            with contextlib.ExitStack() as stack:
                with self._lock:
                    before = self._length
                    data = stack.enter_context(mapped(self._file, before))
                    entries = self._condense(data, frames(data, str(self.path)))
                for entry in entries:
                    _write(fresh, _FRAME.pack(len(entry), zlib.crc32(entry)), entry)
            with self._lock:
                with mapped(self._file, self._length) as data:
                    _write(fresh, data[before:])
                os.replace(fresh_path, self.path)
                fresh, self._file = self._file, fresh
                self._length = os.fstat(self._file).st_size
                self._rewrite_at = max(self._rewrite_bytes, 2 * self._length)
        except BaseException:
            fresh_path.unlink(missing_ok=True)
            raise
        finally:
            os.close(fresh)

    def _rewrite_aside(self) -> None:
        try:
            self.rewrite()
        except OSError as error:
            # What is there stays whole and grows on.
            _log.warning("%s could not be rewritten: %s", self.path, error)
        finally:
            with self._lock:
                self._rewriting = None

    def close(self) -> None:
        """Nothing may be appended afterwards."""
        with self._lock:
            rewriting = self._rewriting
        if rewriting is not None:
            rewriting.join()
        os.close(self._file)
        os.close(self._lock_file)


@contextlib.contextmanager
def mapped(file: int, length: int) -> Iterator[memoryview]:
    """The first `length` bytes of a file, as long as the block runs."""
    with mmap.mmap(file, length, access=mmap.ACCESS_READ) as content, memoryview(content) as data:
        yield data


def frames(data: memoryview, name: str) -> Iterator[tuple[int, int]]:
    """Start and end of each whole entry. Ends at a torn last frame; raises ValueError on damage anywhere else."""
    at = len(MAGIC)
    while at + _FRAME.size <= len(data):
        length, check = _FRAME.unpack_from(data, at)
        start, end = at + _FRAME.size, at + _FRAME.size + length
        if end > len(data):
            return
        if length == 0 or zlib.crc32(data[start:end]) != check:
            if end == len(data):
                return
            raise Damaged(f"{name} is damaged at byte {at}: move it away to start empty, or cut it there to keep what stands before")
        yield start, end
        at = end


def _write(file: int, *parts: bytes | memoryview) -> None:
    """Raises OSError when not all of it fits."""
    total = sum(map(len, parts))
    written = os.writev(file, parts)
    # One call writes at most 2 GiB, and less on a full disk or when a signal comes.
    rest = memoryview(b"".join(parts))[written:] if written < total else memoryview(b"")
    while rest:
        count = os.write(file, rest)
        if not count:
            raise OSError("nothing more was taken")
        rest = rest[count:]
