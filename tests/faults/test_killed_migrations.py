"""A server is killed before and after each write of a migration; each thread has moved as a whole, or not at all.

As in `test_every_statement`: `CHANGEOVER_FAULTS=all` goes through every statement on both databases, without it a
sample of the writes on SQLite is taken.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fault_migrations as migrations
import fault_scenario as scenario
import pytest
from fault_databases import Database, PostgresPlace, SqliteFile
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.postgres import PostgresSaver
from langgraph.checkpoint.sqlite import SqliteSaver

from changeover import GraphVersionManager
from postgres_support import create_database, drop_database

SAMPLE_S = float(os.environ.get("CHANGEOVER_FAULTS_S", "3"))  # for each test
ALL = os.environ.get("CHANGEOVER_FAULTS") == "all"
FIRST = int(os.environ.get("CHANGEOVER_FAULTS_FIRST", "1"))
EVERY = int(os.environ.get("CHANGEOVER_FAULTS_EVERY", "1"))

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system that forks"),
    pytest.mark.timeout(24 * 3600 if ALL else SAMPLE_S + 300),
]


@dataclass
class Place:
    """A project whose threads wait, and fresh copies of it."""

    folder: Path
    server: str = ""
    url: str = ""
    copied: str = ""

    def copy(self) -> tuple[Path, Database]:
        target = self.folder.with_name("project")
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(self.folder, target)
        if not self.url:
            return target, SqliteFile(target)
        self.drop()
        self.copied = create_database(self.server, self.url)
        return target, PostgresPlace(self.copied)

    def drop(self) -> None:
        if self.copied:
            drop_database(self.server, self.copied)
            self.copied = ""


@pytest.fixture(scope="module")
def nursery() -> Iterator[scenario.Nursery]:
    opened = scenario.Nursery()
    yield opened
    opened.close()


@pytest.fixture(scope="module", params=["sqlite", "postgres"] if ALL else ["sqlite"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    made = Place(tmp_path_factory.mktemp("killed") / "template")
    if request.param == "postgres":
        made.server = request.getfixturevalue("postgres_server")
        made.url = create_database(made.server)
    os.environ["FAULTS_LOG"] = str(made.folder.with_name("template.txt"))
    try:
        asyncio.run(_prepare(made))
    finally:
        del os.environ["FAULTS_LOG"]
    yield made
    made.drop()
    if made.url:
        drop_database(made.server, made.url)


async def _prepare(place: Place) -> None:
    """Threads that wait on v1, and v2 built."""
    _write(place.folder, migrations.ONE)
    asked: dict[str, dict[str, str]] = {}
    async with GraphVersionManager.open(place.folder, place.url or None) as manager:
        await manager.serve_folder()
        for thread in migrations.THREADS:
            mode = "ask" if thread in migrations.ASKED else "go"
            await manager.invoke("flow", migrations.given(mode), thread_id=thread)
            asked[thread] = {one.value: one.id for one in (await manager.state(thread)).interrupts}
        _write(place.folder, migrations.TWO)
        assert (await manager.build()).id == "v2"
    (place.folder / "asked.json").write_text(json.dumps(asked))


def _write(folder: Path, names: dict[str, str]) -> None:
    for path, text in migrations.files(names).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)


@pytest.fixture(scope="module")
def writes(nursery: scenario.Nursery, place: Place) -> int:
    """How many statements change something where nothing happens to the server; and all is well then."""
    folder, database = place.copy()
    count, seen = folder / "count.txt", scenario.Acknowledged()
    server = nursery.start(folder, database, count=str(count), kinds="writes", trigger=str(folder / "begin"))
    try:
        (folder / "begin").touch()
        migrations.converse(server, seen)
        wrong = migrations.check(server, seen)
    finally:
        server.stop()
    assert wrong == []
    assert scenario.check_database(database) == []
    told = {type_ for (type_,) in database.rows("SELECT DISTINCT type FROM events")}
    assert told >= {"thread_migrated", "threads_migrated", "run_handed_over"}
    assert not told & {"migration_refused", "handover_refused"}
    return int(count.read_text())


def test_without_a_fault_every_thread_moves_and_is_heard(writes: int) -> None:
    assert writes > 50


@pytest.mark.parametrize("side", ["before", "after"])
def test_killed_at_any_write_a_thread_has_moved_or_not(
    nursery: scenario.Nursery, place: Place, writes: int, tmp_path: Path, side: str
) -> None:
    failures: dict[str, list[str]] = {}
    number = 0
    for at in _all() if ALL else _sample(writes):
        reached, wrong = _round(nursery, place, tmp_path, at, side)
        number += reached
        if wrong:
            failures[f"{side} statement {at}"] = wrong
            print(f"{side} statement {at}: " + "\n    ".join(wrong), flush=True)
        if ALL and not reached:
            break
    print(f"killed {number} times; something was wrong after {len(failures)} of them")
    assert failures == {}


def _round(nursery: scenario.Nursery, place: Place, scratch: Path, at: int, side: str) -> tuple[bool, list[str]]:
    """Whether the death came, and everything that was wrong afterwards."""
    folder, database = place.copy()
    seen = scenario.Acknowledged()
    begin, kinds = folder / "begin", "all" if ALL else "writes"
    server = nursery.start(folder, database, at=at, side=side, kinds=kinds, trigger=str(begin))
    try:
        begin.touch()
        migrations.converse(server, seen)
        reached = False
    except scenario.Died:
        reached = True
    finally:
        server.stop(signal.SIGKILL)
    death = scenario.Death.of(folder, database, scratch)
    with _saver(database, scratch) as saver:
        wrong = migrations.torn(database, saver)
    last = nursery.start(folder, database)
    try:
        wrong += migrations.check(last, seen)
    except (AssertionError, scenario.Died) as error:
        wrong += [f"{type(error).__name__}: {error}"]
    finally:
        last.stop()
    wrong += [
        f"node {node} of thread {thread} was committed and ran again"
        for thread, node in scenario.ran(folder)[death.begun :]
        if node in {done.partition(" ")[0] for done in death.nodes.get(thread, ())} and thread != "done"
    ]
    return reached, wrong + scenario.check_database(database)


@contextmanager
def _saver(database: Database, scratch: Path) -> Iterator[BaseCheckpointSaver[Any]]:
    """LangGraph's own, on what a dead server has left."""
    if isinstance(database, PostgresPlace):
        with PostgresSaver.from_conn_string(database.url) as saver:
            yield saver
        return
    assert isinstance(database, SqliteFile)
    copy = scratch / "dead" / "copy.db"
    shutil.rmtree(copy.parent, ignore_errors=True)
    copy.parent.mkdir()
    for source in (database.folder / ".changeover").glob("changeover.db*"):
        shutil.copy2(source, copy.with_name(source.name.replace("changeover.db", "copy.db")))
    with closing(sqlite3.connect(copy, check_same_thread=False)) as connection:
        yield SqliteSaver(connection)


def _all() -> Iterator[int]:
    at = FIRST
    while True:
        yield at
        at += EVERY


def _sample(statements: int) -> Iterator[int]:
    """Spread over the scenario, others each time, until the time is over."""
    ends = time.monotonic() + SAMPLE_S
    order = list(range(1, statements + 1))
    random.Random(os.environ.get("CHANGEOVER_FAULTS_SEED") or time.time()).shuffle(order)
    for at in order:
        if time.monotonic() > ends:
            return
        yield at
