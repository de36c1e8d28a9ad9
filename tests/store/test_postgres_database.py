"""Several databases on one Postgres, connections that are lost, servers that go away and come back."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from changeover.errors import OperatorError, Unavailable
from changeover.store.connection import Connection, ConstraintViolated
from changeover.store.postgres_database import PostgresDatabase
from postgres_support import Postgres

RUNTIME = Path(__file__).resolve().parents[2] / "runtime"
SESSIONS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'changeover'"


@pytest.fixture
async def pair(postgres_url: str) -> AsyncIterator[tuple[PostgresDatabase, PostgresDatabase]]:
    first, second = PostgresDatabase(postgres_url), PostgresDatabase(postgres_url)
    await first.write(lambda c: c.execute("CREATE TABLE numbers (n bigint PRIMARY KEY)") and None)
    yield first, second
    await first.close()
    await second.close()


def insert(number: int) -> Callable[[Connection], int]:
    def job(connection: Connection) -> int:
        connection.execute("INSERT INTO numbers VALUES (?)", (number,))
        return number

    return job


async def numbers(database: PostgresDatabase) -> list[int]:
    return await database.read(lambda c: [row["n"] for row in c.execute("SELECT n FROM numbers ORDER BY n")])


async def other_sessions(url: str, statement: str) -> list[Any]:
    connection = await psycopg.AsyncConnection.connect(url, autocommit=True)
    async with connection:
        found = await connection.execute(f"{statement} AND datname = current_database()")  # type: ignore[arg-type]
        return await found.fetchall()


async def test_write_jobs_of_two_processes_follow_each_other(pair: tuple[PostgresDatabase, PostgresDatabase]) -> None:
    """Each reads the greatest number and writes the next one: no two see the same."""

    def next_number(connection: Connection) -> int:
        (greatest,) = connection.execute("SELECT coalesce(max(n), 0) FROM numbers").fetchone()
        connection.execute("INSERT INTO numbers VALUES (?)", (greatest + 1,))
        return int(greatest) + 1

    given = await asyncio.gather(*(pair[n % 2].write(next_number, durable=n % 3 == 0) for n in range(200)))
    assert sorted(given) == list(range(1, 201))


async def test_what_is_saved_waits_for_no_writer(pair: tuple[PostgresDatabase, PostgresDatabase]) -> None:
    at_work, go_on = threading.Event(), threading.Event()
    writing = pair[0].write(lambda c: at_work.set() or go_on.wait(4))
    await asyncio.to_thread(at_work.wait, 4)
    assert await asyncio.gather(*(pair[n % 2].save(insert(n)) for n in range(20))) == list(range(20))
    blocked = pair[1].write(insert(100))
    assert await numbers(pair[1]) == list(range(20))
    assert not blocked.done()
    go_on.set()
    assert await writing is True
    assert await blocked == 100


async def test_a_read_is_of_one_moment(pair: tuple[PostgresDatabase, PostgresDatabase]) -> None:
    first_seen, go_on = threading.Event(), threading.Event()

    def job(connection: Connection) -> list[int]:
        counts = [connection.execute("SELECT count(*) FROM numbers").fetchone()[0]]
        first_seen.set()
        go_on.wait(4)
        return [*counts, connection.execute("SELECT count(*) FROM numbers").fetchone()[0]]

    reading = pair[0].read(job)
    await asyncio.to_thread(first_seen.wait, 4)
    await pair[1].write(insert(1))
    go_on.set()
    assert await reading == [0, 0]
    assert await numbers(pair[0]) == [1]
    with pytest.raises(Exception, match="read-only"):
        await pair[0].read(insert(2))


async def test_connections_that_are_cut_again_and_again_lose_and_repeat_nothing(
    pair: tuple[PostgresDatabase, PostgresDatabase], postgres_url: str
) -> None:
    asked = [pair[n % 2].write(insert(n), durable=n % 2 == 0) for n in range(100)]
    for round_ in range(6):
        await other_sessions(postgres_url, SESSIONS)
        asked += [pair[n % 2].write(insert(n)) for n in range(100 * (round_ + 1), 100 * (round_ + 2))]
        asked += [pair[n % 2].save(insert(10_000 + n)) for n in range(100 * round_, 100 * (round_ + 1))]
        await numbers(pair[0])
    results = await asyncio.gather(*asked)
    assert await numbers(pair[0]) == sorted(results)


async def test_a_server_that_is_killed_and_started_again_is_waited_for(own_postgres: Postgres) -> None:
    database = PostgresDatabase(own_postgres.url)
    await database.write(lambda c: c.execute("CREATE TABLE numbers (n bigint PRIMARY KEY)") and None)
    asked = [database.write(insert(n)) for n in range(50)]
    await asyncio.to_thread(own_postgres.stop)
    asked += [database.write(insert(n)) for n in range(50, 100)]
    reading = numbers(database)
    await asyncio.to_thread(own_postgres.start)
    assert await asyncio.gather(*asked) == list(range(100))
    assert set(await reading) <= set(range(100))
    assert await numbers(database) == list(range(100))
    await database.close()


async def test_a_server_that_stays_away_is_told(own_postgres: Postgres) -> None:
    database = PostgresDatabase(own_postgres.url, retry_s=0.5)
    await database.write(lambda c: c.execute("CREATE TABLE numbers (n bigint PRIMARY KEY)") and None)
    await asyncio.to_thread(own_postgres.stop)
    for asked in (database.write(insert(1)), database.save(insert(2)), database.read(lambda c: c.execute("SELECT 1"))):
        with pytest.raises(Unavailable) as caught:
            await asked
        assert caught.value.code == "database-unreachable"
    await asyncio.to_thread(own_postgres.start)
    assert await database.write(insert(3)) == 3
    await database.close()


@pytest.mark.parametrize("is_down", [False, True])
async def test_a_connection_lost_in_its_commit_is_asked_for_later(
    own_postgres: Postgres, is_down: bool, eventually: Callable[..., Any]
) -> None:
    """A commit that waits for a trigger is cut: what it wrote is written once, or nobody is told that it was."""
    url = own_postgres.url
    database = PostgresDatabase(url, retry_s=1.0)
    await database.write(
        lambda c: (
            c.execute(
                "CREATE TABLE numbers (n bigint PRIMARY KEY);"
                "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
                " PERFORM pg_sleep(CASE WHEN pg_try_advisory_lock(1) THEN 3 ELSE 0 END); RETURN NULL; END $$;"
                "CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON numbers DEFERRABLE INITIALLY DEFERRED"
                " FOR EACH ROW EXECUTE FUNCTION slow()"
            )
            and None
        )
    )
    # the lock says that it slept once
    writing = asyncio.ensure_future(database.write(insert(1)))
    committing = "SELECT pid FROM pg_stat_activity WHERE query = 'COMMIT' AND state = 'active'"
    ((pid,),) = await eventually(lambda: other_sessions(url, committing))
    if is_down:
        await asyncio.to_thread(own_postgres.stop)
        with pytest.raises(Unavailable) as caught:
            await writing
        assert caught.value.code == "commit-unknown"
        await asyncio.to_thread(own_postgres.start)
        assert await numbers(database) == []
    else:
        await other_sessions(url, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = {pid}")
        assert await writing == 1
        assert await numbers(database) == [1]
    await database.close()


async def test_a_process_that_stands_still_in_a_transaction_keeps_others_for_seconds_only(
    pair: tuple[PostgresDatabase, PostgresDatabase], postgres_url: str
) -> None:
    script = textwrap.dedent(
        """
        import asyncio, sys
        from changeover.store.postgres_database import PostgresDatabase

        def job(connection):
            connection.execute("INSERT INTO numbers VALUES (1)")
            print("in", flush=True)
            sys.stdin.readline()
            connection.execute("INSERT INTO numbers VALUES (2)")

        async def main():
            database = PostgresDatabase(sys.argv[1])
            try:
                await database.write(job)
                print("written")
            except Exception as error:
                print(type(error).__name__)
            await database.close()

        asyncio.run(main())
        """
    )
    process = subprocess.Popen(  # noqa: ASYNC220 - it is stopped and goes on, which asyncio would wait for
        [sys.executable, "-c", script, postgres_url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(RUNTIME)},
    )
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        assert await asyncio.to_thread(process.stdout.readline) == b"in\n"
        process.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        assert await pair[0].write(insert(1)) == 1
        assert time.monotonic() - began < 8
        process.send_signal(signal.SIGCONT)
        said, _ = await asyncio.to_thread(process.communicate, b"\n\n")
        assert said == b"ConstraintViolated\n", "it began anew, and found what was written meanwhile"
    finally:
        process.kill()
        process.wait()
    assert await numbers(pair[0]) == [1]


async def test_failures_say_what_they_are(pair: tuple[PostgresDatabase, PostgresDatabase]) -> None:
    await pair[0].write(insert(1))
    with pytest.raises(ConstraintViolated, match="unique"):
        await pair[0].write(insert(1))
    with pytest.raises(Exception, match="NUL"):
        await pair[0].write(lambda c: c.execute("SELECT ?", ("a\x00b",)))
    assert await pair[0].write(insert(2)) == 2


async def test_a_database_that_is_not_there_is_told_at_once() -> None:
    database = PostgresDatabase("postgresql:///none?host=/nowhere", retry_s=0.2)
    with pytest.raises((Unavailable, OperatorError)):
        await database.write(lambda c: 1)
    await database.close()
