"""Copies of a database that is written to, and their return."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypedDict

import psycopg
import pytest
from langgraph.checkpoint.postgres import PostgresSaver
from langgraph.graph import START, StateGraph
from langgraph.store.postgres import PostgresStore

from changeover import GraphVersionManager
from changeover.errors import ChangeoverError, InvalidRequest, NotFound, OperatorError
from changeover.runs.kwargs import request_of
from changeover.store import backup_postgres
from changeover.store.backup import Backup, backup, examined, restore
from changeover.store.opening import lock_file

SOURCES = Path(__file__).resolve().parents[2] / "runtime"
DEADLINE_S = 20.0


class Notes(TypedDict, total=False):
    text: str


def noting() -> StateGraph[Any, Any, Any, Any]:
    return StateGraph(Notes).add_node("note", lambda s: {"text": s["text"] + "!"}).add_edge(START, "note")


@pytest.fixture
async def database(tmp_path: Path) -> Path:
    """A database with a version, a thread and its state, which nobody uses."""
    async with GraphVersionManager.open(tmp_path) as manager:
        await manager.switch(await manager.register("notes", {"notes": noting()}))
        await manager.invoke("notes", {"text": "hi"}, thread_id="t")
        return manager.settings.database_path(tmp_path)


def rows(path: Path, query: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """While another process writes to two tables, which always hold the same number of rows."""
    ended = threading.Event()
    begun = threading.Event()

    def write() -> None:
        with closing(sqlite3.connect(path, isolation_level=None, timeout=10)) as connection:
            while not ended.is_set():
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("INSERT INTO left_side VALUES (randomblob(2000))")
                connection.execute("INSERT INTO right_side VALUES (randomblob(2000))")
                connection.execute("COMMIT")
                begun.set()

    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("CREATE TABLE left_side (data BLOB); CREATE TABLE right_side (data BLOB)")
    thread = threading.Thread(target=write)
    thread.start()
    try:
        assert begun.wait(DEADLINE_S)
        yield
    finally:
        ended.set()
        thread.join()


def test_a_copy_made_under_writes_is_of_one_moment(database: Path, tmp_path: Path) -> None:
    counts = []
    with writing(database):
        for number in range(5):
            backup(database, tmp_path / f"copy{number}")
            ((left, right),) = rows(
                tmp_path / f"copy{number}",
                "SELECT (SELECT count(*) FROM left_side), (SELECT count(*) FROM right_side)",
            )
            assert left == right > 0
            counts.append(left)
    assert counts == sorted(counts)


def test_a_copy_is_one_file_for_nobody_else(database: Path, tmp_path: Path) -> None:
    made = backup(database, tmp_path / "copy")
    assert stat.S_IMODE((tmp_path / "copy").stat().st_mode) == 0o600
    assert made == examined(tmp_path / "copy")
    assert (made.rows["versions"], made.rows["threads"], made.rows["runs"]) == (1, 1, 1)
    assert sorted(path.name for path in tmp_path.iterdir() if "copy" in path.name) == ["copy"]


def test_nothing_is_overwritten_that_nobody_said_may_be(database: Path, tmp_path: Path) -> None:
    target = tmp_path / "copy"
    target.write_text("mine")
    with pytest.raises(InvalidRequest) as refused:
        backup(database, target)
    assert (refused.value.code, target.read_text()) == ("file-exists", "mine")
    backup(database, target, force=True)
    assert examined(target).rows["threads"] == 1
    for wrong, code in ((tmp_path / "no" / "copy", "no-folder"), (tmp_path, "file-exists")):
        with pytest.raises(InvalidRequest) as refused:
            backup(database, wrong, force=True)
        assert refused.value.code == code
    with pytest.raises(NotFound):
        backup(tmp_path / "nothing.db", tmp_path / "other")
    assert not (tmp_path / "other").exists()
    assert not (tmp_path / "nothing.db").exists()


@pytest.mark.parametrize("after_s", [0.0, 0.005, 0.02, 0.05])
def test_a_process_killed_while_it_copies_leaves_no_half_file(database: Path, tmp_path: Path, after_s: float) -> None:
    with closing(sqlite3.connect(database)) as connection:
        connection.executescript("CREATE TABLE bulk (data BLOB)")
        with connection:
            connection.executemany("INSERT INTO bulk VALUES (randomblob(1000000))", [()] * 30)
    target = tmp_path / "copy"
    code = f"""
from pathlib import Path
from changeover.store.backup import backup
print("ready", flush=True)
backup(Path({str(database)!r}), Path({str(target)!r}))
"""
    environment = {**os.environ, "PYTHONPATH": str(SOURCES)}
    with subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        ends = time.monotonic() + DEADLINE_S
        while not any(path.suffix == ".partial" for path in tmp_path.iterdir()) and not target.exists():
            assert time.monotonic() < ends
        ends = time.monotonic() + after_s
        while time.monotonic() < ends:
            pass
        process.kill()
    if target.exists():
        examined(target)
    backup(database, target, force=True)
    assert examined(target).rows["threads"] == 1


def test_what_was_restored_is_what_was_backed_up(database: Path, tmp_path: Path) -> None:
    copy, other = tmp_path / "copy", tmp_path / "other" / "place.db"
    backup(database, copy)
    found, old = restore(copy, other)
    assert (found.rows, old) == (examined(copy).rows, None)
    for table in ("versions", "routing", "threads", "runs", "checkpoints", "writes"):
        assert rows(other, f"SELECT * FROM {table}") == rows(database, f"SELECT * FROM {table}")


async def test_a_restored_thread_goes_on_where_it_was(tmp_path: Path, database: Path) -> None:
    backup(database, tmp_path / "copy")
    async with GraphVersionManager.open(tmp_path) as manager:
        await manager.register("notes", {"notes": noting()})
        await manager.invoke("notes", {"text": "later"}, thread_id="t")
    restore(tmp_path / "copy", database, force=True)
    async with GraphVersionManager.open(tmp_path) as manager:
        await manager.register("notes", {"notes": noting()})
        assert (await manager.state("t")).values == {"text": "hi!"}
        assert await manager.invoke("notes", {"text": "again"}, thread_id="t") == {"text": "again!"}


async def test_a_run_that_was_at_work_is_taken_up_after_the_restore(
    tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    entered, gate = asyncio.Event(), asyncio.Event()

    async def wait(state: Notes) -> Notes:
        entered.set()
        await gate.wait()
        return {"text": state["text"] + "!"}

    def graphs() -> dict[str, Any]:
        return {"slow": StateGraph(Notes).add_node("wait", wait).add_edge(START, "wait")}

    async with GraphVersionManager.open(tmp_path) as manager:
        await manager.switch(await manager.register("slow", graphs()))
        kwargs = {"input": {"text": "hi"}}
        run = manager.submit(request_of(kwargs, "slow", thread_id="t"))
        await run.accepted
        await asyncio.wait_for(entered.wait(), DEADLINE_S)
        database = manager.settings.database_path(tmp_path)
        await asyncio.to_thread(backup, database, tmp_path / "copy")
        gate.set()
    assert examined(tmp_path / "copy").rows["runs"] == 1
    restore(tmp_path / "copy", database, force=True)
    async with GraphVersionManager.open(tmp_path) as manager:
        await manager.register("slow", graphs())
        await manager.work()

        async def ended() -> bool:
            return (await manager.store.runs.get(run.request.id)).status == "success"

        await eventually(ended)
        assert (await manager.state("t")).values == {"text": "hi!"}


async def test_a_restored_project_serves_versions_whose_files_are_gone(sample: Path, tmp_path: Path) -> None:
    async with GraphVersionManager.open(sample) as manager:
        first = await manager.serve_folder()
        await manager.invoke("support", {"messages": [("human", "hello")]}, thread_id="t")
        database = manager.settings.database_path(sample)
    backup(database, tmp_path / "copy")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    restore(tmp_path / "copy", elsewhere / database.relative_to(sample))
    async with GraphVersionManager.open(elsewhere) as manager:
        assert (await manager.serve_folder()).id == first.id
        answer = await manager.invoke("support", {"messages": [("human", "again")]}, thread_id="t")
        assert len(answer["messages"]) >= 4


def test_a_database_that_is_used_is_not_replaced(database: Path, tmp_path: Path) -> None:
    backup(database, tmp_path / "copy")
    lock = lock_file(database)
    try:
        backup(database, tmp_path / "second")
        with pytest.raises(OperatorError) as refused:
            restore(tmp_path / "copy", database, force=True)
        assert refused.value.code == "database-in-use"
    finally:
        lock.release()


def test_the_old_database_is_kept_whole_with_what_its_log_held(database: Path, tmp_path: Path) -> None:
    backup(database, tmp_path / "copy")
    with pytest.raises(InvalidRequest) as refused:
        restore(tmp_path / "copy", database)
    assert refused.value.code == "database-exists"
    for name in ("first", "second"):
        code = f"""
import os, sqlite3
connection = sqlite3.connect({str(database)!r}, isolation_level=None)
connection.execute("PRAGMA journal_mode = WAL")
connection.execute("CREATE TABLE {name} (a)")
os._exit(0)
"""
        subprocess.run([sys.executable, "-c", code], check=True)  # leaves a log behind
        assert Path(f"{database}-wal").exists()
        _, old = restore(tmp_path / "copy", database, force=True)
        assert old is not None
        assert rows(old, f"SELECT * FROM {name}") == []
        assert not rows(database, f"SELECT * FROM sqlite_master WHERE name = '{name}'")
    assert {path.name for path in database.parent.iterdir() if "before" in path.name} == {
        f"{database.name}.before-restore",
        f"{database.name}.before-restore-2",
    }


def test_a_damaged_database_can_be_replaced(database: Path, tmp_path: Path) -> None:
    backup(database, tmp_path / "copy")
    damaged = b"SQLite format 3\0" + os.urandom(5000)
    database.write_bytes(damaged)
    Path(f"{database}-wal").write_bytes(b"old")
    _, old = restore(tmp_path / "copy", database, force=True)
    assert old is not None
    assert old.read_bytes() == damaged
    assert rows(database, "SELECT id FROM threads") == [("t",)]


@pytest.mark.parametrize("kind", ["missing", "text", "empty", "other", "newer", "cut", "damaged"])
def test_what_is_no_backup_is_refused(database: Path, tmp_path: Path, kind: str) -> None:
    copy = tmp_path / "copy"
    backup(database, copy)
    whole = copy.read_bytes()
    if kind == "missing":
        copy.unlink()
    elif kind in ("text", "empty"):
        copy.write_bytes(b"a" * 100 if kind == "text" else b"")
    elif kind == "other":
        copy.unlink()
        rows(copy, "CREATE TABLE a (b)")
    elif kind == "newer":
        rows(copy, "PRAGMA user_version = 9999")
    elif kind == "cut":
        copy.write_bytes(whole[: len(whole) // 2])
    else:
        copy.write_bytes(whole[:8192] + b"\x5a" * 40_000 + whole[48_192:])
    before = database.read_bytes()
    with pytest.raises((InvalidRequest, NotFound)) as refused:
        restore(copy, database, force=True)
    assert refused.value.code in ("no-backup", "database-newer")
    assert database.read_bytes() == before


@pytest.mark.parametrize("step", range(1, 16))  # it has twelve
def test_a_restore_killed_anywhere_leaves_the_old_database_or_the_new(
    database: Path, tmp_path: Path, step: int
) -> None:
    """The process ends at its n-th call that changes a name or waits for the disk."""
    backup(database, tmp_path / "copy")
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("CREATE TABLE since (a)")
    code = f"""
import os, sqlite3
from pathlib import Path
import changeover.store.backup as module
connection = sqlite3.connect({str(database)!r}, isolation_level=None)
connection.execute("INSERT INTO since VALUES (1)")  # in the log alone
count = 0
def counted(function):
    def call(*given, **named):
        global count
        count += 1
        if count == {step}:
            os._exit(9)
        return function(*given, **named)
    return call
for name in ("link", "replace", "unlink", "fsync"):
    setattr(os, name, counted(getattr(os, name)))
child = os.fork()
if child == 0:
    module.restore(Path({str(tmp_path / "copy")!r}), Path({str(database)!r}), force=True)
    os._exit(0)
status = os.waitpid(child, 0)[1]
os._exit(os.waitstatus_to_exitcode(status))
"""
    environment = {**os.environ, "PYTHONPATH": str(SOURCES)}
    ended = subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode
    is_old = bool(rows(database, "SELECT 1 FROM sqlite_master WHERE name = 'since'"))
    assert rows(database, "PRAGMA integrity_check") == [("ok",)]
    assert rows(database, "SELECT id FROM threads") == [("t",)]
    if is_old:
        assert rows(database, "SELECT * FROM since") == [(1,)]
    assert ended in (0, 9)
    assert ended == 9 or not is_old


# --- Postgres ----------------------------------------------------------------------------------------------------


@pytest.fixture
def filled(postgres_url: str) -> str:
    """A database as servers leave it: our tables, LangGraph's, rows in both."""
    from changeover.store.postgres_schema import migrate_postgres

    migrate_postgres(postgres_url)
    with PostgresSaver.from_conn_string(postgres_url) as saver:
        saver.setup()
        graph = noting().compile(checkpointer=saver)
        graph.invoke({"text": "hi"}, {"configurable": {"thread_id": "t"}})
    with PostgresStore.from_conn_string(postgres_url) as store:
        store.setup()
        store.put(("a",), "key", {"text": "ünï\tcode\n\\"})
    with psycopg.connect(postgres_url) as connection:
        connection.execute(
            "INSERT INTO changeover.versions (id, digest, status, manifest, created_at, touched_at)"
            " SELECT 'v' || n, 'd' || n, 'ready', '{}', 1, 2 FROM generate_series(1, 3) n"
        )
        connection.execute("INSERT INTO changeover.blobs VALUES ('d', '\\x00ff5c0a')")
        connection.execute("CREATE TABLE public.theirs (a int)")
    return postgres_url


def contents(url: str) -> dict[str, list[Any]]:
    with psycopg.connect(url) as connection:
        found = connection.execute(
            "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables"
            " WHERE schemaname IN ('changeover', 'public') AND tablename <> 'theirs' ORDER BY 1"
        ).fetchall()
        return {
            name: sorted(connection.execute(f"SELECT t::text FROM {name} t".encode()).fetchall()) for (name,) in found
        }


def definitions(url: str) -> list[Any]:
    queries = (
        "SELECT indexdef FROM pg_indexes WHERE schemaname IN ('changeover', 'public') ORDER BY 1",
        "SELECT table_schema, table_name, column_name, data_type, is_nullable, column_default, collation_name,"
        " is_identity FROM information_schema.columns WHERE table_schema IN ('changeover', 'public')"
        " AND table_name <> 'theirs' ORDER BY 1, 2, ordinal_position",
        "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE connamespace::regnamespace::text"
        " IN ('changeover', 'public') AND contype <> 'n' ORDER BY 1, 2",
        "SELECT p.oid::regprocedure::text, prosrc FROM pg_proc p WHERE pronamespace::regnamespace::text = 'changeover'"
        " ORDER BY 1",
        "SELECT tgname, pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal ORDER BY 1",
    )
    with psycopg.connect(url) as connection:
        return [connection.execute(query.encode()).fetchall() for query in queries]


def test_a_postgres_restored_is_the_one_that_was_backed_up(
    filled: str, new_postgres_url: Callable[[], str], tmp_path: Path
) -> None:
    made = backup_postgres.backup(filled, tmp_path / "copy")
    assert stat.S_IMODE((tmp_path / "copy").stat().st_mode) == 0o600
    assert made.rows == {"versions": 3, "threads": 0, "runs": 0}
    other = new_postgres_url()
    found = backup_postgres.restore(tmp_path / "copy", other)
    assert found == Backup(made.path, made.size_bytes, made.schema, made.rows)
    assert contents(other) == contents(filled)
    assert definitions(other) == definitions(filled)
    with psycopg.connect(other) as connection:
        connection.execute(
            "INSERT INTO changeover.versions (id, digest, status, manifest, created_at, touched_at)"
            " VALUES ('next', 'next', 'ready', '{}', 1, 2)"
        )
        assert connection.execute("SELECT max(number) FROM changeover.versions").fetchone() == (4,)
    with PostgresSaver.from_conn_string(other) as saver:
        graph = noting().compile(checkpointer=saver)
        assert graph.get_state({"configurable": {"thread_id": "t"}}).values == {"text": "hi!"}
    with PostgresStore.from_conn_string(other) as store:
        item = store.get(("a",), "key")
        assert item is not None
        assert item.value == {"text": "ünï\tcode\n\\"}


def test_a_postgres_that_is_not_empty_is_replaced_only_if_that_was_said(filled: str, tmp_path: Path) -> None:
    backup_postgres.backup(filled, tmp_path / "copy")
    before = contents(filled)
    with psycopg.connect(filled) as connection:
        connection.execute("DELETE FROM changeover.blobs")
        connection.execute("INSERT INTO public.theirs VALUES (1)")
    with pytest.raises(InvalidRequest) as refused:
        backup_postgres.restore(tmp_path / "copy", filled)
    assert refused.value.code == "database-exists"
    backup_postgres.restore(tmp_path / "copy", filled, force=True)
    assert contents(filled) == before
    with psycopg.connect(filled) as connection:
        assert connection.execute("SELECT a FROM public.theirs").fetchall() == [(1,)]


def test_a_postgres_that_a_server_uses_is_not_replaced(filled: str, tmp_path: Path) -> None:
    backup_postgres.backup(filled, tmp_path / "copy")
    with psycopg.connect(filled) as connection:
        connection.execute(
            "INSERT INTO changeover.servers (id, host, pid, started_at, lease_until)"
            " VALUES ('s', 'h', 1, 1, extract(epoch FROM now()) + 10)"
        )
    with pytest.raises(OperatorError) as refused:
        backup_postgres.restore(tmp_path / "copy", filled, force=True)
    assert refused.value.code == "database-in-use"


def test_a_copy_of_postgres_made_under_writes_is_of_one_moment(
    filled: str, new_postgres_url: Callable[[], str], tmp_path: Path
) -> None:
    ended, begun = threading.Event(), threading.Event()

    def write() -> None:
        with psycopg.connect(filled) as connection:
            number = 0
            while not ended.is_set():
                number += 1
                with connection.transaction():
                    connection.execute("INSERT INTO changeover.blobs VALUES (%s, '')", (f"w{number}",))
                    connection.execute("INSERT INTO changeover.notes (key, value) VALUES (%s, 'x')", (f"w{number}",))
                connection.commit()
                begun.set()

    thread = threading.Thread(target=write)
    thread.start()
    try:
        assert begun.wait(DEADLINE_S)
        backup_postgres.backup(filled, tmp_path / "copy")
    finally:
        ended.set()
        thread.join()
    other = new_postgres_url()
    backup_postgres.restore(tmp_path / "copy", other)
    with psycopg.connect(other) as connection:
        blobs = connection.execute("SELECT count(*) FROM changeover.blobs WHERE digest LIKE 'w%'").fetchone()
        notes = connection.execute("SELECT count(*) FROM changeover.notes WHERE key LIKE 'w%'").fetchone()
    assert blobs == notes
    assert blobs is not None
    assert blobs[0] > 0


@pytest.mark.parametrize("kind", ["text", "cut", "changed", "sqlite"])
def test_what_is_no_archive_is_refused(filled: str, database: Path, tmp_path: Path, kind: str) -> None:
    copy = tmp_path / "copy"
    backup_postgres.backup(filled, copy)
    whole = copy.read_bytes()
    if kind == "text":
        copy.write_bytes(b"a" * 2000)
    elif kind == "cut":
        copy.write_bytes(whole[: len(whole) // 2])
    elif kind == "changed":
        copy.write_bytes(whole.replace(b"ready", b"ruddy"))
    else:
        backup(database, copy, force=True)
    with pytest.raises(ChangeoverError) as refused:
        backup_postgres.restore(copy, filled, force=True)
    assert refused.value.code == "no-backup"
    assert len(contents(filled)["changeover.versions"]) == 3
