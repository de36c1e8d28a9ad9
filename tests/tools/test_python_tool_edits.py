"""A tool in Python that is edited serves the next run; a run in flight goes on with the code that it began with."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from changeover import GraphVersionManager

TOOLS = """
import asyncio
from pathlib import Path


async def look(gate: str) -> str:
    '''Wait for a file.'''
    Path(gate + ".began").touch()
    while not Path(gate).exists():
        await asyncio.sleep(0.01)
    from graphs.words import WORD  # after the edit

    return f"EDITION {WORD}"
"""
AGENTS = """
models:
  demo: {model: demo:rules, params: {rules: [{when: 'look (?P<gate>\\S+)', call: look}]}}
agents:
  bot: {model: demo, prompt: {text: Help.}, tools: [look]}
"""


def edition(word: str) -> dict[str, str]:
    return {
        "agents.yaml": AGENTS,
        "tools.yaml": "tools: {look: {python: graphs.tools:look}}\n",
        "graphs/__init__.py": "",
        "graphs/tools.py": TOOLS.replace("EDITION", word),
        "graphs/words.py": f"WORD = '{word}'\n",
    }


async def test_a_tool_that_is_edited_serves_the_next_run_and_a_run_in_flight_keeps_its_own(
    project: Callable[..., Path], eventually: Callable[..., Any], tmp_path: Path
) -> None:
    async with GraphVersionManager.open(project(edition("old"))) as manager:
        await manager.serve_folder()
        await manager.watch()
        first, second = tmp_path / "first", tmp_path / "second"
        running = asyncio.create_task(_look(manager, first))
        await eventually(Path(f"{first}.began").exists)
        project(edition("new"))
        await eventually(lambda: manager.routing is not None and manager.routing.current != "v1")
        second.touch()
        assert await _look(manager, second) == "new new"
        assert not running.done()
        first.touch()
        assert await running == "old old"


async def _look(manager: GraphVersionManager, gate: Path) -> str:
    answer = await manager.invoke("bot", {"messages": [("user", f"look {gate}")]})
    return next(str(message.text) for message in answer["messages"] if message.type == "tool")
