"""Graphs made in code for tests of the manager: one node that does what its input says, and tells its version."""

from __future__ import annotations

import asyncio
import operator
import sqlite3
from pathlib import Path
from typing import Annotated, Any, TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.types import interrupt

from changeover import GraphVersionManager


class Desk(TypedDict):
    do: str
    said: Annotated[list[str], operator.add]


class WiderDesk(TypedDict):
    """Saved state of a `Desk` does not fit: a key has another type, and no step converts it."""

    do: int
    said: Annotated[list[str], operator.add]
    note: str


class Gate:
    """Holds runs inside their node: `inside` counts those that came, `open` lets all go on."""

    def __init__(self) -> None:
        self.inside = 0
        self.open = asyncio.Event()

    async def pass_(self) -> None:
        self.inside += 1
        await self.open.wait()


def desk(name: str, gate: Gate | None = None, state: type[Any] = Desk) -> StateGraph[Any]:
    """`do`: say, ask (an interrupt), wait (at the gate), fail."""

    async def work(given: Any) -> dict[str, Any]:
        match given["do"]:
            case "ask":
                return {"said": [f"{name} heard {interrupt('which?')}"]}
            case "wait":
                assert gate is not None
                await gate.pass_()
            case "fail":
                raise ValueError(f"{name} fails")
        return {"said": [name]}

    builder = StateGraph(state)
    builder.add_node("work", work)
    builder.add_edge(START, "work")
    builder.add_edge("work", END)
    return builder


def do(what: str) -> dict[str, Any]:
    return {"do": what, "said": []}


def rows(manager: GraphVersionManager, sql: str, *values: Any) -> list[tuple[Any, ...]]:
    """What the database says, read from beside."""
    path: Path = manager.settings.database_path(manager.project)
    connection = sqlite3.connect(path)
    try:
        return connection.execute(sql, values).fetchall()
    finally:
        connection.close()


def assert_nothing_is_left(manager: GraphVersionManager) -> None:
    """No row active, no thread busy, no slot or place at the door lost."""
    assert rows(manager, "SELECT id, status FROM runs WHERE status IN ('pending', 'running')") == []
    assert rows(manager, "SELECT id FROM threads WHERE status = 'busy'") == []
    assert manager.in_flight.on() == []
    assert manager.in_flight.entering == 0
    assert manager.engine._slots._value == manager.settings.runs_concurrency
    assert manager.engine._turns == {}
    assert manager.engine._waiters == {}
