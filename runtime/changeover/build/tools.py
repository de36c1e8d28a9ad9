"""Tools of tools.yaml as langchain tools.

Owns the kinds `python` (a function, a `BaseTool` or a class) and `agent` (an agent as a tool); `http` is that of
`http_tools`, and what stands for several tools that of `openapi_tools`. It reads no files and opens no connections. A
function, and the `__init__` and `__call__` of a class, may have a parameter `ctx`, which the model does not see.
"""

from __future__ import annotations

import functools
import inspect
import json
import typing
from collections.abc import Callable, Mapping
from dataclasses import asdict, is_dataclass
from typing import TYPE_CHECKING, Any

from langchain_core.messages import HumanMessage
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.tools import BaseTool, StructuredTool
from pydantic import BaseModel, Field

from changeover.build.blame import own_code_problem
from changeover.build.context import ToolContext
from changeover.build.http_tools import http_tool
from changeover.errors import ProjectError
from changeover.project.models import ToolSpec

if TYPE_CHECKING:
    from changeover.build.parts import Parts


CTX = "ctx"
CTX_TYPES = ("GraphContext", "ToolContext", "Any")


class Request(BaseModel):
    """What an agent is asked when it is called as a tool."""

    request: str = Field(
        description="What the agent should do, with all it needs to know: it does not see this conversation."
    )


def build_tool(name: str, spec: ToolSpec, parts: Parts) -> BaseTool:
    """The tool `name` of tools.yaml. Raises `ProjectError`."""
    if spec.python:
        return _python_tool(name, spec, parts)
    if spec.agent:
        return agent_tool(
            name, spec.description, parts.agent_description(spec.agent), lambda: parts.agent(spec.agent or "")
        )
    if spec.http:
        return http_tool(name, spec, parts.handles("http", name), parts)
    raise ProjectError([parts.problem("one-kind", f"tool '{name}' has no kind", "tools", name)])


def _python_tool(name: str, spec: ToolSpec, parts: Parts) -> BaseTool:
    reference = spec.python or ""
    source = parts.resolve(reference, "tools", name, "python")
    try:
        if inspect.isclass(source):
            source = _instance(source, parts.resolved(spec.with_ or {}, "tools", name, "with"), parts)
        elif spec.with_ is not None:
            message = f"tool '{name}': 'with' is for a class, {reference} is none"
            raise ProjectError([parts.problem("tool-schema", message, "tools", name, "with")])
        return _as_tool(name, spec.description, source, parts)
    except ProjectError:
        raise
    except Exception as error:  # the project's code
        message = f"tool '{name}': {reference} cannot be made a tool"
        problem = own_code_problem(parts.project, "tool-schema", message, error, "tools", name, "python")
        raise ProjectError([problem]) from error


def _instance(kind: type[Any], arguments: Mapping[str, Any], parts: Parts) -> Any:
    given = {CTX: ToolContext(parts)} if CTX not in arguments and _takes_ctx(kind) else {}
    return kind(**arguments, **given)


def _as_tool(name: str, description: str, source: Any, parts: Parts) -> BaseTool:
    if isinstance(source, BaseTool):
        changes: dict[str, Any] = {"name": name} | ({"description": description} if description else {})
        return source.model_copy(update=changes)
    if isinstance(source, Runnable):
        return source.as_tool(name=name, description=description or None)
    if not callable(source):
        raise TypeError(f"a tool is a function, a BaseTool or a class, not {type(source).__name__}")
    call = source if inspect.isroutine(source) else source.__call__
    text = description or inspect.getdoc(source) or inspect.getdoc(call)
    if not text:
        raise ValueError("a tool needs a docstring or a description in tools.yaml, the model reads it")
    if _takes_ctx(call):
        call = _with_ctx(call, ToolContext(parts))
    is_async = inspect.iscoroutinefunction(call)
    return StructuredTool.from_function(
        func=None if is_async else call,
        coroutine=call if is_async else None,
        name=name,
        description=text,
        infer_schema=True,
        parse_docstring=False,
    )


def _takes_ctx(call: Callable[..., Any]) -> bool:
    """Whether it has a parameter `ctx` that is the version's: one without a type, or with that of a context."""
    try:
        parameter = inspect.signature(call).parameters.get(CTX)
    except (TypeError, ValueError):  # a callable of C
        return False
    if parameter is None or parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
        return False
    written = parameter.annotation
    shown = written if isinstance(written, str) else getattr(written, "__name__", str(written))
    return written is parameter.empty or shown.rpartition(".")[2] in CTX_TYPES


def _with_ctx(call: Callable[..., Any], ctx: ToolContext) -> Callable[..., Any]:
    """The function without its parameter `ctx`, which is `ctx`."""
    wrapped: Any
    if inspect.iscoroutinefunction(call):

        async def later(*arguments: Any, **named: Any) -> Any:
            return await call(*arguments, ctx=ctx, **named)

        wrapped = later
    else:

        def at_once(*arguments: Any, **named: Any) -> Any:
            return call(*arguments, ctx=ctx, **named)

        wrapped = at_once
    functools.update_wrapper(wrapped, call)
    signature, hints = inspect.signature(call), _hints(call)
    parameters = [
        parameter.replace(annotation=hints.get(name, parameter.annotation))
        for name, parameter in signature.parameters.items()
        if name != CTX
    ]
    seen: Callable[..., Any] = wrapped
    wrapped.__annotations__ = hints
    wrapped.__signature__ = signature.replace(parameters=parameters)
    return seen


def _hints(call: Callable[..., Any]) -> dict[str, Any]:
    """The types of all other parameters; that of `ctx` may be a name that is known to type checkers alone."""
    others = {name: hint for name, hint in inspect.unwrap(call).__annotations__.items() if name != CTX}
    bearer = type("_Bearer", (), {"__annotations__": others})
    names = getattr(inspect.unwrap(call), "__globals__", {})
    return typing.get_type_hints(bearer, globalns=names, include_extras=True)


def agent_tool(name: str, description: str, fallback: str, agent: Callable[[], Runnable[Any, Any]]) -> BaseTool:
    """An agent as a tool. It runs inside the graph that calls it: its tokens are streamed, its interrupts reach the
    person, its steps are in the same checkpoints; every call starts a conversation of its own."""
    graph = agent()

    def ask(request: str, config: RunnableConfig) -> str:
        return _last_words(graph.invoke({"messages": [HumanMessage(request)]}, config))

    async def aask(request: str, config: RunnableConfig) -> str:
        return _last_words(await graph.ainvoke({"messages": [HumanMessage(request)]}, config))

    text = description or fallback or f"Ask the agent {name}."
    return StructuredTool.from_function(func=ask, coroutine=aask, name=name, description=text, args_schema=Request)


def _last_words(state: dict[str, Any]) -> str:
    answer = state.get("structured_response")
    if answer is None:
        return str(state["messages"][-1].text)
    if isinstance(answer, BaseModel):
        return answer.model_dump_json()
    return json.dumps(asdict(answer) if is_dataclass(answer) and not isinstance(answer, type) else answer, default=str)
