"""Files that are full, damaged, locked or no databases: errors of SQLite that an operator understands."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from changeover.errors import OperatorError
from changeover.store.opening import Store
from changeover.store.sqlite_database import SqliteDatabase

RUNTIME = Path(__file__).resolve().parents[2] / "runtime"


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[SqliteDatabase]:
    opened = SqliteDatabase(tmp_path / "test.db")
    await opened.write(lambda c: c.execute("CREATE TABLE numbers (n INTEGER PRIMARY KEY, data BLOB)") and None)
    yield opened
    await opened.close()


def insert(number: int, size_bytes: int = 0):  # type: ignore[no-untyped-def]
    def job(connection: sqlite3.Connection) -> int:
        connection.execute("INSERT INTO numbers VALUES (?, zeroblob(?))", (number, size_bytes))
        return number

    return job


async def numbers(database: SqliteDatabase) -> list[int]:
    return await database.read(lambda c: [row[0] for row in c.execute("SELECT n FROM numbers ORDER BY n")])


async def test_a_full_disk_fails_what_it_undid_and_the_next_write_works(database: SqliteDatabase) -> None:
    def limit(pages: int):  # type: ignore[no-untyped-def]
        return lambda c: c.execute(f"PRAGMA max_page_count = {pages}").fetchone() and None

    await database.write(insert(1))
    await database.write(limit(20))
    small, big = await asyncio.gather(
        database.write(insert(2)), database.write(insert(3, 1_000_000)), return_exceptions=True
    )
    assert isinstance(big, OperatorError)
    assert big.code == "disk-full"
    assert (small == 2) == (2 in await numbers(database))  # what was answered is there, what failed is not
    assert await database.write(insert(4)) == 4
    await database.write(limit(100_000))
    assert await database.write(insert(3, 1_000_000)) == 3


# --- opening ----------------------------------------------------------------------------------


async def test_a_second_owner_of_one_database_is_refused(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "c.db")
    with pytest.raises(OperatorError) as caught:
        Store.open(tmp_path / "c.db")
    assert caught.value.code == "database-in-use"
    script = "import sys, pathlib; from changeover.store.opening import Store; Store.open(pathlib.Path(sys.argv[1]))"
    other = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        script,
        str(tmp_path / "c.db"),
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(RUNTIME)},
    )
    _, said = await other.communicate()
    assert other.returncode != 0
    assert b"another changeover process uses" in said
    await store.close()
    await Store.open(tmp_path / "c.db").close()


async def test_a_newer_schema_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    await Store.open(tmp_path / "c.db").close()
    connection = sqlite3.connect(tmp_path / "c.db")
    connection.execute("PRAGMA user_version = 999")
    connection.close()
    for _ in range(2):  # the lock is free again after the first
        with pytest.raises(OperatorError) as caught:
            Store.open(tmp_path / "c.db")
        assert caught.value.code == "database-newer"


@pytest.mark.parametrize("content", [b"this is no database" * 100, b"SQLite format 3\x00" + b"\xff" * 5000])
def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "c.db"
    file.write_bytes(content)
    for _ in range(2):
        with pytest.raises(OperatorError) as caught:
            Store.open(file)
        assert caught.value.code == "database-damaged"
        assert "c.db" in caught.value.message
    assert file.read_bytes() == content


async def test_a_page_that_is_damaged_while_it_is_served_is_told_and_others_are_read(tmp_path: Path) -> None:
    file = tmp_path / "test.db"
    database = SqliteDatabase(file)
    await database.write(lambda c: c.execute("CREATE TABLE numbers (n INTEGER PRIMARY KEY, data BLOB)") and None)
    for number in range(50):
        await database.write(insert(number, 3000))
    await database.close()
    size = file.stat().st_size
    with file.open("r+b") as opened:
        opened.seek(4096)
        opened.write(b"\xff" * (size - 4096))
    database = SqliteDatabase(file)
    for _ in range(3):
        with pytest.raises(OperatorError) as caught:
            await numbers(database)
        assert caught.value.code == "database-damaged"
    assert await database.read(lambda c: c.execute("SELECT 1").fetchone()[0]) == 1
    await database.close()


def test_a_folder_that_cannot_be_written(
    shared_folder: Path, as_nobody: Callable[[], AbstractContextManager[None]]
) -> None:
    shared_folder.chmod(0o555)
    with as_nobody(), pytest.raises(OperatorError):
        Store.open(shared_folder / "deep" / "c.db")


def test_a_path_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OperatorError) as caught:
        Store.open(tmp_path / "file" / "c.db")
    assert caught.value.hint == "choose another --database"


def test_a_folder_in_place_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "c.db").mkdir()
    with pytest.raises(OperatorError):
        Store.open(tmp_path / "c.db")
