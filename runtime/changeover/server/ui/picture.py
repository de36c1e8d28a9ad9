"""A graph as the page draws it: nodes with their kinds, the boxes they lie in, edges; one alone or two compared. Pure.

Made from `GET /admin/versions/{v}/graphs/{g}`. A node of a graph within a node is `outer:inner` there, which is
LangGraph's name for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DRAWN_NODES = 400  # more than that are told as a list alone
STARTS, ENDS = "__start__", "__end__"
WORDS = {"function": "step", "subgraph": "graph", "middleware": "middleware", "interrupt": "asks", "tools": "tools"}

Json = dict[str, Any]


def picture(told: Mapping[str, Any]) -> Json:
    """What is drawn of one graph."""
    graph, contract = told["graph"], told["contract"]
    nodes = [_node(node, contract) for node in graph["nodes"]]
    boxes = dict.fromkeys(node["box"] for node in nodes if node["box"])
    return {
        "nodes": nodes,
        "edges": [_edge(edge) for edge in graph["edges"]],
        "boxes": [{"id": box, "name": box, "kind": _box_kind(contract, box), "change": ""} for box in boxes],
        "too_large": len(nodes) > DRAWN_NODES,
        "compares": False,
    }


def compared(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> Json:
    """Both graphs in one: each node, edge and box with its `change`: added, removed, changed or nothing."""
    old, new = (picture(told) if told else {"nodes": [], "edges": [], "boxes": []} for told in (before, after))
    contracts = tuple(told["contract"] if told else {} for told in (before, after))
    nodes = _united(old["nodes"], new["nodes"], "id")
    for node in nodes:
        mine, theirs = (contract_of(contract, node["id"]) for contract in contracts)
        if not node["change"] and mine != theirs:
            node["change"] = "changed"
    for edge in (*old["edges"], *new["edges"]):
        edge["id"] = (edge["from"], edge["to"], edge["label"])
    edges = _united(old["edges"], new["edges"], "id")
    for edge in edges:
        edge.pop("id")
    boxes = _united(old["boxes"], new["boxes"], "id")
    return {"nodes": nodes, "edges": edges, "boxes": boxes, "too_large": len(nodes) > DRAWN_NODES, "compares": True}


def differs(drawn: Mapping[str, Any]) -> bool:
    return any(each["change"] for name in ("nodes", "edges", "boxes") for each in drawn[name])


def contract_of(contract: Mapping[str, Any], node: str) -> Mapping[str, Any]:
    """What the contract says of a node, wherever it lies; nothing of a start or an end."""
    inside: Mapping[str, Any] | None = contract
    found: Mapping[str, Any] = {}
    for name in node.split(":"):
        found = ((inside or {}).get("nodes") or {}).get(name) or {}
        inside = found.get("subgraph")
    return found


def _node(node: Mapping[str, Any], contract: Mapping[str, Any]) -> Json:
    id_ = str(node["id"])
    box, _, name = id_.rpartition(":")
    said = contract_of(contract, id_)
    kind = "start" if name == STARTS else "end" if name == ENDS else _kind(said)
    return {
        "id": id_,
        "name": {"start": "START", "end": "END"}.get(kind, name),
        "box": box,
        "kind": kind,
        "word": "" if kind in ("start", "end") else WORDS.get(kind, kind),
        "tools": sorted(said.get("tools") or {}),
        "asks": [str(each) for each in said.get("interrupts") or []],
        "change": "",
    }


def _kind(said: Mapping[str, Any]) -> str:
    kind = str(said.get("kind") or "function")
    return "agent" if kind == "subgraph" and _is_agent(said.get("subgraph")) else kind


def _box_kind(contract: Mapping[str, Any], box: str) -> str:
    return "agent" if _is_agent(contract_of(contract, box).get("subgraph")) else "graph"


def _is_agent(inside: Mapping[str, Any] | None) -> bool:
    """An agent is a graph with a model in it, and mostly tools."""
    return "model" in ((inside or {}).get("nodes") or {})


def _edge(edge: Mapping[str, Any]) -> Json:
    return {
        "from": edge["source"],
        "to": edge["target"],
        "conditional": bool(edge.get("conditional")),
        "label": str(edge.get("data") or ""),
        "change": "",
    }


def _united(old: list[Json], new: list[Json], key: str) -> list[Json]:
    """Those of the new in their order, then those that went."""
    before = {each[key]: each for each in old}
    here = {each[key] for each in new}
    return [
        *({**each, "change": _change(before.get(each[key]), each)} for each in new),
        *({**each, "change": "removed"} for each in old if each[key] not in here),
    ]


def _change(before: Json | None, after: Json) -> str:
    return "added" if before is None else "" if before == after else "changed"
