"""What is wrong with a langgraph.json, or not supported of it, is said with its place; nothing is passed over."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from changeover import GraphVersionManager
from changeover.errors import ChangeoverError, ProjectError
from changeover.project.problems import Problem

GRAPH = """
from typing import TypedDict

from langgraph.graph import END, START, StateGraph


class State(TypedDict, total=False):
    said: str


def drawn(*more):
    builder = StateGraph(State)
    for name in ("speak", *more):
        builder.add_node(name, lambda state: {"said": "hello"})
        builder.add_edge(START, name)
    return builder


graph = drawn().compile()
"""


def project(file: Mapping[str, Any] | str, code: str = GRAPH, **files: str) -> dict[str, str]:
    text = file if isinstance(file, str) else json.dumps({"dependencies": ["."], **file}, indent=2)
    return {"langgraph.json": text, "desk.py": code, **files}


async def checked(folder: Path) -> list[Problem]:
    async with GraphVersionManager.open(folder) as manager:
        return await manager.check()


async def refused(folder: Path) -> list[Problem]:
    async with GraphVersionManager.open(folder, limit_build_s=2.0) as manager:
        with pytest.raises(ProjectError) as caught:
            await manager.build()
        return list(caught.value.problems)


@pytest.mark.parametrize(
    ("graph", "code", "says"),
    [
        ("./desk.py:grph", "import", "did you mean 'graph'?"),
        ("./desks.py:graph", "import", "did you mean './desk.py'?"),
        ("../desk.py:graph", "bad-path", "does not lie in the project folder"),
        ("/etc/desk.py:graph", "bad-path", "does not lie in the project folder"),
        ("./desk.py", "bad-path", "path.py:attribute"),
        (7, "wrong-type", "should be a text"),
        ({"description": "no path"}, "wrong-type", "should be a text"),
        ("./desk.ts:graph", "unsupported", "JavaScript or TypeScript"),
        ("no_such_module:graph", "import", "there is no module 'no_such_module'"),
        ("desk:missing", "import", "does not define 'missing'"),
    ],
)
async def test_a_graph_that_is_not_there_is_named_where_it_stands(write: Any, graph: Any, code: str, says: str) -> None:
    [found] = await checked(write(project({"graphs": {"desk": graph}})))
    assert (found.code, found.path, found.severity) == (code, "langgraph.json", "error")
    assert "desk" in found.text or "path" in found.text or "description" in found.text
    assert says in found.message + found.hint


@pytest.mark.parametrize(
    ("dependency", "code", "says"),
    [
        ("./missing", "bad-path", "there is no folder './missing'"),
        ("../outside", "bad-path", "does not lie in the project folder"),
        ("/", "bad-path", "does not lie in the project folder"),
        ("./desk.py", "bad-path", "is a file, not a folder"),
        ("no-such-package-anywhere>=2", "requirement", "pip install 'no-such-package-anywhere>=2'"),
        ("langgraph>=99", "requirement", "is installed as"),
        ("not a package!", "requirement", "neither a folder nor a package"),
        (7, "wrong-type", "a folder or the name of a package"),
    ],
)
async def test_a_dependency_that_is_not_there_is_named_where_it_stands(
    write: Any, dependency: Any, code: str, says: str
) -> None:
    file = {"dependencies": [".", dependency], "graphs": {"desk": "./desk.py:graph"}}
    [found] = await checked(write(project(file)))
    assert (found.code, found.path, found.line, found.severity) == (code, "langgraph.json", 4, "error")
    assert says in found.message + found.hint


async def test_broken_json_has_a_position_and_gives_no_value_away(write: Any) -> None:
    [found] = await checked(write(project('{"env": {"KEY": "s3cret-value"} "graphs": {}}')))
    assert (found.code, found.line, found.column) == ("yaml-syntax", 1, 33)
    assert "s3cret-value" not in found.render()


async def test_a_value_of_the_environment_is_neither_stored_nor_quoted(write: Any) -> None:
    text = '{"dependencies": ["."], "graphs": {"desk": "./desk.py:graph"}, "env": {"KEY": "s3cret-value"}, "ui": {}}'
    folder = write(project(text))
    async with GraphVersionManager.open(folder) as manager:
        version = await manager.build()
        assert "s3cret-value" not in json.dumps(version.problems)
        assert not any(b"s3cret-value" in kept for kept in (await manager.store.versions.files(version.id)).values())
        write({"langgraph.json": text.replace("s3cret-value", "another")})
        assert (await manager.build()).id == version.id
        write({"langgraph.json": text.replace("s3cret-value", '"broken')})
        with pytest.raises(ProjectError) as caught:
            await manager.build()
        kept = await manager.store.versions.files(caught.value.version or "")
        assert b"broken" not in b"".join(kept.values())


@pytest.mark.parametrize(
    ("code", "kind", "says"),
    [
        ("def graph(a, b, c): ...", "factory-arguments", "its argument 'c' is neither the config nor the runtime"),
        ("def graph(): raise ValueError('no model here')", "factory", "ValueError: no model here"),
        ("async def graph(config): raise ValueError('no model here')", "factory", "ValueError: no model here"),
        ("def graph(): return 7", "factory", "it gave a int, not a graph"),
        ("graph = 7", "graph", "is a int, not a graph"),
        ("import asyncio\nasync def graph(): await asyncio.sleep(60)", "factory-timeout", "did not end within 1.8 s"),
        ("import time\ndef graph(): time.sleep(3)", "factory-timeout", "did not end within 1.8 s"),
        ("import no_such_package\ngraph = 1", "import", "No module named 'no_such_package'"),
    ],
)
async def test_a_graph_that_cannot_be_made_is_refused(write: Any, code: str, kind: str, says: str) -> None:
    [found] = await refused(write(project({"graphs": {"desk": "./desk.py:graph"}}, code)))
    assert found.code == kind
    assert says in found.message
    assert found.path in ("desk.py", "langgraph.json")
    assert found.line > 0


async def test_what_is_not_supported_is_named_and_the_rest_is_served(
    write: Any, serve_folder: Any, eventually: Any
) -> None:
    file = {
        "graphs": {"desk": "./desk.py:graph"},
        "python_version": "3.99",
        "dockerfile_lines": ["RUN true"],
        "checkpointer": {"ttl": {"default_ttl": 1}},
        "http": {"app": "./desk.py:app", "disable_store": True},
        "webhooks": {"env_prefix": "X"},
        "ui": {"a": "b"},
        "env": "./missing.env",
        "grpahs": {},
    }
    async with serve_folder(write(project(file))) as served:
        await eventually(lambda: "missing.env" in str(served.said))
        said = "\n".join(served.said)
    named = ("dockerfile_lines", "checkpointer", "http.app", "http.disable_store", "webhooks", "'ui'", "missing.env")
    for word in (*named, "wants Python 3.99", "did you mean 'graphs'?"):
        assert word in said
    assert "error" not in said


@pytest.mark.parametrize("key", ["auth", "encryption"])
async def test_what_guards_a_project_is_left_out_only_with_a_word(write: Any, key: str) -> None:
    folder = write(project({"graphs": {"desk": "./desk.py:graph"}, key: {"path": "./desk.py:guard"}}))
    [found] = await refused(folder)
    assert (found.code, found.severity) == ("unsupported", "error")
    assert found.text.strip().startswith(f'"{key}"')
    write({"changeover.yaml": f"langgraph: {{without: [{key}]}}\n"})
    async with GraphVersionManager.open(folder) as manager:
        version = await manager.build()
        assert [problem["severity"] for problem in version.problems] == ["warning"]


async def test_a_guard_that_is_added_later_stops_the_edit(write: Any) -> None:
    file = {"graphs": {"desk": "./desk.py:graph"}}
    folder = write(project(file))
    async with GraphVersionManager.open(folder) as manager:
        await manager.serve_folder()
        write(project({**file, "auth": {"path": "./desk.py:guard"}}))
        with pytest.raises(ProjectError):
            await manager.build()
        assert manager.routing
        assert manager.routing.current == "v1"


async def test_a_run_whose_graph_differs_from_the_contract_fails_in_words(write: Any) -> None:
    code = GRAPH + "\ndef make(config):\n    return drawn(*config['configurable'].get('more', []))\n"
    async with GraphVersionManager.open(write(project({"graphs": {"desk": "./desk.py:make"}}, code))) as manager:
        await manager.serve_folder()
        assert await manager.invoke("desk", {}) == {"said": "hello"}
        with pytest.raises(ChangeoverError, match="nodes with 'shout'") as caught:
            await manager.invoke("desk", {}, config={"configurable": {"more": ["shout"]}})
        assert caught.value.code == "graph-differs"


async def test_a_factory_that_fails_for_a_run_fails_that_run_with_its_line(write: Any) -> None:
    code = GRAPH + "\ndef make(config):\n    1 / (0 if config['configurable'].get('bad') else 1)\n    return graph\n"
    async with GraphVersionManager.open(write(project({"graphs": {"desk": "./desk.py:make"}}, code))) as manager:
        await manager.serve_folder()
        with pytest.raises(ChangeoverError, match=r"ZeroDivisionError.*\(desk\.py:\d+ in make\)"):
            await manager.invoke("desk", {}, config={"configurable": {"bad": True}})
        assert await manager.invoke("desk", {}) == {"said": "hello"}


async def test_a_factory_cannot_swallow_the_failure_of_its_run(write: Any) -> None:
    code = (
        GRAPH
        + """
from contextlib import contextmanager, suppress

@contextmanager
def make():
    with suppress(Exception):
        builder = StateGraph(State)
        def fail(state): raise ValueError("from the node")
        builder.add_node("speak", fail)
        builder.add_edge(START, "speak")
        yield builder
"""
    )
    async with GraphVersionManager.open(write(project({"graphs": {"desk": "./desk.py:make"}}, code))) as manager:
        await manager.serve_folder()
        with pytest.raises(ValueError, match="from the node"):
            await manager.invoke("desk", {})


async def test_a_saver_of_the_project_gives_way_to_the_server_s(write: Any) -> None:
    code = GRAPH + "\nfrom langgraph.checkpoint.memory import InMemorySaver\ngraph.checkpointer = InMemorySaver()\n"
    async with GraphVersionManager.open(write(project({"graphs": {"desk": "./desk.py:graph"}}, code))) as manager:
        version = await manager.serve_folder()
        assert [problem["code"] for problem in version.problems] == ["own-saver"]
        await manager.invoke("desk", {}, thread_id="5f0f8f3a-0000-4000-8000-000000000001")
        assert (await manager.state("5f0f8f3a-0000-4000-8000-000000000001")).values == {"said": "hello"}


async def test_names_of_a_langgraph_json_stay_valid_as_they_are(write: Any) -> None:
    names = ["my desk", "desk.v2", "1st", "storé", "store", "a/b", "START"]
    folder = write(project({"graphs": dict.fromkeys(names, "./desk.py:graph")}))
    async with GraphVersionManager.open(folder) as manager:
        version = await manager.serve_folder()
        assert sorted(version.graphs) == sorted(names)
        assert {problem["code"] for problem in version.problems} <= {"reserved-name"}
        for name in names:
            assert await manager.invoke(name, {}) == {"said": "hello"}


async def test_both_kinds_of_projects_may_be_mixed(write: Any) -> None:
    agents = (
        'models: {demo: {model: "demo:rules"}}\nagents: {front: {model: demo, tools: [word], prompt: {text: Hi}}}\n'
    )
    nested = (
        "state: {said: str}\nnodes: {inner: {graph: desk}}\nedges: [{from: START, to: inner}, {from: inner, to: END}]\n"
    )
    folder = write(
        project(
            {"dependencies": ["./app"], "graphs": {"desk": "./app/src/desk_app/graph.py:graph"}},
            **{
                "app/src/desk_app/__init__.py": "",
                "app/src/desk_app/graph.py": GRAPH,
                "app/src/desk_app/tools.py": 'def word():\n    """A word."""\n    return "hello"\n',
                "agents.yaml": agents,
                "tools.yaml": "tools: {word: {python: desk_app.tools:word}}\n",
                "graphs/outer.yaml": nested,
            },
        )
    )
    async with GraphVersionManager.open(folder) as manager:
        version = await manager.serve_folder()
        assert sorted(version.graphs) == ["desk", "front", "outer"]
        assert await manager.invoke("outer", {}) == {"said": "hello"}


async def test_folders_that_look_like_ours_are_left_alone_in_a_project_of_langgraph(write: Any) -> None:
    files = {
        "changeover.yaml": "runs: {concurrency: 8}\n",
        "prompts/__init__.py": "TEXT = 'hello {{ name'\n",
        "prompts/my prompt.md": "{% broken",
        "graphs/research.py": "graph = 'no graph at all'\n",
        "migrations/env.py": "print(1\n",
    }
    code = "from prompts import TEXT\n" + GRAPH.replace('"hello"', "TEXT")
    async with GraphVersionManager.open(
        write(project({"graphs": {"desk": "./desk.py:graph"}}, code, **files))
    ) as manager:
        version = await manager.serve_folder()
        assert sorted(version.graphs) == ["desk"]
        assert await manager.invoke("desk", {}) == {"said": "hello {{ name"}


async def test_one_file_is_one_module_whatever_name_imports_it(write: Any) -> None:
    files = {
        "src/desk_app/__init__.py": "",
        "src/desk_app/types.py": "class Ticket: ...\n",
        "src/desk_app/graph.py": "from src.desk_app.types import Ticket\nfrom .types import Ticket as Same\n"
        "from desk_app.types import Ticket as Third\nassert Ticket is Same is Third\n"
        "assert Ticket.__module__.endswith('.desk_app.types')\nimport langchain.agents\n" + GRAPH,
        "langchain/notes.py": "",
    }
    folder = write(project({"graphs": {"desk": "./src/desk_app/graph.py:graph"}}, **files))
    async with GraphVersionManager.open(folder) as manager:
        await manager.serve_folder()
        assert await manager.invoke("desk", {}) == {"said": "hello"}


@pytest.mark.parametrize("packaged", [True, False])
async def test_a_dependency_that_is_a_package_itself_is_imported_by_its_name(write: Any, packaged: bool) -> None:
    code = "from my_agent.utils.words import WORD\nfrom .utils.words import WORD as SAME\nassert WORD is SAME\n"
    files = {
        "my_agent/agent.py": code + GRAPH.replace('"hello"', "WORD"),
        "my_agent/utils/__init__.py": "",
        "my_agent/utils/words.py": "WORD = ' '.join(['good', 'day'])\n",
        "my_agent/requirements.txt": "langgraph\n# more\nno-such-package-anywhere\n",
        **({"my_agent/__init__.py": ""} if packaged else {}),
    }
    file = {"dependencies": ["./my_agent"], "graphs": {"desk": "./my_agent/agent.py:graph"}}
    async with GraphVersionManager.open(write(project(file, **files))) as manager:
        version = await manager.serve_folder()
        assert await manager.invoke("desk", {}) == {"said": "good day"}
        assert [problem["code"] for problem in version.problems] == ["requirement"]
        assert "pip install no-such-package-anywhere" in version.problems[0]["hint"]
        assert "desk.py" not in await manager.store.versions.files("v1")


async def test_the_pyproject_says_where_the_packages_lie(write: Any) -> None:
    files = {
        "pyproject.toml": "[tool.setuptools.packages.find]\nwhere = ['lib']\n",
        "lib/desk_app/graph.py": "from desk_app.words import WORD\n" + GRAPH,
        "lib/desk_app/words.py": "WORD = 1\n",
    }
    async with GraphVersionManager.open(
        write(project({"graphs": {"desk": "desk_app.graph:graph"}}, **files))
    ) as manager:
        await manager.serve_folder()
        assert await manager.invoke("desk", {}) == {"said": "hello"}


async def test_a_version_is_rebuilt_from_what_was_stored_of_it(write: Any) -> None:
    folder = write(project({"graphs": {"desk": "./desk.py:graph"}, "env": {"A": "b"}}))
    async with GraphVersionManager.open(folder) as manager:
        await manager.serve_folder()
    write({"langgraph.json": "{", "desk.py": "broken("})
    async with GraphVersionManager.open(folder) as manager:
        assert (await manager.serve_folder()).id == "v1"
        assert await manager.invoke("desk", {}) == {"said": "hello"}


async def test_what_changes_the_graphs_of_a_langgraph_json_is_a_version_and_nothing_else_of_it(write: Any) -> None:
    file = {"graphs": {"desk": "./desk.py:graph"}}
    folder = write(project(file))
    async with GraphVersionManager.open(folder) as manager:
        first = await manager.build()
        write(project({**file, "env": {"A": "b"}, "python_version": "3.11", "store": {"ttl": {"default_ttl": 5}}}))
        assert (await manager.build()).id == first.id
        write(project({"graphs": {"desk": "./desk.py:graph", "again": "./desk.py:graph"}}))
        second = await manager.build()
        assert sorted(second.graphs) == ["again", "desk"]
        assert second.graphs["desk"].digest == first.graphs["desk"].digest
        write({"desk.py": GRAPH.replace("hello", "good day")})
        third = await manager.build()
        assert third.graphs["desk"].digest != second.graphs["desk"].digest


async def test_a_store_that_cannot_make_embeddings_is_named_at_the_start(
    write: Any, serve_folder: Any, eventually: Any
) -> None:
    index = {"embed": "./desk.py:embed", "dims": 2}
    code = GRAPH + "\ndef embed(texts): return [[1.0, 0.0] for _ in texts]\n"
    folder = write(project({"graphs": {"desk": "./desk.py:graph"}, "store": {"index": index}}, code))
    async with serve_folder(folder) as served:
        assert served.manager.notes == []
    write({"desk.py": GRAPH})
    async with serve_folder(folder) as served:  # what is current serves, also while the folder is broken
        await eventually(lambda: "cannot make embeddings with './desk.py:embed'" in str(served.said))
        with pytest.raises(ChangeoverError, match="cannot make embeddings"):
            await served.manager.memory.aput(("a",), "b", {"text": "c"})
        await served.manager.memory.aput(("a",), "b", {"text": "c"}, index=False)


async def test_a_database_among_the_versions_is_refused(write: Any) -> None:
    folder = write(project({"graphs": {"desk": "./desk.py:graph"}}))
    async with GraphVersionManager.open(folder, "sqlite:///changeover.db") as manager:
        with pytest.raises(ChangeoverError, match="part of the versions") as caught:
            await manager.build()
        assert caught.value.code == "database-in-version"
