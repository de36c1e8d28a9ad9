"""Sessions with Postgres: how one is opened, and how transactions begin.

Our tables are in a schema of their own, which comes first in the search path; what the user's own path names, such as
the tables of LangGraph, comes after it.
"""

from __future__ import annotations

import psycopg

from changeover.store.postgres_connection import PostgresConnection

SCHEMA = "changeover"
WRITER_LOCK = 0x6368616E67656F76  # "changeov": the same for all processes of one database
MIGRATION_LOCK = WRITER_LOCK + 1
CONNECT_TIMEOUT_S = 5
IDLE_S = 5  # a process that stands still in a transaction loses it
LOCK_S = 20
STATEMENT_S = 60


def connect(url: str, *, timeout_s: int = CONNECT_TIMEOUT_S) -> PostgresConnection:
    """A session in which transactions are begun by hand. Blocking; raises `psycopg.Error`."""
    raw = psycopg.connect(
        url,
        autocommit=True,
        connect_timeout=timeout_s,
        application_name="changeover",
        keepalives_idle=5,
        keepalives_interval=2,
        keepalives_count=3,
        tcp_user_timeout=15_000,
    )
    connection = PostgresConnection(raw)
    connection.execute(
        "SELECT set_config('search_path', ? || ', ' || current_setting('search_path'), false),"
        " set_config('idle_in_transaction_session_timeout', ?, false), set_config('lock_timeout', ?, false),"
        " set_config('statement_timeout', ?, false), set_config('client_min_messages', 'warning', false)",
        (SCHEMA, f"{IDLE_S}s", f"{LOCK_S}s", f"{STATEMENT_S}s"),
    )
    return connection


def begin_write(connection: PostgresConnection) -> str:
    """Begin, wait for the other writers, return the id of the transaction.

    Each statement sees what was committed before it, and nobody else writes: so all of them see one state.
    """
    connection.execute("BEGIN ISOLATION LEVEL READ COMMITTED")
    (_, id_) = connection.execute(
        "SELECT pg_advisory_xact_lock(?), CAST(pg_current_xact_id() AS text)", (WRITER_LOCK,)
    ).fetchone()
    return str(id_)


def begin_save(connection: PostgresConnection) -> str:
    connection.execute("BEGIN ISOLATION LEVEL READ COMMITTED")
    return str(connection.execute("SELECT CAST(pg_current_xact_id() AS text)").fetchone()[0])


def begin_read(connection: PostgresConnection) -> None:
    connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
