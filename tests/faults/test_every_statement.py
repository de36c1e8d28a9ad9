"""A server is killed before and after each statement that it sends to the database; nothing acknowledged is lost.

Each round takes a fresh project, on SQLite or on Postgres, kills the server at one statement of the scenario, starts
another on the same database and looks at everything. `CHANGEOVER_FAULTS=all` (`make faults`) goes through every
statement, one after the other, until a pass completes without reaching it; without it a sample of those that change
something is taken, for as long as `SAMPLE_S` lasts. `CHANGEOVER_FAULTS_FIRST=17` begins there,
`CHANGEOVER_FAULTS_EVERY=10` takes every tenth.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import fault_scenario as scenario
import pytest
from fault_databases import Database, PostgresPlace, SqliteFile

from changeover import GraphVersionManager
from postgres_support import create_database, drop_database

SAMPLE_S = float(os.environ.get("CHANGEOVER_FAULTS_S", "1"))  # for each test
RECOVERY_S = 1.0  # a server that lives so long after it was ready has taken up what it found
RECOVERY_STATEMENTS = 60  # that change something, more or less
ALL = os.environ.get("CHANGEOVER_FAULTS") == "all"
FIRST = int(os.environ.get("CHANGEOVER_FAULTS_FIRST", "1"))
EVERY = int(os.environ.get("CHANGEOVER_FAULTS_EVERY", "1"))

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system that forks"),
    pytest.mark.timeout(24 * 3600 if ALL else SAMPLE_S + 300),
]


@pytest.fixture(scope="module")
def nursery() -> Iterator[scenario.Nursery]:
    opened = scenario.Nursery()
    yield opened
    opened.close()


@dataclass(frozen=True)
class Template:
    """A project with two versions, of which the first serves. `server` is its Postgres, `url` its database there."""

    folder: Path
    server: str = ""
    url: str = ""


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def template(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Template]:
    made = Template(tmp_path_factory.mktemp("faults") / "template")
    if request.param == "postgres":
        server = request.getfixturevalue("postgres_server")
        made = replace(made, server=server, url=create_database(server))

    async def build() -> None:
        _write(made.folder, "v1")
        async with GraphVersionManager.open(made.folder, made.url or None) as manager:
            await manager.serve_folder()
            _write(made.folder, "v2")
            assert (await manager.build()).id == "v2"

    asyncio.run(build())
    yield made
    if made.url:
        drop_database(made.server, made.url)


@dataclass
class Fresh:
    """Copies of the template, each in place of the one before."""

    template: Template
    folder: Path
    url: str = ""

    def copy(self) -> tuple[Path, Database]:
        if self.folder.exists():
            shutil.rmtree(self.folder)
        shutil.copytree(self.template.folder, self.folder)
        if not self.template.url:
            return self.folder, SqliteFile(self.folder)
        self.drop()
        self.url = create_database(self.template.server, self.template.url)
        return self.folder, PostgresPlace(self.url)

    def drop(self) -> None:
        if self.url:
            drop_database(self.template.server, self.url)


@pytest.fixture(scope="module")
def writes(nursery: scenario.Nursery, template: Template, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """How many statements of the scenario change something, where nothing happens to it; more or less."""
    copies = Fresh(template, tmp_path_factory.mktemp("count") / "project")
    yield _count(nursery, copies, "writes")[0]
    copies.drop()


@pytest.fixture
def fresh(template: Template, tmp_path: Path) -> Iterator[Fresh]:
    copies = Fresh(template, tmp_path / "project")
    yield copies
    copies.drop()


def test_without_a_fault_each_node_runs_once(nursery: scenario.Nursery, fresh: Fresh) -> None:
    statements, _ = _count(nursery, fresh, "all")
    assert statements > 100
    once = [(thread, node) for thread in ("one", "two") for node in (*scenario.TRAIL, *scenario.INNER)]
    seen = [(thread, node) for thread, node in scenario.ran(fresh.folder) if thread in ("one", "two")]
    assert sorted(seen) == sorted(once)


@pytest.mark.parametrize("side", ["before", "after"])
def test_killed_at_any_statement_nothing_acknowledged_is_lost(
    nursery: scenario.Nursery, fresh: Fresh, writes: int, tmp_path: Path, side: str
) -> None:
    rounds = Rounds()
    for at in _all() if ALL else _sample(writes):
        reached = rounds.add(f"{side} statement {at}", _round(nursery, fresh, tmp_path, [Strike(at, side)]))
        if ALL and not reached:
            break
    rounds.conclude()


@pytest.mark.parametrize("side", ["before", "after"])
def test_killed_again_while_it_recovers_nothing_acknowledged_is_lost(
    nursery: scenario.Nursery, fresh: Fresh, writes: int, tmp_path: Path, side: str
) -> None:
    """The second death counts from the start of the process, through what it takes up."""
    rounds = Rounds()
    first = writes // 2
    for at in _all() if ALL else _sample(RECOVERY_STATEMENTS):
        strikes = [Strike(first + at % 7, "after"), Strike(at, side)]
        reached = rounds.add(f"{side} statement {at} of recovery", _round(nursery, fresh, tmp_path, strikes))
        if ALL and not reached:
            break
    rounds.conclude()


@dataclass(frozen=True)
class Strike:
    at: int
    side: str


@dataclass
class Rounds:
    """How often it was killed, and what was wrong after which of the deaths."""

    number: int = 0
    failures: dict[str, list[str]] = field(default_factory=dict)

    def add(self, name: str, outcome: tuple[bool, list[str]]) -> bool:
        reached, wrong = outcome
        self.number += reached
        if wrong:
            self.failures[name] = wrong
            print(f"{name}: " + "\n    ".join(wrong), flush=True)
        return reached

    def conclude(self) -> None:
        print(f"killed {self.number} times; something was wrong after {len(self.failures)} of them")
        assert self.failures == {}


def _all() -> Iterator[int]:
    at = FIRST
    while True:
        yield at
        at += EVERY


def _sample(statements: int) -> Iterator[int]:
    """Spread over the scenario, others each time, until the time is over."""
    ends = time.monotonic() + SAMPLE_S
    order = list(range(1, statements + 1))
    chosen = random.Random(os.environ.get("CHANGEOVER_FAULTS_SEED") or time.time())
    chosen.shuffle(order)
    for at in order:
        if time.monotonic() > ends:
            return
        yield at


def _count(nursery: scenario.Nursery, fresh: Fresh, kinds: str) -> tuple[int, scenario.Acknowledged]:
    """How many statements the scenario takes where nothing happens to it."""
    folder, database = fresh.copy()
    count, seen = folder / "count.txt", scenario.Acknowledged()
    server = nursery.start(folder, database, count=str(count), kinds=kinds, trigger=str(folder / "begin"))
    try:
        (folder / "begin").touch()
        scenario.converse(server, seen)
        assert scenario.check(server, seen, []) == []
    finally:
        server.stop()
    assert scenario.check_database(database) == []
    return int(count.read_text()), seen


def _round(nursery: scenario.Nursery, fresh: Fresh, scratch: Path, strikes: Sequence[Strike]) -> tuple[bool, list[str]]:
    """Whether the last of the deaths came, and everything that was wrong afterwards."""
    folder, database = fresh.copy()
    seen = scenario.Acknowledged()
    kinds = "all" if ALL else "writes"
    first, *others = strikes
    begin = folder / "begin"
    server = nursery.start(folder, database, at=first.at, side=first.side, kinds=kinds, trigger=str(begin))
    try:
        begin.touch()
        scenario.converse(server, seen)
        reached = False
    except scenario.Died:
        reached = True
    finally:
        server.stop(signal.SIGKILL)
    deaths = [scenario.Death.of(folder, database, scratch)]
    for strike in others:
        server = nursery.start(folder, database, at=strike.at, side=strike.side, kinds=kinds)
        reached = server.dies_within(RECOVERY_S)
        server.stop(signal.SIGKILL)
        deaths.append(scenario.Death.of(folder, database, scratch))
    last = nursery.start(folder, database)
    try:
        wrong = scenario.check(last, seen, deaths)
        scenario.wait_for_operations(last, database)
    except (AssertionError, scenario.Died) as error:
        wrong = [f"{type(error).__name__}: {error}"]
    finally:
        last.stop()
    return reached, wrong + scenario.check_database(database)


def _write(folder: Path, edition: str) -> None:
    for path, text in scenario.files(edition).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
