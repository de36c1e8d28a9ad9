"""LangGraph's long-term memory on SQLite, where an item whose time is over is gone.

LangGraph's own class deletes expired items now and then and shows them until then, renews their time on reading
only if it was set up so, makes an item anew when it is written again, finds it by words it no longer has, and needs an
SQLite that loads extensions, which many a Python is built without.
"""

from __future__ import annotations

import sqlite3
from array import array
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from math import fsum, sqrt
from operator import mul, sub
from typing import Any

import aiosqlite
from langgraph.store.base import GetOp, Item, Op, PutOp, Result, SearchItem, SearchOp, TTLConfig
from langgraph.store.sqlite.aio import AsyncSqliteStore
from langgraph.store.sqlite.base import SqliteIndexConfig

EXPIRED = "expires_at IS NOT NULL AND expires_at <= strftime('%Y-%m-%d %H:%M:%f', 'now')"
THAT_EXPIRE = "WHERE expires_at IS NOT NULL ORDER BY expires_at"
BUSY_TIMEOUT_MS = 30_000  # as long as others write to the same file
MADE_ANEW = "INSERT OR REPLACE INTO store ("
WHOLE_SECONDS, MILLISECONDS = (
    "CURRENT_TIMESTAMP, CURRENT_TIMESTAMP",
    ", ".join(["strftime('%Y-%m-%d %H:%M:%f', 'now')"] * 2),
)
NEWEST_FIRST = " ORDER BY updated_at DESC"
WRITTEN_AGAIN = (
    " ON CONFLICT (prefix, key) DO UPDATE SET value = excluded.value, updated_at = excluded.updated_at,"
    " expires_at = excluded.expires_at, ttl_minutes = excluded.ttl_minutes"
)


class Memory(AsyncSqliteStore):
    """Invariants: no read gives an item after its time; an item keeps the time at which it was first written, and the
    vectors of nothing but its present value."""

    def __init__(
        self,
        conn: aiosqlite.Connection,
        *,
        index: SqliteIndexConfig | None = None,
        ttl: TTLConfig | None = None,
        **others: Any,
    ) -> None:
        self._renews_on_read = (ttl or {}).get("refresh_on_read", True)
        self._writing: ContextVar[bool] = ContextVar("writing", default=True)
        # For LangGraph's class this decides whether a read may renew at all; which ones do is decided below.
        super().__init__(conn, index=index, ttl={**(ttl or {}), "refresh_on_read": True}, **others)

    async def setup(self) -> None:
        index = self.index_config
        if self.is_setup:
            return
        if index is None or hasattr(sqlite3.Connection, "enable_load_extension"):
            await super().setup()
        else:
            self.index_config = None  # so that no extension is loaded
            await super().setup()
            self.index_config = index
            await self._measure_without_extension()
        await self.conn.execute("PRAGMA foreign_keys = ON")  # vectors go with their item
        await self.conn.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        wanted = list(ops)
        if any(not isinstance(op, PutOp) for op in wanted) and not await self._forget_expired():
            wanted = [_without_renewal(op) for op in wanted]
        before = self._writing.set(any(isinstance(op, PutOp) or getattr(op, "refresh_ttl", False) for op in wanted))
        try:
            return await super().abatch(wanted)
        finally:
            self._writing.reset(before)

    @asynccontextmanager
    async def _cursor(self, *, transaction: bool = True) -> AsyncIterator[aiosqlite.Cursor]:
        """One that writes takes its turn when it begins: SQLite lets none wait that has read before it writes."""
        if not transaction:
            async with super()._cursor(transaction=False) as cursor:
                yield cursor
            return
        await self.setup()
        async with self.lock:
            await self.conn.execute("BEGIN IMMEDIATE" if self._writing.get() else "BEGIN")
            try:
                async with self.conn.cursor() as cursor:
                    yield cursor
            except BaseException:
                await self.conn.execute("ROLLBACK")
                raise
            await self.conn.execute("COMMIT")

    async def aget(self, namespace: tuple[str, ...], key: str, *, refresh_ttl: bool | None = None) -> Item | None:
        return await super().aget(namespace, key, refresh_ttl=self._renews(refresh_ttl))

    async def asearch(
        self, namespace_prefix: tuple[str, ...], /, *, refresh_ttl: bool | None = None, **wanted: Any
    ) -> list[SearchItem]:
        return await super().asearch(namespace_prefix, refresh_ttl=self._renews(refresh_ttl), **wanted)

    def _renews(self, asked: bool | None) -> bool:
        return self._renews_on_read if asked is None else asked

    async def _forget_expired(self) -> bool:
        """Returns whether there are items that will expire."""
        async with self.lock:
            async with self.conn.execute(f"SELECT {EXPIRED} FROM store {THAT_EXPIRE} LIMIT 1") as found:
                first = await found.fetchone()
            if first is None:
                return False
            if first[0]:
                await self.conn.execute(f"DELETE FROM store WHERE {EXPIRED}")
            return True

    def _prepare_batch_PUT_queries(self, put_ops: Sequence[tuple[int, PutOp]]) -> Any:
        queries, embedding = super()._prepare_batch_PUT_queries(put_ops)
        written = [(_written_again(query), values) for query, values in queries]
        return (self._forget_vectors(put_ops) if self.index_config else []) + written, embedding

    def _prepare_batch_search_queries(self, search_ops: Sequence[tuple[int, SearchOp]]) -> Any:
        queries, embedding = super()._prepare_batch_search_queries(search_ops)
        ordered = [(query.replace(NEWEST_FIRST, f"{NEWEST_FIRST}, key, prefix"), *others) for query, *others in queries]
        return ordered, embedding

    def _forget_vectors(self, put_ops: Sequence[tuple[int, PutOp]]) -> list[tuple[str, Sequence[Any]]]:
        forget = "DELETE FROM store_vectors WHERE prefix = ? AND key = ?"
        return [(forget, (".".join(op.namespace), op.key)) for _, op in put_ops]

    async def _measure_without_extension(self) -> None:
        async with self.lock:
            await self.conn.execute("CREATE TABLE IF NOT EXISTS vector_migrations (v INTEGER PRIMARY KEY)")
            async with self.conn.execute("SELECT v FROM vector_migrations") as found:
                seen = {row[0] for row in await found.fetchall()}
            for number, sql in enumerate(self.VECTOR_MIGRATIONS):
                if number not in seen:
                    await self.conn.executescript(sql)
                    await self.conn.execute("INSERT INTO vector_migrations (v) VALUES (?)", (number,))
            for name, distance in DISTANCES.items():
                await self.conn.create_function(name, 2, _of_vectors(distance), deterministic=True)


def _cosine(one: Sequence[float], other: Sequence[float]) -> float:
    lengths = sqrt(fsum(map(mul, one, one))) * sqrt(fsum(map(mul, other, other)))
    return 1.0 - fsum(map(mul, one, other)) / lengths if lengths else 1.0


def _l2(one: Sequence[float], other: Sequence[float]) -> float:
    return sqrt(fsum(part * part for part in map(sub, one, other)))


def _l1(one: Sequence[float], other: Sequence[float]) -> float:
    return fsum(map(abs, map(sub, one, other)))


DISTANCES: dict[str, Callable[[Sequence[float], Sequence[float]], float]] = {
    "vec_distance_cosine": _cosine,
    "vec_distance_L2": _l2,
    "vec_distance_L1": _l1,
}


def _of_vectors(distance: Callable[[Sequence[float], Sequence[float]], float]) -> Callable[[bytes, bytes], float]:
    """The distance of vectors as they are stored: 32-bit floats in a row."""
    return lambda one, other: distance(array("f", one), array("f", other))


def _without_renewal(op: Op) -> Op:
    return op._replace(refresh_ttl=False) if isinstance(op, (GetOp, SearchOp)) else op


def _written_again(query: str) -> str:
    if MADE_ANEW not in query:
        return query
    query = query.replace(MADE_ANEW, "INSERT INTO store (").replace(WHOLE_SECONDS, MILLISECONDS)
    return query + WRITTEN_AGAIN
