"""Graphs that a page has never seen: states of all shapes, questions of all kinds, and text that would be markup."""

from __future__ import annotations

import operator
from typing import Annotated, Any, TypedDict

from langchain.agents.middleware.human_in_the_loop import RejectDecision
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolMessage
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import interrupt

from changeover import GraphVersionManager

HOSTILE = "</pre><script>alert('x')</script><img src=x onerror=alert(1)>"


class Talk(TypedDict, total=False):
    messages: Annotated[list[AnyMessage], add_messages]
    note: str


class Notes(TypedDict, total=False):
    note: str
    size: int
    answers: Annotated[list[Any], operator.add]
    dialogue: list[Any]


def _one(state: Any, work: Any) -> StateGraph[Any, Any, Any, Any]:
    return StateGraph(state).add_node("work", work).add_edge(START, "work").add_edge("work", END)


def talking(state: Talk) -> Any:
    blocks: list[Any] = [
        {"type": "reasoning", "reasoning": "He wants a look-up."},
        {"type": "text", "text": f"Let me see {HOSTILE}"},
        {"type": "tool_use", "id": "c1", "name": "look", "input": {"order": HOSTILE}},
        {"type": "image", "url": "data:image/png;base64,AAAA"},
    ]
    call = {"name": "look", "args": {"order": HOSTILE}, "id": "c1"}
    return {
        "messages": [
            AIMessage(blocks, tool_calls=[call], name="desk"),
            ToolMessage(HOSTILE, tool_call_id="c1", name="look", status="error"),
            AIMessage("It is on its way."),
        ],
        "note": HOSTILE,
    }


def chatting(state: Talk) -> Any:
    return {"messages": [message for n in range(40) for message in (HumanMessage(f"no {n}"), AIMessage(f"yes {n}"))]}


def noting(state: Notes) -> Any:
    return {
        "size": 3,
        "note": "long " * 400_000,
        "dialogue": [
            {"role": "user", "content": "Hello?"},
            {"lc": 1, "type": "constructor", "id": ["langchain", "AIMessage"], "kwargs": {"content": "Here I am."}},
        ],
    }


def asking_twice(state: Notes) -> Any:
    """The same question twice: the second one has the id and the words of the first."""
    first = interrupt({"question": f"Do you agree? {HOSTILE}"})
    return {"answers": [first, interrupt({"question": f"Do you agree? {HOSTILE}"})]}


def choosing(state: Notes) -> Any:
    return {"answers": [interrupt({"message": "Which colour?", "options": ["red", "<b>blue</b>"]})]}


def reviewing(state: Notes) -> Any:
    """As langchain's middleware asks about two calls of one turn."""
    requests = [
        {"name": "refund", "args": {"amount": 5}, "description": "Money"},
        {"name": "mail", "args": {"text": HOSTILE}},
    ]
    configs = [
        {"action_name": "mail", "allowed_decisions": ["approve", "reject"]},
        {"action_name": "refund", "allowed_decisions": ["approve", "edit", "reject"]},
    ]
    return {"answers": [interrupt({"action_requests": requests, "review_configs": configs})]}


def approving(state: Notes) -> Any:
    """As langchain's middleware asks about one call."""
    asked = {"type": "tool_approval", "tool_call_id": "c", "name": "refund", "args": {"amount": 5}, "description": ""}
    return {"answers": [interrupt(asked, response_schema=RejectDecision)]}


def failing(state: Notes) -> Any:
    raise RuntimeError(f"no paper {HOSTILE}")


GRAPHS: dict[str, Any] = {
    "talking": _one(Talk, talking),
    "chatting": _one(Talk, chatting),
    "noting": _one(Notes, noting),
    "listing": _one(Annotated[list[str], operator.add], lambda state: [HOSTILE]),
    "twice": _one(Notes, asking_twice),
    "choosing": _one(Notes, choosing),
    "reviewing": _one(Notes, reviewing),
    "approving": _one(Notes, approving),
    "failing": _one(Notes, failing),
}


async def serve_odd_desks(manager: GraphVersionManager, name: str = "odd") -> None:
    await manager.switch(await manager.register(name, GRAPHS))
