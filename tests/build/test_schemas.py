"""What a graph takes and gives, as JSON Schemas."""

from __future__ import annotations

import operator
import typing
from dataclasses import dataclass
from typing import Annotated, Any

import typing_extensions
from langchain_core.messages import AnyMessage
from langgraph.func import entrypoint
from langgraph.graph import START, StateGraph
from langgraph.graph.message import add_messages
from pydantic import BaseModel

from changeover.build.schemas import graph_schemas, subgraph_schemas


class Ticket(BaseModel):
    title: str
    urgent: bool = False


class Strange:
    """Has no JSON Schema."""


class Plain(typing.TypedDict):
    text: str
    strange: Strange
    tickets: Annotated[list[Ticket], operator.add]


class Extended(typing_extensions.TypedDict):
    text: str


class Conversation(typing_extensions.TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]


@dataclass
class Context:
    tenant: str


class PlainContext(typing.TypedDict):
    tenant: str


def compiled(state: Any, inner: Any = None, **schemas: Any) -> Any:
    graph: Any = StateGraph(state, **schemas)
    graph.add_node("only", inner if inner is not None else lambda given: given)
    graph.add_edge(START, "only")
    return graph.compile()


def test_a_type_without_a_schema_leaves_its_own_key_open() -> None:
    schemas = graph_schemas("plain", compiled(Plain))
    for name in ("input_schema", "output_schema", "state_schema"):
        properties = schemas[name]["properties"]
        assert properties["text"]["type"] == "string"
        assert properties["strange"].keys() == {"title"}
        assert properties["tickets"]["items"] == {"$ref": "#/$defs/Ticket"}
        assert schemas[name]["$defs"]["Ticket"]["properties"].keys() == {"title", "urgent"}
    assert schemas["input_schema"]["required"] == ["strange", "text", "tickets"]


def test_state_is_all_keys_where_input_and_output_are_some() -> None:
    schemas = graph_schemas("some", compiled(Plain, input_schema=Extended, output_schema=Extended))
    assert schemas["input_schema"]["properties"].keys() == schemas["output_schema"]["properties"].keys() == {"text"}
    assert schemas["state_schema"]["properties"].keys() == {"text", "strange", "tickets"}


def test_pydantic_states_and_messages_have_their_schemas() -> None:
    assert graph_schemas("ticket", compiled(Ticket))["input_schema"]["required"] == ["title"]
    state = graph_schemas("talk", compiled(Conversation))["state_schema"]
    assert state["properties"]["messages"]["type"] == "array"
    assert "HumanMessage" in state["$defs"]


def test_every_form_of_context_has_its_schema() -> None:
    for context in (Context, PlainContext, Ticket):
        schema = graph_schemas("g", compiled(Plain, context_schema=context))["context_schema"]
        assert schema["required"] == (["title"] if context is Ticket else ["tenant"])
    assert graph_schemas("g", compiled(Plain))["context_schema"] is None


def test_a_functional_graph_has_schemas_too() -> None:
    @entrypoint()
    def double(number: int) -> int:
        return 2 * number

    schemas = graph_schemas("double", double)
    assert schemas["input_schema"]["type"] == "integer"
    assert schemas["graph_id"] == "double"


def test_graphs_inside_are_told_by_namespace() -> None:
    outer = compiled(Plain, compiled(Plain, compiled(Extended)))
    assert subgraph_schemas(outer, None, recurse=False).keys() == {"only"}
    assert subgraph_schemas(outer, None, recurse=True).keys() == {"only", "only|only"}
    assert subgraph_schemas(outer, "only", recurse=False).keys() == {"only"}
    assert subgraph_schemas(outer, "only", recurse=True).keys() == {"only", "only|only"}
    assert subgraph_schemas(outer, "only|only", recurse=False).keys() == {"only|only"}
    assert subgraph_schemas(outer, "nowhere", recurse=True) == {}
