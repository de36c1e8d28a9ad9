"""Where the tool calls of an agent wait: what a migration rewrites when a tool or an argument was renamed."""

from __future__ import annotations

from typing import Any

from known_graphs import HERE, head, namespaces, writes_of
from langchain.agents import create_agent
from langchain.agents.middleware import HumanInTheLoopMiddleware
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command, Send, interrupt

REVIEW = "HumanInTheLoopMiddleware.after_model"


class Scripted(GenericFakeChatModel):
    def bind_tools(self, tools: Any, **options: Any) -> Any:
        return self


@tool
def refund(order: str, amount: int) -> str:
    """Pay back."""
    return f"{order}:{amount}"


@tool
def confirm(order: str) -> str:
    """Ask a person."""
    return str(interrupt(f"{order}?"))


def called(name: str, call_id: str, **arguments: Any) -> dict[str, Any]:
    return {"name": name, "args": arguments, "id": call_id, "type": "tool_call"}


def agent(*calls: dict[str, Any], review: bool, saver: Any = None) -> Any:
    script = Scripted(messages=iter([AIMessage("", tool_calls=[*calls]), AIMessage("done")]))
    middleware = [HumanInTheLoopMiddleware(interrupt_on={"refund": True})] if review else []
    return create_agent(script, [refund, confirm], middleware=middleware, checkpointer=saver)


async def test_a_call_that_waits_for_approval_is_in_the_last_message_and_in_the_request(memory: InMemorySaver) -> None:
    """Both are below, in the agent's namespace; above there is a copy of the request alone."""
    below = agent(called("refund", "c1", order="o", amount=2), review=True)
    graph: Any = StateGraph(MessagesState).add_node("support", below).add_edge(START, "support")
    graph = graph.compile(checkpointer=memory)
    await graph.ainvoke({"messages": [("user", "hi")]}, HERE)
    root, space = await namespaces(memory)
    inner = (await head(memory, space)).checkpoint["channel_values"]
    assert f"branch:to:{REVIEW}" in inner
    assert inner["messages"][-1].tool_calls == [called("refund", "c1", order="o", amount=2)]
    assert len((await head(memory, root)).checkpoint["channel_values"]["messages"]) == 1
    for namespace in (root, space):
        ((_, channel, (request,)),) = await writes_of(memory, namespace)
        assert channel == "__interrupt__"
        assert set(request.value) == {"action_requests", "review_configs"}
        (action,) = request.value["action_requests"]
        assert (action["name"], action["args"]) == ("refund", {"order": "o", "amount": 2})
        assert set(action) == {"name", "args", "description"}
        assert [config["action_name"] for config in request.value["review_configs"]] == ["refund"]
    final = await graph.ainvoke(Command(resume={"decisions": [{"type": "approve"}]}), HERE)
    assert [message.content for message in final["messages"]] == ["hi", "", "o:2", "done"]


async def test_calls_that_run_are_sent_one_by_one_each_as_a_list_of_one(memory: InMemorySaver) -> None:
    """They wait as Sends in the head, and the message still names them; a finished sibling has its answer written."""
    calls = [called("confirm", "c1", order="o"), called("refund", "c2", order="o", amount=2)]
    graph = agent(*calls, review=False, saver=memory)
    await graph.ainvoke({"messages": [("user", "hi")]}, HERE)
    values = (await head(memory)).checkpoint["channel_values"]
    assert values["__pregel_tasks"] == [Send("tools", [calls[0]]), Send("tools", [calls[1]])]
    assert values["messages"][-1].tool_calls == calls
    asking, done = (await graph.aget_state(HERE)).tasks
    kept = {(task, channel): value for task, channel, value in await writes_of(memory)}
    assert kept.keys() == {(asking.id, "__interrupt__"), (done.id, "messages"), (done.id, "branch:to:model")}
    assert [(answer.tool_call_id, answer.name) for answer in kept[done.id, "messages"]] == [("c2", "refund")]
