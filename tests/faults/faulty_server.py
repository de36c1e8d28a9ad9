"""`changeover serve` in a process of its own that stops itself at its N-th statement to the database.

    python faulty_server.py '{"folder": "/p", "at": 17, "side": "before"}'      one server, in this process
    python faulty_server.py                    a nursery: reads an order from each line, forks a server for it

An order: `folder` is what is served. `trigger` is a file: statements count from when it is there (at once without).
`at` is the number of the statement (0: never), `side` is `before` or `after` it, `action` is `kill` (SIGKILL, the
default) or `stop` (SIGSTOP). `kinds` is `all`, or `writes`: only what changes something and the commits of that.
`arguments` are further ones of `serve`, `environment` further variables, `output` a file for what it says, `count` a
file that gets the number of statements when the server ends by itself. The nursery answers with the pid; what it has
imported needs not be imported again.

Every connection counts, whoever opened it: ours, LangGraph's saver and its store.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

CHANGES = ("INSERT", "UPDATE", "DELETE", "REPLACE", "CREATE", "ALTER", "DROP", "WITH")
ENDS = ("COMMIT", "END")


class Fault:
    """Counts statements of all threads, and strikes at one of them."""

    def __init__(self, order: dict[str, Any]) -> None:
        self._at = int(order.get("at", 0))
        self._is_before = order.get("side", "before") == "before"
        self._signal = signal.SIGSTOP if order.get("action") == "stop" else signal.SIGKILL
        self._trigger = order.get("trigger")
        self._lock = threading.Lock()
        self.only_writes = order.get("kinds") == "writes"
        self.count = 0

    def around(self, is_write: bool, statement: Callable[[], Any]) -> Any:
        with self.striking(is_write):
            return statement()

    @contextmanager
    def striking(self, is_write: bool) -> Iterator[None]:
        """Around one statement."""
        number = self._next() if is_write or not self.only_writes else 0
        is_it = bool(number) and number == self._at
        if is_it and self._is_before:
            os.kill(os.getpid(), self._signal)
        yield
        if is_it and not self._is_before:
            os.kill(os.getpid(), self._signal)

    def _next(self) -> int:
        with self._lock:
            if self._trigger is not None:
                if not os.path.exists(self._trigger):
                    return 0
                self._trigger = None
            self.count += 1
            return self.count


def count_sqlite(fault: Fault) -> None:
    opened = sqlite3.connect

    class Counted(sqlite3.Connection):
        wrote = False

        def execute(self, sql: str, *rest: Any) -> Any:
            return fault.around(self._is_write(sql), lambda: sqlite3.Connection.execute(self, sql, *rest))

        def executemany(self, sql: str, *rest: Any) -> Any:
            return fault.around(self._is_write(sql), lambda: sqlite3.Connection.executemany(self, sql, *rest))

        def executescript(self, sql: str) -> Any:
            return fault.around(True, lambda: sqlite3.Connection.executescript(self, sql))

        def commit(self) -> None:
            fault.around(self._is_write("COMMIT"), lambda: sqlite3.Connection.commit(self))

        def cursor(self, factory: Any = None) -> Any:
            return sqlite3.Connection.cursor(self, factory or CountedCursor)

        def _is_write(self, sql: str) -> bool:
            """Whether it changes something, or commits what did."""
            word = sql.lstrip()[:7].upper()
            if word.startswith(CHANGES):
                self.wrote = True
                return True
            if word.startswith(ENDS):
                wrote, self.wrote = self.wrote, False
                return wrote
            return False

    class CountedCursor(sqlite3.Cursor):
        def execute(self, sql: str, *rest: Any) -> Any:
            is_write = self.connection._is_write(sql)  # type: ignore[attr-defined]
            return fault.around(is_write, lambda: sqlite3.Cursor.execute(self, sql, *rest))

        def executemany(self, sql: str, *rest: Any) -> Any:
            is_write = self.connection._is_write(sql)  # type: ignore[attr-defined]
            return fault.around(is_write, lambda: sqlite3.Cursor.executemany(self, sql, *rest))

    def connect(*args: Any, **options: Any) -> Any:
        options.setdefault("factory", Counted)
        return opened(*args, **options)

    sqlite3.connect = connect  # type: ignore[assignment]


def count_postgres(fault: Fault) -> None:
    try:
        import psycopg
    except ImportError:
        return

    def is_write(connection: Any, query: Any) -> bool:
        """Whether it changes something, or commits what did."""
        text = query if isinstance(query, str) else query.decode() if isinstance(query, bytes) else "INSERT"
        word = text.lstrip()[:7].upper()
        if word.startswith(CHANGES):
            connection.has_written = True
            return True
        if word.startswith(ENDS):
            wrote = getattr(connection, "has_written", False)
            connection.has_written = False
            return wrote
        return False

    def counted(name: str) -> Any:
        original = getattr(psycopg.Cursor, name)
        return lambda cursor, query, *rest, **more: fault.around(
            is_write(cursor.connection, query), lambda: original(cursor, query, *rest, **more)
        )

    def counted_async(name: str) -> Any:
        original = getattr(psycopg.AsyncCursor, name)

        async def method(cursor: Any, query: Any, *rest: Any, **more: Any) -> Any:
            with fault.striking(is_write(cursor.connection, query)):
                return await original(cursor, query, *rest, **more)

        return method

    for name in ("execute", "executemany"):
        setattr(psycopg.Cursor, name, counted(name))
        setattr(psycopg.AsyncCursor, name, counted_async(name))


def serve(order: dict[str, Any]) -> int:
    """The real command, with statements counted."""
    folder = str(Path(order["folder"]).absolute())
    os.environ.update(order.get("environment", {}))
    os.chdir(folder)
    fault = Fault(order)
    if order.get("at") or order.get("count"):
        count_sqlite(fault)
        count_postgres(fault)
    sys.argv = ["changeover", "serve", folder, "--port", "0", "--no-watch", *order.get("arguments", ())]
    from changeover.cli.app import run

    status = run()
    if order.get("count"):
        Path(order["count"]).write_text(str(fault.count))
    return status


def _child(order: dict[str, Any]) -> None:
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    output = os.open(order.get("output", os.devnull), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for target, source in ((0, nothing), (1, output), (2, output)):
        os.dup2(source, target)
    status = 1
    try:
        status = serve(order)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def nursery() -> None:
    """A server is forked before any thread or event loop is started here. Ends with its input."""
    import changeover.cli.serve
    import changeover.server.logging
    import changeover.server.serve

    with suppress(ImportError):  # what a server on Postgres needs besides
        import changeover.checkpoints.postgres
        import changeover.checkpoints.postgres_memory
        import changeover.store.postgres_database  # noqa: F401

    gc.collect()
    gc.freeze()  # no server looks through what all of them have in common
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the system buries them
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            _child(json.loads(line))
        print(pid, flush=True)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.exit(serve(json.loads(sys.argv[1])))
    nursery()
