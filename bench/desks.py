"""A desk in two versions, whose threads are moved from one to the other, and threads on it that rest or wait.

The newer version has a node and a key under another name, and a key more. A thread is talked once, turn by turn, and
copied with all of its checkpoints; half of the threads wait for an answer, with a question as a pending write.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any, TypedDict

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import interrupt

from changeover import GraphVersionManager
from changeover.checkpoints import whole
from changeover.store.connection import Connection

GRAPH = "desk"
OLDER, NEWER = "older", "newer"
STEPS = [{"graph": GRAPH, "state": {"rename": {"note": "notes"}}, "nodes": {"rename": {"approve": "review"}}}]
SENTENCE = "The order that was placed last week has not come, and nobody has said why that is so. "
ASKS = "please ask"
HOUR_S = 3600.0
AT_ONCE = 50  # threads that are copied in one transaction


class Older(TypedDict, total=False):
    messages: Annotated[list[AnyMessage], add_messages]
    note: str
    log: Annotated[list[str], operator.add]


class Newer(TypedDict, total=False):
    messages: Annotated[list[AnyMessage], add_messages]
    notes: str
    log: Annotated[list[str], operator.add]
    mood: str


def _answer(state: Any) -> dict[str, Any]:
    return {"messages": [AIMessage(f"{len(state['messages'])}: {SENTENCE}")], "log": ["answered"]}


def _is_to_ask(state: Any) -> bool:
    return bool(state["messages"][-2].content == ASKS)


def older() -> StateGraph[Any, Any, Any, Any]:
    return _desk(Older, "approve", "note")


def newer() -> StateGraph[Any, Any, Any, Any]:
    return _desk(Newer, "review", "notes")


def _desk(state: type, asking: str, key: str) -> StateGraph[Any, Any, Any, Any]:
    def ask(state: Any) -> dict[str, Any]:
        return {key: interrupt("may I?")}

    builder: StateGraph[Any, Any, Any, Any] = StateGraph(state)
    builder.add_node("answer", lambda state: {**_answer(state), key: "noted"})
    builder.add_node(asking, ask)
    builder.add_edge(START, "answer")
    builder.add_conditional_edges("answer", _is_to_ask, {True: asking, False: END})
    builder.add_edge(asking, END)
    return builder


def said(text: str = SENTENCE) -> dict[str, Any]:
    return {"messages": [HumanMessage(text)]}


async def registered(manager: GraphVersionManager) -> None:
    """Both versions, the newer one made after all that is said on the older one."""
    await manager.register(OLDER, {GRAPH: older()})
    await manager.register(NEWER, {GRAPH: newer()}, migrations=STEPS)
    later = "UPDATE versions SET created_at = created_at + ? WHERE id = ?"
    await manager.store.database.write(lambda connection: connection.execute(later, (HOUR_S, NEWER)).rowcount)


async def talk(manager: GraphVersionManager, thread_id: str, messages: int, *, version: str, waits: bool) -> None:
    """A thread of so many messages, two a turn."""
    for turn in range(messages // 2):
        asks = waits and turn == messages // 2 - 1
        await manager.invoke(GRAPH, said(ASKS if asks else SENTENCE), thread_id=thread_id, version=version)


async def copies(manager: GraphVersionManager, source: str, targets: Sequence[str]) -> None:
    """The thread under other ids, each as if it had been talked itself."""

    def job(connection: Connection, part: Sequence[str]) -> None:
        row = dict(connection.execute("SELECT * FROM threads WHERE id = ?", (source,)).fetchone())
        columns = [name for name in row if name != "id"]
        insert = f"INSERT INTO threads (id, {', '.join(columns)}) VALUES (?{', ?' * len(columns)})"
        for target in part:
            whole.copy(manager.saver, source, target).write(connection)
            connection.execute(insert, (target, *(row[name] for name in columns)))

    for start in range(0, len(targets), AT_ONCE):
        await manager.store.database.write(partial(job, part=targets[start : start + AT_ONCE]))
