"""Fresh equals migrated, on both databases; both have the same tables, and functions that mean the same."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from changeover.errors import OperatorError
from changeover.processes import host
from changeover.store.opening import Store
from changeover.store.postgres_schema import migrate_postgres
from changeover.store.postgres_session import connect
from changeover.store.schema import migrate_sqlite, scripts

CATALOG = (
    "SELECT 'column', table_name, column_name, ordinal_position::text, data_type, coalesce(column_default, ''),"
    " is_nullable FROM information_schema.columns WHERE table_schema = 'changeover'",
    "SELECT 'index', indexname, indexdef, '', '', '', '' FROM pg_indexes WHERE schemaname = 'changeover'",
    "SELECT 'constraint', conrelid::regclass::text, pg_get_constraintdef(oid), '', '', '', '' FROM pg_constraint"
    " WHERE connamespace = 'changeover'::regnamespace",
    "SELECT 'trigger', tgname, pg_get_triggerdef(oid), '', '', '', '' FROM pg_trigger WHERE NOT tgisinternal",
    "SELECT 'function', proname, pg_get_functiondef(oid), '', '', '', '' FROM pg_proc"
    " WHERE pronamespace = 'changeover'::regnamespace",
    "SELECT 'view', viewname, definition, '', '', '', '' FROM pg_views WHERE schemaname = 'changeover'",
)


def catalog_of_postgres(url: str) -> set[tuple[Any, ...]]:
    with psycopg.connect(url) as connection:
        return {row for statement in CATALOG for row in connection.execute(statement)}  # type: ignore[arg-type]


def catalog_of_sqlite(path: Path) -> set[tuple[Any, ...]]:
    connection = sqlite3.connect(path)
    try:
        return set(connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master"))
    finally:
        connection.close()


def test_fresh_equals_migrated_on_sqlite(tmp_path: Path) -> None:
    migrate_sqlite(tmp_path / "fresh.db")
    for script in scripts():
        migrate_sqlite(tmp_path / "steps.db", script.number)
    assert catalog_of_sqlite(tmp_path / "fresh.db") == catalog_of_sqlite(tmp_path / "steps.db")


def test_fresh_equals_migrated_on_postgres(new_postgres_url: Callable[[], str]) -> None:
    fresh, steps = new_postgres_url(), new_postgres_url()
    migrate_postgres(fresh)
    for script in scripts("postgres"):
        migrate_postgres(steps, script.number)
    found = catalog_of_postgres(fresh)
    assert found == catalog_of_postgres(steps)
    migrate_postgres(fresh)
    assert found == catalog_of_postgres(fresh)


def test_both_databases_have_the_same_scripts_tables_columns_indexes_and_triggers(
    tmp_path: Path, postgres_url: str
) -> None:
    assert [script.name for script in scripts()] == [script.name for script in scripts("postgres")]
    migrate_sqlite(tmp_path / "c.db")
    migrate_postgres(postgres_url)
    lite = sqlite3.connect(tmp_path / "c.db")
    tables = [
        name
        for (name,) in lite.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")
        if not name.startswith("sqlite_")
    ]
    columns = {
        (table, *row) for table in tables for row in lite.execute(f"SELECT name, cid FROM pragma_table_info('{table}')")
    }
    indexes = {
        (index, tuple(name for (name,) in lite.execute(f"SELECT name FROM pragma_index_info('{index}')")))
        for (index,) in lite.execute("SELECT name FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL")
    }
    others = set(
        lite.execute("SELECT type, name FROM sqlite_master WHERE type IN ('index', 'trigger') AND sql IS NOT NULL")
    )
    lite.close()
    with psycopg.connect(postgres_url) as postgres:
        found = postgres.execute(
            "SELECT table_name, column_name, ordinal_position - 1 FROM information_schema.columns"
            " WHERE table_schema = 'changeover' AND table_name <> 'migrations'"
        ).fetchall()
        assert set(found) == columns
        found = postgres.execute(
            "SELECT 'index', indexname FROM pg_indexes i WHERE schemaname = 'changeover' AND NOT EXISTS"
            " (SELECT 1 FROM pg_constraint WHERE conname = indexname)"
            " UNION ALL SELECT 'trigger', tgname FROM pg_trigger WHERE NOT tgisinternal"
        ).fetchall()
        assert set(found) == others
        found = postgres.execute(
            "SELECT c.relname, array_agg(a.attname::text ORDER BY a.attnum) FROM pg_class c"
            " JOIN pg_attribute a ON a.attrelid = c.oid WHERE c.relkind = 'i'"
            " AND c.relnamespace = 'changeover'::regnamespace GROUP BY c.relname"
        ).fetchall()
        # waiting sets have no greatest length, and what an index of Postgres holds has
        indexes = {(index, names[:2] if index == "threads_that_wait" else names) for index, names in indexes}
        assert {(index, tuple(names)) for index, names in found} >= indexes


async def test_servers_that_start_at_the_same_time_make_one_schema(postgres_url: str) -> None:
    stores = await asyncio.gather(*(asyncio.to_thread(Store.open, postgres_url) for _ in range(4)))
    for store in stores:
        assert await store.versions.count() == {}
        await store.close()


def test_a_newer_schema_on_postgres_is_refused_and_left_as_it_is(postgres_url: str) -> None:
    migrate_postgres(postgres_url)
    with psycopg.connect(postgres_url) as connection:
        connection.execute("INSERT INTO changeover.migrations (number, name) VALUES (999, 'later')")
    before = catalog_of_postgres(postgres_url)
    with pytest.raises(OperatorError) as caught:
        Store.open(postgres_url)
    assert caught.value.code == "database-newer"
    assert catalog_of_postgres(postgres_url) == before


SLOW = """
    CREATE FUNCTION public.slow() RETURNS trigger LANGUAGE plpgsql
        AS $$ BEGIN PERFORM pg_sleep(1.5); RETURN NEW; END $$;
    CREATE TRIGGER slow BEFORE UPDATE ON changeover.events FOR EACH STATEMENT EXECUTE FUNCTION public.slow();
"""


async def test_a_database_with_much_in_it_is_brought_up_to_date_however_long_that_takes(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for limit in ("LOCK_S", "STATEMENT_S"):
        monkeypatch.setattr(f"changeover.store.postgres_session.{limit}", 1)
    migrate_postgres(postgres_url, 9)
    with psycopg.connect(postgres_url) as connection:
        connection.execute(SLOW)
        connection.execute(
            'INSERT INTO changeover.events (at, type, data) VALUES (1, \'moved\', \'{"from": "v1", "to": "v2"}\')'
        )
    first, second = await asyncio.gather(*(asyncio.to_thread(Store.open, postgres_url) for _ in range(2)))
    assert [(event.id, event.type) for event in await second.journal.events()] == [(1, "moved")]
    await first.close()
    await second.close()
    with psycopg.connect(postgres_url) as connection:
        found = connection.execute("SELECT version, left_version, operation FROM changeover.events").fetchall()
    assert found == [("v2", "v1", None)]


async def test_the_schema_is_not_moved_under_a_server_of_an_older_release(postgres_url: str) -> None:
    join = (
        "INSERT INTO changeover.servers (id, host, pid, started_at, lease_until)"
        " VALUES (%s, %s, %s, 0, extract(epoch FROM clock_timestamp()) + 60)"
    )
    migrate_postgres(postgres_url, 6)
    gone = subprocess.Popen([sys.executable, "-c", ""])  # noqa: ASYNC220 - its process id is all that is wanted
    gone.wait()
    with psycopg.connect(postgres_url) as connection:
        connection.execute(join, ("a", f"{host()}", os.getpid()))
        connection.execute(join, ("b", "elsewhere 1234 pid:[1]", 17))
        connection.execute(join, ("c", host(), gone.pid))
    before = catalog_of_postgres(postgres_url)
    with pytest.raises(OperatorError) as caught:
        Store.open(postgres_url)
    assert caught.value.code == "database-in-use"
    names = sorted([(socket.gethostname(), os.getpid()), ("elsewhere", 17)])
    assert ", ".join(f"process {pid} on {at}" for at, pid in names) in caught.value.message
    assert str(gone.pid) not in caught.value.message
    assert "stop them all" in str(caught.value.hint)
    assert catalog_of_postgres(postgres_url) == before
    with psycopg.connect(postgres_url) as connection:
        connection.execute("DELETE FROM changeover.servers WHERE id <> 'c'")
    await Store.open(postgres_url).close()
    assert catalog_of_postgres(postgres_url) != before


async def test_a_server_does_not_live_beside_a_schema_that_was_moved_meanwhile(postgres_url: str) -> None:
    joining, lapsed = [await asyncio.to_thread(Store.open, postgres_url) for _ in range(2)]
    try:
        await lapsed.servers.join("here", 1, -1.0, alone=False)
        with psycopg.connect(postgres_url) as connection:
            connection.execute("INSERT INTO changeover.migrations (number, name) VALUES (999, 'later')")
        for late in (joining.servers.join("here", 2, 10.0, alone=False), lapsed.servers.beat(10.0)):
            with pytest.raises(OperatorError) as caught:
                await late
            assert caught.value.code == "database-newer"
        assert not (await joining.servers.news(0)).has_peers
    finally:
        for store in (joining, lapsed):
            await store.close()


def test_tables_of_others_in_the_database_are_left_alone(postgres_url: str) -> None:
    with psycopg.connect(postgres_url) as connection:
        connection.execute("CREATE TABLE threads (mine text)")
        connection.execute("CREATE TABLE store (theirs text)")
    migrate_postgres(postgres_url)
    with psycopg.connect(postgres_url) as connection:
        assert connection.execute("SELECT * FROM threads").fetchall() == []
    ours = connect(postgres_url)
    ours.execute("SELECT metadata FROM threads")
    ours.execute("SELECT theirs FROM store")  # after ours, the user's own path is searched
    ours.raw.close()


def test_an_address_with_a_password_is_not_told() -> None:
    with pytest.raises(Exception, match="cannot be reached") as caught:
        Store.open("postgresql://me:verysecret@127.0.0.1:9/none")
    assert "verysecret" not in f"{caught.value} {caught.value.__cause__}"


# --- functions --------------------------------------------------------------------------------

PATCHES: list[tuple[Any, Any]] = [
    ({"a": 1}, {}),
    ({"a": 1}, {"a": None}),
    ({"a": {"b": 1, "c": 2}}, {"a": {"b": None, "d": {"e": None}}}),
    ({"a": [1, 2]}, {"a": {"b": 1}}),
    ({"a": {"b": 1}}, {"a": [None]}),
    ({"a": "x\x00y", "\x00": 1}, {"b": "\\u0000", "c": "\ufdd1"}),
]


@pytest.mark.parametrize(("target", "patch"), PATCHES)
async def test_json_is_patched_alike(store: Store, sql: Any, target: Any, patch: Any) -> None:
    ((found,),) = await sql(store, "SELECT json_patch(?, ?)", json.dumps(target), json.dumps(patch))
    assert json.loads(found) == merged(target, patch)


def merged(target: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    target = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            target.pop(key, None)
        else:
            target[key] = merged(target.get(key), value)
    return target


async def test_json_is_taken_apart_alike(store: Store, sql: Any) -> None:
    assert await sql(store, "SELECT value FROM json_each(?) ORDER BY value", '["b", "a", "c"]') == [
        ("a",),
        ("b",),
        ("c",),
    ]
    assert await sql(store, "SELECT key, value FROM json_each(?) ORDER BY key", '{"x": "1", "y": "2"}') == [
        ("x", "1"),
        ("y", "2"),
    ]
    document = '{"a": {"b": "text"}, "n": null}'
    assert await sql(store, "SELECT json_extract(?, '$.a.b'), json_extract(?, '$.n')", document, document) == [
        ("text", None)
    ]


async def test_the_time_of_the_database_is_that_of_the_clock(store: Store, sql: Any) -> None:
    ((found,),) = await sql(store, "SELECT (julianday('now') - 2440587.5) * 86400.0")
    assert abs(found - time.time()) < 1


async def test_words_are_folded_and_ordered_alike(store: Store, sql: Any) -> None:
    assert await sql(store, "SELECT folded('Straße ÄÖ') LIKE '%äö', max(1.0, 2.5), instr('abc', 'c')") == [(1, 2.5, 3)]
    for id_ in ("b", "B", "_", "a-b", "ab", "ä"):
        await sql(store, "INSERT INTO notes VALUES (?, '')", id_)
    found = [key for (key,) in await sql(store, "SELECT key FROM notes ORDER BY key")]
    assert found == sorted(found, key=str.encode)
