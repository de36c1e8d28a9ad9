"""A project whose prompt, tool and node each write the number of its edition into the answer."""

from __future__ import annotations

from typing import Any

NODE = """\
from typing import TypedDict

from langgraph.graph import END, START, StateGraph

from .tools import number

NODE = {number}


class State(TypedDict, total=False):
    text: str
    prompt: str
    tool: str
    node: str


def graph(ctx):
    prompt = ctx.prompt("numbered")
    tool = ctx.tool("number")

    async def from_prompt(state: State) -> State:
        return {{"prompt": prompt}}

    async def from_tool(state: State) -> State:
        return {{"tool": await tool.ainvoke({{}})}}

    async def from_node(state: State) -> State:
        return {{"node": str(NODE)}}

    builder = StateGraph(State)
    builder.add_node("from_prompt", from_prompt)
    builder.add_node("from_tool", from_tool)
    builder.add_node("from_node", from_node)
    builder.add_edge(START, "from_prompt")
    builder.add_edge("from_prompt", "from_tool")
    builder.add_edge("from_tool", "from_node")
    builder.add_edge("from_node", END)
    return builder
"""
TOOL = '''\
def number() -> str:
    """The number of this edition."""
    return "{number}"
'''


def numbered(number: int) -> dict[str, str]:
    """The files of an edition. All three places differ from those of any other."""
    return {
        "agents.yaml": "agents: {}\n",
        "tools.yaml": "tools:\n  number: {python: graphs.tools:number}\n",
        "prompts/numbered.md": f"{number}",
        "graphs/__init__.py": "",
        "graphs/tools.py": TOOL.format(number=number),
        "graphs/numbered.py": NODE.format(number=number),
    }


def number_of(values: dict[str, Any]) -> int | None:
    """The edition that an answer comes from; None if its parts come from several."""
    found = {values.get("prompt"), values.get("tool"), values.get("node")}
    only = found.pop()
    return int(only) if not found and only is not None else None
