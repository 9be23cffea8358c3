"""The journal: every confirmed change of the storage model, one JSON line each, in one append-only file.

A change exists from the moment its line is whole, and never before: that line is what survives a kill. There is no
fsync, as the local cloud promises to survive the end of a process, not of the machine.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from local_cloud.web.refused_start import Damaged, Occupied

Record = dict[str, Any]


class Journal:
    """The file `<folder>/journal.jsonl`. One process at a time; the caller serialises calls."""

    def __init__(self, folder: Path) -> None:
        """Raises RuntimeError if another process uses the folder."""
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "journal.jsonl"
        self._lock_file = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock_file)
            raise Occupied(f"another process uses {folder}: stop it, or give this one a --state-dir of its own") from error
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self._length = 0
        self.record_count = 0

    def read(self) -> list[Record]:
        """All records, to be called once, first. A torn last line is cut off; raises ValueError on any other damage."""
        content = self._path.read_bytes()
        whole = content.rfind(b"\n") + 1
        records: list[Record] = []
        for number, line in enumerate(content[:whole].splitlines(), start=1):
            try:
                records.append(json.loads(line))
            except ValueError as error:
                hint = "repair or remove that line, or start with an empty folder"
                raise Damaged(f"{self._path} line {number} is damaged: {hint}") from error
        os.ftruncate(self._file, whole)
        self._length = whole
        self.record_count = len(records)
        return records

    def append(self, record: Record) -> None:
        """Raises OSError (a full disk); then the journal is as it was."""
        line = _line(record)
        try:
            written = os.write(self._file, line)
            if written != len(line):
                raise OSError(f"only {written} of {len(line)} bytes fit into {self._path} (is the disk full?)")
        except OSError:
            os.ftruncate(self._file, self._length)
            raise
        self._length += len(line)
        self.record_count += 1

    def replace(self, records: Iterable[Record]) -> None:
        """Put `records` in the place of all that was written so far, in one step. Raises OSError; then the journal is as it was."""
        fresh = self._path.with_suffix(".fresh")
        count = 0
        try:
            with fresh.open("wb") as file:
                for record in records:
                    file.write(_line(record))
                    count += 1
                length = file.tell()
            os.replace(fresh, self._path)
        except OSError:
            fresh.unlink(missing_ok=True)
            raise
        os.close(self._file)
        self._file = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
        self._length, self.record_count = length, count

    def close(self) -> None:
        os.close(self._file)
        os.close(self._lock_file)


def _line(record: Record) -> bytes:
    return json.dumps(record, separators=(",", ":")).encode() + b"\n"
