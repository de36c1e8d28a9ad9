"""Long-term memory is the same on every database, and waits for others that write to the same file."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from langgraph.store.base import PutOp

from changeover.checkpoints.opening import long_term_store
from changeover.errors import InvalidRequest

NOTES = ("notes", "anna")
SHORT_MINUTES = 1.2 / 60  # SQLite counts beginnings in whole seconds


async def test_an_item_is_put_read_searched_listed_and_deleted(where: str) -> None:
    async with long_term_store(where) as memory:
        for number in range(3):
            await memory.aput(NOTES, f"n{number}", {"number": number, "text": "ünï"})
        first = await memory.aget(NOTES, "n1")
        assert first is not None
        assert first.value == {"number": 1, "text": "ünï"}
        await memory.aput(NOTES, "n1", {"number": 10})
        again = await memory.aget(NOTES, "n1")
        assert again is not None
        assert again.created_at == first.created_at
        assert again.updated_at >= first.updated_at
        found = await memory.asearch(("notes",), filter={"number": 10})
        assert [item.key for item in found] == ["n1"]
        assert await memory.alist_namespaces(prefix=("notes",)) == [NOTES]
        await memory.adelete(NOTES, "n1")
        assert await memory.aget(NOTES, "n1") is None
    async with long_term_store(where) as memory:
        assert len(await memory.asearch(("notes",))) == 2


async def test_an_item_is_gone_after_its_time_and_made_anew_after_it(
    where: str, eventually: Callable[..., Any]
) -> None:
    async with long_term_store(where) as memory:
        await memory.aput(NOTES, "short", {"n": 1}, ttl=SHORT_MINUTES)
        await memory.aput(NOTES, "kept", {"n": 2})
        first = await memory.aget(NOTES, "short", refresh_ttl=False)
        assert first is not None

        async def is_gone() -> bool:
            return await memory.aget(NOTES, "short", refresh_ttl=False) is None

        await eventually(is_gone)
        assert [item.key for item in await memory.asearch(("notes",))] == ["kept"]
        await memory.aput(NOTES, "short", {"n": 3})
        again = await memory.aget(NOTES, "short")
        assert again is not None
        assert again.created_at > first.created_at


async def test_reading_renews_the_time_of_an_item_as_it_is_told(where: str) -> None:
    """The time is that of the database; a fraction of a minute stays one."""
    async with (
        long_term_store(where, ttl={"refresh_on_read": True}) as renewing,
        long_term_store(where, ttl={"refresh_on_read": False}) as looking,
    ):
        for key, memory in (("renewed", renewing), ("looked at", looking)):
            await memory.aput(NOTES, key, {"n": 1}, ttl=2.5 / 60)
        ends = time.monotonic() + 3.6
        seen = 0
        while time.monotonic() < ends:
            renewed, looked_at = await renewing.aget(NOTES, "renewed"), await looking.aget(NOTES, "looked at")
            seen += looked_at is not None
            assert renewed is not None
            await asyncio.sleep(0.05)
        assert await looking.aget(NOTES, "looked at") is None
        assert seen > 5


def embed(texts: list[str]) -> list[list[float]]:
    return [[float("cat" in text), float("dog" in text), 0.1] for text in texts]


async def test_an_item_is_found_by_what_it_says_now(where: str) -> None:
    index: Any = {"dims": 3, "embed": embed, "fields": ["text", "title"]}
    async with long_term_store(where, index) as memory:
        await memory.aput(NOTES, "a", {"text": "cat", "title": "dog"})
        await memory.aput(NOTES, "b", {"text": "dog", "title": "dog"})
        await memory.aput(NOTES, "a", {"text": "cat"})
        found = await memory.asearch(("notes",), query="dog")
        assert [item.key for item in found] == ["b", "a"]
        scores = [item.score or 0 for item in found]
        assert scores[1] < 0.5 < scores[0]


def holding(path: Path, held: threading.Event, seconds: float) -> threading.Thread:
    """Somebody else who writes to the file for a while."""

    def hold() -> None:
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("CREATE TABLE IF NOT EXISTS others (n)")
        held.set()
        time.sleep(seconds)
        connection.execute("COMMIT")
        connection.close()

    thread = threading.Thread(target=hold)
    thread.start()
    return thread


async def test_memory_waits_for_who_writes_to_the_same_file(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    async with long_term_store(path) as memory:
        await memory.aput(NOTES, "item", {"n": 1}, ttl=10)
        held = threading.Event()
        other = holding(path, held, 6.0)
        await asyncio.to_thread(held.wait)
        found, searched, _ = await asyncio.gather(
            memory.aget(NOTES, "item", refresh_ttl=True),
            memory.asearch(("notes",), refresh_ttl=True),
            memory.aput(NOTES, "more", {"n": 2}),
        )
        await asyncio.to_thread(other.join)
        assert found is not None
        assert searched
        assert await memory.aget(NOTES, "more") is not None


async def test_renewals_meet_other_writers_all_the_time_and_none_fails(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    async with long_term_store(path) as memory, long_term_store(path) as other:
        await memory.aput(NOTES, "item", {"n": 1}, ttl=10)

        async def writes() -> None:
            for number in range(150):
                await other.aput(NOTES, f"other{number % 5}", {"n": number}, ttl=10)

        async def reads() -> None:
            for _ in range(150):
                assert await memory.asearch(("notes",), refresh_ttl=True)
                assert await memory.aget(NOTES, "item", refresh_ttl=True) is not None

        await asyncio.gather(writes(), reads())


async def test_memory_that_nothing_expires_in_is_read_while_others_write(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    async with long_term_store(path) as memory:
        await memory.aput(NOTES, "item", {"n": 1})
        held = threading.Event()
        other = holding(path, held, 2.0)
        await asyncio.to_thread(held.wait)
        async with asyncio.timeout(1.5):
            assert await memory.aget(NOTES, "item") is not None
        await asyncio.to_thread(other.join)


async def test_a_search_gives_the_newest_first_and_those_of_one_moment_by_name(where: str) -> None:
    async with long_term_store(where) as memory:
        together = [PutOp(("notes", space), key, {"n": 1}) for key in ("b", "Z", "ä", "a") for space in ("y", "x")]
        await memory.abatch(together)
        first = newest = await memory.aget(("notes", "x"), "ä")
        while newest is not None and first is not None and newest.updated_at == first.updated_at:
            await memory.aput(("notes", "x"), "ä", {"n": 2})
            newest = await memory.aget(("notes", "x"), "ä")
        found = await memory.asearch(("notes",), limit=20)
        names = [(item.key, item.namespace[1]) for item in found]
    rest = [(key, space) for key in ("Z", "a", "b", "ä") for space in ("x", "y") if (key, space) != ("ä", "x")]
    assert names == [("ä", "x"), *rest]


async def test_text_that_postgres_cannot_hold_is_refused_alone(new_postgres_url: Callable[[], str]) -> None:
    async with long_term_store(new_postgres_url()) as memory:
        bad = "a\x00b"
        results = await asyncio.gather(
            memory.aput(NOTES, "good", {"n": 1}),
            memory.aput(NOTES, "value", {"n": [{"m": bad}]}),
            memory.aput(NOTES, "name", {bad: 1}),
            memory.aput(NOTES, bad, {"n": 1}),
            memory.aget(NOTES, bad),
            memory.adelete(NOTES, bad),
            memory.asearch(NOTES, filter={"n": bad}),
            memory.alist_namespaces(prefix=(bad,)),
            memory.aput(NOTES, "too", {"n": "\\u0000"}),
            return_exceptions=True,
        )
        assert [isinstance(one, InvalidRequest) for one in results] == [False, *[True] * 7, False]
        with pytest.raises(InvalidRequest):
            await memory.abatch([PutOp(NOTES, "k", {"n": bad})])
        assert {item.key for item in await memory.asearch(NOTES)} == {"good", "too"}
