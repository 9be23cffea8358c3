"""A service's database: what was written is there again, a torn end costs the last transaction, damage is named, space is used again."""

from __future__ import annotations

import resource
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from local_cloud.database import Database

SCHEMA = "CREATE TABLE row (value BLOB UNIQUE)"


@pytest.fixture
def open_database(tmp_path: Path) -> Iterator[Callable[..., Database]]:
    opened: list[Database] = []

    def begin(name: str = "d/state.db", version: int = 1) -> Database:
        opened.append(Database(tmp_path / name, SCHEMA, version))
        return opened[-1]

    yield begin
    for database in opened:
        database.close()


def add(database: Database, value: bytes) -> None:
    database.execute("INSERT INTO row VALUES (?)", (value,))


def content(database: Database) -> list[bytes]:
    with database.transaction() as connection:
        return [value for (value,) in connection.execute("SELECT value FROM row ORDER BY rowid")]


def after_a_kill(open_database: Callable[..., Database], database: Database, *, cut_bytes: int = 0) -> list[bytes]:
    """What a later process finds when this one ends now, with `cut_bytes` of the write-ahead log missing."""
    copy = database.path.parent.with_name("copy")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(database.path.parent, copy)
    log = copy / "state.db-wal"
    log.write_bytes(log.read_bytes()[: log.stat().st_size - cut_bytes])
    other = open_database("copy/state.db")
    found = content(other)
    add(other, b"more")
    assert content(other) == [*found, b"more"]
    other.close()
    return found


def test_what_was_written_survives_a_kill(open_database: Callable[..., Database]) -> None:
    database = open_database()
    assert content(database) == [] == after_a_kill(open_database, database)
    values = [b"a", b"b" * 5_000_000, b""]
    for value in values:
        add(database, value)
        assert after_a_kill(open_database, database) == content(database)
    assert content(database) == values
    assert {oct(path.stat().st_mode)[-3:] for path in database.path.parent.iterdir()} == {"600"}
    assert oct(database.path.parent.stat().st_mode)[-3:] == "700"


@pytest.mark.parametrize("cut_bytes", [1, 1_000, 16_384])
def test_a_torn_end_costs_the_last_transaction_only(open_database: Callable[..., Database], cut_bytes: int) -> None:
    database = open_database()
    add(database, b"first")
    add(database, b"second")
    assert after_a_kill(open_database, database, cut_bytes=cut_bytes) == [b"first"]


def test_a_transaction_that_fails_changes_nothing(open_database: Callable[..., Database]) -> None:
    database = open_database()
    with pytest.raises(sqlite3.IntegrityError), database.transaction() as connection:
        connection.executemany("INSERT INTO row VALUES (?)", [(b"half",), (b"half",)])
    add(database, b"whole")
    assert content(database) == [b"whole"] == after_a_kill(open_database, database)


def test_two_processes_cannot_share_a_file(open_database: Callable[..., Database]) -> None:
    open_database()
    with pytest.raises(RuntimeError, match=r"another process uses .*/d: stop it, or give this one a --state-dir of its own"):
        open_database()


def test_what_is_no_database_of_this_version_is_refused_with_what_to_do(tmp_path: Path, open_database: Callable[..., Database]) -> None:
    (tmp_path / "text").write_text("something else that is long enough to be looked at " * 1_000)
    with pytest.raises(ValueError, match=r"text cannot be read \(file is not a database\): move it away to start empty"):
        open_database("text")
    open_database().close()
    with pytest.raises(ValueError, match=r"state\.db is of version 1, not 2: move it away to start empty"):
        open_database(version=2)
    with pytest.raises(OSError, match="text"):
        open_database("text/below")


def test_a_full_disk_confirms_nothing_more_and_keeps_what_was_confirmed(open_database: Callable[..., Database]) -> None:
    database = open_database()
    add(database, b"first")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = max(path.stat().st_size for path in database.path.parent.iterdir())
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, hard))  # Python ignores the signal; the write is cut short
    try:
        with pytest.raises(OSError, match="make room and restart"):
            add(database, b"x" * 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    with pytest.raises(OSError, match="nothing can be confirmed"):
        add(database, b"small")
    assert after_a_kill(open_database, database) == [b"first"]


def test_space_is_used_again_and_given_back_at_the_next_start(open_database: Callable[..., Database]) -> None:
    database = open_database()
    add(database, b"x" * 3_000_000)
    full = database.used_bytes
    for _ in range(5):
        database.execute("DELETE FROM row")
        assert database.used_bytes < 100_000
        add(database, b"x" * 3_000_000)
        assert database.used_bytes <= full
    database.execute("DELETE FROM row")
    database.close()
    assert database.path.stat().st_size > 3_000_000
    open_database().close()
    assert database.path.stat().st_size < 100_000
