"""A contract with its subgraphs laid out flat: everything in it by its path. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Json = Mapping[str, Any]
PREVIOUS = "__previous__"


@dataclass(frozen=True)
class Flat:
    """Levels by the path of the node they run in (the empty path: the graph itself), channels and nodes by their own.

    `lasting` are the levels whose state outlives a superstep of the graph above: the graph itself, and subgraphs that
    keep a memory of their own.
    """

    levels: Mapping[str, Json]
    channels: Mapping[str, Json]
    nodes: Mapping[str, Json]
    lasting: frozenset[str]

    @classmethod
    def of(cls, contract: Json) -> Flat:
        layout = _Layout()
        layout.add("", contract, True)
        return cls(layout.levels, layout.channels, layout.nodes, frozenset(layout.lasting))

    def nodes_of(self, level: str) -> list[str]:
        return [below(level, name) for name in self.levels.get(level, {}).get("nodes") or {}]

    def tools_of(self, level: str) -> dict[str, Any]:
        """All tools that the nodes of a level can execute."""
        found: dict[str, Any] = {}
        for path in self.nodes_of(level):
            found |= self.nodes[path].get("tools") or {}
        return found


@dataclass
class _Layout:
    levels: dict[str, Json] = field(default_factory=dict)
    channels: dict[str, Json] = field(default_factory=dict)
    nodes: dict[str, Json] = field(default_factory=dict)
    lasting: set[str] = field(default_factory=set)

    def add(self, level: str, contract: Json, is_lasting: bool) -> None:
        self.levels[level] = contract
        if is_lasting:
            self.lasting.add(level)
        for key, channel in (contract.get("channels") or {}).items():
            self.channels[below(level, key)] = channel
        if contract.get("previous") is not None:  # what a functional graph has saved for its next run
            self.channels[below(level, PREVIOUS)] = {"channel": "LastValue", "reducer": None, **contract["previous"]}
        for name, node in (contract.get("nodes") or {}).items():
            path = below(level, name)
            self.nodes[path] = node
            if node.get("subgraph") is not None:
                self.add(path, node["subgraph"], bool(node.get("memory")))


def odd_names(contract: Json, level: str = "") -> Iterator[str]:
    """Nodes and keys whose names mean something else in paths, triggers or joins."""
    nodes: Json = contract.get("nodes") or {}
    for name, node in nodes.items():
        if "/" in name or ("+" in name and contract.get("joins")):
            yield f"node '{below(level, name)}'"
        if node.get("subgraph") is not None:
            yield from odd_names(node["subgraph"], below(level, name))
    for key in contract.get("channels") or {}:
        if "/" in key or key.startswith(("branch:", "join:", "start:")):
            yield f"key '{below(level, key)}'"


def below(level: str, name: str) -> str:
    return f"{level}/{name}" if level else name


def above(path: str) -> str:
    """The level in which a key or a node is."""
    return path.rpartition("/")[0]


def leaf(path: str) -> str:
    return path.rpartition("/")[2]
