"""What both databases promise: one writer, batches, order, and what was answered is there."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from changeover.errors import ChangeoverError, Unavailable
from changeover.store.connection import Connection, ConstraintViolated
from changeover.store.database import Database

RUNTIME = Path(__file__).resolve().parents[2] / "runtime"
WRITER = textwrap.dedent(
    """
    import asyncio, sys
    from pathlib import Path
    from changeover.store.postgres_database import PostgresDatabase
    from changeover.store.sqlite_database import SqliteDatabase

    async def main(address):
        path = address.removeprefix("sqlite:///")
        database = SqliteDatabase(Path(path)) if path != address else PostgresDatabase(address)

        async def writer(start):
            n = start
            while True:
                insert = lambda c: c.execute("INSERT INTO numbers (n) VALUES (?)", (n,)) and None
                await database.write(insert, durable=n % 2 == 0)
                print(n, flush=True)
                n += 8

        await asyncio.gather(*(writer(n) for n in range(8)))

    asyncio.run(main(sys.argv[1]))
    """
)


def insert(number: int) -> Callable[[Connection], int]:
    def job(connection: Connection) -> int:
        connection.execute("INSERT INTO numbers VALUES (?, NULL)", (number,))
        return number

    return job


async def numbers(database: Database) -> list[int]:
    return await database.read(lambda c: [row[0] for row in c.execute("SELECT n FROM numbers ORDER BY n")])


def boom(connection: Connection) -> None:
    connection.execute("INSERT INTO numbers VALUES (1000, NULL)")
    raise RuntimeError("boom")


async def test_rows_answer_by_position_and_by_name(database: Database) -> None:
    await database.write(lambda c: c.execute("INSERT INTO numbers VALUES (:n, :note)", {"n": 7, "note": None}) and None)

    def job(connection: Connection) -> None:
        row = connection.execute("SELECT n, note, n + 1 AS more FROM numbers WHERE n = ?", (7,)).fetchone()
        assert (row[0], row["n"], row["more"]) == (7, 7, 8)
        assert dict(row) == {"n": 7, "note": None, "more": 8}
        assert tuple(row) == (7, None, 8)
        assert row.keys() == ["n", "note", "more"]
        n, *others = row
        assert (n, others) == (7, [None, 8])
        with pytest.raises(IndexError):
            row["other"]
        assert connection.execute("SELECT 1 WHERE 1 = 2").fetchone() is None
        assert connection.execute("SELECT ? = 1, 5 % 2, '%?:x'", (True,)).fetchall()[0][1:] == (1, "%?:x")

    await database.read(job)


async def test_statements_say_how_many_rows_they_changed(database: Database) -> None:
    def job(connection: Connection) -> tuple[int, int, int]:
        made = connection.executemany("INSERT INTO numbers VALUES (?, ?)", [(n, None) for n in range(5)]).rowcount
        ignored = connection.execute("INSERT INTO numbers VALUES (1, '') ON CONFLICT (n) DO NOTHING").rowcount
        return made, ignored, connection.execute("DELETE FROM numbers WHERE n > 1").rowcount

    assert await database.write(job) == (5, 0, 3)


@pytest.mark.parametrize("durable", [True, False])
async def test_a_job_that_fails_takes_no_other_with_it(database: Database, durable: bool) -> None:
    jobs = [boom if n % 3 == 0 else insert(n) for n in range(300)]
    results = await asyncio.gather(*(database.write(job, durable=durable) for job in jobs), return_exceptions=True)
    assert [isinstance(result, RuntimeError) for result in results] == [n % 3 == 0 for n in range(300)]
    assert await numbers(database) == [n for n in range(300) if n % 3]


async def test_writes_are_made_in_the_order_in_which_they_were_asked_for(database: Database) -> None:
    order: list[int] = []
    writes = [database.write(lambda c, n=n: order.append(n), durable=n % 7 == 0) for n in range(500)]  # type: ignore[misc]
    await asyncio.gather(*writes)
    assert order == list(range(500))


async def test_a_read_sees_every_write_that_was_answered_before(database: Database) -> None:
    for number in range(200):
        await database.write(insert(number), durable=number % 2 == 0)
        assert len(await numbers(database)) == number + 1


async def test_a_constraint_fails_its_own_job_as_what_it_is(database: Database) -> None:
    first, second = await asyncio.gather(database.write(insert(1)), database.write(insert(1)), return_exceptions=True)
    assert first == 1
    assert isinstance(second, ConstraintViolated)


async def test_a_commit_that_fails_fails_every_job_of_its_batch(database: Database) -> None:
    await database.write(
        lambda c: (
            c.execute("CREATE TABLE child (n BIGINT REFERENCES numbers (n) DEFERRABLE INITIALLY DEFERRED)") and None
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
    assert all(isinstance(result, ChangeoverError) for result in results)
    assert await numbers(database) == []
    assert await database.write(insert(3)) == 3


async def test_a_closed_database_says_so_and_closes_twice(database: Database) -> None:
    asked = [database.write(lambda c: 1) for _ in range(20)]
    await asyncio.gather(database.close(), database.close())
    assert await asyncio.gather(*asked) == [1] * 20
    with pytest.raises(Unavailable):
        await database.write(lambda c: 1)
    with pytest.raises(Unavailable):
        await database.read(lambda c: 1)


async def test_a_caller_that_leaves_hurts_nobody(database: Database) -> None:
    left = [asyncio.ensure_future(database.write(insert(n))) for n in range(50)]
    for future in left[::2]:
        future.cancel()
    await asyncio.gather(*left, return_exceptions=True)
    await database.write(insert(100))
    assert set(range(1, 50, 2)) | {100} <= set(await numbers(database))


async def test_what_was_answered_survives_a_kill(database: Database, address: str) -> None:
    """A process writes and prints each number once it was answered; whatever was printed is there after kill -9."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        WRITER,
        address,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(RUNTIME)},
    )
    assert process.stdout is not None
    answered = [int(await process.stdout.readline()) for _ in range(500)]
    process.kill()
    answered += [int(line) for line in (await process.stdout.read()).split(b"\n")[:-1]]
    await process.wait()
    assert set(answered) <= set(await numbers(database))
