"""The schema of a Postgres: our own namespace in it, the functions that jobs use, the numbered scripts."""

from __future__ import annotations

from changeover.store.postgres_connection import PostgresConnection
from changeover.store.postgres_session import MIGRATION_LOCK, SCHEMA, WRITER_LOCK, connect
from changeover.store.schema import SQL, missing, scripts
from changeover.versions.lifecycle import MOVES


def migrate_postgres(url: str, upto: int | None = None) -> None:
    """Bring a database to the newest schema, or to that of a number, in one transaction.

    Of several processes one does it, the others wait.
    """
    connection = connect(url)
    try:
        with connection.raw.transaction():
            connection.execute("SELECT pg_advisory_xact_lock(?)", (MIGRATION_LOCK,))
            seen = _prepare(connection)
            new = missing(scripts("postgres"), seen, upto, "the database")
            if new:  # no write job of a server that is up sees a schema half made
                connection.execute("SELECT pg_advisory_xact_lock(?)", (WRITER_LOCK,))
            connection.execute(SQL.joinpath("postgres", "functions.sql").read_text())
            for script in new:
                connection.execute(script.text)
                connection.execute("INSERT INTO migrations (number, name) VALUES (?, ?)", (script.number, script.name))
            if {tuple(row) for row in connection.execute("SELECT source, target FROM moves")} != MOVES:
                connection.execute("DELETE FROM moves")
                connection.executemany("INSERT INTO moves VALUES (?, ?)", sorted(MOVES))
    finally:
        connection.raw.close()


def schema_of(connection: PostgresConnection) -> int:
    """The number of the schema of a database, 0 before its first start. Makes nothing."""
    if connection.execute("SELECT to_regclass(?)", (f"{SCHEMA}.migrations",)).fetchone()[0] is None:
        return 0
    (seen,) = connection.execute(f"SELECT coalesce(max(number), 0) FROM {SCHEMA}.migrations").fetchone()
    return int(seen)


def _prepare(connection: PostgresConnection) -> int:
    # Asked for first: making what exists needs the right to make it all the same.
    if connection.execute("SELECT 1 FROM pg_namespace WHERE nspname = ?", (SCHEMA,)).fetchone() is None:
        connection.execute(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")
    connection.execute(
        f"CREATE TABLE IF NOT EXISTS {SCHEMA}.migrations (number bigint PRIMARY KEY, name text NOT NULL,"
        " applied_at timestamptz NOT NULL DEFAULT now())"
    )
    return schema_of(connection)
