"""Versions share what did not change: the same compiled object, the same thread state, the same version."""

from __future__ import annotations

import pytest

from changeover import GraphVersionManager

PROJECT = {
    "agents.yaml": """
        models:
          demo: {model: "demo:rules", params: {rules: []}}
          other: {model: "demo:rules", params: {chunk: "${CHUNK:-5}"}}
        agents:
          plain: {model: demo, prompt: plain}
          greeter: {model: demo, prompt: greeter}
          variable: {model: other, prompt: plain}
          tooled: {model: demo, prompt: plain, tools: [add, ask]}
        """,
    "tools.yaml": """
        tools:
          add: {python: "graphs.calc:add"}
          ask: {agent: greeter}
        """,
    "prompts/plain.md": "You are plain.\n",
    "prompts/greeter.md": 'You greet.\n{% include "shared/tone.md" %}\n',
    "prompts/shared/tone.md": "Be kind.\n",
    "graphs/calc.py": """
        def add(a: int, b: int) -> int:
            "Add two numbers."
            return a + b
        """,
    "graphs/flow.yaml": """
        state: {messages: messages}
        nodes: {hello: {agent: greeter}}
        edges: [{from: START, to: hello}, {from: hello, to: END}]
        """,
    "graphs/made.py": """
        from langgraph.graph import START, MessagesState, StateGraph

        def graph(ctx):
            built = StateGraph(MessagesState)
            built.add_node("plain", ctx.agent("plain"))
            built.add_edge(START, "plain")
            return built
        """,
}


async def changed_by(manager: GraphVersionManager, project, edit: dict[str, str]) -> set[str]:
    """The graphs that an edit made new; all others must be the same compiled object and the same digest."""
    before = await manager.build()
    project(edit)
    after = await manager.build()
    old, new = await manager.loader.load(before.id), await manager.loader.load(after.id)
    changed = set()
    for name in new.graphs:
        same_object = new.graphs[name].compiled is old.graphs[name].compiled
        same_digest = after.graphs[name].digest == before.graphs[name].digest
        assert same_object == same_digest, name
        if not same_object:
            changed.add(name)
    return changed


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        ({"prompts/plain.md": "You are very plain.\n"}, {"plain", "variable", "tooled", "made"}),
        ({"prompts/greeter.md": "You greet.\n"}, {"greeter", "tooled", "flow"}),
        ({"prompts/shared/tone.md": "Be brief.\n"}, {"greeter", "tooled", "flow"}),
        ({"prompts/unused.md": "Nobody reads this.\n"}, set()),
        ({"graphs/calc.py": "def add(a: int, b: int) -> int:\n    'Add.'\n    return b + a\n"}, {"tooled", "made"}),
        ({"graphs/data.txt": "data that code may read"}, {"tooled", "made"}),
        (
            {"graphs/flow.yaml": PROJECT["graphs/flow.yaml"].replace("nodes:", "description: New\n        nodes:")},
            {"flow"},
        ),
        ({"requirements.txt": "# a comment\n"}, set()),
    ],
)
async def test_only_what_depends_on_an_edit_is_compiled_anew(project, edit, expected):
    async with GraphVersionManager.open(project(PROJECT)) as manager:
        assert await changed_by(manager, project, edit) == expected


async def test_the_same_bytes_are_the_same_version(project):
    async with GraphVersionManager.open(project(PROJECT)) as manager:
        first = await manager.build()
        project({"prompts/plain.md": "Another.\n"})
        second = await manager.build()
        project({"prompts/plain.md": PROJECT["prompts/plain.md"]})
        assert (await manager.build()).id == first.id != second.id
        assert len(await manager.versions()) == 2


async def test_a_rebuilt_version_has_the_digests_it_was_stored_with(project):
    folder = project(PROJECT)
    async with GraphVersionManager.open(folder) as manager:
        stored = await manager.build()
        await manager.switch(stored)
    async with GraphVersionManager.open(folder) as manager:
        project({"prompts/plain.md": "The folder has moved on.\n", "graphs/calc.py": "broken("})
        rebuilt = await manager.loader.load(stored.id)
        assert {name: graph.compiled.digest for name, graph in rebuilt.graphs.items()} == {
            name: graph.digest for name, graph in stored.graphs.items()
        }


async def test_a_changed_environment_compiles_only_what_it_takes_part_in_and_makes_no_version(project, monkeypatch):
    monkeypatch.delenv("CHUNK", raising=False)
    folder = project(PROJECT)
    async with GraphVersionManager.open(folder) as manager:
        version = await manager.build()
        await manager.switch(version)
        before = dict((await manager.loader.load(version.id)).graphs)
        (folder / ".env").write_text("CHUNK=9\n")
        assert await manager.folder.refresh_environment()
        after = (await manager.loader.load(version.id)).graphs
        assert {name for name in after if after[name].compiled is not before[name].compiled} == {"variable"}
        assert [found.id for found in await manager.versions()] == [version.id]
        (event,) = [e for e in await manager.store.journal.events() if e.type == "environment_changed"]
        assert event.data == {"variables": ["CHUNK"], "versions": [version.id]}


async def test_an_edit_that_keeps_the_contract_keeps_threads_moving(project):
    async with GraphVersionManager.open(project(PROJECT)) as manager:
        await manager.switch(await manager.build())
        await manager.invoke("plain", {"messages": [("user", "one")]}, thread_id="t")
        project({"prompts/plain.md": "You are new.\n"})
        second = await manager.build()
        await manager.switch(second)
        state = await manager.invoke("plain", {"messages": [("user", "two")]}, thread_id="t")
        assert len(state["messages"]) == 4
        assert "You are new." in state["messages"][-1].content
        assert (await manager.store.runs.thread("t")).version == second.id
