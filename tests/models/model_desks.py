"""Projects of the tests of models: one desk with a tool, one without, one whose answer has a shape."""

from __future__ import annotations

from typing import Any

from changeover import GraphVersionManager

CODE = '''
from pydantic import BaseModel


class Ticket(BaseModel):
    """A ticket."""

    title: str
    urgent: bool


def weather(city: str) -> str:
    """The weather in a city."""
    return f"sun in {city}"
'''

AGENTS = """
agents:
  desk: {model: big, tools: [weather], prompt: {text: You are a desk.}}
  bare: {model: big}
  shaped: {model: big, output: 'graphs.parts:Ticket'}
"""


def desks(models: str) -> dict[str, str]:
    """The files of a project with these models, of which `big` is asked."""
    return {
        "agents.yaml": f"models:\n{models}\n{AGENTS}",
        "tools.yaml": "tools: {weather: {python: 'graphs.parts:weather'}}\n",
        "graphs/parts.py": CODE,
    }


def openai(base_url: str, name: str = "big", params: str = "max_retries: 0, timeout: 5", more: str = "") -> str:
    """The entry of a model that is asked at `base_url`; without `params` it has no key either."""
    given = f"{{base_url: '{base_url}', api_key: 'none', {params}}}" if params else f"{{base_url: '{base_url}'}}"
    return f"  {name}: {{model: 'openai:gpt-5', params: {given}{more}}}"


async def ask(manager: GraphVersionManager, agent: str, text: str = "hello", **more: Any) -> Any:
    """The last message of the answer."""
    answer = await manager.invoke(agent, {"messages": [("user", text)]}, **more)
    return answer["messages"][-1]


async def pieces(manager: GraphVersionManager, agent: str, text: str = "hello") -> list[Any]:
    """The messages that stream out, as they come."""
    given = {"messages": [("user", text)]}
    return [part[0] async for part in manager.stream(agent, given, stream_mode="messages")]
