"""An agent that calls tools: a scripted model, calls that wait for a person's approval, tools that ask themselves.

The model calls tools for `refund`, `two` and `ask`, and answers what its tools said.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware, AgentState, HumanInTheLoopMiddleware
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.messages.tool import tool_call
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import tool
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.pregel import Pregel
from langgraph.types import interrupt
from matrix_world import World


@dataclass(frozen=True)
class Agent:
    """`pay` is what the tool that gives money back is called, `amount` its argument."""

    pay: str = "refund"
    amount: str = "amt"
    name: str = "agent"
    has: frozenset[str] = frozenset()

    def having(self, *what: str) -> Agent:
        return replace(self, has=self.has | set(what))

    def given(self, do: str) -> dict[str, Any]:
        return {"messages": [HumanMessage(do)]}


class Scripted(BaseChatModel):
    """Says what it would have said at this point of the conversation, whatever was tried before."""

    agent: Any

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Any:
        return self

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=self._next(messages))])

    def _next(self, messages: list[BaseMessage]) -> AIMessage:
        last = messages[-1]
        if isinstance(last, ToolMessage):
            return AIMessage(f"so: {last.content}")
        turn = sum(isinstance(message, HumanMessage) for message in messages)
        match last.content:
            case "refund":
                calls = [self._pay(f"{turn}-1", 10)]
            case "two":
                calls = [self._pay(f"{turn}-1", 10), self._pay(f"{turn}-2", 20)]
            case "ask":
                calls = [tool_call(name="look", args={"what": "it"}, id=f"{turn}-1")]
            case said:
                return AIMessage(f"you said {said}")
        return AIMessage("", tool_calls=calls)

    def _pay(self, id_: str, amount: int) -> Any:
        agent: Agent = self.agent
        arguments: dict[str, Any] = {agent.amount: str(amount) if "words" in agent.has else amount}
        if "desk" not in agent.has:
            arguments["note"] = "please"
        else:
            arguments["to"] = "desk"
        return tool_call(name=agent.pay, args=arguments, id=id_)


class Remember(AgentMiddleware[Any, Any]):
    """A middleware that only looks."""

    def before_model(self, state: Any, runtime: Any) -> None:
        return None


class Approval(HumanInTheLoopMiddleware):
    """The same approval under another name."""


class Wider(AgentState[Any]):
    mood: str


def graphs(agent: Agent, world: World) -> dict[str, Pregel[Any, Any, Any, Any]]:
    return {
        "agent": _agent(agent, world),
        "stops": _agent(agent, world, interrupt_before=["tools"], approves=False),
        "inside": _inside(agent, world),
    }


def _inside(agent: Agent, world: World) -> Pregel[Any, Any, Any, Any]:
    """The agent as a node of a graph."""
    graph = StateGraph(MessagesState)
    graph.add_node(agent.name, _agent(agent, world))
    graph.add_node("file", _filing(world))
    graph.add_edge(START, agent.name)
    graph.add_edge(agent.name, "file")
    graph.add_edge("file", END)
    return graph.compile()


def _filing(world: World) -> Any:
    async def file(state: Any) -> None:
        world.did("filed")

    return file


def _agent(
    agent: Agent, world: World, *, interrupt_before: list[str] | None = None, approves: bool = True
) -> Pregel[Any, Any, Any, Any]:
    kind = Approval if "approval" in agent.has else HumanInTheLoopMiddleware
    middleware: list[Any] = [kind(interrupt_on={agent.pay: True})] if approves and "trusting" not in agent.has else []
    if "remember" in agent.has:
        middleware.append(Remember())
    return create_agent(
        Scripted(agent=agent),
        tools=_tools(agent, world),
        system_prompt="Be kinder." if "kinder" in agent.has else "Be kind.",
        middleware=middleware,
        state_schema=Wider if "mood" in agent.has else None,
        interrupt_before=interrupt_before,
    )


def _tools(agent: Agent, world: World) -> list[Any]:
    tools = [_look(world)]
    if "no_refund" not in agent.has:
        tools.append(_pay(agent, world))
    if "more" in agent.has:
        tools.append(_more())
    return tools


def _look(world: World) -> Any:
    @tool
    async def look(what: str) -> str:
        """Look at something."""
        answer = interrupt("tool?")
        world.did("looked")
        return f"{what}: {answer}"

    return look


def _more() -> Any:
    @tool
    async def more(what: str) -> str:
        """More of something."""
        return what

    return more


def _pay(agent: Agent, world: World) -> Any:
    if "desk" in agent.has:

        @tool(agent.pay)
        async def pay_to(amt: int, to: str = "everyone") -> str:
            """Give money back."""
            world.did(f"paid {amt} to {to}")
            return f"paid {amt} to {to}"

        return pay_to
    if "words" in agent.has:

        @tool(agent.pay)
        async def pay_words(amt: str, note: str) -> str:
            """Give money back."""
            world.did(f"paid {int(amt)}")
            return f"paid {int(amt)}"

        return pay_words
    if agent.amount == "amount":

        @tool(agent.pay)
        async def pay_amount(amount: int, note: str) -> str:
            """Give money back."""
            world.did(f"paid {amount}")
            return f"paid {amount}"

        return pay_amount

    @tool(agent.pay)
    async def pay(amt: int, note: str) -> str:
        """Give money back."""
        world.did(f"paid {amt}")
        return f"paid {amt}"

    return pay
