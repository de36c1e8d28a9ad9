"""A graph in Python: look up all orders of a customer side by side, then let `support` write about them.

Input `{"customer": "Ada"}`; answers with `findings`, a line for each order, and the message in `messages`.
"""

from __future__ import annotations

import operator
from typing import Annotated, Any, TypedDict

from langchain_core.messages import HumanMessage
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import Send

from .orders import orders_of


class DigestState(MessagesState):
    customer: str
    findings: Annotated[dict[str, str], operator.or_]  # by order, so that asking again replaces what was found


class OneOrder(TypedDict):
    order_id: str


def graph(ctx: Any) -> Any:
    """Called once for each version; `ctx` gives the agents, tools, models and prompts of that version."""
    lookup_order = ctx.tool("lookup_order")

    async def look_up(state: OneOrder) -> dict[str, Any]:
        return {"findings": {state["order_id"]: await lookup_order.ainvoke({"order_id": state["order_id"]})}}

    def ask(state: DigestState) -> dict[str, Any]:
        findings = "\n".join(state["findings"].values()) or "There are no orders."
        return {"messages": [HumanMessage(f"Tell {state['customer']} in one sentence:\n{findings}")]}

    builder = StateGraph(DigestState)
    builder.add_node("look_up", look_up)
    builder.add_node("ask", ask)
    builder.add_node("write", ctx.agent("support"))
    builder.add_conditional_edges(START, fan_out, ["look_up", "ask"])
    builder.add_edge("look_up", "ask")
    builder.add_edge("ask", "write")
    builder.add_edge("write", END)
    return builder  # not compiled: the server compiles it with its own checkpointer


def fan_out(state: DigestState) -> list[Send] | str:
    """One `look_up` for each order, all at the same time."""
    return [Send("look_up", OneOrder(order_id=order_id)) for order_id in orders_of(state["customer"])] or "ask"
