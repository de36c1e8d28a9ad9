"""Tools of tools.yaml as langchain tools.

Owns the kinds `python` (a function, a `BaseTool` or a class) and `agent` (an agent as a tool); `http` is that of
`http_tools`, and what stands for several tools that of `openapi_tools`. It reads no files and opens no connections.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from dataclasses import asdict, is_dataclass
from typing import TYPE_CHECKING, Any

from langchain_core.messages import HumanMessage
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.tools import BaseTool, StructuredTool
from pydantic import BaseModel, Field

from changeover.build.blame import own_code_problem
from changeover.build.http_tools import http_tool
from changeover.errors import ProjectError
from changeover.project.models import ToolSpec

if TYPE_CHECKING:
    from changeover.build.parts import Parts


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
            source = source(**parts.resolved(spec.with_ or {}, "tools", name, "with"))
        elif spec.with_ is not None:
            message = f"tool '{name}': 'with' is for a class, {reference} is none"
            raise ProjectError([parts.problem("tool-schema", message, "tools", name, "with")])
        return _as_tool(name, spec.description, source)
    except ProjectError:
        raise
    except Exception as error:  # the project's code
        message = f"tool '{name}': {reference} cannot be made a tool"
        problem = own_code_problem(parts.project, "tool-schema", message, error, "tools", name, "python")
        raise ProjectError([problem]) from error


def _as_tool(name: str, description: str, source: Any) -> BaseTool:
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
    is_async = inspect.iscoroutinefunction(call)
    return StructuredTool.from_function(
        func=None if is_async else call,
        coroutine=call if is_async else None,
        name=name,
        description=text,
        infer_schema=True,
        parse_docstring=False,
    )


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
