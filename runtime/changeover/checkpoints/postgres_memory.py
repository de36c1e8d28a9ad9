"""LangGraph's long-term memory on Postgres, where an item whose time is over is gone.

LangGraph's own class shows expired items until it deletes them, renews their time on reading only if it was set up so,
keeps that time in whole minutes, and finds an item by words it no longer has.

Text with NUL is refused before it is taken up: the database cannot hold it, and would refuse with it all that is done
at the same moment.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import psycopg
from langgraph.store.base import Item, Op, PutOp, Result, SearchItem, SearchOp, TTLConfig
from langgraph.store.postgres.aio import AsyncPostgresStore
from langgraph.store.postgres.base import PostgresIndexConfig
from psycopg_pool import AsyncConnectionPool

from changeover.checkpoints.pool import open_pool, setting_up, while_lost
from changeover.errors import InvalidRequest, OperatorError

CONNECTIONS = 4
NEWEST_FIRST = "ORDER BY store.updated_at DESC"
AND_BY_NAME = ', store.key COLLATE "C", store.prefix COLLATE "C"'  # as SQLite compares


class PostgresMemory(AsyncPostgresStore):
    """Invariants: no read gives an item after its time; an item keeps the time at which it was first written, and the
    vectors of nothing but its present value."""

    def __init__(
        self,
        pool: AsyncConnectionPool[Any],
        *,
        index: PostgresIndexConfig | None = None,
        ttl: TTLConfig | None = None,
    ) -> None:
        self._renews_on_read = (ttl or {}).get("refresh_on_read", True)
        # For LangGraph's class this decides whether a read may renew at all; which ones do is decided below.
        super().__init__(pool, index=index, ttl={**(ttl or {}), "refresh_on_read": True})
        self._pool = pool

    @classmethod
    async def open(
        cls, url: str, *, index: PostgresIndexConfig | None = None, ttl: TTLConfig | None = None
    ) -> PostgresMemory:
        pool = await open_pool(url, max_size=CONNECTIONS)
        try:
            memory = cls(pool, index=index, ttl=ttl)
            async with setting_up(pool):
                await memory.setup()
        except BaseException:
            await pool.close()
            raise
        return memory

    async def close(self) -> None:
        await self._pool.close()

    async def setup(self) -> None:
        try:
            await super().setup()
        except psycopg.errors.FeatureNotSupported as error:
            raise OperatorError(
                f"the database has no pgvector, which `store.index` needs: {error}",
                code="database",
                hint="install the extension `vector` there, or take `store.index` out",
            ) from None
        async with self._cursor() as cursor:
            await cursor.execute(
                "SELECT data_type FROM information_schema.columns WHERE table_name = 'store'"
                " AND column_name = 'ttl_minutes' AND table_schema = ANY (current_schemas(false))"
            )
            found = await cursor.fetchone()
            if found is not None and found["data_type"] == "integer":
                await cursor.execute("ALTER TABLE store ALTER COLUMN ttl_minutes TYPE double precision")

    @property
    def _omit_expired(self) -> bool:
        return True

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        wanted = list(ops)
        demand_no_nul(wanted)
        return await while_lost(lambda: super(PostgresMemory, self).abatch(wanted))

    async def aput(
        self, namespace: tuple[str, ...], key: str, value: Mapping[str, Any], *others: Any, **more: Any
    ) -> None:
        demand_no_nul((namespace, key, value))
        await super().aput(namespace, key, value, *others, **more)

    async def adelete(self, namespace: tuple[str, ...], key: str) -> None:
        demand_no_nul((namespace, key))
        await super().adelete(namespace, key)

    async def alist_namespaces(self, **wanted: Any) -> list[tuple[str, ...]]:
        demand_no_nul(wanted)
        return await super().alist_namespaces(**wanted)

    async def aget(self, namespace: tuple[str, ...], key: str, *, refresh_ttl: bool | None = None) -> Item | None:
        demand_no_nul((namespace, key))
        return await super().aget(namespace, key, refresh_ttl=self._renews(refresh_ttl))

    async def asearch(
        self, namespace_prefix: tuple[str, ...], /, *, refresh_ttl: bool | None = None, **wanted: Any
    ) -> list[SearchItem]:
        demand_no_nul((namespace_prefix, wanted.get("filter")))
        return await super().asearch(namespace_prefix, refresh_ttl=self._renews(refresh_ttl), **wanted)

    def _renews(self, asked: bool | None) -> bool:
        return self._renews_on_read if asked is None else asked

    def _prepare_batch_PUT_queries(self, put_ops: Sequence[tuple[int, PutOp]]) -> Any:
        queries, embedding = super()._prepare_batch_PUT_queries(put_ops)
        return [*self._forgotten(put_ops), *queries], embedding

    def _prepare_batch_search_queries(self, search_ops: Sequence[tuple[int, SearchOp]]) -> Any:
        queries, embedding = super()._prepare_batch_search_queries(search_ops)
        ordered = [(query.replace(NEWEST_FIRST, NEWEST_FIRST + AND_BY_NAME), values) for query, values in queries]
        return ordered, embedding

    def _forgotten(self, put_ops: Sequence[tuple[int, PutOp]]) -> list[tuple[str, Sequence[Any]]]:
        """An item whose time is over is made anew; what an item said before is found no more."""
        keys = [(".".join(op.namespace), op.key) for _, op in put_ops]
        tables = ["store WHERE expires_at <= now() AND"]
        if self.index_config:
            tables.append("store_vectors WHERE")
        return [(f"DELETE FROM {table} prefix = %s AND key = %s", key) for table in tables for key in keys]


def demand_no_nul(value: Any) -> None:
    """Raises `InvalidRequest` if a text anywhere in it has NUL."""
    left = [value]
    while left:
        one = left.pop()
        if isinstance(one, str):
            if "\x00" in one:
                raise InvalidRequest(
                    "text in the store may not hold the character NUL", hint="Postgres cannot store it: leave it out"
                )
        elif isinstance(one, Mapping):
            left += [*one.keys(), *one.values()]
        elif isinstance(one, (list, tuple)):  # an operation is a tuple of its parts
            left += one
