"""An MCP server that tests start, over stdio or HTTP, with a record of who came and went.

`python mcp_peer.py FOLDER [--http PORT]`. In FOLDER: `tools.json` lists what it offers (read at each list, told of when
it changes); `opened` and `closed` get a line with the process's id for each session; a file `hang` makes it answer
nothing, `silent` tell nothing, `down` not start; `token` is what it asks for over HTTP. And it may misbehave: `chatty`
says its token where messages should be, `storm` tells all the time of tools that come and go, `unlisted` fails to list
them (`lists` counts), `parent` starts a child that ignores signals (`children`), `page` answers HTTP with a page;
`result.json` is what the tool `odd` answers.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
from mcp import types
from mcp.server.lowlevel import NotificationOptions, Server

FOLDER = Path(sys.argv[1])
TOKEN = os.environ.get("PEER_TOKEN")
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(120)"
NUMBERS = {"a": {"type": "integer"}, "b": {"type": "integer"}}
SCHEMA = {"type": "object", "properties": NUMBERS, "required": ["a", "b"]}
DEFAULT = [{"name": "add", "description": "Add two numbers", "inputSchema": SCHEMA}]


def note(name: str) -> None:
    with (FOLDER / name).open("a") as file:
        file.write(f"{os.getpid()}\n")


def offered() -> list[dict[str, Any]]:
    file = FOLDER / "tools.json"
    return json.loads(file.read_text()) if file.exists() else DEFAULT


@asynccontextmanager
async def counted(server: Server[None]) -> AsyncIterator[None]:
    """The life of a session."""
    note("opened")
    try:
        yield
    finally:
        note("closed")


server: Server[None] = Server("peer", "1.2", lifespan=counted)


@server.list_tools()
async def list_tools() -> list[types.Tool]:
    note("lists")
    await hang()
    watch(server.request_context.session)
    if (FOLDER / "unlisted").exists():
        raise ValueError("the database is locked")
    if (FOLDER / "storm").exists():
        return [types.Tool(name=name, inputSchema=SCHEMA) for name in ("add", f"tool{time.monotonic_ns()}")]
    return [types.Tool.model_validate(tool) for tool in offered()]


@server.call_tool(validate_input=False)
async def call_tool(name: str, arguments: dict[str, Any]) -> list[types.TextContent] | types.CallToolResult:
    await hang()
    if name == "crash":
        print(f"it does not like {TOKEN}", file=sys.stderr, flush=True)
        os._exit(7)
    if name == "slow":
        await asyncio.sleep(float(arguments["seconds"]))
        return [types.TextContent(type="text", text="slept")]
    if name == "block":
        time.sleep(float(arguments["seconds"]))  # noqa: ASYNC251 - as many a server does
        return [types.TextContent(type="text", text="slept")]
    if name == "odd":
        return types.CallToolResult.model_validate_json((FOLDER / "result.json").read_text())
    if name == "big":
        return [types.TextContent(type="text", text="x" * 8_000_000)]
    if name == "fail":
        raise ValueError("it cannot be done")
    if name == "whoami":
        return [types.TextContent(type="text", text=f"{os.getpid()} {os.getcwd()} {TOKEN}")]
    return [types.TextContent(type="text", text=str(sum(int(value) for value in arguments.values())))]


async def hang() -> None:
    while (FOLDER / "hang").exists():  # noqa: ASYNC110 - a file says nothing
        await asyncio.sleep(0.05)


watching: set[asyncio.Task[None]] = set()


def watch(session: Any) -> None:
    """Tell the client when the list of tools is another; once for the process is enough."""
    if watching or (FOLDER / "silent").exists():
        return

    async def look() -> None:
        known = offered()
        while True:
            await asyncio.sleep(0.05)
            while (FOLDER / "storm").exists():
                await session.send_tool_list_changed()
                await asyncio.sleep(0.002)
            if (now := offered()) != known:
                known = now
                await session.send_tool_list_changed()

    watching.add(asyncio.create_task(look()))


async def over_stdio() -> None:
    from mcp.server.stdio import stdio_server

    options = server.create_initialization_options(NotificationOptions(tools_changed=True))
    async with stdio_server() as (read, write):
        await server.run(read, write, options)
    os._exit(0)


def over_http(port: int) -> None:
    import uvicorn
    from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
    from starlette.applications import Starlette
    from starlette.routing import Mount

    manager = StreamableHTTPSessionManager(server)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with manager.run():
            yield

    class Guarded:
        """Asks for the token of the environment, where there is one, and keeps what it was given."""

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            given = dict(scope["headers"]).get(b"authorization", b"").decode()
            wanted = (FOLDER / "token").read_text() if (FOLDER / "token").exists() else ""
            if wanted and given != f"Bearer {wanted}":
                await send({"type": "http.response.start", "status": 401, "headers": []})
                await send({"type": "http.response.body", "body": b"no"})
                return
            if (FOLDER / "page").exists():
                page = [(b"content-type", b"text/html")]
                await send({"type": "http.response.start", "status": 200, "headers": page})
                await send({"type": "http.response.body", "body": b"<html>Welcome</html>"})
                return
            await manager.handle_request(scope, receive, send)

    app = Starlette(routes=[Mount("/mcp", app=Guarded())], lifespan=lifespan)
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="error")


if __name__ == "__main__":
    if "--dies" in sys.argv or (FOLDER / "down").exists():
        print("no such database", file=sys.stderr, flush=True)
        sys.exit(3)
    if (FOLDER / "chatty").exists():
        print(f"starting with {TOKEN}", flush=True)
    if (FOLDER / "parent").exists():
        child = subprocess.Popen([sys.executable, "-c", DEAF])
        (FOLDER / "children").write_text(f"{child.pid}\n")
    if "--http" in sys.argv:
        over_http(int(sys.argv[sys.argv.index("--http") + 1]))
    else:
        anyio.run(over_stdio)
