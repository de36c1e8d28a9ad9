"""Small graphs in two versions, for the tests of comparing, grading and suggesting: their contracts are real ones."""

from __future__ import annotations

import json
import operator
from collections.abc import Sequence
from typing import Annotated, Any, TypedDict

from langchain.agents import create_agent
from langchain.agents.middleware import HumanInTheLoopMiddleware
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.tools import BaseTool, StructuredTool
from langgraph.graph import START, StateGraph
from langgraph.types import interrupt
from pydantic import create_model

from changeover.contracts.chain import Chain
from changeover.contracts.contract import contract_of
from changeover.contracts.grading import Level
from changeover.contracts.steps import declared, text_digest
from changeover.contracts.waiting import WaitingSet, WaitingTask

LOG = Annotated[list[str], operator.add]


def state(**keys: Any) -> Any:
    return TypedDict("State", keys, total=False)  # type: ignore[operator]


STATE = state(note=str, log=LOG)


def plain(given: Any) -> Any:
    return {}


def ask(given: Any) -> Any:
    return {"note": interrupt("first")}


def ask_twice(given: Any) -> Any:
    return {"note": interrupt("first") + interrupt("second")}


def ask_before(given: Any) -> Any:
    return {"note": interrupt("new") + interrupt("first")}


def ask_other(given: Any) -> Any:
    return {"note": interrupt("other")}


def graph(*, schema: Any = STATE, joins: Sequence[tuple[list[str], str]] = (), defer: str = "", **nodes: Any) -> Any:
    """A graph of these nodes, beside each other where no join leads to them."""
    builder: Any = StateGraph(schema)
    for name, action in nodes.items():
        builder.add_node(name, action, defer=name == defer)
        if name not in [target for _, target in joins]:
            builder.add_edge(START, name)
    for sources, target in joins:
        builder.add_edge(sources, target)
    return builder


def contract(made: Any, **compiled: Any) -> dict[str, Any]:
    """Classes and functions of the tests count as the project's."""
    found = made.compile(**compiled) if isinstance(made, StateGraph) else made
    return contract_of(found, lambda module: "graphs" if module.startswith(("test_", "version_pairs")) else None)


def chain(*parts: dict[str, Any]) -> Chain:
    return tuple(declared("desk", number, f"step{number}", each) for number, each in enumerate(parts, 1))


def level(version: str, found: dict[str, Any], *parts: dict[str, Any]) -> Level:
    return Level(version, found, chain(*parts), text_digest(json.dumps(found, sort_keys=True)))


def waits(*tasks: WaitingTask) -> str:
    return WaitingSet.of(tasks).format()


def refund_tool(name: str = "refund", **arguments: Any) -> BaseTool:
    """A tool with these arguments: a type, or a type with its default."""
    fields: Any = {
        key: value if isinstance(value, tuple) else (value, ...) for key, value in (arguments or {"order": int}).items()
    }

    def run(**given: Any) -> str:
        return "done"

    return StructuredTool(name=name, description="Pays back.", args_schema=create_model(name, **fields), func=run)


def agent(*tools: BaseTool, approve: Any = None) -> Any:
    approval: list[Any] = [HumanInTheLoopMiddleware(interrupt_on=approve)] if approve else []
    return create_agent(GenericFakeChatModel(messages=iter([])), list(tools), middleware=approval)
