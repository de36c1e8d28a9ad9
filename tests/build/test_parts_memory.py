"""What is built must not hold what it was built from: an unchanged graph outlives the version that made it."""

from __future__ import annotations

import gc
import weakref

from build_samples import MODELS, ORDERS, Make

AGENTS = """
agents:
  a: {model: demo, tools: [lookup_order, b], context: {tenant: str}, prompt: {text: "{{ tenant }}"}}
  b: {model: demo, middleware: [{model_call_limit: {run_limit: 3}}]}
"""
GRAPH = """
state: {messages: messages, n: {type: int, default: 1, reducer: max}, decision: any}
nodes:
  a: {agent: a, handoffs: [b]}
  b: {agent: b, output: {n: n}}
  ask: {interrupt: "{{ n }}", save: decision}
edges:
  - {from: START, to: a}
  - {from: a, route: "graphs.orders:route", to: [ask]}
  - {from: b, switch: n, to: {else: ask}}
"""


def test_a_compiled_graph_lets_go_of_its_parts(make: Make) -> None:
    parts = make(
        {
            "agents.yaml": MODELS + AGENTS,
            "tools.yaml": "tools: {lookup_order: {python: 'graphs.orders:lookup_order'}, b: {agent: b}}",
            "graphs/orders.py": ORDERS + "\ndef route(state): return 'ask'\n",
            "graphs/g.yaml": GRAPH,
        }
    )
    graph = parts.graph("g")
    gone = weakref.ref(parts)
    del parts
    gc.collect()
    assert gone() is None
    assert graph.name == "g"
