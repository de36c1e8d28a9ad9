"""Versions of a desk whose contracts really differ, in a store, and threads on them; nothing is executed.

v1 has the key `note`; v2 calls it `notes`, with a step for it; v3 adds a step that is one-way; v4 has another type for
the key and no step; v5 is v1 again, under another digest.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.types import interrupt

from changeover.contracts.chain import chain_text
from changeover.contracts.contract import contract_of
from changeover.contracts.steps import declared
from changeover.contracts.waiting import WaitingSet, WaitingTask
from changeover.runs.routing import decide
from changeover.store.connection import Connection
from changeover.store.landings import Landing, RestingLanding, Sight
from changeover.store.opening import Store
from changeover.store.records.ids import RunId, ThreadId, VersionId
from changeover.store.records.outcome import Outcome
from changeover.store.records.routing import Routing, RoutingChange
from changeover.store.records.run import Accepted, NewRun, Run
from changeover.store.records.thread import Thread
from changeover.store.records.version import GraphEntry, NewVersion

V1, V2, V3, V4, V5 = (VersionId(f"v{n}") for n in range(1, 6))
ASKED = WaitingSet.of([WaitingTask("ask", "interrupt", asked=1)]).format()
NOTES = declared("desk", 1, "notes", {"state": {"rename": {"note": "notes"}}})
LANG = declared("desk", 2, "lang", {"state": {"set": {"lang": "en"}}, "one_way": True})


class Noted(TypedDict):
    note: str


class WithNotes(TypedDict):
    notes: str


class WithLang(WithNotes):
    lang: str


class Counted(TypedDict):
    note: int


def ask(state: Any) -> dict[str, Any]:
    return {"note": interrupt("which?")}


@cache
def contract(state: type[Any]) -> dict[str, Any]:
    builder = StateGraph(state)
    builder.add_node("ask", ask)
    builder.add_edge(START, "ask")
    builder.add_edge("ask", END)
    return dict(contract_of(builder.compile(), lambda module: None))


async def put_versions(store: Store, current: VersionId = V1) -> None:
    """All five, and one of them current."""
    steps = {"a": (), "b": (NOTES,), "c": (NOTES, LANG), "d": (), "e": ()}
    for (digest, chain), state in zip(steps.items(), (Noted, WithNotes, WithLang, Counted, Noted), strict=True):
        graphs = {
            "desk": GraphEntry(digest, "", chain=chain_text(chain)),
            "side": GraphEntry(digest, "", chain=chain_text(chain)),
        }
        await store.versions.put(NewVersion(digest, {}, graphs=graphs, contracts={digest: contract(state)}), {})
    await switch(store, current)


async def switch(store: Store, to: VersionId, threads: str | None = None, action: str = "switch") -> None:
    head = await store.routing.head()
    change = RoutingChange(head.revision if head else 0, to, {}, action, "op", "test", threads=threads)
    await store.routing.apply(change, decide)


def new(id_: str, thread: str | None = "t", *, continues: bool = False, **more: Any) -> NewRun:
    return NewRun(
        RunId(id_), more.pop("graph", "desk"), ThreadId(thread) if thread else None, continues=continues, **more
    )


async def begin(store: Store, id_: str, thread: str = "t", **more: Any) -> Accepted:
    return await store.runs.accept(new(id_, thread, **more), decide)


async def rest(store: Store, id_: str, thread: str = "t", outcome: Outcome | None = None, **more: Any) -> Thread:
    """A run that begins and ends; the thread as it is then."""
    run = (await begin(store, id_, thread, **more)).run
    await store.runs.finish(run, outcome or Outcome("success"))
    return await store.runs.thread(thread)


def waits(text: str | None = ASKED) -> Outcome:
    return Outcome("interrupted", "", "interrupt", waits=text)


async def events(store: Store, kind: str) -> list[dict[str, Any]]:
    found = await store.journal.events(limit=10_000)
    return [dict(event.data) for event in found if event.type == kind]


async def routing(store: Store) -> Routing:
    head = await store.routing.head()
    assert head is not None
    return head


def names(run: Run) -> tuple[str, str]:
    return run.version, run.reason


def nothing(connection: Connection) -> None:
    """No checkpoint is written."""


def landing(write: Callable[[Connection], None] = nothing, **more: Any) -> Landing:
    return Landing(write, **more)


def resting(sight: Sight, to: VersionId, landed: Landing) -> RestingLanding:
    return RestingLanding(sight, to, landed, f"migrated to {to}")
