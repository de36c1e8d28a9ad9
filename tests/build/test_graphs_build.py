"""YAML graphs, run end to end: every node kind, every edge kind, every node setting."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from build_samples import MODELS, ORDERS, Make
from langchain_core.messages import AIMessage, ToolMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import NodeTimeoutError
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Command

from changeover.build.handoffs import handoff_tool

HELPERS = """
import asyncio
from langchain_core.runnables import RunnableLambda
from langgraph.types import Command, Send
from typing_extensions import TypedDict
from pydantic import BaseModel

class Ticket(BaseModel):
    title: str
    count: int

class Narrow(TypedDict):
    messages: list

CALLS = {"n": 0}

def triage(state):
    text = state["messages"][-1].text
    return {"topic": "legal" if "sue" in text else "urgent" if "now" in text else "other", "audit": "triage"}

def narrow(state: Narrow):
    return {"audit": "narrow"}

async def later(state):
    return {"audit": "later"}

class Callable_:
    async def __call__(self, state):
        return {"audit": "callable"}

runnable = RunnableLambda(lambda state: {"audit": "runnable"})

def a(state): return {"audit": "a"}
def b(state): return {"audit": "b"}
def c(state): return {"audit": "c"}
def d(state): return {"audit": "d:" + str(state.get("item", ""))}

async def slow(state):
    await asyncio.sleep(30)

def count(state):
    CALLS["n"] += 1
    return {"audit": f"call {CALLS['n']}"}

def flaky(state):
    CALLS["n"] += 1
    if CALLS["n"] < 3:
        raise ConnectionError("not yet")
    return {"audit": f"attempt {CALLS['n']}"}

def fails(state):
    raise LookupError("gone")

def rescue(state):
    return {"audit": "rescued"}

def jump(state):
    return Command(goto="b", update={"audit": "jump"})

def one(state): return "b"
async def many(state): return ["b", "c"]
def to_end(state): return "END"
def sends(state, config): return [Send("d", {"item": n}) for n in (1, 2)]
def nowhere(state): return "nope"
def send_nowhere(state): return [Send("nope", {})]
def labelled(state): return True
def after(state): return "billing" if "more" in state["messages"][0].text else "END"
"""
STATE = """
state:
  messages: messages
  topic: {type: str, default: other}
  flag: any
  item: any
  decision: any
  ticket: {type: "graphs.helpers:Ticket?"}
  audit: {type: list[str], reducer: append}
"""


TOOLS = """
tools:
  lookup_order: {python: graphs.orders:lookup_order}
  refund: {python: graphs.orders:refund}
"""


def project(graph: str, agents: str = "", **more: str) -> dict[str, str]:
    return {
        "agents.yaml": MODELS + agents,
        "tools.yaml": TOOLS,
        "graphs/orders.py": ORDERS,
        "graphs/helpers.py": HELPERS,
        "graphs/g.yaml": STATE + graph,
        **{path.replace("__", "/") + ".yaml": STATE + text for path, text in more.items()},
    }


def line_of(*nodes: str) -> str:
    """A graph that runs these Python helpers one after the other."""
    listed = "\n".join(f"  {node}: {{python: 'graphs.helpers:{node}'}}" for node in nodes)
    stops = ["START", *nodes, "END"]
    edges = "\n".join(f"  - {{from: {one}, to: {two}}}" for one, two in itertools.pairwise(stops))
    return f"nodes:\n{listed}\nedges:\n{edges}\n"


def nodes(*names: str) -> str:
    return "nodes:\n" + "\n".join(f"  {name}: {{python: 'graphs.helpers:{name}'}}" for name in names) + "\n"


def says(text: str = "hi") -> dict[str, Any]:
    return {"messages": [("user", text)]}


def saved(graph: Any) -> tuple[Any, dict[str, Any]]:
    return graph.copy({"checkpointer": InMemorySaver()}), {"configurable": {"thread_id": "t"}}


# --- nodes ---------------------------------------------------------------------------------------------------------


async def test_python_nodes_of_every_shape(make: Make) -> None:
    answer = (
        await make(project(line_of("triage", "narrow", "later", "Callable_", "runnable"))).graph("g").ainvoke(says())
    )
    assert answer["audit"] == ["triage", "narrow", "later", "callable", "runnable"]


def test_a_graph_is_named_and_has_no_saver(make: Make) -> None:
    graph = make(project(line_of("a") + "config: {recursion_limit: 9}\n")).graph("g")
    assert isinstance(graph, CompiledStateGraph)
    assert (graph.name, graph.checkpointer, graph.store, graph.cache) == ("g", None, None, None)
    assert graph.config["recursion_limit"] == 9


async def test_an_agent_node_is_a_real_subgraph(make: Make) -> None:
    graph = make(
        project(
            "nodes: {support: {agent: support}}\nedges: [{from: START, to: support}, {from: support, to: END}]\n",
            "agents: {support: {model: demo, tools: [lookup_order]}}",
        )
    ).graph("g")
    assert [name for name, _ in graph.get_subgraphs()] == ["support"]
    spaces = [space async for space, _ in graph.astream(says("where is A-1?"), stream_mode="updates", subgraphs=True)]
    assert any(space and space[0].startswith("support:") for space in spaces)
    answer = await graph.ainvoke(says("where is A-1?"))
    assert "A-1 is on its way" in answer["messages"][-1].text
    assert len(answer["messages"]) == 4


async def test_a_person_approves_inside_an_agent_node(make: Make) -> None:
    graph, config = saved(
        make(
            project(
                "nodes: {pay: {agent: pay}}\nedges: [{from: START, to: pay}, {from: pay, to: END}]\n",
                """
agents:
  pay:
    model: demo
    tools: [refund]
    middleware: [{human_in_the_loop: {interrupt_on: {refund: true}}}]
""",
            )
        ).graph("g")
    )
    first = await graph.ainvoke(says("refund 5 for A-1"), config)
    assert first["__interrupt__"][0].value["action_requests"][0]["args"] == {"amount": 5.0, "order_id": "A-1"}
    done = await graph.ainvoke(Command(resume={"decisions": [{"type": "approve"}]}), config)
    assert "5.0 refunded for A-1" in done["messages"][-1].text


async def test_save_keeps_the_structured_answer_of_an_agent(make: Make) -> None:
    graph = make(
        project(
            "nodes: {t: {agent: t, save: ticket}}\nedges: [{from: START, to: t}, {from: t, to: END}]\n",
            "agents: {t: {model: demo, output: 'graphs.helpers:Ticket'}}",
        )
    ).graph("g")
    assert (await graph.ainvoke(says("4 boxes")))["ticket"].count == 4
    assert graph.invoke(says("5 boxes"))["ticket"].count == 5
    assert [name for name, _ in graph.get_subgraphs()] == ["t"]


async def test_a_graph_node_shares_keys_of_the_same_name_and_maps_others(make: Make) -> None:
    inner = """
nodes: {ask: {interrupt: 'About {{ topic }}?', save: decision}}
edges: [{from: START, to: ask}, {from: ask, to: END}]
"""
    outer = """
nodes:
  same: {graph: inner}
  mapped: {graph: inner, input: {topic: flag}, output: {item: decision}}
edges: [{from: START, to: same}, {from: same, to: mapped}, {from: mapped, to: END}]
"""
    graph, config = saved(make(project(outer, graphs__inner=inner)).graph("g"))
    first = await graph.ainvoke({"flag": "money", "topic": "law"}, config)
    assert first["__interrupt__"][0].value == "About law?"
    second = await graph.ainvoke(Command(resume="yes"), config)
    assert second["__interrupt__"][0].value == "About money?"
    done = await graph.ainvoke(Command(resume="no"), config)
    assert (done["decision"], done["item"], done["topic"]) == ("yes", "no", "law")
    assert {name for name, _ in graph.get_subgraphs()} == {"same", "mapped"}


async def test_a_tools_node_runs_the_calls_of_the_last_message(make: Make) -> None:
    graph = make(
        project("nodes: {t: {tools: [lookup_order]}}\nedges: [{from: START, to: t}, {from: t, to: END}]\n")
    ).graph("g")
    call = AIMessage("", tool_calls=[{"name": "lookup_order", "args": {"order_id": "A-1"}, "id": "c"}])
    assert (await graph.ainvoke({"messages": [call]}))["messages"][-1].text == "A-1 is on its way"


async def test_an_interrupt_may_ask_with_a_payload(make: Make) -> None:
    text = """
nodes: {ask: {interrupt: {question: "Take {{ topic }}?", options: [1, "{{ flag }}"]}}}
edges: [{from: START, to: ask}, {from: ask, to: END}]
"""
    graph, config = saved(make(project(text)).graph("g"))
    first = await graph.ainvoke({"topic": "it"}, config)
    assert first["__interrupt__"][0].value == {"question": "Take it?", "options": [1, "None"]}
    assert (await graph.ainvoke(Command(resume="y"), config))["topic"] == "it"


# --- settings ------------------------------------------------------------------------------------------------------


async def test_a_node_is_tried_again(make: Make) -> None:
    text = line_of("flaky").replace(
        "flaky'}", "flaky', retry_policy: {max_attempts: 3, initial_interval: 0.01, retry_on: [ConnectionError]}}"
    )
    assert (await make(project(text)).graph("g").ainvoke(says()))["audit"] == ["attempt 3"]


async def test_each_graph_has_a_cache_of_its_own(make: Make) -> None:
    text = line_of("count").replace("count'}", "count', cache_policy: {ttl: 60}}")
    graph = make(project(text)).graph("g")
    assert [(await graph.ainvoke({"topic": "x"}))["audit"] for _ in range(2)] == [["call 1"]] * 2
    assert make(project(text)).graph("g").cache is not graph.cache


async def test_a_node_that_takes_too_long_is_stopped(make: Make) -> None:
    graph = make(project(line_of("slow").replace("slow'}", "slow', timeout: 0.05}"))).graph("g")
    with pytest.raises(NodeTimeoutError):
        await asyncio.wait_for(graph.ainvoke(says()), 10)


async def test_an_error_handler_takes_over(make: Make) -> None:
    text = line_of("fails").replace("fails'}", "fails', error_handler: 'graphs.helpers:rescue', metadata: {k: v}}")
    assert (await make(project(text)).graph("g").ainvoke(says()))["audit"] == ["rescued"]


async def test_destinations_and_defer(make: Make) -> None:
    text = """
nodes:
  jump: {python: 'graphs.helpers:jump', destinations: [b, END]}
  b: {python: 'graphs.helpers:b', defer: true}
edges: [{from: START, to: jump}, {from: b, to: END}]
"""
    graph = make(project(text)).graph("g")
    assert (await graph.ainvoke(says()))["audit"] == ["jump", "b"]
    assert ("jump", "b") in {(edge.source, edge.target) for edge in graph.get_graph().edges}


# --- edges ---------------------------------------------------------------------------------------------------------


async def test_edges_fan_out_and_join(make: Make) -> None:
    text = (
        nodes("a", "b", "c", "d")
        + """
edges: [{from: START, to: a}, {from: a, to: [b, c]}, {from: [b, c], to: d}, {from: d, to: END}]
"""
    )
    assert (await make(project(text)).graph("g").ainvoke(says()))["audit"] == ["a", "b", "c", "d:"]


SWITCH = (
    nodes("narrow", "b", "c", "d")
    + """
edges:
  - {from: START, to: narrow}
  - {from: narrow, switch: flag, to: {legal: b, "true": [b, c], 3: c, "null": END, else: d}}
"""
)


@pytest.mark.parametrize(
    ("flag", "ran"),
    [("legal", ["b"]), (True, ["b", "c"]), (3, ["c"]), (3.0, ["c"]), (None, []), ("x", ["d:"]), (False, ["d:"])],
)
async def test_a_switch_compares_a_state_key(make: Make, flag: Any, ran: list[str]) -> None:
    answer = await make(project(SWITCH)).graph("g").ainvoke({"flag": flag})
    assert answer["audit"][1:] == ran


async def test_a_switch_without_a_case_says_so(make: Make) -> None:
    graph = make(project(SWITCH.replace(", else: d", ""))).graph("g")
    with pytest.raises(ValueError, match="'x' has no case"):
        await graph.ainvoke({"flag": "x"})


def route(function: str, to: str = "") -> str:
    edge = f"{{from: a, route: 'graphs.helpers:{function}'{to}}}"
    return nodes("a", "b", "c", "d") + f"edges: [{{from: START, to: a}}, {edge}]\n"


@pytest.mark.parametrize(
    ("function", "to", "ran"),
    [
        ("one", "", ["b"]),
        ("one", ", to: [b, END]", ["b"]),
        ("many", ", to: [b, c]", ["b", "c"]),
        ("to_end", ", to: [b, END]", []),
        ("to_end", "", []),
        ("sends", ", to: [d]", ["d:1", "d:2"]),
        ("labelled", ", to: {'true': c, 'false': END}", ["c"]),
    ],
)
async def test_a_route_leads_where_it_says(make: Make, function: str, to: str, ran: list[str]) -> None:
    answer = await make(project(route(function, to))).graph("g").ainvoke(says())
    assert answer["audit"] == ["a", *ran]


@pytest.mark.parametrize("function", ["nowhere", "send_nowhere", "labelled"])
@pytest.mark.parametrize("to", ["", ", to: [b, END]"])
async def test_a_route_to_nowhere_says_where_it_may_lead(make: Make, function: str, to: str) -> None:
    with pytest.raises(ValueError, match=f"{function}.*may lead to: .*b"):
        await make(project(route(function, to))).graph("g").ainvoke(says())


async def test_a_graph_stops_before_and_after_a_node(make: Make) -> None:
    text = line_of("a", "b", "c") + "interrupt_before: [b]\ninterrupt_after: [b]\n"
    graph, config = saved(make(project(text)).graph("g"))
    assert (await graph.ainvoke(says(), config))["audit"] == ["a"]
    assert (await graph.ainvoke(None, config))["audit"] == ["a", "b"]
    assert (await graph.ainvoke(None, config))["audit"] == ["a", "b", "c"]


# --- handoffs ------------------------------------------------------------------------------------------------------

DESK = """
agents:
  support: {model: demo, tools: [lookup_order]}
  billing: {description: Money, model: demo, tools: [refund], prompt: {text: "You are billing."}}
"""
HANDOFF = """
nodes:
  support: {agent: support, handoffs: [billing]}
  billing: {agent: billing}
  c: {python: 'graphs.helpers:c'}
edges:
  - {from: START, to: support}
  - EDGE
  - {from: billing, to: END}
  - {from: c, to: END}
"""
EDGES = [
    "{from: support, to: c}",
    "{from: support, switch: topic, to: {else: c}}",
    "{from: support, route: 'graphs.helpers:to_c', to: [c]}",
    "{from: support, route: 'graphs.helpers:to_c_later'}",
]
ROUTES = "\ndef to_c(state): return 'c'\nasync def to_c_later(state, config): return 'c'\n"


@pytest.mark.parametrize("edge", EDGES)
async def test_a_handoff_replaces_the_edges_for_that_turn(make: Make, edge: str) -> None:
    files = project(HANDOFF.replace("EDGE", edge), DESK)
    files["graphs/helpers.py"] += ROUTES
    graph, config = saved(make(files).graph("g"))
    answer = await graph.ainvoke(says("talk to billing, refund 5 for A-1"), config)
    assert answer["audit"] == []
    assert "5.0 refunded for A-1" in answer["messages"][-1].text
    assert "You are billing." in answer["messages"][-1].text
    calls = [call["id"] for message in answer["messages"] for call in getattr(message, "tool_calls", [])]
    assert calls == [message.tool_call_id for message in answer["messages"] if message.type == "tool"]
    normal = await graph.ainvoke(says("where is A-1?"), config)
    assert normal["audit"] == ["c"]


def test_a_handoff_works_without_async(make: Make) -> None:
    graph = make(project(HANDOFF.replace("EDGE", EDGES[0]), DESK)).graph("g")
    assert "You are billing." in graph.invoke(says("talk to billing"))["messages"][-1].text


async def test_agents_hand_over_to_and_fro(make: Make) -> None:
    agents = """
  there: {model: demo:rules, params: {rules: [{when: ping, call: transfer_to_b}]}}
  back: {model: demo:rules, params: {rules: [{when: pong, call: transfer_to_a}]}}
agents: {a: {model: there, prompt: {text: I am a.}}, b: {model: back, prompt: {text: I am b.}}}
"""
    text = """
nodes: {a: {agent: a, handoffs: [b]}, b: {agent: b, handoffs: [a]}}
edges: [{from: START, to: a}, {from: a, to: END}, {from: b, to: END}]
"""
    graph = make(project(text, agents)).graph("g")
    assert "I am b." in (await graph.ainvoke(says("ping")))["messages"][-1].text
    both = await graph.ainvoke(says("ping pong"))
    assert "I am a." in both["messages"][-1].text
    assert [message.name for message in both["messages"] if message.type == "tool"] == [
        "transfer_to_b",
        "transfer_to_a",
    ]


async def test_a_handoff_keeps_the_mapped_keys(make: Make) -> None:
    text = HANDOFF.replace("EDGE", EDGES[0]).replace(
        "handoffs: [billing]", "handoffs: [billing], output: {flag: jump_to}"
    )
    graph = make(project(text, DESK)).graph("g")
    answer = await graph.ainvoke(says("talk to billing"))
    assert (answer["audit"], "You are billing." in answer["messages"][-1].text) == ([], True)


def test_a_handoff_waits_for_the_other_calls_of_the_same_message() -> None:
    calls = [
        {"name": "refund", "args": {}, "id": "c1"},
        {"name": "transfer_to_billing", "args": {}, "id": "c2"},
    ]
    answer = transferred([AIMessage("", tool_calls=calls)], "c2")
    assert isinstance(answer, ToolMessage)
    assert (answer.status, answer.tool_call_id) == ("error", "c2")


def test_of_two_handoffs_the_first_one_wins_and_both_are_answered() -> None:
    calls = [
        {"name": "transfer_to_billing", "args": {}, "id": "c1"},
        {"name": "transfer_to_legal", "args": {}, "id": "c2"},
    ]
    answer = transferred([AIMessage("", tool_calls=calls)], "c1")
    assert isinstance(answer, Command)
    assert [message.tool_call_id for message in answer.update["messages"][1:]] == ["c2", "c1"]


def transferred(messages: list[Any], call_id: str) -> Any:
    runtime = SimpleNamespace(state={"messages": messages}, tool_call_id=call_id)
    return handoff_tool("support", "billing").func(runtime)  # type: ignore[attr-defined]


# --- problems ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (line_of("a").replace("a'}", "a', timeout: 1}"), "sync-timeout"),
        (line_of("a").replace("a'}", "a', retry_policy: {max_attemps: 2}}"), "unknown-key"),
        (line_of("a").replace("helpers:a'", "helpers:gone'"), "import"),
        (line_of("a").replace("to: END", "to: nope"), "unknown-target"),
        (line_of("a").replace("from: a", "from: nope"), "unknown-target"),
        (nodes("a") + "edges: [{from: START, switch: nope, to: {else: a}}]\n", "unknown-key"),
        (nodes("a") + "edges: [{from: START, to: a}, {from: a}]\n", "edge"),
        ("nodes: {g: {graph: g}}\nedges: [{from: START, to: g}]\n", "cycle"),
        ("nodes: {x: {agent: nope}}\nedges: [{from: START, to: x}]\n", "unknown-agent"),
        (HANDOFF.replace("EDGE", "{from: [support, billing], to: c}"), "edge"),
        (HANDOFF.replace("EDGE", EDGES[0]).replace("[billing]", "[biling]"), "unknown-target"),
        (HANDOFF.replace("EDGE", EDGES[0]).replace("[billing]", "[billing], output: {flag: messages}"), "handoff"),
        (line_of("a") + "interrupt_before: [nope]\n", "graph"),
        (line_of("a") + "input: [nope]\n", "unknown-key"),
    ],
)
def test_problems_are_told_with_a_code_and_a_line(make: Make, fails: Callable[..., Any], text: str, code: str) -> None:
    failure = fails(lambda: make(project(text, DESK)).graph("g"))
    assert failure.codes == [code]
    assert failure.problems[0].path.startswith("graphs/g.yaml") or code == "unknown-agent"
