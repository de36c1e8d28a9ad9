"""What the agents and tools of a version are: as they are written, and as a model is given them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, TypedDict

import httpx
import pytest
from langgraph.graph import START, StateGraph
from server_samples import DEADLINE_S, LOCAL, WriteProject

from changeover import GraphVersionManager, create_app
from changeover.errors import ProjectError

SECRET = "s3cret-of-the-environment"
PROJECT = {
    "agents.yaml": """
        models: {demo: {model: "demo:rules", params: {rules: []}, fallbacks: [other]}, other: {model: "demo:rules"}}
        agents:
          support:
            description: Answers
            model: demo
            prompt: support
            tools: [look, find, ask_other, desk/*]
            middleware: [{human_in_the_loop: {interrupt_on: {look: true}}}]
            context: {user: str}
            threads: pinned
          other: {model: "demo:rules", prompt: {text: "I am other."}}
        """,
    "tools.yaml": """
        tools:
          look: {python: "graphs.orders:look"}
          find:
            http: {url: "https://api.example/${KEY}/{id}", headers: {Authorization: "${KEY}"}}
            args: {id: string}
            description: Finds
          ask_other: {agent: other}
          unused: {python: "graphs.orders:unused", description: Nobody has it}
        mcp_servers:
          desk: {transport: stdio, command: PYTHON, args: [desk.py], env: {KEY: "${KEY}"}}
        """,
    "desk.py": '''
        from mcp.server.fastmcp import FastMCP
        server = FastMCP("desk")
        @server.tool()
        def bell(times: int) -> str:
            """Rings."""
            return "ring"
        server.run()
        ''',
    "graphs/orders.py": '''
        def look(order_id: str, deep: bool = False) -> str:
            """Looks an order up."""
            return order_id
        def unused() -> str:
            return ""
        ''',
    "prompts/support.md": """\
        ---
        variables: {tone: {default: kind}, user: {}}
        ---
        Be {{ tone }} to {{ user }}. {% include "shared/end.md" %}
        """,
    "prompts/shared/end.md": "<b>End</b>",
}


class State(TypedDict):
    n: int


@pytest.fixture
def folder(project: WriteProject, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KEY", SECRET)
    tools = PROJECT["tools.yaml"].replace("PYTHON", sys.executable)
    return project({**PROJECT, "tools.yaml": tools, "changeover.yaml": "include: [desk.py]\n"})


async def asked(manager: GraphVersionManager, *paths: str) -> list[Any]:
    transport = httpx.ASGITransport(create_app(manager))
    async with httpx.AsyncClient(transport=transport, base_url=LOCAL, timeout=DEADLINE_S) as client:
        answers = [await client.get(f"/admin/versions/{path}") for path in paths]
    assert [answer.status_code for answer in answers] == [200] * len(answers), answers[0].text
    assert SECRET not in "".join(answer.text for answer in answers)
    return [answer.json() for answer in answers]


async def test_agents_are_told_as_they_are_written_and_as_they_come_out(folder: Path) -> None:
    async with GraphVersionManager.open(folder) as manager:
        version = await manager.build()
    async with GraphVersionManager.open(folder) as manager:  # nothing of it is loaded here
        agents, tools = await asked(manager, f"{version.id}/agents", f"{version.id}/tools")
        assert version.id not in manager.loader.loaded
        assert manager.resources.report() == []
    other, support = agents["agents"]
    assert support["model"] == {"name": "demo", "resolves_to": "demo:rules", "fallbacks": ["other"]}
    assert other["model"] == {"name": "demo:rules", "resolves_to": None, "fallbacks": []}
    assert (support["description"], support["threads"], support["state"]) == ("Answers", "pinned", None)
    assert support["middleware"] == [{"human_in_the_loop": {"interrupt_on": {"look": True}}}]
    prompt = support["prompt"]
    assert (prompt["path"], prompt["problem"]) == ("prompts/support.md", None)
    assert prompt["text"].startswith("Be {{ tone }} to {{ user }}.")
    assert prompt["rendered"].strip() == "Be kind to {{ user }}. <b>End</b>"
    assert prompt["variables"] == [
        {"name": "tone", "required": False, "default": "kind"},
        {"name": "user", "required": True},
    ]
    assert (other["prompt"]["path"], other["prompt"]["rendered"]) == ("agents.yaml", "I am other.")

    found = {tool["name"]: tool for tool in support["tools"]}
    assert {name: tool["kind"] for name, tool in found.items()} == {
        "look": "python", "find": "http", "ask_other": "agent", "bell": "mcp",
    }  # fmt: skip
    assert found["look"]["description"] == "Looks an order up."
    assert found["look"]["schema"]["properties"].keys() == {"order_id", "deep"}
    assert found["find"]["schema"]["required"] == ["id"]
    assert found["ask_other"]["schema"]["properties"].keys() == {"request"}
    assert (found["bell"]["server"], found["bell"]["description"]) == ("desk", "Rings.")
    assert found["bell"]["schema"]["properties"]["times"]["type"] == "integer"

    users = {tool["name"]: tool["agents"] for tool in tools["tools"]}
    assert users == {**{name: ["support"] for name in found}, "unused": []}


async def test_a_version_made_in_code_tells_what_is_known(project: WriteProject) -> None:
    graph = StateGraph(State).add_node("one", lambda state: state).add_edge(START, "one").compile()
    async with GraphVersionManager.open(project({})) as manager:
        await manager.register("mine", {"count": graph}, description="Counts")
        agents, tools = await asked(manager, "mine/agents", "mine/tools")
    assert [(agent["name"], agent["model"], agent["tools"]) for agent in agents["agents"]] == [("count", None, [])]
    assert tools == {"tools": []}


async def test_a_rejected_version_is_told_as_it_is_written(project: WriteProject) -> None:
    written = {"agents.yaml": "agents: {a: {model: nobody, prompt: p, tools: [gone]}}\n", "prompts/p.md": "Hi {{ x }}"}
    async with GraphVersionManager.open(project(written)) as manager:
        with pytest.raises(ProjectError) as rejected:
            await manager.build()
        agents, tools = await asked(manager, f"{rejected.value.version}/agents", f"{rejected.value.version}/tools")
    (agent,) = agents["agents"]
    assert (agent["model"]["name"], agent["tools"], tools["tools"]) == ("nobody", [], [])
    assert (agent["prompt"]["text"], agent["prompt"]["rendered"]) == ("Hi {{ x }}", None)
    assert agent["prompt"]["problem"] == "the version was rejected"


async def test_a_prompt_that_needs_what_a_run_gives_says_so(project: WriteProject) -> None:
    folder = project(
        {
            "agents.yaml": """
                models: {demo: {model: "demo:rules"}}
                agents:
                  a: {model: demo, prompt: {text: "{{ user.name }}: {{ 1 + user }}"}, context: {user: any}}
                  b: {model: demo, prompt: {text: "{{ user.name }} {{ user.mail|upper }}"}, context: {user: any}}
                """
        }
    )
    async with GraphVersionManager.open(folder) as manager:
        version = await manager.build()
        (agents,) = await asked(manager, f"{version.id}/agents")
    first, second = (agent["prompt"] for agent in agents["agents"])
    assert first["rendered"] is None
    assert first["problem"]
    assert second["rendered"] == "{{ user.name }} {{ USER.MAIL }}"
