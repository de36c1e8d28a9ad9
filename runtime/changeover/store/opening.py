"""The store over one database: opens it, brings its schema up to date, keeps other owners of a file out."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from changeover.database_address import file_of, is_postgres
from changeover.errors import OperatorError
from changeover.store.alerts import AlertRules
from changeover.store.assistants import Assistants
from changeover.store.connection import Connection
from changeover.store.crons import Crons
from changeover.store.database import Database
from changeover.store.event_log import EventLog
from changeover.store.feedback import FeedbackRows
from changeover.store.forms import Forms
from changeover.store.gate import Gate
from changeover.store.holders import Holders
from changeover.store.journal import Journal
from changeover.store.landings import Landings
from changeover.store.observations import Observations
from changeover.store.operations import Operations
from changeover.store.outbox import Outbox
from changeover.store.pins import Pins
from changeover.store.plans import Plans
from changeover.store.routing import RoutingLog
from changeover.store.runs import Runs
from changeover.store.schema import migrate_sqlite
from changeover.store.servers import SchemaCheck, Servers
from changeover.store.sqlite_database import SqliteDatabase, explain
from changeover.store.streams import Streams
from changeover.store.thread_lists import ThreadLists
from changeover.store.threads import Threads
from changeover.store.usage import Usage
from changeover.store.versions import Versions


@dataclass(frozen=True)
class Store:
    """All durable rows of ours, by noun, over one database."""

    database: Database
    versions: Versions
    forms: Forms
    routing: RoutingLog
    runs: Runs
    streams: Streams
    threads: Threads
    journal: Journal
    assistants: Assistants
    crons: Crons
    outbox: Outbox
    alerts: AlertRules
    feedback: FeedbackRows
    servers: Servers
    gate: Gate
    landings: Landings
    plans: Plans
    observations: Observations
    usage: Usage
    operations: Operations
    event_log: EventLog
    pins: Pins
    holders: Holders
    thread_lists: ThreadLists
    lock: FileLock | None

    @classmethod
    def open(cls, where: Path | str, clock: Callable[[], float] = time.time, *, shared: bool = False) -> Store:
        """Open or create the database at a path, `sqlite:///path` or `postgresql://...`. Blocking.

        A file has one owner at a time: a second one gets `database-in-use`. A worker opens it `shared`: the process
        that started it holds the lock for all of them. A Postgres has as many as come.
        """
        if is_postgres(where):
            database, demand_schema = _open_postgres(where)
            return cls._over(database, clock, None, demand_schema)
        path = file_of(where)
        with ExitStack() as held:
            lock = None if shared else lock_file(path)
            if lock is not None:
                held.callback(lock.release)
            store = cls._over(_open_sqlite(path), clock, lock, _nobody_moves_it)
            held.pop_all()
            return store

    @classmethod
    def _over(
        cls, database: Database, clock: Callable[[], float], lock: FileLock | None, demand_schema: SchemaCheck
    ) -> Store:
        servers = Servers(database, demand_schema)
        return cls(
            database,
            Versions(database, clock),
            Forms(database),
            RoutingLog(database, clock),
            Runs(database, clock, servers.id),
            Streams(database, clock),
            Threads(database, clock),
            Journal(database, clock, servers.id),
            Assistants(database, clock),
            Crons(database, clock),
            Outbox(database, clock),
            AlertRules(database, clock),
            FeedbackRows(database, clock),
            servers,
            Gate(database),
            Landings(database, clock),
            Plans(database, clock),
            Observations(database, clock),
            Usage(database, clock),
            Operations(database, clock),
            EventLog(database),
            Pins(database, clock),
            Holders(database, clock),
            ThreadLists(database, clock),
            lock,
        )

    @property
    def is_alone(self) -> bool:
        """Whether no other process can use the database: then nobody who left runs behind is still at work on them."""
        return self.lock is not None

    async def close(self) -> None:
        await self.database.close()
        if self.lock is not None:
            self.lock.release()


def _open_sqlite(path: Path) -> SqliteDatabase:
    try:
        migrate_sqlite(path)
        return SqliteDatabase(path)
    except sqlite3.Error as error:
        raise explain(error, path) from error


def _nobody_moves_it(connection: Connection) -> None:
    """The schema of a file: who would open it for another release has to have its lock."""


def _open_postgres(url: str) -> tuple[Database, SchemaCheck]:
    try:
        import psycopg

        from changeover.store.postgres_database import PostgresDatabase
        from changeover.store.postgres_failures import explain as explain_postgres
        from changeover.store.postgres_schema import demand_known, migrate_postgres
    except ImportError as error:
        raise OperatorError(
            f"Postgres needs a driver: {error}", code="missing-extra", hint="pip install 'changeover[postgres]'"
        ) from None
    try:
        migrate_postgres(url)
    except psycopg.Error as error:
        raise explain_postgres(error) from None  # what psycopg says may name the address, with its password
    return PostgresDatabase(url), demand_known


def lock_file(path: Path) -> FileLock:
    """The lock of a database file, taken. Raises `OperatorError` (`database-in-use`) if another process has it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OperatorError(
            f"cannot create {path.parent}: {error.strerror}", code="database", hint="choose another --database"
        ) from None
    lock = FileLock(f"{path}.lock", thread_local=False)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise OperatorError(
            f"another changeover process uses {path}",
            code="database-in-use",
            hint="stop it, or give this one its own --database",
        ) from None
    return lock
