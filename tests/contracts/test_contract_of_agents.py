"""The contract of an agent: its tools by their arguments, what waits for approval, and nothing of its prompts."""

from __future__ import annotations

from typing import Annotated, Any

import contract_desks as desks
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware, HumanInTheLoopMiddleware
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.tools import BaseTool, StructuredTool, tool
from langgraph.graph import START, StateGraph
from langgraph.prebuilt import InjectedState, ToolRuntime
from langgraph.types import interrupt

from changeover.contracts.contract import contract_of


@tool
def refund(
    order_id: int,
    runtime: ToolRuntime,
    amount: float = 1.0,
    state: Annotated[dict[str, Any] | None, InjectedState] = None,
) -> str:
    """Pays money back."""
    return "done"


@tool
def ask_desk(text: str) -> str:
    """Asks a person."""
    return str(interrupt({"desk": text}))


class Count(AgentMiddleware[Any, Any, Any]):
    def before_model(self, state: Any, runtime: Any) -> None:
        return None


def nodes(*tools: BaseTool, approve: Any = None, prompt: str = "", extra: tuple[Any, ...] = ()) -> dict[str, Any]:
    approval = [HumanInTheLoopMiddleware(interrupt_on=approve)] if approve else []
    model = GenericFakeChatModel(messages=iter([]))
    graph = create_agent(model, list(tools), system_prompt=prompt, middleware=[*approval, *extra])
    found: dict[str, Any] = contract_of(graph, lambda module: None)["nodes"]
    return found


def test_tools_are_known_by_what_a_model_may_give_them() -> None:
    found = nodes(refund, ask_desk)["tools"]
    assert found["kind"] == "tools"
    assert found["tools"]["refund"] == {
        "properties": {"order_id": {"type": "integer"}, "amount": {"type": "number", "default": 1.0}},
        "required": ["order_id"],
        "type": "object",
    }
    assert found["interrupts"] == ["ask_desk: {'desk': text}"]


def test_prompts_and_descriptions_are_no_part_of_it() -> None:
    described = StructuredTool.from_function(refund.func, name="refund", description="Other words.")
    assert nodes(refund, prompt="Be kind.") == nodes(described, prompt="Be short.")


def test_what_has_to_be_approved_is_part_of_the_question() -> None:
    first = nodes(refund, approve={"refund": True})
    edited = nodes(refund, approve={"refund": {"allowed_decisions": ["approve"]}})
    described = nodes(refund, approve={"refund": {"allowed_decisions": ["approve"], "description": "Words"}})
    name = "HumanInTheLoopMiddleware.after_model"
    assert first[name]["kind"] == "middleware"
    assert len(first[name]["interrupts"]) == 1
    assert "refund" in first[name]["interrupts"][0]
    assert first != edited == described
    assert name not in nodes(refund)


def test_middleware_nodes_are_known_as_such() -> None:
    found = nodes(refund, extra=(Count(),))
    assert {name: node["kind"] for name, node in found.items()} == {
        "Count.before_model": "middleware",
        "model": "function",
        "tools": "tools",
    }


def test_a_subgraph_is_told_from_one_that_a_function_calls_and_by_what_it_keeps() -> None:
    def inner(saver: bool | None) -> Any:
        builder = StateGraph(desks.State)
        builder.add_node("ask", desks.by_module)
        builder.add_edge(START, "ask")
        return builder.compile(checkpointer=saver)

    called, unsaved = inner(None), inner(False)

    def calls(state: desks.State) -> Any:
        return called.invoke(state)

    def calls_unsaved(state: desks.State) -> Any:
        return unsaved.invoke(state)

    builder = StateGraph(desks.State)
    actions = {
        "part": inner(None),
        "memory": inner(True),
        "own": inner(False),
        "calls": calls,
        "calls_own": calls_unsaved,
    }
    for name, action in actions.items():
        builder.add_node(name, action)
        builder.add_edge(START, name)
    found = contract_of(builder.compile(), lambda module: None)["nodes"]
    assert {name: node["kind"] for name, node in found.items()} == {
        "part": "subgraph",
        "memory": "subgraph",
        "own": "subgraph",
        "calls": "function",
        "calls_own": "function",
    }
    assert [name for name, node in found.items() if node["memory"]] == ["memory"]
    assert [name for name, node in found.items() if node["own_saver"]] == ["calls_own", "own"]
    assert [name for name, node in found.items() if node["called"]] == ["calls", "calls_own"]
    assert all(node["subgraph"]["nodes"]["ask"]["interrupts"] == ["'one'"] for node in found.values())
