"""A folder, a database and the manager on them, which may be killed at any moment. Drives its own event loop."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import tempfile
from collections.abc import Collection, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import psycopg
from invariant_stage import GRAPH, Stage, raise_curtain
from psycopg.rows import dict_row

from changeover import GraphVersionManager
from changeover.errors import ChangeoverError

T = TypeVar("T")
DEADLINE_S = 20.0
POLL_S = 0.002
QUIET_POLLS = 3
STOP_TRIES = 50


class World:
    """`url`: of an empty Postgres; without one the database is a file of SQLite."""

    def __init__(self, url: str | None = None) -> None:
        self.loop = asyncio.new_event_loop()
        self.base = Path(tempfile.mkdtemp(prefix="changeover-invariants-"))
        self.folder = self.base / "project"
        self.url = url
        self.stage = Stage()
        raise_curtain(self.stage)
        (self.folder / "graphs").mkdir(parents=True)
        (self.folder / "agents.yaml").write_text("agents: {}\n")
        self._connection: Any = None
        self.manager = self.do(self._opened())

    # --- driving ---------------------------------------------------------------------------------

    def do(self, work: Coroutine[Any, Any, T], within_s: float = DEADLINE_S) -> T:
        return self.loop.run_until_complete(_within(work, within_s))

    def task(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = self.loop.create_task(work)
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return task

    def write(self, graph: str, mark: str, wide: bool) -> None:
        text = GRAPH.format(mark=mark, extra="note: str" if wide else "")
        (self.folder / f"graphs/{graph}.py").write_text(text)

    def sql(self, statement: str) -> list[dict[str, Any]]:
        """What the database says, read from beside."""
        if self._connection is None:
            if self.url is None:
                self._connection = sqlite3.connect(self.base / "state" / "c.db")
                self._connection.row_factory = sqlite3.Row
            else:
                self._connection = psycopg.connect(self.url, autocommit=True, row_factory=dict_row)  # type: ignore[arg-type]
                self._connection.execute("SET search_path = changeover, public")
        return [dict(row) for row in self._connection.execute(statement).fetchall()]

    def change(self, statement: str) -> None:
        """What only time does otherwise."""
        self.do(self._change(statement))

    async def _change(self, statement: str) -> None:
        await self.manager.store.database.write(lambda connection: connection.execute(statement) and None)

    # --- the process -----------------------------------------------------------------------------

    async def _opened(self) -> GraphVersionManager:
        where = self.url or f"sqlite:///{self.base / 'state' / 'c.db'}"
        manager = GraphVersionManager.open(self.folder, where, keep_loaded=2)
        await manager.start()
        return manager

    def open(self) -> None:
        """Another process on the same database."""
        self.manager = self.do(self._opened())

    def work(self) -> None:
        self.do(self.manager.work())

    def crash(self) -> None:
        """As `kill -9`: nothing that was not committed is, and nobody is told."""
        self.stage.is_dead = True
        self.do(self._abandon())
        self.stage.is_dead = False
        self.stage.held.clear()
        self.open()

    async def _abandon(self) -> None:
        manager = self.manager
        await manager.store.database.close()  # from now on every transaction is refused
        for _ in range(STOP_TRIES):  # what is cancelled may begin something else at its end
            others = asyncio.all_tasks() - {asyncio.current_task()}  # type: ignore[arg-type]
            if not others:
                break
            for task in others:
                task.cancel("killed")
            await asyncio.wait(others, timeout=1)
        stack, manager._stack = manager._stack, None
        with suppress(asyncio.CancelledError, ChangeoverError):  # of its tasks; of its last words
            await stack.aclose()  # type: ignore[union-attr]
        if self.url is not None:  # the time of its lease
            with psycopg.connect(self.url, autocommit=True) as connection:
                connection.execute("UPDATE changeover.servers SET lease_until = 0")

    def stop(self, ending: Collection[int]) -> None:
        """As SIGTERM: what stands in a node comes to its end, and to a boundary; these turns come to their end."""
        self.manager.stop_runs()
        for turn in ending:
            self.stage.plans[turn].holds.clear()
        for turn in self.stage.plans:
            self.stage.let_go(turn)
        self.do(self.manager.close())
        assert self.manager.loader._builder._trees._trees == {}  # each was let go of as often as it was taken

    def close(self) -> None:
        if self.manager.is_open:
            self.stage.is_dead = True
            self.do(self._abandon())
        if self._connection is not None:
            self._connection.close()
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()
        shutil.rmtree(self.base, ignore_errors=True)

    # --- waiting ---------------------------------------------------------------------------------

    def settle(self, turns: dict[str, int]) -> None:
        """Until every run has ended, or stands where it is held, or waits behind one that does."""
        self.do(self._settled(turns), 3 * DEADLINE_S)

    async def _settled(self, turns: dict[str, int]) -> None:
        until = asyncio.get_running_loop().time() + DEADLINE_S
        quiet, before = 0, None
        while quiet < QUIET_POLLS:
            await asyncio.sleep(POLL_S)
            is_gated = bool(self.sql("SELECT 1 AS found FROM gate"))
            active = self.sql(
                "SELECT id, thread_id, status, wish FROM runs WHERE status IN ('pending', 'running') ORDER BY seq"
            )
            busy = {row["thread_id"] for row in active if row["status"] == "running"}
            waits_behind = busy | ({row["thread_id"] for row in active} if is_gated else set())
            moving = [
                row
                for row in active
                if not (
                    self.stage.is_held(turns[row["id"]]) and row["wish"] in (None, "handover")
                    if row["status"] == "running"
                    else row["thread_id"] in waits_behind
                )
            ]
            seen = (sum(self.stage.entered.values()), sum(self.stage.left.values()), len(self.manager.in_flight.on()))
            quiet = quiet + 1 if not moving and seen == before else 0
            before = seen
            assert asyncio.get_running_loop().time() < until, f"these do not go on: {moving} of {active}"


async def _within(work: Coroutine[Any, Any, T], within_s: float) -> T:
    async with asyncio.timeout(within_s):  # no task of its own, which a crash would end
        return await work
