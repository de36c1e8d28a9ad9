"""One writer, batches, and errors of SQLite that an operator understands."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from changeover.errors import OperatorError, Unavailable
from changeover.store.connection import ConstraintViolated
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


def boom(connection: sqlite3.Connection) -> None:
    connection.execute("INSERT INTO numbers VALUES (1000, NULL)")
    raise RuntimeError("boom")


@pytest.mark.parametrize("durable", [True, False])
async def test_a_job_that_fails_takes_no_other_with_it(database: SqliteDatabase, durable: bool) -> None:
    jobs = [boom if n % 3 == 0 else insert(n) for n in range(300)]
    results = await asyncio.gather(*(database.write(job, durable=durable) for job in jobs), return_exceptions=True)
    assert [isinstance(result, RuntimeError) for result in results] == [n % 3 == 0 for n in range(300)]
    assert await numbers(database) == [n for n in range(300) if n % 3]


async def test_writes_are_made_in_the_order_in_which_they_were_asked_for(database: SqliteDatabase) -> None:
    order: list[int] = []
    writes = [database.write(lambda c, n=n: order.append(n), durable=n % 7 == 0) for n in range(500)]  # type: ignore[misc]
    await asyncio.gather(*writes)
    assert order == list(range(500))


async def test_a_read_sees_every_write_that_was_answered_before(database: SqliteDatabase) -> None:
    for number in range(200):
        await database.write(insert(number), durable=number % 2 == 0)
        assert len(await numbers(database)) == number + 1


async def test_a_constraint_fails_its_own_job_as_what_it_is(database: SqliteDatabase) -> None:
    first, second = await asyncio.gather(database.write(insert(1)), database.write(insert(1)), return_exceptions=True)
    assert first == 1
    assert isinstance(second, ConstraintViolated)


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


async def test_a_commit_that_fails_fails_every_job_of_its_batch(database: SqliteDatabase) -> None:
    await database.write(
        lambda c: (
            c.execute("CREATE TABLE child (n INTEGER REFERENCES numbers (n) DEFERRABLE INITIALLY DEFERRED)") and None
        )
    )
    at_work, blocked = threading.Event(), threading.Event()
    first = database.write(lambda c: at_work.set() or blocked.wait(10))
    await asyncio.to_thread(at_work.wait, 10)  # what is asked for now is taken together into the next transaction
    batch = [database.write(insert(n)) for n in range(3)]
    batch.append(database.write(lambda c: c.execute("INSERT INTO child VALUES (99)") and None))
    blocked.set()
    await first
    results = await asyncio.gather(*batch, return_exceptions=True)
    assert [type(result) for result in results] == [OperatorError] * 4
    assert await numbers(database) == []
    assert await database.write(insert(3)) == 3


async def test_a_closed_database_says_so_and_closes_twice(tmp_path: Path) -> None:
    database = SqliteDatabase(tmp_path / "test.db")
    asked = [database.write(lambda c: 1) for _ in range(20)]
    await asyncio.gather(database.close(), database.close())
    assert await asyncio.gather(*asked) == [1] * 20
    with pytest.raises(Unavailable):
        await database.write(lambda c: 1)
    with pytest.raises(Unavailable):
        await database.read(lambda c: 1)


async def test_a_caller_that_leaves_hurts_nobody(database: SqliteDatabase) -> None:
    left = [asyncio.ensure_future(database.write(insert(n))) for n in range(50)]
    for future in left[::2]:
        future.cancel()
    await asyncio.gather(*left, return_exceptions=True)
    await database.write(insert(100))
    assert set(range(1, 50, 2)) | {100} <= set(await numbers(database))


def test_what_was_answered_survives_a_kill(tmp_path: Path) -> None:
    """A process writes and prints each number once it was answered; whatever was printed is there after kill -9."""
    script = textwrap.dedent(
        """
        import asyncio, sys
        from pathlib import Path
        from changeover.store.sqlite_database import SqliteDatabase

        async def main():
            database = SqliteDatabase(Path(sys.argv[1]))
            await database.write(lambda c: c.execute("CREATE TABLE numbers (n INTEGER PRIMARY KEY)") and None)

            async def writer(start):
                n = start
                while True:
                    insert = lambda c: c.execute("INSERT INTO numbers VALUES (?)", (n,)) and None
                    await database.write(insert, durable=n % 2 == 0)
                    print(n, flush=True)
                    n += 8

            await asyncio.gather(*(writer(n) for n in range(8)))

        asyncio.run(main())
        """
    )
    file = tmp_path / "test.db"
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(file)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(RUNTIME)},
    )
    assert process.stdout is not None
    answered = [int(process.stdout.readline()) for _ in range(500)]
    process.send_signal(signal.SIGKILL)
    answered += [int(line) for line in process.stdout.read().split(b"\n")[:-1]]
    process.wait()
    process.stdout.close()
    with sqlite3.connect(file) as connection:
        kept = {row[0] for row in connection.execute("SELECT n FROM numbers")}
    connection.close()
    assert set(answered) <= kept


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
