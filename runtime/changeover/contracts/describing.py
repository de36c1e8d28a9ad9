"""What the contract says of one node: its kind, the graph inside of it, what it asks for, the tools it calls."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from langchain_core.runnables import Runnable, RunnableLambda
from langgraph.prebuilt import ToolNode
from langgraph.pregel import Pregel
from langgraph.pregel.protocol import PregelProtocol
from pydantic import BaseModel

from changeover.contracts.asks import QUESTION, Ask, calls, questions
from changeover.contracts.code import Ownership, plain_function, used_by
from changeover.contracts.parts import parts_of
from changeover.contracts.questions import Questions
from changeover.contracts.reaching import Graphs, reached
from changeover.contracts.types import QuietSchema, Schema, plain_schema

log = logging.getLogger(__name__)

EMBEDS = "__embeds__"  # an attribute of a function that only carries values into a graph and out of it
HOOKS = frozenset({"before_agent", "before_model", "after_model", "after_agent"})
WRAPPERS = ("_wrap_tool_call", "_awrap_tool_call")

AnyGraph = PregelProtocol[Any, Any, Any, Any]
Describe = Callable[[object], dict[str, Any]]


class NodeDescriber:
    """`describe` gives the contract of a graph inside of a node."""

    def __init__(self, ownership: Ownership, found: Questions, describe: Describe) -> None:
        self._describe = describe
        self._ownership = ownership
        self._questions = found

    def node(
        self, name: str, node: Any, inner: AnyGraph | None, defer: bool, paths: Sequence[Any] = ()
    ) -> dict[str, Any]:
        """`paths` are the functions that choose where to go on: they run at the end of the node."""
        parts = list(parts_of(node.bound))
        embedded = next((part for part in parts if isinstance(part, PregelProtocol)), None)
        inner = inner or embedded or self._unsaved(parts)
        is_called = inner is not None and embedded is None and not any(_marked(part, EMBEDS) for part in parts)
        tool_node = next((part for part in parts if isinstance(part, ToolNode)), None)
        asks = self.asks(node.bound, *paths)
        described: dict[str, Any] = {
            "kind": "subgraph" if inner is not None and not is_called else _kind(parts, tool_node, name),
            "defer": defer,
            "subgraph": self._describe(inner) if inner is not None else None,
            "memory": isinstance(inner, Pregel) and inner.checkpointer is True,
            "own_saver": isinstance(inner, Pregel) and inner.checkpointer is False,
            "called": is_called,
            "interrupts": self._tool_questions(tool_node) + _with_approvals(questions(asks), parts),
            "tools": _tools(tool_node),
            "handler": bool(getattr(node, "is_error_handler", False)),
        }
        if behind := _behind(node.bound, inner):
            described["reaches"] = {label: self._describe(graph) for label, graph in behind.items()}
        counted = calls(asks)
        return described | {"calls": counted} if counted else described

    def asks(self, *runnables: Any) -> tuple[Ask, ...]:
        """Of everything that runs in a node, in order."""
        return tuple(ask for runnable in runnables for part in parts_of(runnable) for ask in self._asks_of(part))

    def _asks_of(self, part: Any) -> tuple[Ask, ...]:
        if isinstance(part, (PregelProtocol, ToolNode)):
            return ()
        if not _is_pair(part):
            return self._questions.of(part)
        return self._questions.of(_own_async(part)) or self._questions.of(getattr(part, "func", None))

    def _tool_questions(self, tool_node: ToolNode | None) -> list[str]:
        """Those of the tools by name of the tool, after those of what is put around every call."""
        if tool_node is None:
            return []
        texts = [text for name in WRAPPERS for text in self._texts(getattr(tool_node, name, None))]
        for name, tool in sorted(tool_node.tools_by_name.items()):
            own = self._texts(getattr(tool, "coroutine", None)) or self._texts(getattr(tool, "func", None))
            run = own or self._texts(getattr(tool, "_arun", None)) or self._texts(getattr(tool, "_run", None))
            texts += [f"{name}: {text}" for text in run]
        return texts

    def _texts(self, function: Any) -> list[str]:
        return questions(self._questions.of(function)) if function is not None else []

    def _unsaved(self, parts: list[Any]) -> Pregel[Any, Any, Any, Any] | None:
        """A graph that a node's function calls and that keeps nothing: LangGraph does not list it."""
        for part in parts:
            for thing in (getattr(part, "func", None), getattr(part, "afunc", None), part):
                found = plain_function(thing) if thing is not None else None
                if found is None or not self._ownership.owns(found[0]):
                    continue
                for value in used_by(found[0]).values():
                    if isinstance(value, Pregel) and value.checkpointer is False:
                        return value
        return None


def _behind(bound: Any, inner: Any) -> Graphs:
    try:
        return reached(bound, inner)
    except Exception as error:  # the project's objects: to look at one may fail in any way
        log.warning("graphs_not_found", extra={"error": type(error).__name__})
        return {}


def _is_pair(part: Any) -> bool:
    """Of a plain and an async function."""
    return isinstance(part, RunnableLambda) or (isinstance(part, Runnable) and hasattr(part, "afunc"))


def _own_async(part: Any) -> Any:
    """The async function that was given, not the plain one run in a thread."""
    function = getattr(part, "afunc", None)
    inner = function.func if isinstance(function, functools.partial) else None
    return None if getattr(inner, "__name__", "") == "run_in_executor" else function


def _functions(part: Any) -> list[Any]:
    return [f for f in (getattr(part, "func", None), getattr(part, "afunc", None), part) if f is not None]


def _marked(part: Any, mark: str) -> bool:
    return any(mark in getattr(function, "__dict__", {}) for function in _functions(part))


def _middleware(part: Any) -> Any:
    """The agent middleware whose hook this is. Looked up by name: nothing is imported for graphs without any."""
    for function in _functions(part):
        owner = getattr(function, "__self__", None)
        for base in type(owner).__mro__:
            if base.__name__ == "AgentMiddleware" and base.__module__.startswith("langchain.agents."):
                return owner
    return None


def _with_approvals(texts: list[str], parts: list[Any]) -> list[str]:
    """A question of what has to be approved is another one if other tools have to be, or in other ways."""
    owner = next((found for part in parts if (found := _middleware(part)) is not None), None)
    configured = getattr(owner, "interrupt_on", None)
    if not isinstance(configured, Mapping):
        return texts
    said = [f"{tool} ({', '.join(_decisions(config))})" for tool, config in sorted(configured.items())]
    return [f"{text} for {'; '.join(said)}" for text in texts]


def _decisions(config: Any) -> list[str]:
    found = config.get("allowed_decisions") if isinstance(config, Mapping) else None
    return sorted(map(str, found)) if isinstance(found, (list, tuple, set)) else [str(config)[:40]]


def _kind(parts: list[Any], tool_node: ToolNode | None, name: str) -> str:
    if tool_node is not None:
        return "tools"
    if name.rpartition(".")[2] in HOOKS and any(_middleware(part) is not None for part in parts):
        return "middleware"
    return "interrupt" if any(_marked(part, QUESTION) for part in parts) else "function"


def _tools(tool_node: ToolNode | None) -> dict[str, Schema]:
    return {name: _arguments(tool) for name, tool in sorted(tool_node.tools_by_name.items())} if tool_node else {}


def _arguments(tool: Any) -> Schema:
    """What a model may give a tool; what is injected is no argument of a call."""
    try:
        schema = tool.tool_call_schema
        if isinstance(schema, type) and issubclass(schema, BaseModel):
            schema = schema.model_json_schema(schema_generator=QuietSchema)
        elif not isinstance(schema, Mapping):
            schema = schema.schema()
        return plain_schema(schema, defaults=True)
    except Exception:  # the project's tool: its arguments have no schema
        return {}
