"""The engine that reads, computes with and writes tables: DuckDB, which the extra `data` installs. Nothing but the folder that it is given
is open to it, no network, no extension. What it refuses is a reason for a person, never a traceback: whatever is wrong with a table is so
at each attempt.

It is imported when the first table comes, so that a worker without tables does not carry it.
"""

from __future__ import annotations

import importlib
import os
import re
import resource
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from batch.model.errors import Permanent

MAX_REASON_CHARS = 300
ENGINE_MB = 192
"""What the engine holds in memory before it writes to its folder. Its process was seen with up to 390 MB then, of 500 MB that it had
asked for, which is what the handler's own limit counts."""
MB = 1_000_000
_TOO_LONG = re.compile(r"Line: (\d+)\b.*Maximum line size of (\d+) bytes exceeded", re.DOTALL)


class Engine:
    """One database in memory for one task. `folder` holds all files; `files_bytes` bounds those that the engine makes for itself, and
    what is written anew of the source.

    Raises Permanent when the extra is not installed.
    """

    def __init__(self, folder: Path, name: str, *, memory_mb: int = ENGINE_MB, files_bytes: int) -> None:
        try:
            duckdb = importlib.import_module("duckdb")
        except ImportError as error:
            raise Permanent(
                f"{name} is a table, and this worker's image has nothing to read tables with: install the extra `data` in the image "
                "(pip install 'fanout-batch[data]', which brings DuckDB), then submit again"
            ) from error
        self.folder, self.name, self.files_bytes, self._memory_mb = folder, name, files_bytes, memory_mb
        self._error: type[Exception] = duckdb.Error
        self._connection = duckdb.connect(
            ":memory:",
            config={
                # A worker has a child for each CPU; and with more threads a result in order is collected in memory before it is written.
                "threads": 1,
                "memory_limit": f"{memory_mb}MB",
                "temp_directory": str(folder / "spill"),
                "max_temp_directory_size": f"{files_bytes}B",
                "autoinstall_known_extensions": False,
                "autoload_known_extensions": False,
                "allow_community_extensions": False,
            },
        )
        for setting in (
            f"allowed_directories = [{text(str(folder) + os.sep)}]",
            "enable_external_access = false",
            "TimeZone = 'UTC'",
            "enable_progress_bar = false",
            "disabled_optimizers = 'statistics_propagation'",  # the statistics of Parquet leave NaN out, and isnan() would be false
            "lock_configuration = true",
        ):
            self._connection.execute(f"SET {setting}")

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """Raises Permanent."""
        try:
            found: list[tuple[Any, ...]] = self._connection.execute(sql).fetchall()
        except self._error as error:
            raise self.refused(error) from error
        except (OverflowError, ValueError, UnicodeError) as error:  # a value that Python has no object for, such as a date beyond 9999
            raise Permanent(f"{self.name} holds a value that cannot be told: {error}") from error
        return found

    def row(self, sql: str) -> tuple[Any, ...]:
        """The only row of an answer."""
        (found,) = self.rows(sql)
        return found

    def refused(self, error: Exception) -> Permanent:
        """What the engine said, on one line, without its advice about its own settings."""
        said = str(error)
        kind = type(error).__name__
        if "max_temp_directory_size" in said:
            return Permanent(
                f"{self.name} needs more temporary files than this lane gives to one task: name fewer columns, split it, or send it to a "
                f"lane with a larger DATA_MAX_BYTES ({_line(said)[:120]})"
            )
        if kind == "OutOfMemoryException":
            return Permanent(
                f"{self.name} needs more than the {self._memory_mb} MB of memory that one task has for tables: name fewer columns, or "
                f"split it ({_line(said)[:120]})"
            )
        if "File too large" in said:
            return Permanent(
                f"the result of {self.name} is larger than this lane allows: name fewer columns, split the source, or send it to a lane "
                "with a larger DATA_MAX_BYTES"
            )
        too_long = _TOO_LONG.search(said)
        if too_long:
            line, most = map(int, too_long.groups())
            return Permanent(f"{self.name}, near line {line}: a row is longer than {most:,} bytes; close its quotes, or shorten its cells")
        return Permanent(f"{self.name}: {_line(said.replace(str(self.folder) + os.sep, ''))}")

    def close(self) -> None:
        self._connection.close()


@contextmanager
def opened(name: str, files_bytes: int, **options: Any) -> Iterator[Engine]:
    """An engine with a folder of its own, which is removed afterwards. Raises Permanent for rows that Python cannot hold either."""
    with tempfile.TemporaryDirectory(prefix="table-") as folder:
        engine = Engine(Path(os.path.realpath(folder)), name, files_bytes=files_bytes, **options)
        try:
            yield engine
        except MemoryError as error:
            raise Permanent(
                f"{name} needs more memory than one task has for a row: a row, or a line of JSON, holds too many values; write them as rows"
            ) from error
        finally:
            engine.close()


@contextmanager
def file_limit(limit_bytes: int) -> Iterator[None]:
    """While this runs no file of this process grows beyond the limit: a small source can unfold into any size."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    wanted = limit_bytes if hard == resource.RLIM_INFINITY else min(limit_bytes, hard)
    resource.setrlimit(resource.RLIMIT_FSIZE, (wanted, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def text(value: str) -> str:
    """A text as SQL writes it."""
    quoted = "'" + value.replace("'", "''") + "'"
    return quoted if "\0" not in quoted else "(" + quoted.replace("\0", "' || chr(0) || '") + ")"


def identifier(name: str) -> str:
    """A name as SQL writes it."""
    return '"' + name.replace('"', '""') + '"'


def texts(values: Sequence[str]) -> str:
    """Several, with commas."""
    return ", ".join(map(text, values))


def _line(said: str) -> str:
    """The first line that says something, without the kind of error before it."""
    first = next((one.strip() for one in said.splitlines() if one.strip()), said)
    _, colon, rest = first.partition(": ")
    return (rest if colon and rest.isprintable() and rest else first)[:MAX_REASON_CHARS]
