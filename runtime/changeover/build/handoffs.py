"""Handoffs: an agent in a graph passes the conversation on to another node.

Owns the tool `transfer_to_x`, the messages it leaves behind, and the sign by which a node's edges know that a handoff
took their place. LangGraph runs a `Command`'s target *and* the edges of the node, so the edges must be told.

Invariant: every tool call that reaches the parent graph has its answer there; a real model refuses a history without.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langchain.tools import ToolRuntime
from langchain_core.messages import AIMessage, AnyMessage, ToolMessage
from langchain_core.tools import BaseTool, StructuredTool
from langgraph.types import Command

PREFIX = "transfer_to_"
_SIGN = "handoff"  # in a tool message's metadata: which node gave the conversation to which
_PRIVATE_KEYS = frozenset({"jump_to", "structured_response", "remaining_steps"})


def handoff_tool(node: str, target: str, description: str = "") -> BaseTool:
    """The tool by which the agent in `node` passes the conversation on to the node `target`."""

    def transfer(runtime: ToolRuntime) -> Command[str] | ToolMessage:
        calls = _open_calls(runtime.state["messages"])
        others = [call for call in calls if not call["name"].startswith(PREFIX)]
        own_id = runtime.tool_call_id or ""
        if others:
            return _refusal(own_id, target, others[0]["name"])
        if calls and calls[0]["id"] != own_id:
            return _refusal(own_id, target, calls[0]["name"])  # never seen: the first one leaves the agent
        return Command(goto=target, graph=Command.PARENT, update=_update(runtime.state, calls, own_id, node, target))

    async def atransfer(runtime: ToolRuntime) -> Command[str] | ToolMessage:
        return transfer(runtime)  # nothing to wait for: no thread

    about = f" {description}" if description else ""
    return StructuredTool.from_function(
        func=transfer,
        coroutine=atransfer,
        name=PREFIX + target,
        description=f"Pass the conversation on to {target}.{about} Call it alone.",
    )


def handed_off(state: Any, node: str) -> bool:
    """Whether the last thing that happened in `state` is that `node` passed the conversation on."""
    messages = state.get("messages") if isinstance(state, Mapping) else getattr(state, "messages", None)
    if not messages:
        return False
    last = messages[-1]
    return isinstance(last, ToolMessage) and last.response_metadata.get(_SIGN, {}).get("node") == node


def _open_calls(messages: list[AnyMessage]) -> list[Any]:
    last = next((message for message in reversed(messages) if isinstance(message, AIMessage)), None)
    return list(last.tool_calls) if last else []


def _update(state: Mapping[str, Any], calls: list[Any], own_id: str, node: str, target: str) -> dict[str, Any]:
    """All the agent has, for the parent's keys of the same name; each call has an answer, the handoff's comes last."""
    ignored = [
        ToolMessage(f"Not done: the conversation went to {target}.", tool_call_id=call["id"], name=call["name"])
        for call in calls
        if call["id"] != own_id
    ]
    done = ToolMessage(
        f"The conversation goes on with {target}.",
        tool_call_id=own_id,
        name=PREFIX + target,
        response_metadata={_SIGN: {"node": node, "to": target}},
    )
    kept = {key: value for key, value in state.items() if key not in _PRIVATE_KEYS}
    return {**kept, "messages": [*state["messages"], *ignored, done]}


def _refusal(call_id: str, target: str, other: str) -> ToolMessage:
    text = f"Not done: call {PREFIX}{target} alone, after the answer of {other}."
    return ToolMessage(text, tool_call_id=call_id, name=PREFIX + target, status="error")
