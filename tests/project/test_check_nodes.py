"""Mistakes that the build refuses and the files alone show: each with its code, its line and its column."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from changeover.project.check import analyse
from changeover.project.problems import Problem

AGENTS = "models: {m: {model: demo:rules}}\nagents:\n  a: {model: m}\n"
HELPERS = "async def f(s): ...\n"
HEAD = "state: {k: str, messages: messages}\nnodes:\n"
N, M = "  n: {python: graphs.h:f}\n", "  m: {python: graphs.h:f}\n"
EDGES = "edges: [{from: START, to: n}, {from: n, to: END}]\n"


def problems(files: Mapping[str, str], env: Mapping[str, str] | None = None) -> list[Problem]:
    return analyse({path: text.encode() for path, text in files.items()}, env or {})[1]


def brief(found: list[Problem]) -> list[str]:
    return [f"{each.path}:{each.line}:{each.column} {each.code}" for each in found]


def graph(text: str) -> dict[str, str]:
    tools = "tools: {t: {python: graphs.h:f}}\n"
    return {"agents.yaml": AGENTS, "tools.yaml": tools, "graphs/g.yaml": text, "graphs/h.py": HELPERS}


def node(entry: str) -> str:
    return HEAD + f"  n: {{{entry}}}\n" + EDGES


def edge(written: str, nodes: str = N + M) -> str:
    return HEAD + nodes + f"edges:\n  - {{from: START, to: [n, m]}}\n  - {{from: [n, m], to: END}}\n  - {written}\n"


HANDS_OFF = "  n: {agent: a, handoffs: [m]}\n" + M

GRAPHS: list[tuple[str, str, list[str]]] = [
    ("from nothing", edge("{from: [], to: n}"), ["8:12 edge"]),
    ("join with a switch", edge("{from: [n, m], switch: k, to: {else: END}}"), ["8:20 edge"]),
    ("join with a route", edge("{from: [n, m], route: 'graphs.h:f', to: [END]}"), ["8:20 edge"]),
    ("join from START", edge("{from: [n, START], to: END}"), ["8:16 unknown-target"]),
    ("join from a node with handoffs", edge("{from: n, to: END}", HANDS_OFF), ["7:13 edge"]),
    (
        "handoffs and mapped messages",
        HEAD + "  n: {agent: a, handoffs: [m], output: {k: messages}}\n" + M + "edges:\n"
        "  - {from: START, to: n}\n  - {from: m, to: END}\n",
        ["3:17 handoff"],
    ),
    ("no nodes", "state: {k: str}\nnodes: {}\nedges: []\n", ["2:1 graph"]),
    ("no time", node("python: 'graphs.h:f', timeout: 0"), ["3:38 node"]),
    ("negative time", node("python: 'graphs.h:f', timeout: -1.5"), ["3:38 node"]),
    ("timeout of an interrupt", node("interrupt: Well?, timeout: 5"), ["3:34 sync-timeout"]),
    ("key of a retry policy", node("python: 'graphs.h:f', retry_policy: {max_attemps: 2}"), ["3:44 unknown-key"]),
    ("key of a cache policy", node("python: 'graphs.h:f', cache_policy: {tll: 2}"), ["3:44 unknown-key"]),
    (
        "retry on nothing known",
        node("python: 'graphs.h:f', retry_policy: {retry_on: [OSError, Nope]}"),
        ["3:64 import"],
    ),
    ("retry on no exception", node("python: 'graphs.h:f', retry_policy: {retry_on: len}"), ["3:54 import"]),
    (
        "retry on what is not there",
        node("python: 'graphs.h:f', retry_policy: {retry_on: 'graphs.h:x'}"),
        ["3:54 import"],
    ),
    ("key_func not there", node("python: 'graphs.h:f', cache_policy: {key_func: 'graphs.h:x'}"), ["3:54 import"]),
    ("save of a function", node("python: 'graphs.h:f', save: k"), ["3:29 unknown-key"]),
    ("input of a function", node("python: 'graphs.h:f', input: {k: k}"), ["3:29 unknown-key"]),
    ("output of an interrupt", node("interrupt: Well?, output: {k: k}"), ["3:25 unknown-key"]),
    ("handoffs of a function", node("python: 'graphs.h:f', handoffs: [n]"), ["3:29 unknown-key"]),
    ("tools without messages", "state: {k: str}\nnodes:\n  n: {tools: [t]}\n" + EDGES, ["3:7 unknown-state-key"]),
    (
        "switch to an empty list",
        edge("{from: n, switch: k, to: {x: [], else: END}}"),
        ["8:34 edge"],
    ),
    ("limit of a graph", HEAD + N + EDGES + "config: {recursion_limit: 0}\n", ["5:27 wrong-type"]),
    ("config of a graph", HEAD + N + EDGES + "config: {recursion_limt: 9}\n", ["5:10 unknown-key"]),
]


@pytest.mark.parametrize(("text", "expected"), [case[1:] for case in GRAPHS], ids=[case[0] for case in GRAPHS])
def test_a_mistake_in_a_graph_has_its_place(text: str, expected: list[str]) -> None:
    assert brief(problems(graph(text))) == [f"graphs/g.yaml:{each}" for each in expected]


def model(params: str) -> str:
    return f"models:\n  m:\n    model: demo:rules\n    params: {params}\nagents: {{a: {{model: m}}}}\n"


def agent(entry: str) -> str:
    return f"models: {{m: {{model: demo:rules}}}}\nagents:\n  a: {{model: m, {entry}}}\n"


IN_AGENTS: list[tuple[str, str, list[str]]] = [
    ("limit that is text", agent("config: {recursion_limit: '9'}"), ["3:43 wrong-type"]),
    ("limit that is true", agent("config: {recursion_limit: true}"), ["3:43 wrong-type"]),
    ("config of an agent", agent("config: {recursion: 9}"), ["3:26 unknown-key"]),
    ("key of demo:rules", model("{rulez: []}"), ["4:14 model"]),
    ("rule without call", model("{rules: [{when: x}]}"), ["4:22 model"]),
    ("rule without when", model("{rules: [{call: x}]}"), ["4:22 model"]),
    ("key of a rule", model("{rules: [{when: x, call: x, then: y}]}"), ["4:41 model"]),
    ("regex", model("{rules: [{when: '(', call: x}]}"), ["4:29 model"]),
    ("latency", model("{latency: soon}"), ["4:23 model"]),
    ("chunk", model("{chunk: 0}"), ["4:21 model"]),
    ("another demo model", "models: {m: {model: demo:x}}\nagents: {a: {model: m}}\n", ["1:21 unknown-model"]),
    ("a demo model of an agent", AGENTS + "  b: {model: demo:x}\n", ["4:14 unknown-model"]),
    ("middleware twice", agent("middleware: [todo_list, todo_list]"), ["3:41 agent"]),
    (
        "middleware twice with arguments",
        agent("middleware: [model_call_limit: {run_limit: 1}, model_call_limit: {run_limit: 2}]"),
        ["3:64 agent"],
    ),
    ("required argument", agent("middleware: [human_in_the_loop]"), ["3:30 middleware"]),
    ("required among others", agent("middleware: [human_in_the_loop: {description_prefix: x}]"), ["3:30 middleware"]),
]


@pytest.mark.parametrize(("text", "expected"), [case[1:] for case in IN_AGENTS], ids=[case[0] for case in IN_AGENTS])
def test_a_mistake_in_agents_has_its_place(text: str, expected: list[str]) -> None:
    assert brief(problems({"agents.yaml": text})) == [f"agents.yaml:{each}" for each in expected]


GOOD_NODES = [
    "python: 'graphs.h:f', timeout: 1, retry_policy: {max_attempts: 2, retry_on: [ConnectionError, 'graphs.h:f']}",
    "python: 'graphs.h:f', cache_policy: {ttl: 60, key_func: 'graphs.h:f'}",
    "tools: [t], timeout: 5",
    "agent: a, save: k, input: {messages: messages}, output: {k: structured_response}",
    "interrupt: Well?, save: k",
]


@pytest.mark.parametrize("entry", GOOD_NODES)
def test_what_a_node_takes_is_no_mistake(entry: str) -> None:
    assert brief(problems(graph(node(entry)))) == []


GOOD_AGENTS = [
    agent("config: {recursion_limit: 1, tags: [x], run_name: y}"),
    agent("middleware: [{pii: {pii_type: email}}, {pii: {pii_type: ip}}]"),
    agent("middleware: [{tool_call_limit: {tool_name: a, run_limit: 1}}, {tool_call_limit: {run_limit: 9}}]"),
    agent("middleware: [{human_in_the_loop: {interrupt_on: {t: true}}}]"),
    model("{rules: [{when: '(?P<n>a)', call: t}], latency: 200ms, chunk: 3, tags: [x]}"),
    model("{latency: '${SLOW}'}"),
]


@pytest.mark.parametrize("text", GOOD_AGENTS)
def test_what_an_agent_takes_is_no_mistake(text: str) -> None:
    assert brief(problems({"agents.yaml": text}, {"SLOW": "2s"})) == []


def test_the_sample_is_still_without_a_problem(sample: Path) -> None:
    files = {path.relative_to(sample).as_posix(): path for path in sample.rglob("*") if path.is_file()}
    content = {name: path.read_bytes() for name, path in files.items() if path.suffix != ".pyc"}
    assert analyse(content, {})[1] == []
