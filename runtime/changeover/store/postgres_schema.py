"""The schema of a Postgres: our own namespace in it, the functions that jobs use, the numbered scripts.

Invariant: a server lives beside the schema that it knows. While one does, none of a newer release moves the schema;
once it has moved, none of an older release begins to live, or lives again.
"""

from __future__ import annotations

from changeover.errors import OperatorError
from changeover.processes import host, is_alive
from changeover.store.connection import Connection
from changeover.store.postgres_connection import PostgresConnection
from changeover.store.postgres_session import LOCK_S, MIGRATION_LOCK, SCHEMA, WRITER_LOCK, connect
from changeover.store.schema import SQL, missing, scripts
from changeover.versions.lifecycle import MOVES

NAMED = 5  # of servers that are in the way


def migrate_postgres(url: str, upto: int | None = None) -> None:
    """Bring a database to the newest schema, or to that of a number, in one transaction.

    Of several processes one does it, the others wait. Raises `OperatorError` (`database-in-use`) where it would do it
    under a server that is up, which knows the older schema alone: its runs could not end any more.
    """
    connection = connect(url)
    try:
        with connection.raw.transaction():
            _take_time(connection)
            connection.execute("SELECT pg_advisory_xact_lock(?)", (MIGRATION_LOCK,))
            connection.execute(f"SET LOCAL lock_timeout = '{LOCK_S}s'")  # of a table that somebody else holds
            seen = _prepare(connection)
            new = missing(scripts("postgres"), seen, upto, "the database")
            if new:  # no write job of a server that is up sees a schema half made
                connection.execute("SELECT pg_advisory_xact_lock(?)", (WRITER_LOCK,))
                _demand_nobody(connection, seen, new[-1].number)
            connection.execute(SQL.joinpath("postgres", "functions.sql").read_text())
            for script in new:
                connection.execute(script.text)
                connection.execute("INSERT INTO migrations (number, name) VALUES (?, ?)", (script.number, script.name))
            if {tuple(row) for row in connection.execute("SELECT source, target FROM moves")} != MOVES:
                connection.execute("DELETE FROM moves")
                connection.executemany("INSERT INTO moves VALUES (?, ?)", sorted(MOVES))
    finally:
        connection.raw.close()


def demand_known(connection: Connection) -> None:
    """Raises `OperatorError` (`database-newer`) where a newer release has moved the schema since it was opened."""
    (seen,) = connection.execute("SELECT max(number) FROM migrations").fetchone()
    missing(scripts("postgres"), int(seen), None, "the database")


def schema_of(connection: PostgresConnection) -> int:
    """The number of the schema of a database, 0 before its first start. Makes nothing."""
    if connection.execute("SELECT to_regclass(?)", (f"{SCHEMA}.migrations",)).fetchone()[0] is None:
        return 0
    (seen,) = connection.execute(f"SELECT coalesce(max(number), 0) FROM {SCHEMA}.migrations").fetchone()
    return int(seen)


def _take_time(connection: PostgresConnection) -> None:
    """A script takes as long as there are rows, and so does the wait for another process that is at it."""
    connection.execute("SET LOCAL statement_timeout = 0")
    connection.execute("SET LOCAL lock_timeout = 0")


def _prepare(connection: PostgresConnection) -> int:
    # Asked for first: making what exists needs the right to make it all the same.
    if connection.execute("SELECT 1 FROM pg_namespace WHERE nspname = ?", (SCHEMA,)).fetchone() is None:
        connection.execute(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")
    connection.execute(
        f"CREATE TABLE IF NOT EXISTS {SCHEMA}.migrations (number bigint PRIMARY KEY, name text NOT NULL,"
        " applied_at timestamptz NOT NULL DEFAULT now())"
    )
    return schema_of(connection)


def _demand_nobody(connection: PostgresConnection, seen: int, newest: int) -> None:
    if connection.execute("SELECT to_regclass(?)", (f"{SCHEMA}.servers",)).fetchone()[0] is None:
        return
    rows = connection.execute(
        "SELECT host, pid, lease_until - extract(epoch FROM clock_timestamp()) FROM servers"
        " WHERE lease_until > extract(epoch FROM clock_timestamp()) ORDER BY host, pid"
    ).fetchall()
    here = host()
    living = [row for row in rows if row[0] != here or is_alive(row[1])]
    if not living:
        return
    told = [
        f"process {pid} on {at.split()[0]}" if at else "one that lost its lease for a while" for at, pid, _ in living
    ]
    more = f" and {len(told) - NAMED} more" if len(told) > NAMED else ""
    raise OperatorError(
        f"the database has to be brought from schema {seen} to {newest}, and servers of an older changeover use it:"
        f" {', '.join(told[:NAMED])}{more}",
        code="database-in-use",
        hint="stop them all, then start this one; what they let go of is gone on with."
        f" One that was killed counts for {max(left_s for _, _, left_s in living):.0f} s more",
    )
