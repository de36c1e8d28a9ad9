"""One desk in several versions, made in code: a key is renamed, a question's node goes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.types import interrupt

from changeover import GraphVersionManager

RENAME: dict[str, Any] = {"name": "notes", "state": {"rename": {"note": "notes"}}}
REMOVE: dict[str, Any] = {"name": "gone", "nodes": {"remove": {"approve": {"goto": "END"}}}}


class Before(TypedDict, total=False):
    note: str
    asks: bool
    answer: str


class After(TypedDict, total=False):
    notes: str
    asks: bool
    answer: str


def desk(key: str, *, asks: bool = True, slowly: Any = None) -> StateGraph[Any]:
    """Writes what it is given to `key`; asks a person where the input says so and it has the node for it."""

    async def take(state: dict[str, Any]) -> dict[str, Any]:
        if slowly is not None:
            slowly["began"].set()
            await slowly["ends"].wait()
        return {key: f"{state.get(key, '')}+"}

    def approve(state: dict[str, Any]) -> dict[str, Any]:
        return {"answer": interrupt("may I?")}

    def leads(state: dict[str, Any]) -> str:
        return "approve" if asks and state.get("asks") else END

    graph: Any = StateGraph(After if key == "notes" else Before).add_node("take", take).add_edge(START, "take")
    if asks:
        graph.add_node("approve", approve)
        return graph.add_conditional_edges("take", leads, ["approve", END])  # type: ignore[no-any-return]
    return graph.add_edge("take", END)  # type: ignore[no-any-return]


async def opened(manager: GraphVersionManager, *, migrations: Sequence[Any] = (RENAME,), asks: bool = True) -> None:
    """`one` is current and has threads: `idle`, `waits`; `two` is ready."""
    await manager.register("one", {"desk": desk("note")})
    await manager.switch("one")
    await manager.invoke("desk", {"note": "a"}, thread_id="idle")
    await manager.invoke("desk", {"note": "b", "asks": True}, thread_id="waits")
    await manager.register("two", {"desk": desk("notes", asks=asks)}, migrations=list(migrations))
