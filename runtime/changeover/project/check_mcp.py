"""Rules of the MCP servers in tools.yaml: what each transport takes, as langchain-mcp-adapters have it.

What they take besides as Python objects cannot be written in YAML, and is no key here.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from changeover.project.environment import MissingVariable, resolve
from changeover.project.findings import Findings
from changeover.project.models import Strict
from changeover.project.validate import read_model, shown

Text = Annotated[str, Field(min_length=1)]
Seconds = Annotated[float, Field(gt=0)]


class _Server(Strict):
    transport: str
    tools: list[str] | None = None
    required: bool = True
    call_timeout: Seconds | None = None


class _Stdio(_Server):
    command: Text
    args: list[str] = Field(default_factory=list)
    env: dict[str, str] = Field(default_factory=dict)
    cwd: Text | None = None
    encoding: Text | None = None
    encoding_error_handler: Literal["strict", "ignore", "replace"] | None = None


class _Websocket(_Server):
    url: str


class _Sse(_Websocket):
    headers: dict[str, str] = Field(default_factory=dict)
    timeout: Seconds | None = None
    sse_read_timeout: Seconds | None = None


class _StreamableHttp(_Sse):
    terminate_on_close: bool | None = None


TRANSPORTS: dict[str, type[_Server]] = {
    "stdio": _Stdio,
    "sse": _Sse,
    "streamable_http": _StreamableHttp,
    "websocket": _Websocket,
}


def check_mcp_servers(findings: Findings) -> None:
    document, keys = findings.project.document_of("mcp_servers")
    for name, spec in findings.project.mcp_servers.items():
        what = f"MCP server '{shown(name)}'"
        written = spec.model_dump(exclude_unset=True)
        server, problems = read_model(TRANSPORTS[spec.transport], document, (*keys, name), written, what)
        findings.problems += problems
        if isinstance(server, _Websocket) and not problems:
            _address(findings, what, name, server)


def _address(findings: Findings, what: str, name: str, server: _Websocket) -> None:
    schemes = ("http://", "https://") if isinstance(server, _Sse) else ("ws://", "wss://")
    try:
        url = str(resolve(server.url, findings.env))
    except MissingVariable:
        return  # reported as env-missing
    if not url.lower().startswith(schemes):
        message = f"{what}: 'url' should begin with {' or '.join(schemes)}"
        findings.add("wrong-type", message, "mcp_servers", name, "url", hint=f"the transport is {server.transport}")
