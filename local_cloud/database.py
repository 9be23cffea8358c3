"""A service's state on disk: one SQLite file in WAL mode, used by one process at a time.

The rule: what a transaction has written survives the end of the process by `kill -9`. It may not survive the end of the machine, because
nothing waits for the disk (`synchronous = OFF`): an emulator is not worth an fsync a request.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from local_cloud.web.refused_start import Damaged, Occupied

# Measured with Pub/Sub: smaller pages cost more where a request brings a megabyte, larger ones where it brings one message.
_PAGE_BYTES = 16_384
# SQLite copies the write-ahead log into the file whenever it has grown by so much; a small log stays in the processor's cache.
_CHECKPOINT_BYTES = 1024 * 1024
_SETTINGS = f"""
    PRAGMA synchronous = OFF;
    PRAGMA page_size = {_PAGE_BYTES};
    PRAGMA locking_mode = EXCLUSIVE;
    PRAGMA journal_mode = WAL;
    PRAGMA secure_delete = OFF;
    PRAGMA wal_autocheckpoint = {_CHECKPOINT_BYTES // _PAGE_BYTES};
"""


class Database:
    """Safe to use from any thread."""

    def __init__(self, path: Path, schema: str, version: int) -> None:
        """Opens the file `path`, or makes it with `schema`, statements whose version is 1 or more.

        Raises RuntimeError if another process uses the file, ValueError if it is damaged or of another version, OSError.
        """
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.touch(mode=0o600)
        self.path = path
        self._lock = threading.Lock()
        self._broken = ""
        self._connection = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
        try:
            self._open(schema, version)
        except BaseException as error:
            self._connection.close()
            if not isinstance(error, sqlite3.DatabaseError):
                raise
            if error.sqlite_errorcode == sqlite3.SQLITE_BUSY:
                raise Occupied(f"another process uses {path.parent}: stop it, or give this one a --state-dir of its own") from error
            if isinstance(error, sqlite3.OperationalError):
                raise OSError(f"{path} cannot be used: {error}") from error
            raise Damaged(f"{path} cannot be read ({error}): move it away to start empty") from error

    def _open(self, schema: str, version: int) -> None:
        self._connection.executescript(_SETTINGS)
        found = self._number("user_version")
        if found not in (0, version):
            raise Damaged(f"{self.path} is of version {found}, not {version}: move it away to start empty")
        if not found:
            self._connection.executescript(f"BEGIN; {schema}; PRAGMA user_version = {version}; COMMIT")
        if 2 * self.used_bytes < self._number("page_count") * _PAGE_BYTES:
            self._connection.execute("VACUUM")

    def _number(self, pragma: str) -> int:
        return int(self._connection.execute(f"PRAGMA {pragma}").fetchone()[0])

    @property
    def used_bytes(self) -> int:
        """Bytes of the file in use. The others are used before it grows, and removed at the next start if they are more than half."""
        return (self._number("page_count") - self._number("freelist_count")) * _PAGE_BYTES

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """What the block executes, and reads, takes effect as a whole or not at all.

        Raises OSError when the disk takes no more; from then on every call does, because the state in memory may be ahead of the file.
        """
        with self._writing():
            self._connection.execute("BEGIN")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def execute(self, statement: str, parameters: Sequence[Any] = ()) -> None:
        """A transaction of one statement, which costs half. Raises as `transaction` does."""
        with self._writing():
            self._connection.execute(statement, parameters)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with self._lock:
            if self._broken:
                raise OSError(self._broken)
            try:
                yield
            except sqlite3.OperationalError as error:
                self._broken = f"{self.path} cannot be written, so nothing can be confirmed: {error}; make room and restart the service"
                raise OSError(self._broken) from error

    def close(self) -> None:
        """Nothing may be executed afterwards."""
        with self._lock:
            self._connection.close()
