"""Tools: Python of every shape, agents, and errors at the project's own line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from build_samples import MODELS, Make

SHAPES = '''
from langchain_core.tools import tool

def plain(order_id: str, times: int = 1) -> str:
    """Look it up."""
    return f"{order_id} x{times}"

async def later(order_id: str) -> str:
    """Look it up later."""
    return order_id + " later"

@tool
def ready(order_id: str) -> str:
    """Already a tool."""
    return order_id + " ready"

class Desk:
    """A desk."""
    def __init__(self, region: str) -> None:
        self.region = region
    def __call__(self, order_id: str) -> str:
        return f"{order_id} in {self.region}"

class Fails:
    """Fails."""
    def __init__(self) -> None:
        raise RuntimeError("no desk")

def silent(order_id: str) -> str:
    return order_id
'''
TOOLS = """
tools:
  plain: {python: graphs.shapes:plain, description: Said in YAML}
  later: {python: graphs.shapes:later}
  renamed: {python: graphs.shapes:ready}
  desk: {python: graphs.shapes:Desk, with: {region: '${REGION:-north}'}}
  fails: {python: graphs.shapes:Fails}
  silent: {python: graphs.shapes:silent}
  gone: {python: graphs.shapes:gone}
  broken: {python: graphs.broken:x}
"""
FILES = {"tools.yaml": TOOLS, "graphs/shapes.py": SHAPES, "graphs/broken.py": "a = 1\nb = 1 / 0\n"}


def test_functions_tools_and_classes_become_tools(make: Make) -> None:
    parts = make(FILES)
    assert parts.tool("plain").invoke({"order_id": "A", "times": 2}) == "A x2"
    assert parts.tool("renamed").invoke({"order_id": "A"}) == "A ready"
    assert parts.tool("desk").invoke({"order_id": "A"}) == "A in north"
    assert parts.tool("plain").description == "Said in YAML"
    assert parts.tool("desk").description == "A desk."
    assert parts.tool("renamed").name == "renamed"
    assert set(parts.tool("desk").args) == {"order_id"}


async def test_an_async_function_is_awaited(make: Make) -> None:
    assert await make(FILES).tool("later").ainvoke({"order_id": "A"}) == "A later"


def test_arguments_are_validated(make: Make) -> None:
    with pytest.raises(ValueError):
        make(FILES).tool("plain").invoke({"order_id": "A", "times": "many"})


@pytest.mark.parametrize(
    ("name", "code", "place"),
    [
        ("fails", "tool-schema", ("graphs/shapes.py", 27)),
        ("silent", "tool-schema", ("tools.yaml", 8)),
        ("gone", "import", ("tools.yaml", 9)),
        ("broken", "import", ("graphs/broken.py", 2)),
    ],
)
def test_errors_name_the_line(
    make: Make, fails: Callable[..., Any], name: str, code: str, place: tuple[str, int]
) -> None:
    problem = fails(lambda: make(FILES).tool(name)).problems[0]
    assert (problem.code, (problem.path, problem.line)) == (code, place)


def test_an_agent_that_is_its_own_tool_is_a_cycle(make: Make, fails: Callable[..., Any]) -> None:
    files = {
        "agents.yaml": MODELS + "agents: {a: {model: demo, tools: [ask]}}",
        "tools.yaml": "tools: {ask: {agent: a}}",
    }
    assert fails(lambda: make(files).agent("a")).codes == ["cycle"]
