"""Nodes of a YAML graph as what LangGraph's `add_node` takes.

Owns the node kinds and the node settings. A node's agent or graph stays a real subgraph, so that its steps are
streamed and checkpointed and its interrupts are answered through the graph around it.

`input:` and `output:` read like assignments: the key on the left receives the value of the key on the right. `input`
has keys of the inner graph on the left, `output` has keys of this one. What is not mapped goes by its own name.
"""

from __future__ import annotations

import builtins
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda
from langgraph.constants import END
from langgraph.errors import ParentCommand
from langgraph.graph import StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import CachePolicy, Command, RetryPolicy, interrupt

from changeover.build.agents import build_agent
from changeover.build.blame import closest, own_code_problem
from changeover.build.state import Schemas
from changeover.contracts.asks import QUESTION, question_of
from changeover.contracts.describing import EMBEDS
from changeover.errors import ProjectError
from changeover.project.models import GraphFile, NodeSpec

if TYPE_CHECKING:
    from changeover.build.parts import Parts

END_WORDS = frozenset({"END", END})


@dataclass(frozen=True)
class BuiltNode:
    """What a node runs and how: the arguments of `add_node`."""

    action: Any
    settings: dict[str, Any]


def build_node(graph: str, name: str, spec: GraphFile, schemas: Schemas, parts: Parts) -> BuiltNode:
    """The node `name` of a graph. Raises `ProjectError`."""
    return _Node(graph, name, spec, schemas, parts).build()


class _Node:
    def __init__(self, graph: str, name: str, spec: GraphFile, schemas: Schemas, parts: Parts) -> None:
        self._name = name
        self._graph_spec = spec
        self._spec: NodeSpec = spec.nodes[name]
        self._schemas = schemas
        self._parts = parts
        self._place = (f"graphs/{graph}", "nodes", name)
        self._title = f"graph '{graph}', node '{name}'"

    def build(self) -> BuiltNode:
        action = self._action()
        settings = self._settings()
        if "timeout" in settings and not _is_async(action):
            message = f"{self._title}: a timeout needs an async node, a synchronous one cannot be stopped"
            raise self._error("sync-timeout", message, "timeout", hint="write 'async def', or drop the timeout")
        return BuiltNode(action, settings)

    def _error(self, code: str, message: str, *steps: str | int, hint: str = "") -> ProjectError:
        return ProjectError([self._parts.problem(code, message, *self._place, *steps, hint=hint)])

    def _action(self) -> Any:
        spec = self._spec
        if spec.python:
            return self._python(spec.python)
        if spec.agent:
            return self._embedded(self._agent(spec.agent))
        if spec.graph:
            return self._embedded(self._parts.graph(spec.graph))
        if spec.tools is not None:
            return ToolNode(self._parts.select_tools(spec.tools, *self._place, "tools"), name=self._name)
        if spec.interrupt is not None:
            return self._interrupt()
        raise self._error("one-kind", f"{self._title}: a node is one of python, agent, graph, tools, interrupt")

    def _python(self, reference: str) -> Any:
        found = self._parts.resolve(reference, *self._place, "python")
        if isinstance(found, StateGraph):
            found = found.compile(name=self._name)
        elif inspect.isclass(found):
            found = self._instance(found, reference)
        if not callable(found) and not isinstance(found, Runnable):
            message = f"{self._title}: {reference} is a {type(found).__name__}, a node is a function or a Runnable"
            raise self._error("import", message, "python")
        return found

    def _instance(self, cls: Any, reference: str) -> Any:
        try:
            return cls()
        except Exception as error:  # the project's code
            message = f"{self._title}: {reference} cannot be made"
            problem = own_code_problem(self._parts.project, "import", message, error, *self._place, "python")
            raise ProjectError([problem]) from error

    def _agent(self, agent: str) -> Any:
        if not self._spec.handoffs:
            return self._parts.agent(agent)
        if agent not in self._parts.project.agents:
            return self._parts.agent(agent)  # raises
        nodes = self._graph_spec.nodes
        for index, target in enumerate(self._spec.handoffs):
            if target not in nodes:
                message = f"{self._title}: handoff to '{target}', which is no node of this graph"
                raise self._error("unknown-target", message, "handoffs", index, hint=closest(target, nodes))
        if "messages" not in self._schemas.keys:
            raise self._error("handoff", f"{self._title}: handoffs need a state key 'messages'", "handoffs")
        described = {target: self._describe(nodes[target]) for target in self._spec.handoffs}
        return build_agent(agent, self._parts.project.agents[agent], self._parts, described, self._name)

    def _describe(self, target: NodeSpec) -> str:
        return self._parts.agent_description(target.agent) if target.agent else ""

    def _embedded(self, inner: Any) -> Any:
        """The inner graph itself, or with its keys mapped."""
        spec = self._spec
        if not (spec.input or spec.output or spec.save):
            return inner
        if spec.handoffs and "messages" in {*(spec.input or {}), *(spec.output or {}), *(spec.output or {}).values()}:
            message = f"{self._title}: a node with handoffs keeps its messages in 'messages', they cannot be mapped"
            raise self._error("handoff", message, "handoffs")
        output = dict(spec.output or {})
        if spec.save:
            output[spec.save] = "structured_response"
        for key in output:
            self._check_key(key, "save" if key == spec.save else "output")
        for key in (spec.input or {}).values():
            self._check_key(key, "input")
        return _mapped(inner, dict(spec.input or {}), output, self._schemas.keys)

    def _check_key(self, key: str, where: str) -> None:
        if key not in self._schemas.keys:
            message = f"{self._title}: {where} names '{key}', which is not in the state"
            raise self._error("unknown-key", message, where, hint=closest(key, self._schemas.keys))

    def _interrupt(self) -> Callable[[Any], dict[str, Any]]:
        payload, save, keys, prompts = self._spec.interrupt, self._spec.save, self._schemas.keys, self._parts.prompts
        if save:
            self._check_key(save, "save")

        def ask(state: Any) -> dict[str, Any]:
            variables = {**dict.fromkeys(keys), **_values(state, keys)}
            answer = interrupt(_rendered(payload, lambda text: prompts.render_text(text, variables)))
            return {save: answer} if save else {}

        ask.__annotations__["state"] = self._schemas.state
        setattr(ask, QUESTION, question_of(payload))
        return ask

    def _settings(self) -> dict[str, Any]:
        spec, settings = self._spec, dict[str, Any]()
        if spec.retry_policy is not None:
            settings["retry_policy"] = self._policy(RetryPolicy, spec.retry_policy, "retry_policy", "retry_on")
        if spec.cache_policy is not None:
            settings["cache_policy"] = self._policy(CachePolicy, spec.cache_policy, "cache_policy", "key_func")
        if spec.timeout is not None:
            settings["timeout"] = spec.timeout
        if spec.defer:
            settings["defer"] = True
        if spec.error_handler:
            settings["error_handler"] = self._parts.resolve(spec.error_handler, *self._place, "error_handler")
        if spec.destinations:
            settings["destinations"] = _destinations(spec.destinations)
        if spec.metadata:
            settings["metadata"] = spec.metadata
        return settings

    def _policy(self, cls: Any, given: dict[str, Any], where: str, code_key: str) -> Any:
        known = list(inspect.signature(cls).parameters)
        for key in given:
            if key not in known:
                hint = closest(key, known) or f"it takes: {', '.join(known)}"
                raise self._error("unknown-key", f"{self._title}: {where} takes no '{key}'", where, key, hint=hint)
        values = dict(given)
        if code_key in values:
            values[code_key] = self._code(values[code_key], where, code_key)
        return cls(**values)

    def _code(self, value: Any, *steps: str) -> Any:
        """`module:attribute`, the name of a built-in exception, or a list of them."""
        if isinstance(value, list):
            return tuple(self._code(item, *steps) for item in value)
        if isinstance(value, str) and ":" in value:
            return self._parts.resolve(value, *self._place, *steps)
        found = getattr(builtins, str(value), None)
        if inspect.isclass(found) and issubclass(found, BaseException):
            return found
        raise self._error("import", f"{self._title}: '{value}' is neither module:name nor a built-in exception", *steps)


def _mapped(inner: Any, before: dict[str, str], after: dict[str, str], keys: tuple[str, ...]) -> Runnable[Any, Any]:
    """A graph whose keys are renamed on the way in and out. LangGraph still finds the graph inside."""

    def enter(state: Any) -> dict[str, Any]:
        values = _values(state, keys)
        return {**values, **{key: values[source] for key, source in before.items() if source in values}}

    def leave(result: Mapping[str, Any]) -> dict[str, Any]:
        moved = {*after.values(), *before}  # a key that was mapped is not the outer one of its name
        kept = {key: value for key, value in result.items() if key not in moved}
        return {**kept, **{key: result[source] for key, source in after.items() if source in result}}

    def renamed(up: ParentCommand) -> ParentCommand:
        command: Command[Any] = up.args[0]
        return ParentCommand(replace(command, update=leave(dict(command.update or {}))))

    def run(state: Any, config: RunnableConfig) -> Any:
        try:
            return leave(inner.invoke(enter(state), config))
        except ParentCommand as up:
            raise renamed(up) from None

    async def arun(state: Any, config: RunnableConfig) -> Any:
        try:
            return leave(await inner.ainvoke(enter(state), config))
        except ParentCommand as up:
            raise renamed(up) from None

    setattr(run, EMBEDS, True)
    return RunnableLambda(run, afunc=arun)


def _values(state: Any, keys: tuple[str, ...]) -> dict[str, Any]:
    if isinstance(state, Mapping):
        return dict(state)
    return {key: getattr(state, key) for key in keys if hasattr(state, key)}


def _rendered(payload: Any, render: Callable[[str], str]) -> Any:
    if isinstance(payload, str):
        return render(payload)
    if isinstance(payload, dict):
        return {key: _rendered(value, render) for key, value in payload.items()}
    return [_rendered(value, render) for value in payload] if isinstance(payload, list) else payload


def _destinations(spec: list[str] | dict[str, str]) -> tuple[str, ...] | dict[str, str]:
    if isinstance(spec, dict):
        return {_target(name): label for name, label in spec.items()}
    return tuple(_target(name) for name in spec)


def _target(word: str) -> str:
    return END if word in END_WORDS else word


def _is_async(action: Any) -> bool:
    if isinstance(action, Runnable):
        return not isinstance(action, RunnableLambda) or bool(getattr(action, "afunc", None))
    return inspect.iscoroutinefunction(action) or inspect.iscoroutinefunction(type(action).__call__)
