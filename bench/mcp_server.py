"""`python -m bench.mcp_server FILE`: an MCP server over stdio with one tool, that notes each session in a file."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from mcp.server.fastmcp import FastMCP


@asynccontextmanager
async def noted(server: FastMCP[Any]) -> AsyncIterator[None]:
    note("opened")
    try:
        yield
    finally:
        note("closed")


def note(word: str) -> None:
    with Path(sys.argv[1]).open("a") as file:
        file.write(f"{word}\n")


server = FastMCP("bench", lifespan=noted, log_level="ERROR")


@server.tool()
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


if __name__ == "__main__":
    server.run()
