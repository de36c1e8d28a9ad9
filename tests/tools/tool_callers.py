"""Projects whose one graph calls tools, as an agent would."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from langchain_core.messages import AIMessage, ToolMessage

from changeover import GraphVersionManager

AGENTS = "models: {m: {model: demo:rules}}\nagents: {idle: {model: m}}\n"
GRAPH = """
state: {{messages: messages}}
nodes: {{call: {{tools: [{tools}]}}}}
edges: [{{from: START, to: call}}, {{from: call, to: END}}]
"""


@dataclass
class Caller:
    """Calls tools as an agent does: the graph `desk` is a node that makes the calls of the last message."""

    folder: Path
    manager: GraphVersionManager
    calls: int = 0

    async def __call__(self, tool: str, **args: Any) -> ToolMessage:
        self.calls += 1
        call = {"name": tool, "args": args, "id": f"call-{self.calls}", "type": "tool_call"}
        answer = await self.manager.invoke("desk", {"messages": [AIMessage("", tool_calls=[call])]})
        message = answer["messages"][-1]
        assert isinstance(message, ToolMessage)
        return message

    async def drop_tools(self) -> None:
        """Switch to a version that has none."""
        (self.folder / "tools.yaml").write_text("tools: {}\n")
        (self.folder / "graphs" / "desk.yaml").unlink()
        await self.manager.switch(await self.manager.build())


class Serve(Protocol):
    async def __call__(self, tools: str, *names: str, **files: str) -> Caller: ...
