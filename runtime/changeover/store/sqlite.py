"""The store on SQLite: opens the file, brings its schema up to date, keeps other servers out."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from filelock import FileLock, Timeout

from changeover.errors import OperatorError
from changeover.store.assistants import Assistants
from changeover.store.crons import Crons
from changeover.store.database import Database, connect, explain
from changeover.store.feedback import FeedbackRows
from changeover.store.journal import Journal
from changeover.store.routing import RoutingLog
from changeover.store.runs import Runs
from changeover.store.streams import Streams
from changeover.store.threads import Threads
from changeover.store.versions import Versions
from changeover.store.webhooks import Webhooks
from changeover.versions.lifecycle import MOVES


@dataclass(frozen=True)
class Store:
    """All durable rows of ours, by noun, over one database."""

    database: Database
    versions: Versions
    routing: RoutingLog
    runs: Runs
    streams: Streams
    threads: Threads
    journal: Journal
    assistants: Assistants
    crons: Crons
    webhooks: Webhooks
    feedback: FeedbackRows
    lock: FileLock

    @classmethod
    def open(cls, path: Path, clock: Callable[[], float] = time.time) -> Store:
        """Open or create the file. One process at a time: a second one gets `database-in-use`. Blocking."""
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
        try:
            migrate(path)
            database = Database(path)
        except sqlite3.Error as error:
            lock.release()
            raise explain(error, path) from error
        except BaseException:
            lock.release()
            raise
        return cls(
            database,
            Versions(database, clock),
            RoutingLog(database, clock),
            Runs(database, clock),
            Streams(database, clock),
            Threads(database, clock),
            Journal(database, clock),
            Assistants(database, clock),
            Crons(database, clock),
            Webhooks(database, clock),
            FeedbackRows(database, clock),
            lock,
        )

    async def close(self) -> None:
        await self.database.close()
        self.lock.release()


def migrate(path: Path) -> None:
    """Apply every `sql/NNNN_name.sql` that the file has not seen yet, each in one transaction."""
    connection = connect(path)
    try:
        (seen,) = connection.execute("PRAGMA user_version").fetchone()
        scripts = sorted(
            (
                file
                for file in resources.files("changeover.store").joinpath("sql").iterdir()
                if file.name.endswith(".sql")
            ),
            key=lambda file: file.name,
        )
        newest = int(scripts[-1].name[:4])
        if seen > newest:
            raise OperatorError(
                f"{path} was written by a newer changeover (schema {seen}, this one knows {newest})",
                code="database-newer",
                hint="upgrade changeover, or give it another --database",
            )
        for script in scripts[seen:]:
            number = int(script.name[:4])
            connection.executescript(
                f"BEGIN IMMEDIATE;\n{script.read_text()}\nPRAGMA user_version = {number};\nCOMMIT;"
            )
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("DELETE FROM moves")
        connection.executemany("INSERT INTO moves VALUES (?, ?)", sorted(MOVES))
        connection.execute("COMMIT")
    finally:
        connection.close()
