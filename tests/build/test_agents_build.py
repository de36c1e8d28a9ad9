"""Agents: every key of agents.yaml, run for real."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from build_samples import MODELS, ORDERS, Make
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from changeover.build.middleware import build_middleware
from changeover.errors import InvalidRequest
from changeover.project.middleware import provided_middleware

TOOLS = """
tools:
  lookup_order: {python: graphs.orders:lookup_order}
  refund: {python: graphs.orders:refund}
  ask_billing: {agent: billing}
"""
TYPES = """
from typing_extensions import TypedDict
from pydantic import BaseModel
from langchain.agents import AgentState

class Desk(AgentState):
    shift: str

class Loose(TypedDict):
    shift: str

class Ticket(BaseModel):
    title: str
    count: int
"""
AGENTS = (
    MODELS
    + """
  front:
    model: demo:rules
    params: {rules: [{when: '(?i)ask billing: (?P<request>.*)', call: ask_billing}]}
agents:
  front: {model: front, tools: [ask_billing]}
  support:
    description: Front desk
    model: demo
    prompt: support
    tools: [lookup_order, refund, ask_billing]
  careful:
    model: demo
    tools: [refund]
    middleware:
      - human_in_the_loop: {interrupt_on: {refund: true}}
      - model_call_limit: {run_limit: 10}
  billing:
    description: Knows about money
    model: demo
    prompt: {text: You are billing.}
    tools: [refund]
    middleware:
      - human_in_the_loop: {interrupt_on: {refund: true}}
  tenant:
    model: demo
    prompt: {text: "You serve {{ tenant }}."}
    context: {tenant: str}
  typed: {model: demo, output: "graphs.types:Ticket"}
  stateful: {model: demo, state: "graphs.types:Loose"}
  stateful2: {model: demo, state: "graphs.types:Desk", config: {recursion_limit: 7}}
"""
)
FILES = {
    "agents.yaml": AGENTS,
    "tools.yaml": TOOLS,
    "graphs/orders.py": ORDERS,
    "graphs/types.py": TYPES,
    "prompts/support.md": (
        "---\nvariables: {company: {default: Acme}}\n---\nFront desk of {{ company }}.\n{% include 'tone.md' %}\n"
    ),
    "prompts/tone.md": "Be kind.\n",
}


def ask(text: str) -> dict[str, Any]:
    return {"messages": [("user", text)]}


async def test_an_agent_calls_a_tool_and_answers(make: Make) -> None:
    answer = await make(FILES).agent("support").ainvoke(ask("Where is A-1042?"))
    assert "A-1042 is on its way" in answer["messages"][-1].text
    assert "Front desk of Acme." in answer["messages"][-1].text


def test_an_agent_is_made_once_and_named(make: Make) -> None:
    parts = make(FILES)
    assert parts.agent("support") is parts.graph("support")
    assert parts.agent("support").name == "support"
    assert parts.agent("support").checkpointer is None


async def test_a_prompt_is_rendered_with_the_context_of_the_call(make: Make) -> None:
    agent = make(FILES).agent("tenant")
    for tenant in ("Acme", "Globex"):
        answer = await agent.ainvoke(ask("hi"), context={"tenant": tenant})
        assert f"You serve {tenant}." in answer["messages"][-1].text
    assert "You serve Acme." in agent.invoke(ask("hi"), context={"tenant": "Acme"})["messages"][-1].text


async def test_a_missing_context_is_said(make: Make) -> None:
    with pytest.raises(InvalidRequest, match=r"agent 'tenant'.*'tenant' is undefined"):
        await make(FILES).agent("tenant").ainvoke(ask("hi"))


async def test_structured_output_is_given(make: Make) -> None:
    answer = await make(FILES).agent("typed").ainvoke(ask("I need 4"))
    assert answer["structured_response"].count == 4


async def test_further_state_keys_are_kept(make: Make) -> None:
    parts = make(FILES)
    for name in ("stateful", "stateful2"):
        answer = await parts.agent(name).ainvoke({**ask("hi"), "shift": "night"})
        assert answer["shift"] == "night"
    assert parts.agent("stateful2").config["recursion_limit"] == 7


async def test_a_person_approves_a_tool_call(make: Make) -> None:
    agent = make(FILES).agent("careful").copy({"checkpointer": InMemorySaver()})
    config = {"configurable": {"thread_id": "t"}}
    first = await agent.ainvoke(ask("refund 5 for A-1"), config)
    assert first["__interrupt__"][0].value["action_requests"][0]["name"] == "refund"
    done = await agent.ainvoke(Command(resume={"decisions": [{"type": "approve"}]}), config)
    assert "5.0 refunded for A-1" in done["messages"][-1].text


async def test_an_interrupt_inside_an_agent_that_is_a_tool_reaches_the_person(make: Make) -> None:
    agent = make(FILES).agent("front").copy({"checkpointer": InMemorySaver()})
    config = {"configurable": {"thread_id": "t"}}
    first = await agent.ainvoke(ask("ask billing: refund 5 for A-1"), config)
    assert first["__interrupt__"][0].value["action_requests"][0]["name"] == "refund"
    done = await agent.ainvoke(Command(resume={"decisions": [{"type": "approve"}]}), config)
    assert [message.name for message in done["messages"] if message.type == "tool"] == ["ask_billing"]
    assert "5.0 refunded for A-1" in done["messages"][-1].text
    again = await agent.ainvoke(ask("ask billing: hello"), config)
    assert "refunded" not in again["messages"][-1].text  # a call is a conversation of its own


async def test_tokens_of_an_agent_that_is_a_tool_are_streamed_from_inside(make: Make) -> None:
    agent = make(FILES).agent("support")
    spaces = set()
    async for space, (chunk, _) in agent.astream(ask("ask billing: hello"), stream_mode="messages", subgraphs=True):
        if "billing" in chunk.text:
            spaces.add(len(space))
    assert 1 in spaces


def test_all_problems_of_an_agent_are_told_at_once(make: Make, fails: Callable[..., Any]) -> None:
    bad = (
        MODELS
        + """
agents:
  bad:
    model: demo
    tools: [lookup_ordr]
    prompt: {text: "{{ nothing }}"}
    middleware:
      - model_call_limt
      - model_call_limit: {run_limits: 3}
    state: graphs.types:Gone
"""
    )
    failure = fails(lambda: make({**FILES, "agents.yaml": bad}).agent("bad"))
    assert failure.codes == ["unknown-tool", "unknown-middleware", "unknown-key", "prompt-variable", "import"]
    hints = [problem.hint for problem in failure.problems]
    assert hints[:3] == [
        "did you mean 'lookup_order'?",
        "did you mean 'model_call_limit'?",
        "did you mean 'run_limit'?",
    ]


@pytest.mark.parametrize("name", ["human_in_the_loop", "model_call_limit", "summarization", "pii", "todo_list"])
def test_middleware_is_found_by_its_name(name: str) -> None:
    assert name in provided_middleware()


def with_middleware(text: str) -> str:
    return MODELS + "agents:\n  a:\n    model: demo\n    middleware:\n" + text


def test_arguments_are_fitted_to_annotations(make: Make) -> None:
    text = with_middleware("""
      - summarization: {model: demo, trigger: [[tokens, 60000], [messages, 50]], keep: [messages, 5]}
      - context_editing: {edits: [{class: ClearToolUsesEdit, with: {trigger: 500}}]}
      - model_fallback: {first_model: demo, additional_models: [demo]}
      - tool_retry: {retry_on: [graphs.own:Flaky], max_retries: 1}
      - graphs.own:Audit: {label: x}
""")
    own = """
        from langchain.agents.middleware import AgentMiddleware
        class Flaky(Exception): ...
        class Audit(AgentMiddleware):
            def __init__(self, label: str) -> None:
                self.label = label
    """
    parts = make({"agents.yaml": text, "graphs/own.py": own})
    summary, editing, fallback, retry, audit = build_middleware("a", parts.project.agents["a"].middleware, parts)
    assert summary.model is parts.model("demo")
    assert summary.trigger == [("tokens", 60000), ("messages", 50)]
    assert summary.keep == ("messages", 5)
    assert editing.edits[0].trigger == 500
    assert fallback.models == [parts.model("demo")] * 2
    assert retry.retry_on[0].__name__ == "Flaky"
    assert audit.label == "x"
    assert parts.agent("a")


def test_one_trigger_is_a_tuple(make: Make) -> None:
    parts = make({"agents.yaml": with_middleware("      - summarization: {model: demo, trigger: [tokens, 60000]}\n")})
    (summary,) = build_middleware("a", parts.project.agents["a"].middleware, parts)
    assert summary.trigger == ("tokens", 60000)


def test_fallback_models_become_middleware(make: Make) -> None:
    text = """
models:
  broken: {model: 'demo:rules', params: {rules: [{when: '.', call: x}]}, fallbacks: [spare]}
  spare: {model: 'demo:rules'}
agents: {a: {model: broken}}
"""
    assert make({"agents.yaml": text}).agent("a").invoke(ask("hi"))["messages"][-1].text


def test_a_decision_for_one_tool_may_be_written_out(make: Make) -> None:
    text = with_middleware(
        "      - human_in_the_loop: {interrupt_on: {refund: {allowed_decisions: [approve, reject]}}}\n"
    )
    parts = make({"agents.yaml": text})
    (middleware,) = build_middleware("a", parts.project.agents["a"].middleware, parts)
    assert middleware.interrupt_on["refund"]["allowed_decisions"] == ["approve", "reject"]
