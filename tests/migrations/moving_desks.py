"""Graphs whose threads are moved, and what a database holds of a thread, byte for byte."""

from __future__ import annotations

import operator
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any, TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.types import interrupt

from changeover import GraphVersionManager, migration

TABLES = {"checkpoints": "thread_id", "writes": "thread_id", "threads": "id", "moved_interrupts": "thread_id"}
PASSING = ("updated_at", "looked_at")
RENAMES = {"graph": "desk", "state": {"rename": {"note": "notes"}}}


def asking(*keys: str, node: str = "ask", types: Mapping[str, Any] | None = None) -> StateGraph[Any]:
    """begin -> ask -> end, on these keys; `log` says what ran."""
    named = types or {}
    state = TypedDict("State", {"log": Annotated[list[str], operator.add], **{k: named.get(k, str) for k in keys}})  # type: ignore[misc]

    def begin(state: dict[str, Any]) -> dict[str, Any]:
        return {"log": ["begin"]}

    def ask(state: dict[str, Any]) -> dict[str, Any]:
        return {"log": [f"told {interrupt('well?')}"]}

    def end(state: dict[str, Any]) -> dict[str, Any]:
        return {"log": ["end"]}

    made = StateGraph(state)
    made.add_node("begin", begin)
    made.add_node(node, ask)
    made.add_node("end", end)
    made.add_edge(START, "begin")
    made.add_edge("begin", node)
    made.add_edge(node, "end")
    made.add_edge("end", END)
    return made


def python_step(up: Any, down: Any = None, **parts: Any) -> Any:
    """A step of graph `desk` that is code."""
    marked = migration(graph="desk", **parts)(up)
    return (marked, down) if down is not None else marked


def as_stored(manager: GraphVersionManager, thread_id: str) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of a thread in the SQLite file of a manager's project."""
    return rows_of(manager.project / ".changeover" / "changeover.db", thread_id)


def rows_of(file: Path, thread_id: str) -> dict[str, list[tuple[Any, ...]]]:
    with closing(sqlite3.connect(file)) as connection:
        found: dict[str, list[tuple[Any, ...]]] = {}
        for table, column in TABLES.items():
            names = [row[1] for row in connection.execute(f"PRAGMA table_info({table})") if row[1] not in PASSING]
            select = f"SELECT {', '.join(names)} FROM {table} WHERE {column} = ?"
            found[table] = sorted(connection.execute(select, (thread_id,)).fetchall(), key=repr)
        return found
