"""Graphs whose calls of models and tools can be counted by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, TypedDict

from langchain.agents import create_agent
from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.tools import ToolException, tool
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import Send, interrupt

from changeover import GraphVersionManager
from changeover.resources.demo import DemoRules

SECRET = "the secret of the house"
READ, WRITTEN = 7, 3


class Steady(BaseChatModel):
    """Reads 7 tokens and writes 3 each time; fails while `fails` says so."""

    model: str = "steady-1"
    fails: bool = False

    @property
    def _llm_type(self) -> str:
        return "steady"

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        return self.bind(**kwargs)

    def _usage(self) -> UsageMetadata:
        if self.fails:
            raise ConnectionError(SECRET)
        return UsageMetadata(input_tokens=READ, output_tokens=WRITTEN, total_tokens=READ + WRITTEN)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=AIMessage(content=SECRET, usage_metadata=self._usage()))])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        usage = self._usage()
        for word in SECRET.split():
            yield ChatGenerationChunk(message=AIMessageChunk(content=word))
        yield ChatGenerationChunk(message=AIMessageChunk(content="", usage_metadata=usage))

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        for chunk in self._stream(messages):
            await asyncio.sleep(0)
            yield chunk


STEADY = Steady()


@tool
def lookup(word: str) -> str:
    """Look a word up."""
    return f"{word}: {SECRET}"


@tool
def broken(word: str) -> str:
    """Fail, and say so to the model."""
    raise ToolException(SECRET)


broken.handle_tool_error = True


@tool
async def ask_person(word: str) -> str:
    """Ask a person."""
    return str(interrupt(SECRET))


billing = create_agent(DemoRules(), [], name="billing")


@tool
async def ask_billing(word: str) -> str:
    """Ask the other agent."""
    answer = await billing.ainvoke({"messages": [("user", word)]})
    return str(answer["messages"][-1].content)


RULES = [
    {"when": rf"{said} (?P<word>\w+)", "call": named}
    for said, named in (
        ("look", "lookup"),
        ("break", "broken"),
        ("person", "ask_person"),
        ("ask", "ask_billing"),
    )
]


def support() -> Any:
    """An agent that calls the tool that the message names: look, break, person or ask."""
    return create_agent(DemoRules(rules=RULES), [lookup, broken, ask_person, ask_billing], name="support")


def desk() -> StateGraph[Any]:
    """A node, then the agent as an inner graph."""

    async def triage(state: MessagesState) -> dict[str, Any]:
        return {}

    builder = StateGraph(MessagesState)
    builder.add_node("triage", triage)
    builder.add_node("front", support())
    builder.add_edge(START, "triage")
    builder.add_edge("triage", "front")
    return builder


class Words(TypedDict, total=False):
    word: str


def fanned(count: int) -> StateGraph[Any]:
    """`count` synchronous nodes at once, each in a thread of its own, each with one call."""

    def call(state: Words) -> Words:
        STEADY.invoke(SECRET)
        return {}

    builder = StateGraph(Words)
    builder.add_node("call", call)
    builder.add_conditional_edges(START, lambda state: [Send("call", {"word": str(n)}) for n in range(count)], ["call"])
    return builder


def of(node: Callable[[Words], Any], *, then: Callable[[Words], Any] | None = None) -> StateGraph[Any]:
    """One node, or two."""
    builder = StateGraph(Words)
    builder.add_node("first", node)
    builder.add_edge(START, "first")
    if then is not None:
        builder.add_node("second", then)
        builder.add_edge("first", "second")
        builder.add_edge("second", END)
    return builder


async def serve(manager: GraphVersionManager, version: str, **graphs: Any) -> None:
    """These graphs serve, as a version."""
    await manager.switch(await manager.register(version, graphs))


def said(text: str) -> dict[str, Any]:
    return {"messages": [("user", text)]}


async def used(manager: GraphVersionManager, version: str, graph: str | None = None) -> dict[str, Any]:
    """The totals of a version, its models and its tools, of one graph."""
    found = (await manager.usage(since=1.0, step_s=86_400 * 30, version=version, graph=graph))["usage"]
    assert len(found) == 1
    return dict(found[0])


def calls(listed: list[dict[str, Any]], name: str) -> dict[tuple[str | None, str], tuple[int, int]]:
    """Calls and errors by agent and name."""
    return {(each["agent"], each[name]): (each["calls"], each["errors"]) for each in listed}
