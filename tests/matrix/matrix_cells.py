"""One cell of the matrix: a kind of change that meets a thread in a condition, and what became of the thread.

What is expected comes from plain LangGraph: B holds the whole conversation from its first word. What a manager does is
never a source of it. `plainly` puts B in the place of A without a manager, which tells what LangGraph alone can do.
"""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from langgraph.checkpoint.memory import InMemorySaver
from matrix_conditions import Condition, Graphs
from matrix_kinds import Kind
from matrix_world import ManagedTalk, PlainTalk, Question, Talk, World, drive, reply

from changeover import GraphVersionManager
from changeover.errors import ChangeoverError

MISSING = object()
ALL = "*"  # in the place of keys: whatever the values are


class Verdict(Enum):
    RIGHT = "right"
    REFUSED = "refused"
    RAISED = "raised"
    WRONG = "wrong"


@dataclass(frozen=True)
class Outcome:
    """`detail` is for a person: a reason, a traceback, or what differs."""

    verdict: Verdict
    detail: str = ""


@dataclass(frozen=True)
class Expected:
    """What is seen at the end of the turn that waited and of the one after, and what was done outside."""

    middle: Any
    end: Any
    did: Counter[str]


@dataclass(frozen=True)
class Cell:
    kind: Kind
    condition: Condition
    covered: bool  # by its step

    @property
    def version(self) -> str:
        return f"b_{self.kind.name}" if self.covered else f"bare_{self.kind.name}"

    def __str__(self) -> str:
        return f"{self.kind.name} / {self.condition.name} / {'with its step' if self.covered else 'without'}"


def cells_of(kind: Kind) -> list[Cell]:
    covered = [Cell(kind, condition, True) for condition in kind.conditions if kind.chain]
    return covered + [Cell(kind, condition, False) for condition in kind.bare_conditions]


class Bench:
    """Where cells are tried: the graphs of the kinds, each compiled once, and a world outside of them."""

    def __init__(self, manager: GraphVersionManager | None = None) -> None:
        self.world = World()
        self._manager = manager
        self._graphs: dict[tuple[str, Any], Graphs] = {}
        self._versions: dict[tuple[str, Any], str] = {}
        self._homes: dict[tuple[str, str, str], Expected] = {}
        self._threads = 0

    @property
    def manager(self) -> GraphVersionManager:
        assert self._manager is not None
        return self._manager

    def graphs(self, kind: Kind, spec: Any) -> Graphs:
        key = (kind.family.name, repr(spec))
        if key not in self._graphs:
            self._graphs[key] = kind.family.graphs(spec, self.world)
        return self._graphs[key]

    def new_thread(self) -> str:
        self._threads += 1
        return f"t{self._threads}"

    # --- in plain LangGraph ----------------------------------------------------------------------

    def plain(self, kind: Kind, condition: Condition, spec: Any) -> PlainTalk:
        return PlainTalk(self.graphs(kind, spec)[condition.graph], InMemorySaver(), self.world, self.new_thread())

    async def expected(self, kind: Kind, condition: Condition) -> Expected:
        """The whole conversation on B, in plain LangGraph, corrected by hand where the kind says so."""
        spec = kind.scratch(kind.new)
        found = await self._held(condition, kind, spec)
        return Expected(
            kind.expect(condition.name, "middle", found.middle),
            kind.expect(condition.name, "end", found.end),
            found.did,
        )

    async def at_home(self, kind: Kind, condition: Condition) -> Expected:
        """The whole conversation on A, which many kinds share."""
        key = (kind.family.name, repr(kind.old), condition.name)
        if key not in self._homes:
            self._homes[key] = await self._held(condition, kind, kind.old)
        return self._homes[key]

    async def _held(self, condition: Condition, kind: Kind, spec: Any) -> Expected:
        talk = self.plain(kind, condition, spec)
        await condition.bring(talk, spec)
        middle, end = await condition.go_on(talk, spec)
        return Expected(middle.values, end.values, Counter(self.world.journal[talk.thread_id]))

    async def plainly(self, kind: Kind, condition: Condition, want: Expected) -> Outcome:
        """What LangGraph alone makes of it: B invoked on the thread that A left."""
        talk = self.plain(kind, condition, kind.old)
        await condition.bring(talk, kind.old)
        asked = (await talk.seen()).questions
        later = replace(talk, graph=self.graphs(kind, kind.new)[condition.graph])
        return await ended(kind, condition, kind.new, later, asked, want, by_id=False)

    # --- with a manager --------------------------------------------------------------------------

    async def register(self, kind: Kind) -> None:
        """The versions of a kind: A, B with the chain that leads there, and B without it."""
        key = (kind.family.name, repr(kind.old))
        if key not in self._versions:
            name = f"a_{kind.family.name}_{len(self._versions)}"
            self._versions[key] = (await self.manager.register(name, self.graphs(kind, kind.old))).id
        new = self.graphs(kind, kind.new)
        if kind.chain:
            chain = [{"graph": graph, **step} for graph in new for step in kind.chain]
            await self.manager.register(f"b_{kind.name}", new, migrations=chain)
        if kind.bare_conditions:
            await self.manager.register(f"bare_{kind.name}", new)

    def old_version(self, kind: Kind) -> str:
        return self._versions[kind.family.name, repr(kind.old)]

    async def brought(self, kind: Kind, condition: Condition) -> ManagedTalk:
        version = self.old_version(kind)
        talk = ManagedTalk(self.manager, version, condition.graph, self.world, self.new_thread())
        await condition.bring(talk, kind.old)
        return talk

    async def migrate(self, talk: ManagedTalk, version: str) -> None:
        await self.manager.migrate_thread(talk.thread_id, to=version)
        talk.version = version

    async def moved(self, cell: Cell, want: Expected) -> Outcome:
        """What a manager makes of it: the thread is migrated where it waits, then it goes on with B."""
        kind, condition = cell.kind, cell.condition
        talk = await self.brought(kind, condition)
        before, asked = await dump(self.manager, talk.thread_id), (await talk.seen()).questions
        try:
            await self.migrate(talk, cell.version)
        except ChangeoverError as error:
            if await dump(self.manager, talk.thread_id) != before:
                return Outcome(Verdict.WRONG, f"refused, but the thread is not as it was: {error}")
            return await self._stays(cell, talk, error)
        except Exception:
            return Outcome(Verdict.RAISED, f"the migration: {tail()}")
        return await ended(kind, condition, kind.new, talk, asked, want, by_id=cell.covered)

    async def _stays(self, cell: Cell, talk: ManagedTalk, refusal: ChangeoverError) -> Outcome:
        """A thread that was refused must go on where it is as if nothing had been asked."""
        kind, condition = cell.kind, cell.condition
        want = await self.at_home(kind, condition)
        home = await ended(kind, condition, kind.old, talk, (), want, by_id=False)
        if home.verdict is not Verdict.RIGHT:
            return Outcome(home.verdict, f"refused ({refusal}), and then not as before: {home.detail}")
        return Outcome(Verdict.REFUSED, f"{refusal.code}: {refusal}")

    async def there_and_back(self, cell: Cell) -> Outcome:
        """To B and back at once, which changes nothing; to B, through a turn, and back, which keeps what was said."""
        kind, condition = cell.kind, cell.condition
        talk = await self.brought(kind, condition)
        home, before = talk.version, await talk.seen()
        try:
            await self.migrate(talk, cell.version)
            await self.migrate(talk, home)
            after = await talk.seen()
            if not after.same_as(before):
                return Outcome(Verdict.WRONG, f"there and back made {after} of {before}")
            await self.migrate(talk, cell.version)
            self.world.broken.discard(talk.thread_id)
            await drive(talk)
            await self.migrate(talk, home)
            middle = await talk.seen()
            end = await condition.last_turn(talk, kind.old)
        except ChangeoverError as error:
            return Outcome(Verdict.REFUSED, f"{error.code}: {error}")
        except Exception:
            return Outcome(Verdict.RAISED, tail())
        want = await self.at_home(kind, condition)
        differs = difference(kind, want, middle.values, end.values, talk, kind.own)
        return Outcome(Verdict.WRONG, differs) if differs else Outcome(Verdict.RIGHT)


async def ended(
    kind: Kind,
    condition: Condition,
    spec: Any,
    talk: Talk,
    asked: Sequence[Question],
    want: Expected,
    *,
    by_id: bool,
) -> Outcome:
    """Answer what was asked before the change, go on to the end, and compare."""
    try:
        if asked:
            await reply(talk, asked, by_id=by_id)
        middle, end = await condition.go_on(talk, spec)
    except AssertionError as error:
        return Outcome(Verdict.WRONG, str(error))
    except Exception:
        return Outcome(Verdict.RAISED, tail())
    differs = difference(kind, want, middle.values, end.values, talk, kind.defaulted)
    return Outcome(Verdict.WRONG, differs) if differs else Outcome(Verdict.RIGHT)


def difference(kind: Kind, want: Expected, middle: Any, end: Any, talk: Talk, but: Sequence[str]) -> str:
    """What is not as expected, in words; nothing where all is."""
    found = []
    for when, wanted, got in (("after the pause", want.middle, middle), ("at the end", want.end, end)):
        if isinstance(wanted, dict) and isinstance(got, dict):
            for key in sorted((wanted.keys() | got.keys()) - set(but)):
                if wanted.get(key, MISSING) != got.get(key, MISSING):
                    found.append(f"{when} '{key}' is {got.get(key)!r} and should be {wanted.get(key)!r}")
        elif wanted != got and ALL not in but:
            found.append(f"{when} {got!r} and should be {wanted!r}")
    done, due = (_heard(kind, did) for did in (talk.world.journal[talk.thread_id], want.did))
    if done != due:
        found.append(f"done outside: {dict(done - due)} too often, {dict(due - done)} too seldom")
    return "; ".join(found)


def _heard(kind: Kind, did: Counter[str]) -> Counter[str]:
    return Counter({what: times for what, times in did.items() if what not in kind.unheard})


def tail() -> str:
    return "".join(traceback.format_exc().splitlines(keepends=True)[-6:])


async def dump(manager: GraphVersionManager, thread_id: str) -> list[Any]:
    """Every row that the database has of a thread: ours, and those of LangGraph's saver."""

    def job(connection: Any) -> list[Any]:
        own = [tuple(row) for row in connection.execute("SELECT * FROM threads WHERE id = ?", (thread_id,))]
        return [own, *(_rows(connection, table, thread_id) for table in tables)]

    is_postgres = manager.store.database.kind == "postgres"
    tables = ("checkpoints", "checkpoint_blobs", "checkpoint_writes") if is_postgres else ("checkpoints", "writes")
    return await manager.store.database.read(job)


def _rows(connection: Any, table: str, thread_id: str) -> list[str]:
    found = connection.execute(f"SELECT * FROM {table} WHERE thread_id = ?", (thread_id,))
    return sorted(repr(tuple(row)) for row in found)
