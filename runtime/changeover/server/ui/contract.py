"""The contract of a graph in words: its channels, its nodes, what it asks people. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

DEEP = 4  # graphs within graphs that are told


@dataclass(frozen=True, slots=True)
class Channel:
    name: str
    type: str
    keeps: str
    reducer: str


@dataclass(frozen=True, slots=True)
class Node:
    """`name` has the nodes that it lies in before it."""

    name: str
    kind: str
    leads: tuple[str, ...]
    asks: tuple[str, ...]
    tools: tuple[str, ...]


def channels(contract: Mapping[str, Any]) -> list[Channel]:
    return [
        Channel(name, type_words(told.get("type")), str(told.get("channel") or ""), _short(told.get("reducer") or ""))
        for name, told in (contract.get("channels") or {}).items()
    ]


def nodes(contract: Mapping[str, Any]) -> list[Node]:
    return list(_nodes(contract, ""))


def type_words(told: Any) -> str:
    """`list[AIMessage | HumanMessage]` of the type that a contract describes."""
    if not isinstance(told, Mapping):
        return _short(str(told)) if told is not None else ""
    if "literal" in told:
        return " | ".join(map(str, told["literal"]))
    if "of" in told:
        args = [type_words(each) for each in told.get("args") or []]
        name = _short(str(told["of"]))
        return " | ".join(args) if name == "Union" else f"{name}[{', '.join(args)}]"
    if "class" in told:
        fields = told.get("fields") or {}
        inside = ", ".join(f"{name}: {type_words(each)}" for name, each in fields.items())
        return _short(str(told["class"])) + (f" {{{inside}}}" if inside else "")
    return str(dict(told))


def _nodes(contract: Mapping[str, Any], outer: str) -> Iterator[Node]:
    for name, told in (contract.get("nodes") or {}).items():
        yield Node(
            outer + name,
            str(told.get("kind") or ""),
            tuple(map(str, told.get("leads") or ())),
            tuple(map(str, told.get("interrupts") or ())),
            tuple(told.get("tools") or ()),
        )
        if told.get("subgraph") and outer.count("/") < DEEP:
            yield from _nodes(told["subgraph"], f"{outer}{name}/")


def _short(name: str) -> str:
    """A name without the module that it comes from."""
    return name.rpartition(".")[2] if "<" not in name else name.rpartition(">.")[2]
