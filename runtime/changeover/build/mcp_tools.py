"""MCP servers of tools.yaml: what is needed to have a session with one, and its tools as langchain tools.

The tools of a version are those that its observed inputs name, with their descriptions and schemas, whatever the server
says today. Owns neither the session nor how the tools are observed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import timedelta
from fnmatch import fnmatchcase
from typing import Any

from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from langchain_mcp_adapters.tools import convert_mcp_tool_to_langchain_tool
from mcp import types
from pydantic import ValidationError

from changeover.build.surroundings import Surroundings
from changeover.project.load import Project
from changeover.project.models import McpServerSpec
from changeover.project.problems import Problem
from changeover.resources.keeper import said
from changeover.resources.mcp import CALL_TIMEOUT_S, CallFailed, McpSession
from changeover.resources.need import Need
from changeover.resources.pool import Handle
from changeover.resources.resource import ResourceDown

OBSERVED = "observed/mcp/{}.json"
OURS = {"tools", "required", "call_timeout"}
UNKNOWN_TYPE = "application/octet-stream"
WAIT_S = 5.0  # for a session that is being opened just when it is needed


def observed_path(server: str) -> str:
    """Where a version keeps what a server said about its tools."""
    return OBSERVED.format(server)


def spec_digest(spec: McpServerSpec) -> str:
    """What of a server's entry its list of tools depends on, as it is written: no value of the environment is in it."""
    text = json.dumps(spec.model_dump(mode="json", exclude=OURS, exclude_none=True), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def mcp_need(name: str, project: Project, around: Surroundings) -> Need:
    """A session with the server `name`. Raises `ProjectError` where a variable is missing."""
    spec = project.mcp_servers[name]
    written = spec.model_dump(exclude=OURS, exclude_none=True)
    connection = around.resolved(written, project, "mcp_servers", name)
    if spec.transport == "stdio":
        connection["cwd"] = str(around.folder / connection.get("cwd", "."))
    else:
        connection = _with_seconds(connection)
    timeout_s = float(spec.call_timeout or CALL_TIMEOUT_S)

    def problem(reason: str) -> Problem:
        hint = "start it, or write `required: false` to be served without it"
        message = f"MCP server '{name}' cannot be reached: {reason}"
        return project.problem("mcp-unreachable", message, "mcp_servers", name, hint=hint)

    secrets = around.secrets(written)
    return Need(
        "mcp",
        name,
        around.keys.of("mcp", [name, connection, timeout_s, own_files(spec, project)]),
        make=lambda: McpSession(connection, timeout_s, secrets.hidden),
        problem=problem,
        required=spec.required,
        secrets=secrets,
    )


def _with_seconds(connection: dict[str, Any]) -> dict[str, Any]:
    """The timeouts of the adapters are durations for one transport and numbers for the other."""
    if connection["transport"] != "streamable_http":
        return connection
    times: dict[str, Any] = {
        key: timedelta(seconds=connection[key]) for key in ("timeout", "sse_read_timeout") if key in connection
    }
    return {**connection, **times}


def own_files(spec: McpServerSpec, project: Project) -> list[str]:
    """The digests of the version's files that a server's command names: an edit of its script starts it anew."""
    words = [word for word in (getattr(spec, "args", None) or []) if isinstance(word, str)]
    paths = {path for word in words for path in (word.removeprefix("./"), f"{word.replace('.', '/')}.py")}
    return [hashlib.sha256(project.files[path]).hexdigest() for path in sorted(paths) if path in project.files]


def read_observed(content: bytes) -> dict[str, types.Tool]:
    """The tools of an observed input, by name. Raises `ValueError`."""
    try:
        tools = [types.Tool.model_validate(tool) for tool in json.loads(content)["tools"]]
    except (ValidationError, KeyError, TypeError) as error:
        raise ValueError("it is no list of tools") from error
    return {tool.name: tool for tool in tools}


def written_observed(tools: Mapping[str, Any]) -> bytes:
    """An observed input, in one spelling."""
    data = {"tools": [tools[name] for name in sorted(tools)]}
    return (json.dumps(data, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def allowed(spec: McpServerSpec, names: list[str], pattern: str = "*") -> list[str]:
    """Of a server's tools those that its entry lets in and that `pattern` selects, sorted."""
    let_in = [name for name in names if spec.tools is None or any(fnmatchcase(name, glob) for glob in spec.tools)]
    return sorted(name for name in let_in if fnmatchcase(name, pattern))


def mcp_tool(server: str, tool: types.Tool, handle: Handle) -> BaseTool:
    """A tool of a server, called through the session that is held when it is called.

    Raises `ValueError` where its schema is one that no model could be told: each run with it would fail.
    """
    bridge: Any = _Bridge(handle, server)
    properties = tool.inputSchema.get("properties", {})
    if not isinstance(properties, Mapping) or not all(isinstance(each, Mapping | bool) for each in properties.values()):
        raise ValueError("'properties' of its schema should be schemas by name")
    made = convert_mcp_tool_to_langchain_tool(bridge, tool, server_name=server)
    try:
        convert_to_openai_tool(made)
    except Exception as error:  # langchain's, of what the server gave
        raise ValueError(f"its schema cannot be used: {said(error)}") from error
    return made


class _Bridge:
    """What the adapters take for a session. Whatever keeps a call from its answer is told to the model, as an error."""

    def __init__(self, handle: Handle, server: str) -> None:
        self._handle = handle
        self._server = server

    async def call_tool(self, name: str, arguments: dict[str, Any], **options: Any) -> types.CallToolResult:
        try:
            try:
                answer = await self._call(name, arguments, options)
            except CallFailed as error:
                if not error.undelivered:
                    raise
                answer = await self._call(name, arguments, options)
        except CallFailed as error:
            return _failed(f"MCP server '{self._server}': {error.message}")
        except ResourceDown as error:
            return _failed(error.message)
        return answer.model_copy(update={"content": [_passed_on(each) for each in answer.content]})

    async def _call(self, name: str, arguments: dict[str, Any], options: dict[str, Any]) -> types.CallToolResult:
        session = await self._handle.ready(WAIT_S)
        assert isinstance(session, McpSession)
        return await session.call_tool(name, arguments, **options)


def _failed(text: str) -> types.CallToolResult:
    return types.CallToolResult(content=[types.TextContent(type="text", text=text)], isError=True)


def _passed_on(content: types.ContentBlock) -> types.ContentBlock:
    """What the adapters can pass on; of what they cannot the model is told that it was there."""
    if isinstance(content, types.AudioContent):
        return types.TextContent(type="text", text=f"(audio of the type {content.mimeType}, which is not passed on)")
    if isinstance(content, types.ImageContent) and not content.mimeType:
        return types.TextContent(type="text", text="(an image of no known type, which is not passed on)")
    if isinstance(content, types.EmbeddedResource) and isinstance(content.resource, types.BlobResourceContents):
        resource = content.resource.model_copy(update={"mimeType": content.resource.mimeType or UNKNOWN_TYPE})
        return content.model_copy(update={"resource": resource})
    return content
