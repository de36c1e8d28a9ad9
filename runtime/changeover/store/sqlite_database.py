"""One SQLite file: a connection that writes, a connection that reads, a thread for each.

All writers of a process go through one connection. What is asked for while a transaction commits is
taken together into the next one (group commit), each job in a savepoint of its own, so that a job
that fails takes no other with it. A caller is answered after the commit.

`durable` says what a commit must survive. Every commit survives the death of the process (WAL); a
durable one is also synced to disk and survives the loss of power. A batch is as durable as its
most demanding job. A job that is not durable is small and never waits for the disk: where nothing
else is being written it runs at once on the event loop, which is quicker than going to a thread and back.

Invariant: no other part of the process opens the file for writing.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, TypeVar

from changeover.errors import ChangeoverError, OperatorError
from changeover.store.connection import ConstraintViolated
from changeover.store.containment import contains_text
from changeover.store.database import Job, Outcome, Request, Trouble, answer, deliver, refused
from changeover.store.database import request as ask

T = TypeVar("T")

BATCH_LIMIT = 256  # jobs in one transaction: bounds how long the first of them waits for the last
BUSY_TIMEOUT_MS = 10_000
CHECKPOINT_PAGES = 1000  # SQLite's own default: size of the WAL at which it is copied into the database
AT_ONCE_LIMIT = 128  # transactions on the event loop before one goes to the thread, where the WAL may be copied


class SqliteDatabase:
    """The two connections and their threads. Jobs are plain functions of a `sqlite3.Connection`."""

    kind: Literal["sqlite"] = "sqlite"

    def __init__(self, path: Path) -> None:
        self.path = path
        self._writer = connect(path)
        self._reader = connect(path)
        self._reader.execute("PRAGMA query_only = ON")
        self._writes: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        self._reads: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        self._writing = threading.Lock()  # held for a transaction of the writer
        self._reading = threading.Lock()  # and of the reader
        self._asked = 0  # written by callers alone
        self._answered = 0  # written by the writer's thread alone
        self._at_once = 0
        self._is_set: dict[str, int | str] = {}
        self._trouble = Trouble()
        self._closed = False
        self._threads = [
            threading.Thread(target=self._write_loop, name="changeover-writer", daemon=True),
            threading.Thread(target=self._read_loop, name="changeover-reader", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    @property
    def trouble(self) -> ChangeoverError | None:
        return self._trouble.now

    def write(
        self, job: Callable[[sqlite3.Connection], T], *, durable: bool = True, repeatable: bool = False
    ) -> asyncio.Future[T]:
        request = ask(job, durable, repeatable)
        if self._closed:
            return refused(request)
        if durable or not self._write_at_once(request):
            self._asked += 1
            self._writes.put(request)
        return request.future

    def save(
        self, job: Callable[[sqlite3.Connection], T], *, durable: bool = True, repeatable: bool = False
    ) -> asyncio.Future[T]:
        """The same as `write`: SQLite has one writer at a time."""
        return self.write(job, durable=durable, repeatable=repeatable)

    def read(self, job: Callable[[sqlite3.Connection], T], *, small: bool = False) -> asyncio.Future[T]:
        """A small one runs at once where nothing else is being read."""
        request = ask(job, False)
        if self._closed:
            return refused(request)
        if not small or not self._read_at_once(request):
            self._reads.put(request)
        return request.future

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._writes.put(None)
        self._reads.put(None)
        for thread in self._threads:
            await asyncio.to_thread(thread.join)

    def _write_at_once(self, request: Request) -> bool:
        """Write in the caller's thread; False, and nothing done, if that would mean to wait or to go before others."""
        if self._asked != self._answered or self._at_once >= AT_ONCE_LIMIT or not self._writing.acquire(blocking=False):
            return False
        try:
            if not self._begin_at_once():
                return False
            self._at_once += 1
            deliver(self._commit([request]))
            return True
        finally:
            self._writing.release()

    def _begin_at_once(self) -> bool:
        """Begin a transaction that waits neither for another process nor for the disk."""
        try:
            self._set(busy_timeout=0, wal_autocheckpoint=0, synchronous="NORMAL")
            self._writer.execute("BEGIN IMMEDIATE")
        except sqlite3.Error:  # the thread tries again, waits if it must, and explains what it meets
            return False
        return True

    def _read_at_once(self, request: Request) -> bool:
        if not self._reading.acquire(blocking=False):
            return False
        try:
            deliver([self._run_read(request)])
        finally:
            self._reading.release()
        return True

    # --- threads ---------------------------------------------------------------------------------

    def _write_loop(self) -> None:
        open_ = True
        while open_:
            batch, open_ = self._next_batch()
            if batch:
                with self._writing:
                    outcomes = self._begin_and_commit(batch)
                    self._answered += len(batch)
                answer(outcomes)
        with suppress(sqlite3.Error):  # it makes later reads faster, no more
            self._writer.execute("PRAGMA optimize")
        self._writer.close()

    def _next_batch(self) -> tuple[list[Request], bool]:
        first = self._writes.get()
        if first is None:
            return [], False
        batch = [first]
        while len(batch) < BATCH_LIMIT:
            try:
                request = self._writes.get_nowait()
            except queue.Empty:
                break
            if request is None:
                return batch, False
            batch.append(request)
        return batch, True

    def _begin_and_commit(self, batch: list[Request]) -> list[Outcome]:
        durable = any(request.durable for request in batch)
        self._at_once = 0
        try:
            self._set(
                busy_timeout=BUSY_TIMEOUT_MS,
                wal_autocheckpoint=CHECKPOINT_PAGES,
                synchronous="FULL" if durable else "NORMAL",
            )
            self._writer.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            failure = explain(error, self.path)
            self._trouble.note("write", failure)
            return [(request, None, failure) for request in batch]
        return self._commit(batch)

    def _set(self, **wanted: int | str) -> None:
        """Set what is not set so already; called with `_writing` held."""
        for name, value in wanted.items():
            if self._is_set.get(name) != value:
                self._writer.execute(f"PRAGMA {name} = {value}")
                self._is_set[name] = value

    def _commit(self, batch: list[Request]) -> list[Outcome]:
        """Run the batch in the open transaction and end it. What a failed commit undid fails as a whole."""
        outcomes = self._run_and_commit(batch)
        self._trouble.note("write", next((error for _, _, error in outcomes if isinstance(error, OperatorError)), None))
        return outcomes

    def _run_and_commit(self, batch: list[Request]) -> list[Outcome]:
        outcomes: list[Outcome] = []
        try:
            if len(batch) == 1:
                return [self._run_alone(batch[0])]
            for request in batch:
                outcomes.append((request, *self._run_in_savepoint(request.job)))
            self._writer.execute("COMMIT")
            return outcomes
        except sqlite3.Error as error:
            with suppress(sqlite3.Error):
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
            failure = explain(error, self.path)
            failed = {id(request): problem for request, _, problem in outcomes if problem is not None}
            return [(request, None, failed.get(id(request), failure)) for request in batch]

    def _run_alone(self, request: Request) -> Outcome:
        """A job that has the transaction for itself: what it did is committed, or all of it undone."""
        try:
            result = request.job(self._writer)
        except BaseException as error:
            if not self._writer.in_transaction:  # SQLite gave it up itself (disk full, I/O error)
                return request, None, explain(error, self.path)
            self._writer.execute("ROLLBACK")
            return request, None, told(error, self.path)
        self._writer.execute("COMMIT")
        return request, result, None

    def _run_in_savepoint(self, job: Job) -> tuple[Any, BaseException | None]:
        self._writer.execute("SAVEPOINT job")
        try:
            result = job(self._writer)
        except BaseException as error:
            if not self._writer.in_transaction:  # SQLite gave up the whole transaction (disk full, I/O error)
                raise sqlite3.OperationalError(str(error)) from error
            self._writer.execute("ROLLBACK TO job")
            self._writer.execute("RELEASE job")
            return None, told(error, self.path)
        self._writer.execute("RELEASE job")
        return result, None

    def _read_loop(self) -> None:
        while (request := self._reads.get()) is not None:
            with self._reading:
                outcome = self._run_read(request)
            answer([outcome])
        self._reader.close()

    def _run_read(self, request: Request) -> Outcome:
        try:
            self._reader.execute("BEGIN")
            outcome: Outcome = request, request.job(self._reader), None
        except BaseException as error:
            outcome = request, None, told(error, self.path)
        finally:
            with suppress(sqlite3.Error):
                if self._reader.in_transaction:
                    self._reader.execute("COMMIT")
        self._trouble.note("read", outcome[2])
        return outcome


def connect(path: Path) -> sqlite3.Connection:
    """A connection in WAL mode with foreign keys on; transactions are begun by hand."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=512)
    connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.row_factory = sqlite3.Row
    connection.create_function("folded", 1, str.casefold, deterministic=True)  # SQLite's `lower` knows ASCII alone
    connection.create_function("json_contains", 2, contains_text, deterministic=True)
    return connection


def told(error: BaseException, path: Path) -> BaseException:
    """What a job raised, as who asked for it is told."""
    if isinstance(error, sqlite3.IntegrityError):
        refusal = ConstraintViolated(str(error), hint="this is a bug of changeover: please report it")
        refusal.__cause__ = error
        return refusal
    return explain(error, path) if is_storage_failure(error) else error


def is_storage_failure(error: BaseException) -> bool:
    return isinstance(error, sqlite3.Error) and not isinstance(
        error, (sqlite3.IntegrityError, sqlite3.ProgrammingError)
    )


def explain(error: BaseException, path: Path) -> OperatorError:
    """The one sentence an operator needs when SQLite itself fails."""
    text = str(error)
    if "full" in text:
        return OperatorError(
            f"the disk is full: cannot write {path}", code="disk-full", hint="free some space and retry"
        )
    if "locked" in text or "busy" in text:
        return OperatorError(
            f"{path} is locked by another process", code="database-in-use", hint="stop the other process and retry"
        )
    if "malformed" in text or "not a database" in text:
        return OperatorError(
            f"{path} is damaged: {text}",
            code="database-damaged",
            hint="restore a backup, or give it another --database",
        )
    return OperatorError(f"cannot write {path}: {text}", code="database", hint="look at the disk and its permissions")
