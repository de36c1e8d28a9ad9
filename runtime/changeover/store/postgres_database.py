"""One Postgres: a connection that writes, some that save and some that read, a thread for each.

Write jobs of all processes follow each other, as on SQLite: a transaction of the writer begins with an advisory lock
that one of them has at a time. What is asked for meanwhile is taken together into the next transaction, each job in a
savepoint of its own.

A connection that is lost before COMMIT was sent has committed nothing: its jobs are done again on a new one, for up
to `RETRY_S`. One that is lost while it commits is asked for later, by the id of its transaction.

Every commit is as durable as the server makes them, whatever was asked for: what it commits later by itself, to be
quicker, is lost when it crashes, and this process, which lives on, would take it for written.

Invariant: a process that stands still keeps the lock for `IDLE_S` at most, then the server ends its transaction.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Literal, TypeVar

import psycopg

from changeover.errors import ChangeoverError
from changeover.store.connection import Connection
from changeover.store.database import Outcome, Request, Trouble, answer, refused
from changeover.store.database import request as ask
from changeover.store.postgres_connection import PostgresConnection
from changeover.store.postgres_failures import explain, is_lost, is_passing, told, unknown_commit
from changeover.store.postgres_session import CONNECT_TIMEOUT_S, begin_read, begin_save, begin_write, connect

T = TypeVar("T")

BATCH_LIMIT = 256  # jobs in one transaction: bounds how long the first of them waits for the last
SAVERS = 4
READERS = 3
RETRY_S = 30.0
PAUSE_S = 0.1  # before the next try to connect; doubles up to PAUSE_MAX_S
PAUSE_MAX_S = 1.0

Begin = Callable[[PostgresConnection], str | None]


class PostgresDatabase:
    """Jobs are plain functions of a `Connection`, as on SQLite. `url` is what libpq takes."""

    kind: Literal["postgres"] = "postgres"

    def __init__(self, url: str, *, retry_s: float = RETRY_S) -> None:
        self.url = url
        self._writes: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        self._saves: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        self._reads: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        self._closed = False
        self._trouble = Trouble()
        self._workers = [
            _Worker(url, "writer", self._writes, begin_write, BATCH_LIMIT, retry_s, self._trouble),
            *(_Worker(url, f"saver-{n}", self._saves, begin_save, 1, retry_s, self._trouble) for n in range(SAVERS)),
            *(_Worker(url, f"reader-{n}", self._reads, begin_read, 1, retry_s, self._trouble) for n in range(READERS)),
        ]

    @property
    def trouble(self) -> ChangeoverError | None:
        return self._trouble.now

    def write(
        self, job: Callable[[Connection], T], *, durable: bool = True, repeatable: bool = False
    ) -> asyncio.Future[T]:
        return self._put(self._writes, ask(job, durable, repeatable))

    def save(
        self, job: Callable[[Connection], T], *, durable: bool = True, repeatable: bool = False
    ) -> asyncio.Future[T]:
        return self._put(self._saves, ask(job, durable, repeatable))

    def read(self, job: Callable[[Connection], T], *, small: bool = False) -> asyncio.Future[T]:
        return self._put(self._reads, ask(job, False, repeatable=True))

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            for worker in self._workers:
                worker.requests.put(None)
        for worker in self._workers:
            await asyncio.to_thread(worker.thread.join)

    def _put(self, requests: queue.SimpleQueue[Request | None], request: Request) -> asyncio.Future[Any]:
        if self._closed:
            return refused(request)
        requests.put(request)
        return request.future


class _Worker:
    """A thread with a connection, which it makes when it first needs it and again when it was lost."""

    def __init__(
        self,
        url: str,
        name: str,
        requests: queue.SimpleQueue[Request | None],
        begin: Begin,
        batch_limit: int,
        retry_s: float,
        trouble: Trouble,
    ) -> None:
        self.requests = requests
        self._url = url
        self._begin = begin
        self._batch_limit = batch_limit
        self._retry_s = retry_s
        self._trouble = trouble
        self._kind: Literal["read", "write"] = "read" if begin is begin_read else "write"
        self._open: PostgresConnection | None = None
        self.thread = threading.Thread(target=self._run, name=f"changeover-{name}", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        open_ = True
        while open_:
            batch, open_ = self._next_batch()
            if batch:
                answer(self._serve(batch))
        self._drop()

    def _next_batch(self) -> tuple[list[Request], bool]:
        first = self.requests.get()
        if first is None:
            return [], False
        batch = [first]
        while len(batch) < self._batch_limit:
            try:
                request = self.requests.get_nowait()
            except queue.Empty:
                break
            if request is None:
                return batch, False
            batch.append(request)
        return batch, True

    def _serve(self, batch: list[Request]) -> list[Outcome]:
        """Run a batch until it is committed, fails by itself, or the database was away for too long."""
        ends = time.monotonic() + self._retry_s
        pause_s = PAUSE_S
        while True:
            transaction = _Transaction(batch)
            try:
                connection = self._connection()
                outcomes = transaction.run(connection, self._begin)
                self._trouble.note(self._kind, None)
                return outcomes
            except psycopg.Error as error:
                if transaction.commit_sent:
                    return self._after_lost_commit(transaction, error, ends)
                problem = self._give_up(error)
                if not is_passing(error):
                    self._trouble.note(self._kind, explain(error))
                if problem is not None or time.monotonic() + pause_s > ends:
                    failure = problem or explain(error)
                    return [(request, None, failure) for request in batch]
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, PAUSE_MAX_S)

    def _give_up(self, error: psycopg.Error) -> BaseException | None:
        """After a transaction that committed nothing: None if another try may help."""
        lost = is_lost(error) or self._open is None or self._open.raw.closed
        if lost:
            self._drop()
        elif not self._roll_back():
            lost = True
        return None if lost or is_passing(error) else explain(error)

    def _after_lost_commit(self, transaction: _Transaction, error: psycopg.Error, ends: float) -> list[Outcome]:
        if self._open is not None and not self._open.raw.closed and not is_lost(error):
            self._roll_back()  # the server refused to commit: a deferred constraint, a full disk
            failure = told(error)
            return [(request, None, problem or failure) for request, _, problem in transaction.outcomes]
        self._drop()
        became = self._what_became_of(transaction.id, ends)
        if became == "committed":
            return transaction.outcomes
        again = [request for request in transaction.batch if became == "aborted" or request.repeatable]
        failed: list[Outcome] = [
            (request, None, unknown_commit()) for request in transaction.batch if request not in again
        ]
        return failed + (self._serve(again) if again else [])

    def _what_became_of(self, transaction: str | None, ends: float) -> str | None:
        """`committed` or `aborted`; None if it cannot be found out in time."""
        while transaction is not None and time.monotonic() < ends:
            try:
                row = self._connection().execute("SELECT pg_xact_status(CAST(? AS xid8))", (transaction,)).fetchone()
                if row[0] != "in progress":
                    return str(row[0]) if row[0] else None
            except psycopg.Error as error:
                if not is_lost(error):
                    return None
                self._drop()
            time.sleep(PAUSE_S)
        return None

    def _connection(self) -> PostgresConnection:
        if self._open is None or self._open.raw.closed:
            self._open = connect(self._url, timeout_s=CONNECT_TIMEOUT_S)
        return self._open

    def _roll_back(self) -> bool:
        try:
            if self._open is not None:
                self._open.execute("ROLLBACK")
        except psycopg.Error:
            self._drop()
            return False
        return True

    def _drop(self) -> None:
        if self._open is not None:
            with suppress(psycopg.Error):
                self._open.raw.close()
            self._open = None


class _Transaction:
    """One try of a batch. Raises what the database raises where that is not the matter of a job alone."""

    def __init__(self, batch: list[Request]) -> None:
        self.batch = batch
        self.outcomes: list[Outcome] = []
        self.id: str | None = None
        self.commit_sent = False

    def run(self, connection: PostgresConnection, begin: Begin) -> list[Outcome]:
        self.id = begin(connection)
        if len(self.batch) == 1:
            if not self._run_alone(connection, self.batch[0]):
                connection.execute("ROLLBACK")
                return self.outcomes
        else:
            for request in self.batch:
                self._run_in_savepoint(connection, request)
        self.commit_sent = True
        connection.execute("COMMIT")
        return self.outcomes

    def _run_alone(self, connection: PostgresConnection, request: Request) -> bool:
        problem, result = _try(connection, request)
        self.outcomes.append((request, result, problem))
        return problem is None

    def _run_in_savepoint(self, connection: PostgresConnection, request: Request) -> None:
        connection.execute("SAVEPOINT job")
        problem, result = _try(connection, request)
        if problem is not None:
            connection.execute("ROLLBACK TO job")
        connection.execute("RELEASE job")
        self.outcomes.append((request, result, problem))


def _try(connection: PostgresConnection, request: Request) -> tuple[BaseException | None, Any]:
    """What the job raised, or its result. What another try of the transaction may mend is raised."""
    try:
        return None, request.job(connection)
    except BaseException as error:
        if connection.raw.closed:
            raise psycopg.OperationalError("the connection was lost") from error
        if isinstance(error, psycopg.Error) and (is_lost(error) or is_passing(error)):
            raise
        return told(error), None
