"""A small project, and waiting for what is to come."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from serving import Serving

__all__ = ["DEADLINE_S", "ECHO", "LOCAL", "Serving", "WriteProject", "eventually", "said"]

DEADLINE_S = 20.0
LOCAL = "http://127.0.0.1:2024"

WriteProject = Callable[[Mapping[str, str]], Path]

ECHO = {
    "agents.yaml": """
        models:
          demo: {model: "demo:rules", params: {latency: 600ms}}
        agents:
          echo: {model: demo, prompt: echo, description: Says it again}
        """,
    "prompts/echo.md": "First words.\n",
}
"""An agent that answers with the first line of its prompt, slowly enough to be edited meanwhile."""


async def eventually(ask: Callable[[], Awaitable[Any]]) -> Any:
    """The first answer that is true, within a deadline."""
    async with asyncio.timeout(DEADLINE_S):
        while not (found := await ask()):  # noqa: ASYNC110 - the state is on the other side of a socket
            await asyncio.sleep(0.02)
        return found


def said(text: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}]}
