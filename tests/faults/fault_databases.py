"""What a database says of itself while no server looks: rows, and the work that LangGraph's own saver finds in it."""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import psycopg
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.postgres import PostgresSaver
from langgraph.checkpoint.sqlite import SqliteSaver

THREADS = "SELECT DISTINCT thread_id FROM checkpoints"
END_S = 20.0
POLL_S = 0.01


class Database(Protocol):
    """The state of one project. `arguments` and `environment` are those of its servers."""

    @property
    def arguments(self) -> Sequence[str]: ...

    @property
    def environment(self) -> dict[str, str]: ...

    def rows(self, statement: str) -> list[tuple[Any, ...]]: ...

    def committed(self, scratch: Path) -> dict[str, set[str]]:
        """The nodes whose work is in the database of a dead server, by thread.

        With the durability `async`, the default, a step begins while the checkpoint before it is being saved. What a
        subgraph saved on top of a checkpoint that never arrived is not committed: nothing leads to it.
        """
        ...

    def damages(self) -> list[str]: ...


@dataclass(frozen=True)
class SqliteFile:
    folder: Path

    arguments = ()

    @property
    def environment(self) -> dict[str, str]:
        return {}

    @property
    def _path(self) -> Path:
        return self.folder / ".changeover" / "changeover.db"

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self._path)) as connection:
            return connection.execute(statement).fetchall()

    def committed(self, scratch: Path) -> dict[str, set[str]]:
        copy = scratch / "dead.db"
        for suffix in ("", "-wal"):
            source = Path(f"{self._path}{suffix}")
            if source.exists():
                shutil.copy2(source, f"{copy}{suffix}")
        with closing(sqlite3.connect(copy, check_same_thread=False)) as connection:
            threads = [id_ for (id_,) in connection.execute(THREADS)]
            nodes = _nodes(SqliteSaver(connection), threads)
        for suffix in ("", "-wal", "-shm"):
            Path(f"{copy}{suffix}").unlink(missing_ok=True)
        return nodes

    def damages(self) -> list[str]:
        integrity = self.rows("PRAGMA integrity_check")[0][0]
        foreign = self.rows("PRAGMA foreign_key_check")
        return [] if integrity == "ok" and not foreign else [f"integrity: {integrity}, foreign keys {foreign}"]


@dataclass(frozen=True)
class PostgresPlace:
    url: str

    @property
    def arguments(self) -> Sequence[str]:
        return ("--database", self.url)

    @property
    def environment(self) -> dict[str, str]:
        return {"CHANGEOVER_RUNS_LEASE": "2s"}

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url, options="-c search_path=changeover,public") as connection:
            return connection.execute(statement.encode()).fetchall()

    def committed(self, scratch: Path) -> dict[str, set[str]]:
        self._wait_for_end()
        threads = [id_ for (id_,) in self.rows(THREADS)]
        with PostgresSaver.from_conn_string(self.url) as saver:
            return _nodes(saver, threads)

    def damages(self) -> list[str]:
        return []

    def _wait_for_end(self) -> None:
        """Until the sessions of the dead server have ended: what it sent last may still be at work."""
        left = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'changeover'"
        ends = time.monotonic() + END_S
        while self.rows(left):
            assert time.monotonic() < ends, "sessions of a dead server do not end"
            time.sleep(POLL_S)


def _nodes(saver: BaseCheckpointSaver[Any], threads: Iterable[str]) -> dict[str, set[str]]:
    nodes: dict[str, set[str]] = {}
    for thread in threads:
        found = nodes.setdefault(thread, set())
        for kept in list(saver.list({"configurable": {"thread_id": thread}})):
            values = kept.checkpoint["channel_values"]
            found.update(values.get("trail") or (), values.get("inner") or ())
            for _, channel, value in kept.pending_writes or ():
                if channel in ("trail", "inner"):
                    found.update(value)
    return nodes
