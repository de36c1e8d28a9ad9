"""A project as somebody has it who comes from plain LangGraph, and the conversations that its graphs have had there."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

DESK = """
import operator
from typing import Annotated, TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.types import interrupt
from my_types import Ticket


class State(TypedDict, total=False):
    do: str
    ticket: Ticket
    log: Annotated[list[str], operator.add]


def work(state: State) -> dict:
    if state["do"] == "ask":
        return {"log": [f"heard {interrupt('sure?')}"]}
    if state["do"] == "fail":
        raise ValueError("no")
    return {"log": ["worked"], "ticket": Ticket(title=state["do"])}


def beside(state: State) -> dict:
    return {"log": ["beside"]}


builder = StateGraph(State).add_node(work).add_node(beside)
builder.add_edge(START, "work").add_edge(START, "beside").add_edge("work", END)
graph = builder.compile()
review = builder.compile(interrupt_before=["work"])
"""
NESTED = """
from typing import TypedDict

from langgraph.graph import START, StateGraph
from langgraph.types import interrupt


class Inner(TypedDict, total=False):
    answer: str


def ask(state: Inner) -> dict:
    return {"answer": interrupt("inside?")}


inner = StateGraph(Inner).add_node(ask).add_edge(START, "ask").compile()
graph = StateGraph(Inner).add_node("inner", inner).add_edge(START, "inner").compile()
"""
TYPES = """
from pydantic import BaseModel


class Ticket(BaseModel):
    title: str
"""
FILES = {"desk.py": DESK, "my_types.py": TYPES}


def served(**graphs: str) -> str:
    """A langgraph.json with these graphs."""
    return json.dumps({"dependencies": ["."], "graphs": graphs})


@contextmanager
def imported(folder: Path, *names: str) -> Iterator[Any]:
    """A module of the folder as plain Python imports it, gone at the end."""
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    before = set(sys.modules)
    try:
        found = [importlib.import_module(name) for name in names]
        yield found[0] if len(found) == 1 else found
    finally:
        sys.path.remove(str(folder))
        for name in set(sys.modules) - before:
            if str(getattr(sys.modules[name], "__file__", "") or "").startswith(str(folder)):
                del sys.modules[name]


@asynccontextmanager
async def stock_saver(where: str) -> AsyncIterator[BaseCheckpointSaver[Any]]:
    """LangGraph's own saver on a database."""
    opened: Any
    if where.startswith("sqlite:///"):
        opened = AsyncSqliteSaver.from_conn_string(where.removeprefix("sqlite:///"))
    else:
        opened = AsyncPostgresSaver.from_conn_string(where)
    async with opened as saver:
        await saver.setup()
        yield saver


@asynccontextmanager
async def plain(where: str, folder: Path, module: str = "desk", graph: str = "graph") -> AsyncIterator[Any]:
    """A graph of the folder, run by plain LangGraph on the database."""
    with imported(folder, module) as code:
        async with stock_saver(where) as saver:
            yield getattr(code, graph).copy(update={"checkpointer": saver})


def on(thread: str, **more: Any) -> dict[str, Any]:
    return {"configurable": {"thread_id": thread}, **more}


async def talk(graph: Any, given: Mapping[str, Any] | None, thread: str, **more: Any) -> Any:
    """One turn of a plain conversation; what its node raises is part of it."""
    try:
        return await graph.ainvoke(given, on(thread, **more))
    except ValueError:
        return None
