"""Factories in every form that LangGraph's server takes, with the arguments that they ask for."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from changeover import GraphVersionManager
from changeover.errors import ChangeoverError

HEAD = """
import asyncio, contextlib, functools, threading
from dataclasses import dataclass
from typing import Any, TypedDict

from langchain_core.runnables import RunnableConfig
from langgraph.func import entrypoint
from langgraph.graph import END, START, StateGraph
from langgraph_sdk.runtime import ServerRuntime


class State(TypedDict, total=False):
    said: str


def drawn(word="none"):
    builder = StateGraph(State)
    builder.add_node("speak", lambda state: {"said": str(word)})
    builder.add_edge(START, "speak")
    return builder


def tenant(config):
    return config["configurable"].get("tenant")
"""
FORMS = {
    "a compiled graph": ("graph = drawn('acme').compile()", "acme"),
    "a state graph": ("graph = drawn('acme')", "acme"),
    "an attribute of an attribute": ("class graph:\n    made = drawn('acme')", "acme"),
    "no arguments": ("def graph(): return drawn('acme')", "acme"),
    "the config": ("def graph(config): return drawn(tenant(config)).compile()", "acme"),
    "the config by its type": ("def graph(settings: RunnableConfig): return drawn(tenant(settings))", "acme"),
    "the config by its place": ("def graph(settings): return drawn(tenant(settings))", "acme"),
    "an optional argument": ("def graph(config=None, tone='x'): return drawn(f'{tenant(config)}{tone}')", "acmex"),
    "the config by its place alone": ("def graph(settings, /): return drawn(tenant(settings))", "acme"),
    "async": ("async def graph(config):\n    await asyncio.sleep(0)\n    return drawn(tenant(config))", "acme"),
    "the runtime": ("def graph(runtime): return drawn(runtime.access_context)", "threads.create_run"),
    "the runtime by its type": (
        "def graph(given: 'ServerRuntime[Any]', config): return drawn(f'{given.user} {tenant(config)}')",
        "None acme",
    ),
    "the context": (
        "@dataclass\nclass Context:\n    tone: str\n"
        "def graph(runtime: ServerRuntime[Context]):\n"
        "    running = runtime.execution_runtime\n"
        "    return drawn(running.context.tone if running else '')",
        "kind",
    ),
    "the store": (
        "async def graph(runtime: ServerRuntime):\n"
        "    await runtime.store.aput(('a',), 'b', {'c': 1})\n"
        "    return drawn((await runtime.store.aget(('a',), 'b')).value)",
        "{'c': 1}",
    ),
    "the store, in a plain function": (
        "def graph(runtime: ServerRuntime):\n"
        "    runtime.store.put(('a',), 'b', {'c': 1})\n"
        "    return drawn(runtime.store.get(('a',), 'b').value)",
        "{'c': 1}",
    ),
    "a context manager": ("@contextlib.contextmanager\ndef graph(config): yield drawn(tenant(config))", "acme"),
    "an async context manager": (
        "@contextlib.asynccontextmanager\nasync def graph(config): yield drawn(tenant(config))",
        "acme",
    ),
    "an async generator": ("async def graph(config): yield drawn(tenant(config))", "acme"),
    "a generator": ("def graph(config): yield drawn(tenant(config))", "acme"),
    "something that can be called": (
        "class Maker:\n    async def __call__(self, config): return drawn(tenant(config))\ngraph = Maker()",
        "acme",
    ),
    "a partial function": (
        "def make(word, config): return drawn(f'{word}{tenant(config)}')\ngraph = functools.partial(make, 'x')",
        "xacme",
    ),
    "a coroutine of a plain function": (
        "async def later(config): return drawn(tenant(config))\ndef graph(config): return later(config)",
        "acme",
    ),
}


def project(code: str, attribute: str = "graph") -> dict[str, str]:
    file = {"dependencies": ["."], "graphs": {"desk": f"./desk.py:{attribute}"}}
    return {"langgraph.json": json.dumps(file), "desk.py": f"{HEAD}\n\n{code}\n"}


@pytest.mark.parametrize("form", FORMS)
async def test_a_graph_of_every_form_runs(write: Any, form: str) -> None:
    code, said = FORMS[form]
    attribute = "graph.made" if form == "an attribute of an attribute" else "graph"
    async with GraphVersionManager.open(write(project(code, attribute))) as manager:
        await manager.serve_folder()
        config: Any = {"configurable": {"tenant": "acme"}}
        assert await manager.invoke("desk", {}, config=config, context={"tone": "kind"}) == {"said": said}


async def test_a_functional_entrypoint_runs(write: Any) -> None:
    code = "@entrypoint()\ndef graph(word: str) -> str:\n    return word + '!'\n"
    async with GraphVersionManager.open(write(project(code))) as manager:
        await manager.serve_folder()
        assert await manager.invoke("desk", "hello") == "hello!"


async def test_a_plain_factory_does_not_hold_up_the_event_loop(write: Any) -> None:
    code = (
        "import time\nLOOP = threading.current_thread()\n"
        "def graph():\n    assert threading.current_thread() is not threading.main_thread()\n    return drawn('x')\n"
    )
    async with GraphVersionManager.open(write(project(code))) as manager:
        await manager.serve_folder()
        assert await manager.invoke("desk", {}) == {"said": "x"}


async def test_what_a_factory_is_given_is_its_own(write: Any) -> None:
    code = (
        "def graph(config):\n    config['configurable']['tenant'] = 'changed'\n"
        "    assert not [key for key in config['configurable'] if key.startswith('__')]\n"
        "    builder = StateGraph(State)\n"
        "    builder.add_node('speak', lambda state, config: {'said': tenant(config)})\n"
        "    builder.add_edge(START, 'speak')\n    return builder\n"
    )
    async with GraphVersionManager.open(write(project(code))) as manager:
        await manager.serve_folder()
        config: Any = {"configurable": {"tenant": "acme"}}
        assert await manager.invoke("desk", {}, config=config) == {"said": "acme"}


async def test_a_factory_that_cannot_close_fails_its_run(write: Any) -> None:
    code = (
        "@contextlib.asynccontextmanager\nasync def graph(config):\n    yield drawn('x')\n"
        "    if tenant(config): raise OSError('the line is dead')\n"
    )
    async with GraphVersionManager.open(write(project(code))) as manager:
        await manager.serve_folder()
        assert await manager.invoke("desk", {}) == {"said": "x"}
        with pytest.raises(ChangeoverError, match="the line is dead"):
            await manager.invoke("desk", {}, config={"configurable": {"tenant": "acme"}})


async def test_a_factory_does_not_become_part_of_another_graph(write: Any) -> None:
    files = project("def graph(): return drawn('x')")
    files["graphs/outer.yaml"] = (
        "state: {said: str}\nnodes: {inner: {graph: desk}}\nedges: [{from: START, to: inner}, {from: inner, to: END}]\n"
    )
    async with GraphVersionManager.open(write(files)) as manager:
        with pytest.raises(ChangeoverError, match="made by a factory for each run"):
            await manager.build()


async def test_an_ordinary_graph_is_opened_at_no_cost(write: Any) -> None:
    async with GraphVersionManager.open(write(project("graph = drawn('x')"))) as manager:
        await manager.serve_folder()
        _, loaded = await manager.graph("desk")
        entering = loaded.opened({}).__aenter__()
        with pytest.raises(StopIteration) as ended:  # it ends without having waited for anything
            entering.send(None)
        assert ended.value.value is loaded.runnable
        begun = time.perf_counter()
        for _ in range(10_000):
            async with loaded.opened({}):
                pass
        assert time.perf_counter() - begun < 1.0


async def test_env_in_a_folder_that_is_not_versioned_is_followed(
    write: Any, serve_folder: Any, eventually: Any, tmp_path: Path
) -> None:
    file = {"dependencies": ["./app"], "graphs": {"desk": "./app/desk.py:graph"}, "env": "./config/desk.env"}
    code = HEAD + "\n\nimport os\ngraph = drawn(os.environ['DESK_WORD'])\n"
    folder = write({"langgraph.json": json.dumps(file), "app/desk.py": code, "config/desk.env": "DESK_WORD=one\n"})
    async with serve_folder(folder) as served:
        assert await served.manager.invoke("desk", {}) == {"said": "one"}
        write({"config/desk.env": "DESK_WORD=two\n"})

        async def is_two() -> bool:
            return bool(await served.manager.invoke("desk", {}) == {"said": "two"})

        await eventually(is_two)
        version = await served.manager.version("v1")
        assert "config/desk.env" not in await served.manager.store.versions.files(version.id)
